"""Contradictions in an answer, and that no text of ours holds one."""

import pytest

from prompts.answer import Answer, Defect
from prompts.consistency import check_consistency, highest_score, mentioned, tone
from prompts.defects import DEFECTS
from prompts.phrasings import DEGREES, LEVEL_PHRASES
from prompts.rubric import DIMENSIONS

from .test_answer import ANSWER

SHAKE = Defect(name="shake", severity=4, start_seconds=1, end_seconds=3)


def kinds(answer, **options):
    return [problem.kind for problem in check_consistency(answer, **options)]


def every_sentence(name):
    for phrase in (*DEFECTS[name].train, *DEFECTS[name].test):
        for severity in range(5):
            for choice in range(2):
                yield phrase.format(
                    **{slot: words[severity][choice] for slot, words in DEGREES.items()}
                )


@pytest.mark.parametrize("name", DEFECTS)
def test_every_sentence_of_a_defect_names_it_and_no_neighbour(name):
    for sentence in every_sentence(name):
        assert mentioned(sentence, DEFECTS[name].dimension) == {name}, sentence


@pytest.mark.parametrize("dimension", DIMENSIONS)
def test_every_sentence_of_a_level_has_its_tone_and_names_no_defect(dimension):
    tones = {
        "excellent": "praise",
        "good": "praise",
        "fair": "mixed",
        "poor": "complaint",
        "bad": "complaint",
    }
    for level, phrases in LEVEL_PHRASES[dimension].items():
        for sentence in (*phrases.train, *phrases.test):
            assert tone(sentence) == tones[level], sentence
            assert mentioned(sentence, dimension) == set(), sentence


def test_a_sound_answer_has_no_contradiction():
    assert check_consistency(ANSWER, duration_seconds=1.4, slot_scores=ANSWER.scores) == ()
    assert check_consistency(Answer()) == ()


def test_text_and_slots_agree_within_half_a_point():
    answer = Answer(scores={"technical": 3.0, "overall": 3.0})
    assert kinds(answer, slot_scores={"technical": 3.5, "overall": 2.5, "motion": 1}) == []
    assert (
        kinds(answer, slot_scores={"technical": 3.51, "overall": 2.4})
        == ["score_contradicts_slot"] * 2
    )


def test_a_severe_defect_and_a_high_score_contradict_each_other():
    assert [highest_score(severity) for severity in (1, 2, 3, 4, 5)] == [5, 4.25, 3.5, 2.75, 2]
    assert kinds(Answer(scores={"motion": 2.7}, defects=(SHAKE,))) == []
    assert kinds(Answer(scores={"motion": 2.8}, defects=(SHAKE,))) == ["defect_contradicts_score"]
    assert kinds(Answer(scores={"technical": 5}, defects=(SHAKE,))) == []


def test_times_beyond_the_clip():
    assert kinds(Answer(defects=(SHAKE,)), duration_seconds=2.95) == []
    assert kinds(Answer(defects=(SHAKE,)), duration_seconds=2.9) == ["time_beyond_clip"]
    assert kinds(Answer(defects=(Defect(name="blur", severity=1),)), duration_seconds=0.1) == []


@pytest.mark.parametrize(
    "text, score, found",
    [
        ("the picture is sharp and clean.", 2.4, True),
        ("the picture is sharp and clean.", 2.5, False),
        ("the picture is weak.", 3.5, True),
        ("the picture is weak.", 3.4, False),
        ("the picture is passable, no more.", 5.0, False),
        ("a lighthouse by the sea.", 1.0, False),
    ],
)
def test_words_must_fit_the_score(text, score, found):
    answer = Answer(scores={"technical": score}, defects=(), reasoning={"technical": text})
    assert kinds(answer) == ["text_contradicts_score"] * found


def test_what_is_told_must_be_listed():
    reasoning = {"motion": "the camera shakes badly, and brightness flickers slightly."}
    assert kinds(Answer(defects=(SHAKE,), reasoning=reasoning)) == ["text_contradicts_defects"]
    flicker = Defect(name="flicker", severity=1)
    assert kinds(Answer(defects=(SHAKE, flicker), reasoning=reasoning)) == []
    assert kinds(Answer(defects=None, reasoning=reasoning)) == []


@pytest.mark.parametrize(
    "text, loops",
    [
        ("so so so so dark", True),
        ("so so so dark", False),
        ("the boat glides and the boat glides and the boat glides and the boat glides and", True),
        ("the boat glides and the boat glides and the boat glides", False),
    ],
)
def test_a_loop_is_found(text, loops):
    assert ("repeats_itself" in kinds(Answer(reasoning={"motion": text}))) == loops

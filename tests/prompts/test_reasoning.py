"""Texts written from labels: varied, apart for training and test, and right."""

import string

import pytest

from prompts import rubric
from prompts.answer import Answer, Defect
from prompts.consistency import check_consistency, mentioned
from prompts.defects import DEFECTS
from prompts.phrasings import DEGREES, LEVEL_PHRASES
from prompts.reasoning import write_reasoning

BLUR = Defect(name="blur", severity=5)
SHAKE = Defect(name="shake", severity=2, start_seconds=0, end_seconds=1)
GOLDEN = {
    "technical": "the shot is hopelessly out of focus.",
    "motion": "the frame is mildly unsteady.",
    "semantic": "the prompt is largely met.",
}


def all_phrases():
    yield from DEFECTS.items()
    for dimension, levels in LEVEL_PHRASES.items():
        for level, phrases in levels.items():
            yield f"{dimension} {level}", phrases


def test_every_defect_and_level_has_several_wordings_in_each_split():
    assert list(LEVEL_PHRASES) == list(rubric.DIMENSIONS)
    for levels in LEVEL_PHRASES.values():
        assert set(levels) == set(rubric.LEVELS)
    for name, phrases in all_phrases():
        assert len(set(phrases.train)) >= 4, name
        assert len(set(phrases.test)) >= 2, name


def test_no_wording_is_in_both_splits():
    train = {phrase for _, phrases in all_phrases() for phrase in phrases.train}
    test = {phrase for _, phrases in all_phrases() for phrase in phrases.test}
    assert not train & test


def test_wordings_are_short_one_line_and_use_known_slots():
    for name, phrases in all_phrases():
        for phrase in (*phrases.train, *phrases.test):
            assert len(phrase) <= 50, phrase
            assert phrase == phrase.lower().strip(" .\n")
            assert {slot for _, slot, _, _ in string.Formatter().parse(phrase) if slot} <= set(
                DEGREES
            )


@pytest.mark.parametrize("name", DEFECTS)
@pytest.mark.parametrize("split", ["train", "test"])
def test_a_text_never_contradicts_its_labels(name, split):
    dimension = DEFECTS[name].dimension
    for severity in range(1, 6):
        scores = dict.fromkeys(rubric.DIMENSIONS, 4.25)
        scores[dimension] = 4.25 - severity * 0.65
        defects = (Defect(name=name, severity=severity),)
        for key in "abcd":
            told = write_reasoning(scores, defects, split=split, key=key)
            assert mentioned(told[dimension], dimension) == {name}
            answer = Answer(scores=scores, defects=defects, reasoning=told)
            assert answer.reasoning == told  # nothing is cleaned away
            assert check_consistency(answer) == ()


def test_the_two_worst_are_told_and_each_name_once():
    mild = Defect(name="blur", severity=1, start_seconds=0, end_seconds=1)
    others = (Defect(name="noise", severity=3), Defect(name="banding", severity=2))
    told = write_reasoning({}, (mild, *others, BLUR, SHAKE), split="train")
    assert mentioned(told["technical"], "technical") == {"blur", "noise"}
    assert told["technical"].count(", and ") == 1
    assert any(word in told["technical"] for word in DEGREES["adv"][4] + DEGREES["adj"][4])
    assert mentioned(told["motion"], "motion") == {"shake"}
    assert "semantic" not in told  # nothing is known of it


def test_unknown_defects_leave_the_level():
    told = write_reasoning({"technical": 1.2, "overall": 1.0}, None, split="test")
    assert set(told) == {"technical"}
    assert told["technical"].rstrip(".") in LEVEL_PHRASES["technical"]["bad"].test


def test_the_same_key_gives_the_same_text_and_variants_differ():
    def tell(**options):
        return write_reasoning({"semantic": 4.0}, (BLUR, SHAKE), split="train", **options)

    assert tell(key="a") == tell(key="a")
    # Known on every machine: Python seeds from a text the same way everywhere.
    assert tell(key="a") == GOLDEN
    for dimension in rubric.DIMENSIONS:
        texts = {tell(key="a", variant=n)[dimension] for n in range(4)}
        assert len(texts) == 4
    assert len({str(tell(key=str(n))) for n in range(40)}) > 30


@pytest.mark.parametrize("name", list(DEFECTS))
def test_without_degrees_a_text_is_the_same_whatever_the_severity(name):
    dimension = DEFECTS[name].dimension
    slight, grave = (
        [
            write_reasoning(
                {},
                [Defect(name=name, severity=severity)],
                split="train",
                variant=variant,
                degrees=False,
            )[dimension]
            for variant in range(4)
        ]
        for severity in (1, 5)
    )
    assert slight == grave and len(set(slight)) == 4
    for text in slight:
        assert mentioned(text, dimension) == {name}
        assert text == " ".join(text.split()) and "{" not in text

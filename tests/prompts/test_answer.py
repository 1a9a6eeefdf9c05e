"""Answers as values and as text; reading is tested in test_parsing."""

import textwrap

import pytest

from prompts import SLOT, answer, rubric, template
from prompts.answer import (
    Answer,
    Defect,
    render,
    render_defects,
    render_explanation,
    render_levels,
    render_numbers,
    split_levels,
)
from prompts.parsing import parse

ANSWER = Answer(
    scores={"overall": 3.2, "technical": 1.8, "motion": 3.5, "semantic": 13 / 3},
    defects=(
        Defect(name="blocking", severity=4),
        Defect(name="shake", severity=1, start_seconds=0.6, end_seconds=1.4),
    ),
    reasoning={
        "technical": "heavy blocks break up the picture.",
        "motion": "the camera shakes slightly.",
        "semantic": "the clip follows the prompt well.",
    },
)

TEXT = """\
Technical quality: poor
Motion quality: good
Text-video alignment: good
Overall quality: fair
Technical: heavy blocks break up the picture.
Motion: the camera shakes slightly.
Semantic: the clip follows the prompt well.
Defects: blocking 4; shake 1 0.6-1.4
Scores: 1.8 3.5 4.33 3.2"""


@pytest.mark.parametrize("text", [TEXT, TEXT.partition("Technical:")[0], "Technical: x.", ""])
def test_the_levels_are_split_from_what_follows(text):
    levels, rest = split_levels(text)
    assert levels + rest == text
    assert all(line.partition(": ")[2] in rubric.LEVELS for line in levels.splitlines())
    assert not rest or rest.startswith("Technical: ")
    assert bool(levels) == text.startswith("Technical quality")


def test_the_text_of_an_answer():
    assert render(ANSWER) == TEXT
    assert render(Answer()) == ""
    assert render(Answer(defects=())) == "Defects: none"


def test_the_example_that_documents_the_form_is_an_answer():
    example = textwrap.dedent(answer.__doc__.split("\n\n")[1])
    read = parse(example, expected_scores=rubric.SCORES, duration_seconds=1.4)
    assert read.problems == ()
    assert render(read) == example


def test_it_begins_with_the_scoring_pass_filled_in():
    levels = template.ANSWER
    for word in ("poor", "good", "good", "fair"):
        levels = levels.replace(SLOT, f" {word}", 1)
    assert TEXT.startswith(levels + "\n")
    assert render_levels(ANSWER.scores) == levels
    parts = (levels, render_explanation(ANSWER), render_numbers(ANSWER.scores))
    assert "\n".join(parts) == TEXT


def test_unknown_scores_keep_the_others_in_place():
    text = render(Answer(scores={"motion": 2, "overall": 2.5}))
    assert text == "Motion quality: poor\nOverall quality: fair\nScores: - 2.0 - 2.5"


def test_a_defect_without_a_range_lasts_the_whole_clip():
    whole, part = ANSWER.defects
    assert whole.span(2.64) == (0.0, 2.64)
    assert part.span(2.64) == (0.6, 1.4)
    assert part.span(1.38) == (0.6, 1.38)  # a rounded end stays within the clip
    assert (whole.dimension, part.dimension) == ("technical", "motion")
    assert render_defects([whole]) == "blocking 4"
    assert render_defects([]) == "none"


def test_times_and_scores_are_kept_as_the_text_can_tell_them():
    defect = Defect(name="freeze", severity=1, start_seconds=0.26, end_seconds=1.349)
    assert (defect.start_seconds, defect.end_seconds) == (0.3, 1.3)
    assert Answer(scores={"overall": 3.14159}).scores == {"overall": 3.14}


def test_scaled_times_are_tenths_of_the_clip_and_back():
    duration = 2.64
    tenths = ANSWER.scaled(10 / duration)
    assert render_defects(tenths.defects) == "blocking 4; shake 1 2.3-5.3"
    back = tenths.scaled(duration / 10)
    assert back == ANSWER
    assert Answer().scaled(2).defects is None
    near = (
        Defect(name="shake", severity=1, start_seconds=1, end_seconds=2),
        Defect(name="shake", severity=1, start_seconds=1.1, end_seconds=2),
    )
    assert len(Answer(defects=near).scaled(0.1).defects) == 1


@pytest.mark.parametrize(
    "change, message",
    [
        ({"name": "ugly"}, "unknown defect 'ugly'; known: blur, noise"),
        ({"severity": 0}, "severity must be an integer 1-5, got 0"),
        ({"severity": 2.5}, "severity must be an integer 1-5, got 2.5"),
        ({"start_seconds": 2.0}, "got 2.0 and 1.0"),
        ({"start_seconds": -0.1}, "got -0.1 and 1.0"),
        ({"start_seconds": None}, "both given or both None, got None and 1.0"),
        ({"end_seconds": float("nan")}, "got 0.0 and nan"),
        ({"end_seconds": 999_999.99}, "got 0.0 and 999999.99"),
    ],
)
def test_a_defect_is_validated(change, message):
    fields = {"name": "blur", "severity": 1, "start_seconds": 0.0, "end_seconds": 1.0} | change
    with pytest.raises(ValueError, match=message):
        Defect(**fields)


def test_an_answer_is_validated():
    with pytest.raises(ValueError, match="motion must lie within 1-5, got 0"):
        Answer(scores={"motion": 0})
    with pytest.raises(ValueError, match=r"got \['sound'\]"):
        Answer(scores={"sound": 3})
    with pytest.raises(ValueError, match=r"got \['overall'\]"):
        Answer(reasoning={"overall": "x"})
    many = tuple(Defect(name="blur", severity=1, start_seconds=n, end_seconds=n) for n in range(51))
    with pytest.raises(ValueError, match="at most 50 defects, got 51"):
        Answer(defects=many)
    with pytest.raises(ValueError, match="the same defect twice: blur 1 0.0-0.0"):
        Answer(defects=(many[0], many[1], many[0]))


@pytest.mark.slow
def test_what_it_costs_with_the_default_llm():
    from aigveval.model.backbones import load_tokenizer
    from encoders import WeightsError

    try:
        tokenizer = load_tokenizer("smollm2-135m-instruct")
    except WeightsError as error:
        pytest.skip(f"no weights for smollm2-135m-instruct: {error}")

    def ids(text):
        return tokenizer(text, add_special_tokens=False).input_ids

    without = Answer(
        scores=ANSWER.scores | {"semantic": 4.3}, defects=(), reasoning=ANSWER.reasoning
    )
    one = Answer(scores=without.scores, defects=ANSWER.defects[:1], reasoning=without.reasoning)
    two = Answer(scores=without.scores, defects=ANSWER.defects, reasoning=without.reasoning)
    assert [len(ids(render(made))) for made in (without, one, two)] == [78, 80, 92]
    assert len(ids(render_levels(one.scores) + "\n")) == 23  # these aren't generated
    # Tokens of the filled-in slots are those that the scoring pass has around its slots.
    pieces = template.ANSWER.split(SLOT)
    words = [" poor", " good", " good", " fair", ""]
    apart = [token for piece, word in zip(pieces, words) for token in ids(piece) + ids(word)]
    assert apart == ids(render_levels(one.scores))
    assert rubric.SCORES == tuple(without.scores)

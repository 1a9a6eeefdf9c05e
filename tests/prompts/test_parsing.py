"""Answers read back, and text that is no answer."""

import random

import pytest

from prompts import rubric
from prompts.answer import MAX_DEFECTS, Answer, Defect, render
from prompts.defects import DEFECTS
from prompts.parsing import MAX_ANSWER_CHARS, parse, read_defects

from .test_answer import ANSWER, TEXT


def kinds(text, **options):
    return [problem.kind for problem in parse(text, **options).problems]


def test_an_answer_is_read_back():
    parsed = parse(TEXT, expected_scores=rubric.SCORES, duration_seconds=1.4)
    assert parsed == ANSWER
    assert parsed.problems == ()


def random_answer(rng):
    alphabet = "abc .,:;()\n\t\u00e9\u732b<|>[]Defects: none\u2028\x00"
    defects = []
    for _ in range(rng.randint(0, 4)):
        start = rng.random() * 600
        times = {"start_seconds": start, "end_seconds": start + rng.random() * 9}
        defects.append(
            Defect(
                name=rng.choice(list(DEFECTS)),
                severity=rng.randint(1, 5),
                **(times if rng.random() < 0.6 else {}),
            )
        )
    return Answer(
        scores={n: rng.uniform(1, 5) for n in rubric.SCORES if rng.random() < 0.7},
        defects=None if rng.random() < 0.2 else tuple(dict.fromkeys(defects)),
        reasoning={
            n: "".join(rng.choices(alphabet, k=rng.randint(0, 1500)))
            for n in rubric.DIMENSIONS
            if rng.random() < 0.8
        },
    )


def test_round_trip_is_exact_for_any_answer():
    rng = random.Random(0)
    for _ in range(500):
        answer = random_answer(rng)
        assert parse(render(answer)) == answer


def test_the_largest_answer_still_round_trips():
    longest = max(DEFECTS, key=len)
    defects = tuple(
        Defect(name=longest, severity=5, start_seconds=999_900 + n, end_seconds=999_999.9)
        for n in range(MAX_DEFECTS)
    )
    answer = Answer(
        scores=dict.fromkeys(rubric.SCORES, 3.33),
        defects=defects,
        reasoning=dict.fromkeys(rubric.DIMENSIONS, "\u732b" * 5000),
    )
    assert parse(render(answer)) == answer


def test_unknown_parts_stay_unknown():
    assert parse("") == Answer()
    assert parse("Defects: none") == Answer(defects=())
    assert parse("Scores: 2.0 - - -") == Answer(scores={"technical": 2})


def test_a_level_counts_where_no_number_is():
    text = "Technical quality: poor\nMotion quality: good\nScores: 2.3 - - -"
    assert parse(text).scores == {"technical": 2.3, "motion": 4}
    assert parse("Technical quality: excellent").scores == {"technical": 5}


def test_case_and_spacing_do_not_matter():
    text = (
        "\n  technical  :  Soft.  \r\n"
        "DEFECTS: Low  Resolution 2 0-3.333\nOverall quality:Good\nscores:-  - - 4"
    )
    assert parse(text) == Answer(
        scores={"overall": 4},
        reasoning={"technical": "Soft."},
        defects=(Defect(name="low_resolution", severity=2, start_seconds=0, end_seconds=3.3),),
    )


@pytest.mark.parametrize(
    "line, kind",
    [
        ("I think it is fine", "unexpected_line"),
        ("Sound quality: good", "unexpected_line"),
        ("Technical quality:", "unexpected_line"),
        ("Technical: " + "so " * 400, "too_long"),
        ("Motion quality: nice", "malformed_score"),
        ("Motion quality: fa\u0131r", "malformed_score"),
        ("Scores: 4.0 4.0 4.0", "malformed_score"),
        ("Scores: 4.0 4.0 4.0 4.0 4.0", "malformed_score"),
        ("Scores: -4.0 - - -", "malformed_score"),
        ("Scores: nan - - -", "malformed_score"),
        ("Scores: \u0664 - - -", "malformed_score"),
        ("Scores: " + "9" * 5000, "malformed_score"),
        ("Scores: 5.2 - - -", "score_out_of_range"),
        ("Scores: 0.5 - - -", "score_out_of_range"),
        ("Technical quality: bad\nScores: 4.0 - - -", "level_contradicts_score"),
        ("Defects: none; blur 2 0.0-1.0", "malformed_defect"),
        ("Defects: blur", "malformed_defect"),
        ("Defects: blur 2 0.0", "malformed_defect"),
        ("Defects: blur 2 -1.0-1.0", "malformed_defect"),
        ("Defects: blur 2.5 0.0-1.0", "malformed_defect"),
        ("Defects: ugliness 2 0.0-1.0", "unknown_defect"),
        ("Defects: blur 6", "severity_out_of_range"),
        ("Defects: blur 0 0.0-1.0", "severity_out_of_range"),
        ("Defects: blur 2 3.0-1.0", "times_reversed"),
        ("Defects: blur 2 1.0-6.0", "time_beyond_clip"),
        ("Defects: blur 2; blur 2", "repeated_defect"),
    ],
)
def test_each_problem_is_named_and_its_part_left_out(line, kind):
    parsed = parse(line, duration_seconds=5.0)
    assert kind in parsed.problem_counts()
    assert not parsed.scores
    assert not parsed.reasoning
    assert parsed.defects is None or all(d.name == "blur" for d in parsed.defects)


def test_good_parts_survive_bad_neighbours():
    parsed = parse("Defects: blur 2; glare 3; noise 1 0.0-1.0\nScores: 2.0 9.0 3.0 1.5")
    assert [defect.name for defect in parsed.defects] == ["blur", "noise"]
    assert parsed.scores == {"technical": 2, "semantic": 3, "overall": 1.5}
    assert parsed.problem_counts() == {"unknown_defect": 1, "score_out_of_range": 1}


def test_unreadable_defects_are_not_the_same_as_none():
    assert parse("Defects: all sorts").defects is None
    assert parse("Defects: none").defects == ()


def test_defects_alone_are_read_as_in_an_answer():
    problems = []
    assert read_defects("blur 2; freeze 3 0.5-1.0", problems) == (
        Defect(name="blur", severity=2),
        Defect(name="freeze", severity=3, start_seconds=0.5, end_seconds=1),
    )
    assert not problems


def test_a_time_that_no_defect_can_have_is_beyond_any_clip():
    assert parse("Defects: blur 3 0-999999.9").defects == (
        Defect(name="blur", severity=3, start_seconds=0, end_seconds=999999.9),
    )
    assert kinds("Defects: blur 3 0-999999.99") == ["time_beyond_clip"]
    assert kinds("Defects: blur 3 0-999999.99", duration_seconds=2e6) == ["time_beyond_clip"]


def test_the_first_of_repeated_lines_counts():
    parsed = parse("Overall quality: good\nOverall quality: bad")
    assert parsed.scores == {"overall": 4}
    assert parsed.problem_counts() == {"repeated_line": 1}


def test_a_rounded_end_is_within_the_clip():
    defect = Defect(name="blur", severity=2, start_seconds=0, end_seconds=2.65)
    assert kinds(render(Answer(defects=(defect,))), duration_seconds=2.65) == []
    assert kinds("Defects: blur 2 0.0-2.8", duration_seconds=2.65) == ["time_beyond_clip"]


def test_a_whole_answer_is_demanded_only_when_asked():
    text = "Motion: smooth.\nMotion quality: good"
    assert kinds(text) == []
    parsed = parse(text, expected_scores=("motion", "overall"))
    assert [(p.kind, p.detail) for p in parsed.problems] == [
        ("missing_line", "defects"),
        ("missing_line", "overall quality"),
        ("missing_line", "scores"),
    ]
    assert kinds("Motion: ok.", expected_scores=["motion"]).count("missing_line") == 3


@pytest.mark.parametrize("text", ["", "The video is nice and I like it.", '{"score": 4}'])
def test_text_without_any_part_of_the_format_is_no_answer(text):
    parsed = parse(text, expected_scores=rubric.SCORES)
    assert parsed.problem_counts()["no_answer"] == 1
    assert "missing_line" not in parsed.problem_counts()
    assert not (parsed.scores or parsed.reasoning or parsed.defects)


def test_endless_text_is_cut_and_said_so():
    parsed = parse(TEXT + "\n" + "blah " * MAX_ANSWER_CHARS)
    assert parsed.scores == ANSWER.scores
    assert parsed.problem_counts() == {"too_long": 1, "unfinished": 1}
    items = [f"blur 1 0.0-{n}.0" for n in range(MAX_DEFECTS + 3)]
    many = parse("Defects: " + "; ".join(items))
    assert len(many.defects) == MAX_DEFECTS
    assert many.problem_counts() == {"too_long": 3}


def test_the_last_line_of_an_unfinished_text_does_not_count():
    cut = parse(TEXT[:-25], finished=False)
    assert cut.problem_counts() == {"unfinished": 1}
    assert cut.defects is None
    assert cut.reasoning == ANSWER.reasoning
    assert parse("Technical: the pict", finished=False).reasoning == {}


def test_no_text_makes_parse_raise():
    rng = random.Random(1)
    pieces = [
        "Technical",
        "Motion quality",
        "Defects",
        "Scores",
        ": ",
        "\n",
        "good",
        " - ",
        " 4.0",
        "none",
        "; ",
        "blur",
        " 3",
        " 1.0-",
        "2.0",
        "\x00",
        "\ud800",
        "\u732b",
        "<|im_end|>",
        "1e309",
        "9" * 7,
    ]
    for _ in range(3000):
        text = "".join(rng.choices(pieces, k=rng.randint(0, 60)))
        parsed = parse(
            text, expected_scores=rubric.SCORES, duration_seconds=3.0, finished=rng.random() < 0.5
        )
        assert parse(render(parsed)).scores == parsed.scores
        assert parse(render(parsed)).defects == parsed.defects

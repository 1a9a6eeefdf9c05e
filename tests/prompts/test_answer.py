"""Answers written, read back, and read from text that is no answer."""

import random

import pytest

from prompts import rubric
from prompts.answer import MAX_ANSWER_CHARS, MAX_DEFECTS, Answer, Defect, parse, render

ANSWER = Answer(
    scores={"overall": 3.1, "technical": 2.3, "motion": 4, "semantic": 13 / 3},
    defects=(
        Defect(name="blocking", severity=3, start_seconds=0, end_seconds=2.5),
        Defect(name="dropped_frames", severity=2, start_seconds=1, end_seconds=1.25),
    ),
    reasoning={
        "technical": "the sky falls apart into blocks.",
        "motion": "the boat glides evenly.",
        "semantic": "boat and lake are there.",
    },
)

TEXT = """\
Technical: the sky falls apart into blocks.
Motion: the boat glides evenly.
Semantic: boat and lake are there.
Defects: blocking 3 at 0.0-2.5 s; dropped frames 2 at 1.0-1.25 s
Technical quality: poor (2.3)
Motion quality: good (4.0)
Text-video alignment: good (4.33)
Overall quality: fair (3.1)"""


def kinds(text, **options):
    return [problem.kind for problem in parse(text, **options).problems]


def test_the_text_of_an_answer():
    assert render(ANSWER) == TEXT
    parsed = parse(TEXT, expected_scores=rubric.SCORES, duration_seconds=2.5)
    assert parsed == ANSWER
    assert parsed.problems == ()
    assert parsed.defects[1].dimension == "motion"


def random_answer(rng):
    alphabet = "abc .,:;()\n\t\u00e9\u732b<|>[]Defects: none\u2028\x00"
    defects = [
        Defect(name=rng.choice(list(rubric.DEFECTS)), severity=rng.randint(1, 5),
               start_seconds=start, end_seconds=start + rng.random() * 9)
        for start in (rng.random() * 600 for _ in range(rng.randint(0, 4)))
    ]
    return Answer(
        scores={n: rng.uniform(1, 5) for n in rubric.SCORES if rng.random() < 0.7},
        defects=None if rng.random() < 0.2 else tuple(defects),
        reasoning={n: "".join(rng.choices(alphabet, k=rng.randint(0, 1500)))
                   for n in rubric.DIMENSIONS if rng.random() < 0.8},
    )


def test_round_trip_is_exact_for_any_answer():
    rng = random.Random(0)
    for _ in range(500):
        answer = random_answer(rng)
        assert parse(render(answer)) == answer


def test_the_largest_answer_still_round_trips():
    longest = max(rubric.DEFECTS, key=len)
    defect = Defect(name=longest, severity=5, start_seconds=999_999.98, end_seconds=999_999.99)
    answer = Answer(
        scores=dict.fromkeys(rubric.SCORES, 3.33), defects=(defect,) * MAX_DEFECTS,
        reasoning=dict.fromkeys(rubric.DIMENSIONS, "\u732b" * 5000),
    )
    assert parse(render(answer)) == answer


def test_unknown_parts_stay_unknown():
    assert parse("") == Answer()
    assert parse("Defects: none") == Answer(defects=())
    assert parse("Technical quality: poor (2.0)") == Answer(scores={"technical": 2})


def test_case_and_spacing_do_not_matter():
    text = (
        "\n  technical  :  Soft.  \r\n"
        "DEFECTS: Low  Resolution 2 at 0-3.333 s\nOverall quality:Good (4)"
    )
    assert parse(text) == Answer(
        scores={"overall": 4}, reasoning={"technical": "Soft."},
        defects=(Defect(name="low_resolution", severity=2, start_seconds=0, end_seconds=3.33),),
    )


@pytest.mark.parametrize(
    "line, kind",
    [
        ("I think it is fine", "unexpected_line"),
        ("Sound quality: good (4.0)", "unexpected_line"),
        ("Technical quality:", "unexpected_line"),
        ("Motion quality: good", "malformed_score"),
        ("Motion quality: good (-4.0)", "malformed_score"),
        ("Motion quality: good (nan)", "malformed_score"),
        ("Motion quality: good (\u0664)", "malformed_score"),
        ("Motion quality: fa\u0131r (3.0)", "malformed_score"),
        ("Motion quality: good (" + "9" * 5000 + ")", "malformed_score"),
        ("Motion quality: excellent (5.2)", "score_out_of_range"),
        ("Motion quality: bad (0.5)", "score_out_of_range"),
        ("Motion quality: bad (4.0)", "level_contradicts_score"),
        ("Defects: none; blur 2 at 0.0-1.0 s", "malformed_defect"),
        ("Defects: blur at 0.0-1.0 s", "malformed_defect"),
        ("Defects: blur 2 at -1.0-1.0 s", "malformed_defect"),
        ("Defects: blur 2.5 at 0.0-1.0 s", "malformed_defect"),
        ("Defects: ugliness 2 at 0.0-1.0 s", "unknown_defect"),
        ("Defects: blur 6 at 0.0-1.0 s", "severity_out_of_range"),
        ("Defects: blur 0 at 0.0-1.0 s", "severity_out_of_range"),
        ("Defects: blur 2 at 3.0-1.0 s", "times_reversed"),
        ("Defects: blur 2 at 1.0-6.0 s", "time_beyond_clip"),
    ],
)
def test_each_problem_is_named_and_its_part_left_out(line, kind):
    parsed = parse(line, duration_seconds=5.0)
    assert kind in parsed.problem_counts()
    assert not parsed.scores
    assert not parsed.reasoning
    assert parsed.defects is None or all(d.name == "blur" for d in parsed.defects)


def test_good_defects_survive_a_bad_neighbour():
    parsed = parse("Defects: blur 2 at 0.0-1.0 s; glare 3 at 0.0-1.0 s; noise 1 at 0.0-1.0 s")
    assert [defect.name for defect in parsed.defects] == ["blur", "noise"]
    assert parsed.problem_counts() == {"unknown_defect": 1}


def test_unreadable_defects_are_not_the_same_as_none():
    assert parse("Defects: all sorts").defects is None
    assert parse("Defects: none").defects == ()


def test_the_first_of_repeated_lines_counts():
    parsed = parse("Overall quality: good (4.0)\nOverall quality: bad (1.0)")
    assert parsed.scores == {"overall": 4}
    assert parsed.problem_counts() == {"repeated_line": 1}


def test_a_rounded_end_is_within_the_clip():
    assert kinds("Defects: blur 2 at 0.0-2.04 s", duration_seconds=2.0) == []
    assert kinds("Defects: blur 2 at 0.0-2.06 s", duration_seconds=2.0) == ["time_beyond_clip"]


def test_a_whole_answer_is_demanded_only_when_asked():
    text = "Motion: smooth.\nMotion quality: good (4.0)"
    assert kinds(text) == []
    parsed = parse(text, expected_scores=("motion", "overall"))
    assert [(p.kind, p.detail) for p in parsed.problems] == [
        ("missing_line", "defects"), ("missing_line", "overall quality")]
    assert kinds("Motion:\n", expected_scores=["motion"]).count("missing_line") == 3


def test_endless_text_is_cut_and_said_so():
    parsed = parse(TEXT + "\n" + "blah " * MAX_ANSWER_CHARS)
    assert parsed.scores == ANSWER.scores
    assert parsed.problem_counts()["too_long"] == 1
    many = "Defects: " + "; ".join(["blur 1 at 0.0-1.0 s"] * (MAX_DEFECTS + 3))
    assert len(parse(many).defects) == MAX_DEFECTS
    assert parse(many).problem_counts() == {"too_long": 3}


def test_no_text_makes_parse_raise():
    rng = random.Random(1)
    pieces = ["Technical", "Motion quality", "Defects", "Overall quality", ": ", "\n", "good", "(",
              ")", "4.0", "none", "; ", "blur", " 3 at ", "-", " s", "\x00", "\ud800", "\u732b",
              "<|im_end|>", "1e309", "9" * 7]
    for _ in range(2000):
        text = "".join(rng.choices(pieces, k=rng.randint(0, 60)))
        parsed = parse(text, expected_scores=rubric.SCORES, duration_seconds=3.0)
        assert parse(render(parsed)).scores == parsed.scores


@pytest.mark.parametrize(
    "change, message",
    [
        ({"name": "ugly"}, "unknown defect 'ugly'; known: blur, noise"),
        ({"severity": 0}, "severity must be an integer 1-5, got 0"),
        ({"severity": 2.5}, "severity must be an integer 1-5, got 2.5"),
        ({"start_seconds": 2.0}, "got 2.0 and 1.0"),
        ({"start_seconds": -0.1}, "got -0.1 and 1.0"),
        ({"end_seconds": float("nan")}, "got 0.0 and nan"),
        ({"end_seconds": 999_999.999}, "got 0.0 and 999999.999"),
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
    defect = Defect(name="blur", severity=1, start_seconds=0, end_seconds=1)
    with pytest.raises(ValueError, match="at most 50 defects, got 51"):
        Answer(defects=(defect,) * 51)

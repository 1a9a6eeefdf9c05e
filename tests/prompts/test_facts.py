"""Facts, and the sentences that are made of them."""

import re

import pytest

from prompts import Defect
from prompts.consistency import claims
from prompts.facts import FACT_FIELDS, KINDS, Fact, confirmed, named, where
from prompts.sentences import advice, behind, cost_sentence, sentences

BOX = (0.1, 0.4, 0.3, 0.6)
SHARP = [
    Fact(kind="sharpness", value=9.0, percentile=30),
    Fact(kind="sharpest", value=10.0, percentile=40, start_seconds=0.5, end_seconds=1.0),
    Fact(kind="softest", value=6.0, percentile=10, start_seconds=2.1, end_seconds=2.9),
]
MOVES = [
    Fact(kind="speed", value=0.1, percentile=48),
    Fact(kind="busiest", value=0.3, percentile=80, start_seconds=1.0, end_seconds=1.5),
    Fact(kind="calmest", value=0.1, percentile=48, start_seconds=0.0, end_seconds=0.5),
]
GONE = Fact(
    kind="vanishes",
    name="dog",
    confidence=0.91,
    start_seconds=1.2,
    end_seconds=1.3,
    at_seconds=1.0,
    box=BOX,
)


def test_round_trip():
    for fact in (GONE, *SHARP, *MOVES):
        row = fact.to_dict()
        assert tuple(row) == FACT_FIELDS and row["dimension"] == fact.dimension
        assert Fact.from_dict(row) == fact
    assert {Fact(kind=kind).dimension for kind in KINDS} == {"technical", "motion", "semantic"}


@pytest.mark.parametrize(
    "values, message",
    [
        ({"kind": "x"}, "kind must be one of "),
        ({"name": " "}, "name must be words or None, got ' '"),
        ({"value": float("nan")}, "value must be finite and in 0..inf, got nan"),
        ({"percentile": 101}, "percentile must be finite and in 0..100, got 101"),
        ({"confidence": "high"}, "confidence must be a number, got 'high'"),
        ({"start_seconds": 1.0}, "start_seconds and end_seconds must be a range, got 1.0..None"),
        (
            {"start_seconds": 2.0, "end_seconds": 1.0},
            "start_seconds and end_seconds must be a range, got 2.0..1.0",
        ),
        ({"box": BOX}, "box and at_seconds must be both given or both None"),
        (
            {"box": (0.5, 0.0, 0.1, 1.0), "at_seconds": 0.0},
            "box must be left, top, right, bottom, got (0.5, 0.0, 0.1, 1.0)",
        ),
    ],
)
def test_what_a_fact_cannot_be(values, message):
    with pytest.raises(ValueError) as caught:
        Fact(**{"kind": "seen", **values})
    assert str(caught.value).startswith(message)


def test_a_fact_of_another_form():
    with pytest.raises(ValueError, match="^a fact of another form: .*'colour'"):
        Fact.from_dict({"kind": "seen", "colour": "red"})


@pytest.mark.parametrize(
    "box, words",
    [
        ((0.0, 0.4, 0.2, 0.6), "on the left"),
        ((0.4, 0.4, 0.6, 0.6), "in the middle"),
        ((0.8, 0.0, 1.0, 0.2), "at the top right"),
        ((0.4, 0.8, 0.6, 1.0), "at the bottom"),
    ],
)
def test_where(box, words):
    assert where(box) == words


def numbers_of(text):
    return set(map(float, re.findall(r"\d+(?:\.\d+)?", text)))


def test_every_number_is_a_fact_s():
    facts = [*SHARP, *MOVES, GONE]
    defect = Defect(name="vanishing_object", severity=4, start_seconds=1.2, end_seconds=1.3)
    found = sentences(
        facts,
        [defect],
        dimensions=("technical", "motion"),
        costs={"technical": -0.56, "motion": 0.02},
    )
    assert list(found) == ["technical", "motion"]
    # 70 and 52: the share of clips on the other side; 40: how far 6 lies below 10, in per cent
    assert numbers_of(found["technical"]) == {70, 2.1, 2.9, 40, 0.5, 1.0, 0.56}
    assert numbers_of(found["motion"]) == {1.3, 52, 1.0, 1.5, 0.0, 0.5}
    assert "dog on the left" in found["motion"] and "less sharp than 70 %" in found[
        "technical"
    ].replace("Less", "less")


@pytest.mark.parametrize("said", [[], ["One."], ["Two."], ["Three."], ["Four."]])
def test_what_a_dimension_costs_names_it_and_not_what_was_said_before(said):
    assert cost_sentence("motion", 0.29, said=said) in (
        "The movement adds 0.29 to the overall score.",
        "The movement lifts the overall score by 0.29.",
    )
    assert cost_sentence("semantic", -0.29, said=said) in (
        "The content costs the overall score 0.29.",
        "The content takes 0.29 off the overall score.",
    )


def test_what_hardly_moves_is_said():
    for name, words in (
        ("low_dynamic", ("The prompt asks for action, and hardly anything moves.",)),
        ("near_static", ("Hardly anything moves.", "The picture is close to a still.")),
    ):
        defects = [Defect(name=name, severity=4)]
        assert sentences(MOVES, defects, dimensions=("motion",))["motion"].startswith(words)


def test_advice_on_a_number_speaks_of_as_many():
    seen = {"value": 4, "confidence": 0.9, "at_seconds": 1.0, "box": BOX}
    defects = [Defect(name="wrong_count", severity=3)]
    for name, expected, said in (
        ("people", 3, "Say each of the 3 people apart in the prompt, or try other seeds."),
        ("dog", 2, "Say each of the 2 dogs apart in the prompt, or try other seeds."),
        ("dog", 1, "Write `one dog, alone` in the prompt, or try another seed."),
    ):
        fact = Fact(kind="count", name=name, expected=expected, **seen)
        assert advice([fact], defects) == (said,)


def test_a_moment_is_no_range():
    facts = [
        *SHARP[:1],
        Fact(kind="sharpest", value=10, percentile=60, start_seconds=0.21, end_seconds=0.24),
        Fact(kind="softest", value=5, percentile=20, start_seconds=0.06, end_seconds=0.09),
    ]
    text = sentences(facts, [], dimensions=("technical",))["technical"]
    assert text.endswith("softest at 0.1 s, 50 % below the sharpest, 0.2 s.")
    assert all(claim.true for claim in claims(text, facts))


def test_of_many_cuts_some_are_named():
    cuts = [Fact(kind="cut", start_seconds=n, end_seconds=n) for n in (1.0, 2.0, 3.0, 4.0, 5.0)]
    for found, said in ((cuts[:4], "It cuts at 1.0, 2.0, 3.0, 4.0 s."),
                        (cuts, "It cuts at 1.0, 2.0, 3.0, 4.0 s and later.")):  # fmt: skip
        text = sentences(found, [], dimensions=("motion",))["motion"]
        assert text == said and all(claim.true for claim in claims(text, found))


def test_a_still_has_no_pace_and_does_not_jump_ahead():
    still = {"value": 0.0, "percentile": 0}
    facts = [
        Fact(kind="speed", **still),
        Fact(kind="busiest", start_seconds=0.0, end_seconds=0.5, **still),
        Fact(kind="calmest", start_seconds=1.0, end_seconds=1.5, **still),
        Fact(kind="sharpness", value=10, percentile=50),
        Fact(kind="sharpest", value=10, percentile=50, start_seconds=0.0, end_seconds=0.5),
        Fact(kind="softest", value=10, percentile=50, start_seconds=1.0, end_seconds=1.5),
    ]
    defects = [Defect(name="freeze", severity=5)]
    assert sentences(facts, defects, dimensions=("technical", "motion")) == {
        "technical": "Sharper than 50 % of reference clips, and evenly so from start to end.",
        "motion": "The picture holds still. Slower than 100 % of reference clips.",
    }


def test_the_same_facts_give_the_same_words():
    one = sentences([*SHARP, *MOVES], [], dimensions=("technical", "motion"))
    assert one == sentences([*SHARP, *MOVES], [], dimensions=("technical", "motion"))


def test_a_thing_has_the_article_of_its_name():
    at = {"confidence": 0.9, "at_seconds": 1.2, "box": BOX}
    for start in (1.2, 1.3, 1.4, 1.5, 1.6):  # which gives both wordings
        times = {"start_seconds": start, "end_seconds": start + 0.1}
        change = Fact(kind="changes", name="cow", other="elephant", **times, **at)
        facts = [Fact(kind="appears", name="airplane", **times, **at), change]
        for name, said in (
            ("appearing_object", ("An airplane on the left is there", "s an airplane appears on")),
            ("identity_drift", ("The cow on the left turns into an elephant between",)),
        ):
            defects = [Defect(name=name, severity=4, **times)]
            text = sentences(facts, defects, dimensions=("motion",))["motion"]
            assert any(words in text for words in said)
    assert advice(facts, defects) == (
        "Try another seed, or less movement: the cow turns into an elephant.",
    )


def test_of_the_prompt():
    seen = Fact(
        kind="asked_seen",
        name="dogs",
        value=3,
        confidence=0.9,
        start_seconds=0.0,
        end_seconds=2.0,
        at_seconds=1.0,
        box=BOX,
    )
    count = Fact(
        kind="count", name="dogs", value=3, expected=2, confidence=0.9, at_seconds=1.0, box=BOX
    )
    beyond = Fact(kind="asked_not_judged", name="robot")
    defects = [Defect(name="wrong_count", severity=3)]
    text = sentences([seen, count, beyond], defects, dimensions=("semantic",))["semantic"]
    assert text.startswith("The prompt says 2 (dogs), 3 are seen, on the left.")
    assert "Can't be judged: robot." in text and "dogs (90 % sure" in text
    assert advice([seen, count, beyond], defects) == (
        "Say each of the 2 dogs apart in the prompt, or try other seeds.",
    )


@pytest.mark.parametrize(
    "name, said",
    [
        ("woman", "woman (as a person, 90 % sure"),
        ("dancers", "dancers (as people, 90 % sure"),
        ("suv", "suv (as a car, 90 % sure"),
        ("person", "person (90 % sure"),
        ("people", "people (90 % sure"),
        ("dogs", "dogs (90 % sure"),
    ],
)
def test_what_is_seen_is_no_more_than_a_detector_knows(name, said):
    seen = Fact(kind="asked_seen", name=name, value=1, confidence=0.9, at_seconds=1.0, box=BOX)
    text = sentences([seen], [], dimensions=("semantic",))["semantic"]
    assert said in text and all(claim.true for claim in claims(text, [seen]))


def test_what_is_not_seen_is_named_and_what_cannot_be_judged_is_not_missing():
    lacking = Fact(kind="asked_not_seen", name="bus", confidence=0.05)
    beyond = Fact(kind="asked_not_judged", name="dragon")
    plain = sentences([lacking, beyond], [], dimensions=("semantic",))["semantic"]
    assert "Not seen: bus." in plain
    assert "Can't be judged: dragon, and nothing else is recognised for certain." in plain
    defects = [Defect(name="missing_object", severity=4)]
    named_ = sentences([lacking, beyond], defects, dimensions=("semantic",))["semantic"]
    assert "bus" in named_ and "Not seen" not in named_
    assert advice([lacking], defects) == (
        "Name the bus first in the prompt, and what it does next.",
    )


def test_things_that_are_missing_are_each_named():
    facts = [Fact(kind="asked_not_seen", name=name, confidence=0.0) for name in ("dogs", "cat")]
    defects = [Defect(name="missing_object", severity=4)] * 2
    text = sentences(facts, defects, dimensions=("semantic",))["semantic"]
    assert text.count("dogs") == text.count("cat") == 1 and "dogs is" not in text
    assert advice(facts, defects) == (
        "Name the dogs first in the prompt, and what they do next.",
        "Name the cat first in the prompt, and what it does next.",
    )
    person = [Fact(kind="asked_not_seen", name="woman", confidence=0.0)]
    assert advice(person, defects[:1]) == (
        "Name the woman first in the prompt, and what they do next.",
    )


def test_a_count_is_that_of_its_defect_though_the_graver_comes_first():
    seen = {"confidence": 0.9, "at_seconds": 1.0, "box": BOX}
    facts = [
        Fact(kind="count", name="dogs", value=3, expected=2, **seen),
        Fact(kind="count", name="cats", value=5, expected=2, **seen),
    ]
    defects = [Defect(name="wrong_count", severity=severity) for severity in (3, 5)]
    text = sentences(facts, defects, dimensions=("semantic",))["semantic"]
    assert text.startswith(
        "The prompt says 2 (cats), 5 are seen, on the left. The prompt says 2 (d"
    )


def test_a_cut_to_other_footage_is_told_where_it_costs_points():
    cut = Fact(kind="cut", start_seconds=2.0, end_seconds=2.0)
    defect = Defect(name="scene_cut", severity=4, start_seconds=2.0, end_seconds=4.0)
    text = sentences([cut, *MOVES], [defect], dimensions=("semantic",))["semantic"]
    assert text.startswith("The clip cuts to other footage at 2.0-4.0 s.")
    assert all(claim.true for claim in claims(text, [cut, *MOVES], defects=[defect]))


@pytest.mark.parametrize(
    "named_times, times",
    [((1.1, 3.7), (1.0, 4.0)), ((4.3, 5.5), (4.0, 6.0)), ((0.2, 0.4), (1.0, 2.0))],
)
def test_other_footage_lies_between_cuts(named_times, times):
    facts = [Fact(kind="cut", start_seconds=n, end_seconds=n) for n in (1.0, 2.0, 4.0)]
    facts.append(Fact(kind="duration", value=6.0))
    start, end = named_times
    defect = Defect(name="scene_cut", severity=3, start_seconds=start, end_seconds=end)
    (found,) = confirmed([defect], facts, "a dog", {"semantic": 2.0})
    assert (found.start_seconds, found.end_seconds) == times


@pytest.mark.parametrize("name", ["shake", "flicker"])
def test_no_change_of_movement_is_named_that_could_not_be_measured(name):
    found = [Defect(name=name, severity=3)]
    much = Fact(kind=name, value=9.0, percentile=99)
    assert confirmed(found, [*MOVES, much], None, {"motion": 2.0}) == tuple(found)
    assert confirmed(found, MOVES, None, {"motion": 2.0}) == ()  # as of two frames


def test_where_nothing_is_recognised():
    duration = Fact(kind="duration", value=4.2)
    robot = Fact(kind="asked_not_judged", name="robot")
    for facts, text in (
        ([duration], "Nothing is recognised for certain in its 4.2 s."),
        ([], "Nothing is recognised for certain."),
        ([robot, duration], "Can't be judged: robot, and nothing else is recognised for certain."),
    ):
        assert sentences(facts, [], dimensions=("semantic",)) == {"semantic": text}


def test_advice_needs_a_fact():
    assert advice(SHARP, [Defect(name="shake", severity=3)]) == ()
    assert behind(Defect(name="blur", severity=3), SHARP) == SHARP[0]
    assert named([GONE, *SHARP], "softest", "vanishes") == [GONE, SHARP[2]]

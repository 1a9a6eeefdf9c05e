"""Whether sentences agree with facts: each kind of claim, true and false."""

import pytest

from prompts import Defect, parse
from prompts.consistency import claims, sentences_of
from prompts.facts import KINDS, Fact, render_facts
from prompts.objects import class_of, things_in
from prompts.sentences import sentences

LEFT = (0.1, 0.4, 0.3, 0.6)
TOP_RIGHT = (0.8, 0.0, 1.0, 0.2)


def seen(name, kind="seen", *, box=LEFT, sure=0.91, start=0.5, end=2.0, **rest):
    return Fact(
        kind=kind,
        name=name,
        confidence=sure,
        start_seconds=start,
        end_seconds=end,
        at_seconds=1.0,
        box=box,
        **{"value": 1, **rest},
    )


def span(kind, value, percentile, start, end):
    return Fact(kind=kind, value=value, percentile=percentile, start_seconds=start, end_seconds=end)


FACTS = [
    seen("puppies", "asked_seen", value=2),
    Fact(kind="asked_not_seen", name="elephant", confidence=0.04),
    Fact(kind="asked_not_judged", name="robot"),
    seen("dog", value=2),
    seen("cat", box=TOP_RIGHT, sure=0.66, start=0.0, end=4.0),
    seen("cups", "count", value=3, expected=5, start=None, end=None),
    seen("cat", "vanishes", value=None, box=TOP_RIGHT, start=3.1, end=3.2),
    seen("horse", "changes", value=None, other="cow", start=1.4, end=1.9),
    Fact(kind="cut", start_seconds=2.2, end_seconds=2.2),
    Fact(kind="cut", start_seconds=3.3, end_seconds=3.3),
    Fact(kind="freeze", value=0.83, start_seconds=2.4, end_seconds=3.23),
    Fact(kind="speed", value=0.1, percentile=48),
    span("busiest", 0.3, 80, 1.0, 1.5),
    span("calmest", 0.1, 48, 0.0, 0.5),
    Fact(kind="shake", value=2.0, percentile=90),
    Fact(kind="duration", value=4.0),
    Fact(kind="sharpness", value=9.0, percentile=30),
    span("sharpest", 10.0, 40, 0.5, 1.0),
    span("softest", 6.0, 10, 2.1, 2.9),
    Fact(kind="brightness", value=10.0, percentile=4),
    Fact(kind="whites", value=13.4, percentile=97),
]


@pytest.mark.parametrize(
    "text",
    [
        "Two puppies are seen on the left, 0.5-2.0 s, 91 % sure.",
        "A dog (91 % sure) is on the left from 0.5 to 2 s, and a cat at the top right.",
        "No elephant is seen.",
        "The prompt's elephant is missing.",
        "It can't be judged whether there is a robot.",
        "The prompt asks for a robot.",
        "The prompt says 5 (cups), 3 are seen on the left.",
        "The cat at the top right vanishes at 3.1 s.",
        "The horse turns into a cow between 1.4 and 1.9 s.",
        "It cuts at 2.2 and 3.3 s.",
        "It cuts 2 times, at 2.2, 3.3 s.",
        "The picture freezes for 0.83 s, 2.4-3.2 s.",
        "Slower than 52 % of reference clips, most at 1.0-1.5 s, least at 0.0-0.5 s.",
        "The frame shakes, more than in 90 % of clips.",
        "Less sharp than 70 % of reference clips, softest at 2.1-2.9 s, 40 % below the sharpest.",
        "Sharpest from 0.5 to 1.0 s.",
        "Darker than 96 % of reference clips, though 13 % of the picture is burnt out.",
        "A dog is seen on the left, but no elephant.",
        "It lasts 4 s.",
        "The light pulses at 0.6-1.4 s.",  # of a defect
    ],
)
def test_true_sentences(text):
    defect = Defect(name="flicker", severity=3, start_seconds=0.6, end_seconds=1.4)
    found = claims(text, FACTS, defects=[defect])
    assert found and all(claim.true for claim in found), found


@pytest.mark.parametrize(
    "text, false",
    [
        ("Three puppies are seen.", {"Three"}),
        ("A dog is seen on the right.", {"on the right"}),
        ("A dog is seen on the left, 0.5-3.0 s.", {"0.5", "3.0"}),
        ("A dog is seen from 2.0 to 2.0 s.", {"2.0"}),
        ("A dog (66 % sure) is seen.", {"66"}),  # the cat's
        ("A giraffe is seen.", {"giraffe"}),
        ("An elephant is seen.", {"elephant"}),
        ("No dog is seen.", {"dog"}),
        ("The robot is missing.", {"robot"}),
        ("A robot dances on the left.", {"robot", "on the left"}),
        ("A tower is seen.", {"tower"}),  # beyond the detector, and nobody asked
        ("The prompt says 4 (cups), 3 are seen.", {"4"}),
        ("The dog vanishes at 3.1 s.", {"dog", "3.1"}),
        ("The cat vanishes at 3.4 s.", {"3.4"}),
        ("The horse turns into a dog.", {"dog"}),
        ("It cuts at 2.2 and 3.5 s.", {"3.5"}),
        ("The picture freezes for 0.93 s.", {"0.93"}),
        ("Faster than 52 % of reference clips.", {"52"}),
        ("Slower than 48 % of reference clips.", {"48"}),
        ("Slower than 52 % of clips, most at 0.0-0.5 s.", {"0.0", "0.5"}),
        ("The camera is steadier than in 90 % of clips.", {"90"}),
        ("Sharper than 70 % of reference clips.", {"70"}),
        ("The picture is soft, 33 % below the sharpest.", {"33"}),
        ("Brighter than 96 % of reference clips.", {"96"}),
        ("It lasts 5 s.", {"5"}),
        ("The light pulses at 0.6-1.4 s.", {"0.6", "1.4"}),
        ("It scores 7 of 12.", {"7", "12"}),
    ],
)
def test_false_sentences(text, false):
    assert {claim.text for claim in claims(text, FACTS) if not claim.true} == false
    both = sentences_of(f"A dog is seen. {text}")
    assert [all(claim.true for claim in claims(one, FACTS)) for one in both] == [True, False]


def test_what_says_nothing_that_can_be_told():
    text = "The picture is solid. Movement looks natural, and one pace holds throughout."
    assert claims(text, FACTS) == claims(text, []) == ()
    assert sentences_of(" One at 1.2 s.  Two! ") == ["One at 1.2 s.", "Two!"]
    assert sentences_of("") == []


def test_the_templates_say_nothing_but_facts():
    defects = [
        Defect(name=name, severity=4, start_seconds=start, end_seconds=end)
        for name, start, end in (
            ("blur", None, None),
            ("overexposure", 0.3, 1.2),
            ("vanishing_object", 3.1, 3.2),
            ("identity_drift", 1.4, 1.9),
            ("freeze", 2.4, 3.2),
            ("shake", None, None),
            ("missing_object", None, None),
            ("wrong_count", None, None),
        )
    ]
    dimensions = ("technical", "motion", "semantic")
    for chosen in (defects, defects[1:3], defects[3:5], defects[5:7], []):
        for text in sentences(FACTS, chosen, dimensions=dimensions).values():
            found = claims(text, FACTS, defects=chosen)
            assert claims(text, FACTS) and all(claim.true for claim in found), text


@pytest.mark.parametrize("number", ["9" * 5000, "s\u0131x", "\u017fix"])
def test_numbers_that_are_none(number):
    assert [claim.true for claim in claims(f"{number} cups", FACTS) if claim.kind == "thing"]
    assert not any(
        claim.true for claim in claims(f"{number} cups", FACTS) if claim.kind == "number"
    )


def test_what_morphs_has_no_name():
    dog = seen("dog", "seen")
    morph = Fact(kind="morphs", value=0.4, start_seconds=1.0, end_seconds=2.0)
    (claim,) = claims("The dog morphs into something else.", [dog, morph])
    assert claim.true
    for facts in ([dog], [morph]):
        (claim,) = claims("The dog morphs into something else.", facts)
        assert not claim.true


def test_facts_in_words():
    line = render_facts(FACTS)
    assert line.startswith(
        "Facts: puppies asked and seen, 2 at most, 91 % sure, on the left, 0.5-2.0 s; "
        "elephant asked and not seen; robot asked and can't be judged; "
    )
    assert "5 cups asked, 3 seen, 91 % sure, on the left; " in line
    assert "horse turns into cow, 91 % sure, on the left, 1.4-1.9 s; cut, 2.2-2.2 s; " in line
    assert "speed, more than 48 % of clips; " in line and "; 13 % burnt out; " in line
    assert line.endswith("; softest 40 % below the sharpest") and "\n" not in line
    assert render_facts([]) == "Facts: none"
    assert render_facts([Fact(kind=kind, name="x") for kind in KINDS]).count(";") == len(KINDS) - 1
    assert parse(f"{line}\nDefects: none").problems == ()


def test_things_in_a_text():
    text = "Two small dogs, an orange cup and orange light; the train station, a wine glass"
    assert [text[a:b] for a, b in things_in(text)] == ["dogs", "cup", "wine glass"]
    assert things_in("An orange.") == [(3, 9)]
    assert things_in("İİİİ, DOGS") == [(6, 10)]  # four capitals that are eight small characters
    assert [class_of(w) for w in ("puppies", "wine glass", "sports ball", "robot", "x")] == [
        "dog",
        "wine glass",
        "sports ball",
        None,
        None,
    ]

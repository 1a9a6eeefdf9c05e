"""The names of all 80 classes in every sentence and piece of advice that has one."""

import pytest

from encoders.detection import CLASSES
from prompts import Defect
from prompts import sentences as module
from prompts.consistency import claims
from prompts.facts import Fact
from prompts.objects import asked_things
from prompts.sentences import advice, sentences

PLACE = {"box": (0.1, 0.3, 0.3, 0.6), "at_seconds": 1.0}
TIME = {"start_seconds": 1.0, "end_seconds": 2.0}
WITH_AN = ("airplane", "apple", "elephant", "orange", "oven", "umbrella")
# What one and two of a class are called; others have an s more.
PIECES = {
    "skis": ("pair of skis", "pairs of skis"),
    "scissors": ("pair of scissors", "pairs of scissors"),
    "broccoli": ("piece of broccoli", "pieces of broccoli"),
}
PLURALS = {
    "person": "people",
    "sheep": "sheep",
    "bus": "buses",
    "bench": "benches",
    "couch": "couches",
    "toothbrush": "toothbrushes",
    "wine glass": "wine glasses",
    "sandwich": "sandwiches",
    "knife": "knives",
    "mouse": "mice",
}


def one_and_two(name):
    one, two = PIECES.get(name, (name, PLURALS.get(name, f"{name}s")))
    return one, f"{'an' if name in WITH_AN else 'a'} {one}", two


def told(monkeypatch, defect, fact):
    """Both wordings of a sentence, and the advice."""
    found = []
    for number in (0, 1):
        monkeypatch.setattr(module, "_choose", lambda facts, *w, n=number: w[n % len(w)])
        text = sentences([fact], [defect], dimensions=(defect.dimension,))[defect.dimension]
        # What is claimed of the facts that it was made of is true.
        assert all(claim.true for claim in claims(text, [fact], defects=[defect])), text
        found.append(text.partition(". ")[0].rstrip("."))
    return *found, *advice([fact], [defect])


def test_there_are_eighty():
    assert len(set(CLASSES)) == 80 and {*PIECES, *PLURALS, *WITH_AN} <= set(CLASSES)


@pytest.mark.parametrize("name", CLASSES)
def test_what_happens_to_a_thing(name, monkeypatch):
    one, a_one, _ = one_and_two(name)
    capital = a_one.capitalize()
    vanishes = Fact(kind="vanishes", name=name, confidence=0.8, **PLACE, **TIME)
    defect = Defect(name="vanishing_object", severity=4, **TIME)
    assert told(monkeypatch, defect, vanishes) == (
        f"The {one} on the left is gone at 2.0 s without leaving the frame",
        f"{capital} on the left vanishes at 2.0 s, inside of the frame",
        f"Try another seed, or end the clip at 1.0 s: the {one} vanishes then.",
    )
    appears = Fact(kind="appears", name=name, confidence=0.8, **PLACE, **TIME)
    defect = Defect(name="appearing_object", severity=4, **TIME)
    assert told(monkeypatch, defect, appears) == (
        f"{capital} on the left is there at 2.0 s, and came from nowhere",
        f"At 2.0 s {a_one} appears on the left, inside of the frame",
        f"Try another seed, or start the clip at 2.0 s: the {one} appears then.",
    )
    for first, second, words in (
        (name, "cat", f"The {one} on the left turns into a cat between 1.0 and 2.0 s"),
        ("cat", name, f"The cat on the left turns into {a_one} between 1.0 and 2.0 s"),
    ):
        changes = Fact(kind="changes", name=first, other=second, confidence=0.8, **PLACE, **TIME)
        defect = Defect(name="identity_drift", severity=4, **TIME)
        sentence, _, line = told(monkeypatch, defect, changes)
        assert sentence == words
        turning = words.partition(" on the left")[0].removeprefix("The ")
        into = "a cat" if second == "cat" else a_one
        assert line == f"Try another seed, or less movement: the {turning} turns into {into}."


@pytest.mark.parametrize("name", CLASSES)
def test_what_is_asked_for(name, monkeypatch):
    one, _, two = one_and_two(name)
    absent = Fact(kind="asked_not_seen", name=name, confidence=0.1)
    defect = Defect(name="missing_object", severity=4)
    several = "they do" if name in ("person", "skis", "scissors", "sheep") else "it does"
    assert told(monkeypatch, defect, absent) == (
        f"No {name} to be seen in any frame looked at",
        f"Nowhere in the frames looked at: the prompt's {name}",
        f"Name the {name} first in the prompt, and what {several} next.",
    )
    count = Fact(kind="count", name=name, value=3, expected=2, confidence=0.8, **PLACE)
    sentence, _, line = told(monkeypatch, Defect(name="wrong_count", severity=3), count)
    assert sentence == f"The prompt says 2 ({name}), 3 are seen, on the left"
    assert line == f"Say each of the 2 {two} apart in the prompt, or try other seeds."
    doubled = Fact(kind="doubled", name=name, value=2, expected=1, confidence=0.8, **PLACE)
    sentence, _, line = told(monkeypatch, Defect(name="duplicated_object", severity=3), doubled)
    assert sentence == f"The prompt says 1 ({name}), 2 are seen, on the left"
    assert line == f"Write `one {one}, alone` in the prompt, or try another seed."


def test_a_pair_of_scissors_is_one():
    (asked,) = asked_things("a pair of scissors on a table")[:1]
    assert (asked.name, asked.count) == ("scissors", None)
    (asked,) = asked_things("two pairs of scissors")
    assert (asked.name, asked.count, asked.exact) == ("scissors", 2, True)
    (asked,) = asked_things("a pair of dogs")
    assert (asked.name, asked.count) == ("dog", 2)


def test_what_a_thing_is_taken_for():
    seen = Fact(kind="asked_seen", name="ski", value=1, confidence=0.8, **PLACE)
    found = sentences([seen], [], dimensions=("semantic",))["semantic"]
    assert "ski (as a pair of skis, 80 % sure" in found

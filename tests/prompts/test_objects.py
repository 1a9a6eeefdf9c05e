"""What a prompt asks for."""

import pytest

from prompts.objects import (
    Asked,
    asked_things,
    asks_for_action,
    asks_for_colours,
    asks_for_cuts,
    is_dim,
    is_styled,
    plural_of,
)


def found(prompt):
    return [(one.noun, one.name, one.count, one.exact) for one in asked_things(prompt)]


@pytest.mark.parametrize(
    "prompt, expected",
    [
        ("a dog runs", [("dog", "dog", 1, False)]),
        ("the dog", [("dog", "dog", None, False)]),
        ("Two small, red dogs", [("dogs", "dog", None, False)]),  # a comma ends what "two" says
        ("two small red dogs", [("dogs", "dog", 2, True)]),
        ("3 cats on a sofa", [("cats", "cat", 3, True), ("sofa", "couch", 1, False)]),
        ("one woman and two men", [("woman", "person", 3, True)]),
        ("a woman among many people", [("woman", "person", None, False)]),
        ("dogs", [("dogs", "dog", None, False)]),
        ("a dog and another dog", [("dog", "dog", None, False)]),
        ("a pair of puppies", [("puppies", "dog", 2, True)]),
        ("a teddy bear", [("teddy bear", "teddy bear", 1, False)]),
        ("a polar bear", [("polar bear", "bear", 1, False)]),
        ("a toy car", [("toy car", None, None, False)]),
        ("an iron man", [("iron man", None, None, False)]),
        (
            "a robot with an umbrella",
            [("robot", None, None, False), ("umbrella",) * 2 + (1, False)],
        ),
        # numbers that don't say how many, or not how many in all
        (
            "a 5-year-old boy, two-tone cars",
            [("boy", "person", None, False), ("cars", "car", None, False)],
        ),
        ("twenty-two dogs", [("dogs", "dog", None, False)]),
        ("one hundred dogs", [("dogs", "dog", None, False)]),
        ("at least two dogs", [("dogs", "dog", None, False)]),
        ("two or three dogs", [("dogs", "dog", None, False)]),
        ("4k dogs", [("dogs", "dog", None, False)]),
        ("two dogs run. One dog barks", [("dogs", "dog", None, False)]),
        ("three people, one man and two women", [("people", "person", None, False)]),
        ("three people, two of them women", [("people", "person", None, False)]),
        ("a couple of cars", [("cars", "car", None, False)]),
        # what a prompt doesn't want
        ("an empty street, no people, no cars", []),
        ("no cars or people; a dog without a leash", [("dog", "dog", 1, False)]),
        ("not only a dog", [("dog", "dog", 1, False)]),
        # not the things that the words name elsewhere
        ("an orange sports car", [("car", "car", None, False)]),
        ("they train hard and book a flight", []),
        ("a bird's eye view of fields", []),
        ("shaped like a bird", []),
        ("a boat-like cloud", []),
        ("", []),
        ("雪の中の犬", []),
    ],
)
def test_what_a_prompt_asks_for(prompt, expected):
    assert found(prompt) == expected


@pytest.mark.parametrize(
    "prompt",
    [
        "a dog park",
        "a polar bear costume",
        "a woman's hands",
        "a zebra herd",
        "a statue of a horse",
        "a toy elephant",
        "a wooden horse",
        "a man's face",
        "a view from an airplane",
        "in a car",
    ],
)
def test_what_is_asked_for_as_part_of_another_thing(prompt):
    asked = asked_things(prompt)[-1]
    assert (asked.whole, asked.count) == (False, None)


@pytest.mark.parametrize(
    "prompt", ["a dog runs", "dogs face a wooden boat", "a portrait of a man", "a car from above"]
)
def test_what_is_asked_for_as_itself(prompt):
    assert all(asked.whole for asked in asked_things(prompt))


def test_an_orange_to_eat_is_one():
    assert asked_things("an orange on a plate")[0] == Asked(noun="orange", name="orange", count=1)


@pytest.mark.parametrize(
    "noun, plural",
    [
        ("dog", "dogs"),
        ("person", "people"),
        ("bus", "buses"),
        ("sheep", "sheep"),
        ("knife", "knives"),
        ("puppy", "puppies"),
        ("wine glass", "wine glasses"),
        ("toy", "toys"),
    ],
)
def test_plurals(noun, plural):
    assert plural_of(noun) == plural


def test_what_a_prompt_says_of_the_look():
    assert is_styled("a cat, Van Gogh style of painting") and not is_styled("a cat on a wall")
    assert is_dim("a street at night") and not is_dim("a sunny street")
    assert asks_for_action("a horse galloping") == "galloping"
    assert asks_for_action("a vase on a table") is None
    assert asks_for_action("spinach on a plate, a wooden swing, a fighter jet, a jumpsuit") is None
    assert asks_for_cuts("the scene cuts to a beach") and not asks_for_cuts("a beach")
    assert asks_for_colours("a neon city") and not asks_for_colours("a city")


def test_a_number_of_thousands_of_digits_is_none():
    (asked,) = asked_things("9" * 5000 + " dogs")
    assert (asked.name, asked.count) == ("dog", None)

"""Encoders as the command line names them."""

import pytest

from aigveval.cli.encoder_choice import EncoderChoice, apply_choices, parse_choice
from encoders.registry import EncoderError


@pytest.mark.parametrize(
    "text, dimension, name, options",
    [
        ("motion_flow", "motion", "motion_flow", {}),
        ("flow", "motion", "motion_flow", {}),
        ("technical=lite", "technical", "technical_lite", {}),
        (
            "motion=slowfast:pathways=both,num_frames=16",
            "motion",
            "motion_slowfast",
            {"pathways": "both", "num_frames": 16},
        ),
        (
            "slowfast:weights=C:\\a b\\x.pyth",
            "motion",
            "motion_slowfast",
            {"weights": "C:\\a b\\x.pyth"},
        ),
        ("slowfast:weights=[x", "motion", "motion_slowfast", {"weights": "[x"}),
        ("motion=none", "motion", None, {}),
    ],
)
def test_a_choice_is_read(text, dimension, name, options):
    assert parse_choice(text) == EncoderChoice(dimension=dimension, name=name, options=options)


@pytest.mark.parametrize(
    "text, message",
    [
        ("motion=lite", "no encoder named 'lite'; "),
        ("technical=motion_flow", "motion_flow is an encoder of motion, not of technical"),
        ("sound=none", "no dimension 'sound'; choose technical, motion or semantic"),
        ("none", "no encoder named 'none'; "),
        ("flow:8", "'flow:8': expected OPTION=VALUE after the colon, got '8'"),
        ("flow:size=8,,", "'flow:size=8,,': expected OPTION=VALUE after the colon, got ''"),
    ],
)
def test_a_wrong_choice_is_refused(text, message):
    with pytest.raises(EncoderError) as caught:
        parse_choice(text)
    assert str(caught.value).startswith(message)


def test_a_choice_makes_its_encoder():
    assert parse_choice("flow:num_tokens=8,size=64").create().spec.num_tokens == 8


@pytest.mark.parametrize(
    "text, message",
    [
        (
            "flow:tokens=8",
            "motion_flow: MotionFlow.__init__() got an unexpected keyword argument 'tokens'",
        ),
        (
            "flow:num_frames=7",
            "motion_flow: num_frames must be a positive multiple of num_tokens (16), got 7",
        ),
        ("motion=none", "motion=none names no encoder"),
    ],
)
def test_a_wrong_option_is_one_line(text, message):
    with pytest.raises(EncoderError) as caught:
        parse_choice(text).create()
    assert str(caught.value) == message


@pytest.mark.parametrize(
    "choices, expected",
    [
        ([], ["semantic_lite", {"name": "flow", "options": {}}, "technical_lite"]),
        (["motion=none"], ["semantic_lite", "technical_lite"]),
        (
            ["slowfast"],
            ["semantic_lite", "technical_lite", {"name": "motion_slowfast", "options": {}}],
        ),
        (
            ["semantic=none", "motion=none", "technical=lite:num_frames=4"],
            [{"name": "technical_lite", "options": {"num_frames": 4}}],
        ),
        (
            ["slowfast", "flow"],
            ["semantic_lite", "technical_lite"]
            + [{"name": name, "options": {}} for name in ("motion_slowfast", "motion_flow")],
        ),
    ],
)
def test_choices_replace_the_dimensions_they_name(choices, expected):
    entries = ["semantic_lite", {"name": "flow", "options": {}}, "technical_lite"]
    assert apply_choices(entries, [parse_choice(text) for text in choices]) == expected

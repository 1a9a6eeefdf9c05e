"""Sentences for levels and words of severity, kept apart for training and test.

The sentences of a defect stand in its record in `defects`. Their slots `{adj}` and `{adv}` are
filled with words of the severity, `{part}` with a share of the prompt; see `DEGREES`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

Split = Literal["train", "test"]


@dataclass(frozen=True)
class Phrases:
    """Wordings of one thing for training and test; none is in both."""

    train: tuple[str, ...]
    test: tuple[str, ...]


# Slot to the words for severity 1 to 5, several for each.
DEGREES: Mapping[str, tuple[tuple[str, ...], ...]] = MappingProxyType(
    {
        "adj": (
            ("slight", "faint"),
            ("mild", "moderate"),
            ("clear", "marked"),
            ("heavy", "strong"),
            ("extreme", "massive"),
        ),
        "adv": (
            ("slightly", "faintly"),
            ("mildly", "somewhat"),
            ("clearly", "markedly"),
            ("badly", "heavily"),
            ("extremely", "hopelessly"),
        ),
        "part": (
            ("a little", "a bit"),
            ("some", "a part"),
            ("much", "a large part"),
            ("most", "the greater part"),
            ("all", "the whole"),
        ),
    }
)

# Dimension and level to what is said where no defect is named.
LEVEL_PHRASES: Mapping[str, Mapping[str, Phrases]] = MappingProxyType(
    {
        "technical": {
            "excellent": Phrases(
                (
                    "the picture is sharp and clean",
                    "crisp detail and clean tones",
                    "exposure and detail are flawless",
                    "sharp, clean and well exposed",
                ),
                ("detail is crisp and colours are true", "a pristine picture throughout"),
            ),
            "good": Phrases(
                (
                    "the picture is mostly clean",
                    "detail and exposure hold up well",
                    "a clean picture with good detail",
                    "sharpness and tones are fine",
                ),
                ("the picture quality is solid", "tones and detail look fine"),
            ),
            "fair": Phrases(
                (
                    "the picture is passable, no more",
                    "detail is just acceptable",
                    "picture quality is middling",
                    "an average picture",
                ),
                ("the picture is so-so", "detail and tones are ordinary"),
            ),
            "poor": Phrases(
                (
                    "the picture is weak",
                    "picture quality is low",
                    "detail and tones fall short",
                    "the picture looks cheap",
                ),
                ("the picture disappoints", "the image is of low quality"),
            ),
            "bad": Phrases(
                (
                    "the picture is unusable",
                    "picture quality is very low",
                    "the picture is ruined",
                    "hardly anything of the picture holds up",
                ),
                ("the image is a wreck", "the picture fails throughout"),
            ),
        },
        "motion": {
            "excellent": Phrases(
                (
                    "movement is smooth and natural",
                    "motion flows without a hitch",
                    "the action runs smooth and steady",
                    "camera and subject move flawlessly",
                ),
                ("fluid, natural movement", "motion is perfectly even"),
            ),
            "good": Phrases(
                (
                    "movement is mostly smooth",
                    "motion holds together well",
                    "the action runs evenly",
                    "motion is good and steady",
                ),
                ("movement is largely fluid", "motion is sound"),
            ),
            "fair": Phrases(
                (
                    "movement is passable, no more",
                    "motion is just acceptable",
                    "motion is middling",
                    "an average flow of motion",
                ),
                ("movement is so-so", "the action is ordinary"),
            ),
            "poor": Phrases(
                (
                    "movement is weak",
                    "motion falls short",
                    "the action is poorly carried",
                    "motion quality is low",
                ),
                ("movement disappoints", "the motion is of low quality"),
            ),
            "bad": Phrases(
                (
                    "movement is unusable",
                    "motion is broken",
                    "the motion is ruined",
                    "hardly any movement holds up",
                ),
                ("the action is a wreck", "motion fails throughout"),
            ),
        },
        "semantic": {
            "excellent": Phrases(
                (
                    "the clip shows all that was asked",
                    "everything in the prompt is there",
                    "the prompt is followed to the letter",
                    "subject and action are as asked",
                ),
                ("it shows exactly what was asked", "the whole prompt is on screen"),
            ),
            "good": Phrases(
                (
                    "the clip follows the prompt well",
                    "most of the prompt is there",
                    "subject and setting fit the prompt",
                    "the prompt is largely met",
                ),
                ("the content fits what was asked", "it stays close to the prompt"),
            ),
            "fair": Phrases(
                (
                    "the prompt is met in part",
                    "the clip follows the prompt halfway",
                    "the link to the prompt is loose",
                    "about half of it fits the prompt",
                ),
                ("prompt and clip agree in part", "a loose take on the prompt"),
            ),
            "poor": Phrases(
                (
                    "the clip hardly follows the prompt",
                    "little of the prompt is there",
                    "the prompt is mostly ignored",
                    "it fits the prompt poorly",
                ),
                ("the clip strays far from the prompt", "the prompt is barely met"),
            ),
            "bad": Phrases(
                (
                    "the clip ignores the prompt",
                    "nothing of the prompt is there",
                    "the prompt is not followed at all",
                    "clip and prompt share nothing",
                ),
                ("the prompt is fully ignored", "none of the prompt is met"),
            ),
        },
    }
)

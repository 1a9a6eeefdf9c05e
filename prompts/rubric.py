"""The vocabulary of a judgement: dimensions, scores, level words and defects.

Scores are mean opinion scores (MOS) on 1-5, 5 the best. The five level words are those of ITU-R
BT.500, which Q-Align (arXiv 2312.17090) uses as the tokens that an LLM rates with.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

Dimension = Literal["technical", "motion", "semantic"]
Score = Literal["technical", "motion", "semantic", "overall"]

DIMENSIONS: tuple[Dimension, ...] = ("technical", "motion", "semantic")
SCORES: tuple[Score, ...] = (*DIMENSIONS, "overall")

# What a score is called in the question and in the answer.
SCORE_LABELS: Mapping[Score, str] = MappingProxyType(
    {
        "technical": "Technical quality",
        "motion": "Motion quality",
        "semantic": "Text-video alignment",
        "overall": "Overall quality",
    }
)

# From worst to best: "excellent" counts 5. (AIGVEval's public code counts it 1.)
LEVELS = ("bad", "poor", "fair", "good", "excellent")
LEVEL_WEIGHTS = (1.0, 2.0, 3.0, 4.0, 5.0)
MIN_SCORE, MAX_SCORE = LEVEL_WEIGHTS[0], LEVEL_WEIGHTS[-1]


@dataclass(frozen=True, kw_only=True)
class DefectKind:
    """One thing that can be wrong with a clip.

    Attributes:
        name: Identifier, lower case with underscores.
        dimension: The dimension whose score it lowers.
        description: A few words for a reader who doesn't know the name.
    """

    name: str
    dimension: Dimension
    description: str

    @property
    def words(self) -> str:
        """The name as it's written in an answer: with spaces, which tokenize into plain words."""
        return self.name.replace("_", " ")


_KINDS: dict[Dimension, dict[str, str]] = {
    "technical": {
        "blur": "out of focus or smeared, edges are soft",
        "noise": "grain or random speckle",
        "blocking": "square blocks from strong compression",
        "banding": "steps in what should be a smooth gradient",
        "low_resolution": "fine detail is gone, as if enlarged from a small picture",
        "overexposure": "too bright, detail is lost in the whites",
        "underexposure": "too dark, detail is lost in the blacks",
        "colour_cast": "a tint lies over the whole picture",
        "deformed_object": "hands, faces or things have a wrong shape",
    },
    "motion": {
        "freeze": "the picture holds on one frame, then jumps ahead",
        "dropped_frames": "judder: movement skips because frames are missing",
        "shuffled_frames": "frames come in the wrong order",
        "shake": "the camera trembles",
        "flicker": "brightness pulses from frame to frame",
        "ghosting": "trails or double pictures of what moves",
        "warping": "shapes bend and swim from frame to frame",
        "near_static": "hardly anything moves in the whole clip",
        "low_dynamic": "much less movement than the prompt calls for",
        "unnatural_motion": "movement that breaks physics or anatomy",
        "morphing": "an object turns into another one",
        "vanishing_object": "an object disappears or appears without a cause",
    },
    "semantic": {
        "prompt_mismatch": "the clip shows something else than the prompt",
        "scene_cut": "the clip cuts to another scene",
        "wrong_object": "one thing of the prompt is shown as another thing",
        "missing_object": "one thing of the prompt isn't shown",
        "duplicated_object": "one thing of the prompt is shown more than once",
        "wrong_count": "not as many things as the prompt says",
    },
}

DEFECTS: Mapping[str, DefectKind] = MappingProxyType(
    {
        name: DefectKind(name=name, dimension=dimension, description=description)
        for dimension, kinds in _KINDS.items()
        for name, description in kinds.items()
    }
)


def nearest_level(score: float) -> str:
    """The level word nearest to a score on 1-5; a tie (2.5) goes to the better word."""
    _check(score)
    return LEVELS[min(math.floor(score + 0.5), len(LEVELS)) - 1]


def level_distribution(mos: float) -> tuple[float, ...]:
    """Five probabilities, worst level first, whose expectation under `LEVEL_WEIGHTS` is `mos`.

    Linear between the two neighbouring levels: 3.25 is 0.75 fair and 0.25 good. A one-hot level
    would lose up to half a point of the rating.

    Args:
        mos: Rating on 1-5.

    Raises:
        ValueError: `mos` is not a number within 1-5.
    """
    _check(mos)
    return tuple(max(0.0, 1.0 - abs(mos - weight)) for weight in LEVEL_WEIGHTS)


def _check(score: float) -> None:
    if not MIN_SCORE <= score <= MAX_SCORE:  # also false for NaN
        raise ValueError(f"a score must lie within {MIN_SCORE:g}-{MAX_SCORE:g}, got {score}")

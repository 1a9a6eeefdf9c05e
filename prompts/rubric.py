"""The vocabulary of a judgement: dimensions, scores and level words; for defects see `defects`.

Scores are mean opinion scores (MOS) on 1-5, 5 the best. The five level words are those of ITU-R
BT.500, which Q-Align (arXiv 2312.17090) uses as the tokens that an LLM rates with.
"""

import math
from collections.abc import Mapping
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

"""Which of several clips is the better one, and how sure that is.

A score is taken as a normal distribution around it, independent of those of other clips. Its
standard deviation is (high - low) / 2.563 where the score has an 80 % interval (twice its longer
side, where an end of the scale cuts the other), and else its spread, the model's belief over the
five words. Both are wide: clips of one prompt fail in similar
ways, so what is said here of their order is cautious.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy.special import ndtr, ndtri

from prompts import DIMENSIONS
from prompts.rubric import MAX_SCORE, MIN_SCORE

from ..assessment import SCORE_FIELDS, Assessment, Score

Basis = Literal["80 % intervals", "spread"]
_WIDTH_80 = 2.563  # of the 80 % interval of a normal distribution, in standard deviations
_LEAST = 1e-3  # points; no score is surer than that
_STEPS = 1000  # quantiles of a clip's score that are looked at


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Two clips beside each other, by the scores that both have.

    Attributes:
        differences: Score -> that of the first less that of the second, in points.
        chances: Score -> the chance that the first is better on it, 0 to 1.
        dimension: The one of technical, motion and semantic on which it is surest which is
            better; None where they share none.
        basis: What the chances were computed from.
    """

    differences: dict[str, float]
    chances: dict[str, float]
    dimension: str | None
    basis: Basis


def chances_of_best(scores: Iterable[Score]) -> list[float]:
    """The chance of each score to belong to the best clip; they add up to 1.

    Raises:
        ValueError: when there are none.
    """
    scores = list(scores)
    if not scores:
        raise ValueError("no scores to choose from")
    means = np.array([score.score for score in scores])
    stds = np.array([deviation(score) for score in scores])
    quantiles = ndtri((np.arange(_STEPS) + 0.5) / _STEPS)
    chances = []
    for number, (mean, std) in enumerate(zip(means, stds)):
        # what the clip may truly be worth, and the chance that all others are below it
        below = ndtr((mean + std * quantiles[:, None] - means) / stds)
        chances.append(np.delete(below, number, axis=1).prod(1).mean())
    return (np.array(chances) / np.sum(chances)).tolist()


def compare(first: Assessment, second: Assessment) -> Comparison:
    """Compares two assessments of clips of one prompt.

    Raises:
        ValueError: when one has an error in place of scores.
    """
    for row in (first, second):
        if row.error is not None:
            raise ValueError(f"{row.video} has no scores to compare: {row.error}")
    pairs = {
        name: (one, other)
        for name in SCORE_FIELDS
        if (one := getattr(first, name)) and (other := getattr(second, name))
    }
    chances = {name: _chance_of_better(*pair) for name, pair in pairs.items()}
    shared = [name for name in DIMENSIONS if name in chances]
    return Comparison(
        differences={name: one.score - other.score for name, (one, other) in pairs.items()},
        chances=chances,
        dimension=max(shared, key=lambda name: abs(chances[name] - 0.5), default=None),
        basis=basis_of([score for pair in pairs.values() for score in pair]),
    )


def better_on(found: Comparison, name: str) -> tuple[int, float]:
    """Which of the two is better on a score, 0 or 1, and the chance that it is, at least a half."""
    chance = found.chances[name]
    return (0, chance) if chance >= 0.5 else (1, 1 - chance)


def verdict(names: Sequence[str], found: Comparison) -> str:
    """What a comparison comes to, in a sentence with the names of the two clips."""
    clip, chance = better_on(found, "overall")
    which = f"{names[clip]} is better, with" if percent(chance) != "50 %" else "neither is better:"
    said = f"{which} a chance of {percent(chance)} by the {found.basis} of the scores"
    if found.dimension is not None:
        clip, surest = better_on(found, found.dimension)
        if percent(surest) == "50 %":
            return said
        said += (
            f"; it is surest on {found.dimension}, where {names[clip]} is better with "
            f"{percent(surest)}"
        )
    return said


def percent(chance: float) -> str:
    """A chance 0..1 for people, which is never certain."""
    return "<1 %" if chance < 0.01 else ">99 %" if chance > 0.99 else f"{100 * chance:.0f} %"


def deviation(score: Score) -> float:
    """Standard deviation of a score in points, see the module."""
    interval = _interval(score)
    if interval is None:
        return max(score.std, _LEAST)
    low, high = interval
    width = high - low
    if low <= MIN_SCORE or high >= MAX_SCORE:  # the scale ends there, the error doesn't
        width = 2 * max(score.score - low, high - score.score)
    return max(width / _WIDTH_80, _LEAST)


def basis_of(scores: Sequence[Score]) -> Basis:
    """What the deviations of these scores come from."""
    return "80 % intervals" if all(map(_interval, scores)) else "spread"


def _interval(score: Score) -> tuple[float, float] | None:
    return None if score.low is None or score.high is None else (score.low, score.high)


def _chance_of_better(one: Score, other: Score) -> float:
    spread = math.hypot(deviation(one), deviation(other))
    return float(ndtr((one.score - other.score) / spread))

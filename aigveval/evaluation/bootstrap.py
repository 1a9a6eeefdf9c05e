"""Bootstrap intervals for many figures at once: each sample is drawn once and measured whole.

Whole units are drawn with replacement. A unit is a clip, or all clips of a prompt where prompts
repeat, because clips of one prompt depend on each other and would make the intervals too narrow.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..metrics import Estimate

Floats = NDArray[np.float64]
Rows = NDArray[np.int64]
Measures = dict[str, float]  # name of a figure -> value; an undefined figure is left out
Progress = Callable[[], None]  # called after each sample

DEFINED_SHARE = 0.5  # of the samples, below which a figure gets no interval


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How intervals are made.

    Args:
        draws: bootstrap samples; 0 gives no intervals.
        seed: the same seed gives the same samples, so that two models are compared on the same.
        level: coverage of the intervals, in (0, 1).
    """

    draws: int = 1000
    seed: int = 0
    level: float = 0.95

    def __post_init__(self) -> None:
        if self.draws < 0 or not 0.0 < self.level < 1.0:
            raise ValueError(
                f"needs draws >= 0 and 0 < level < 1, got draws={self.draws}, level={self.level}"
            )


def number(labels: Sequence[Any]) -> tuple[NDArray[np.int64], list[Any]]:
    """Gives each label its number in order of first appearance, and the labels by number."""
    numbers: dict[Any, int] = {}
    coded = [numbers.setdefault(label, len(numbers)) for label in labels]
    return np.asarray(coded, dtype=np.int64), list(numbers)


def samples(units: NDArray[np.int64], sampling: Sampling) -> Iterator[Rows]:
    """Yields the row numbers of each sample.

    Args:
        units: (n,) number of each row's unit, 0 to u - 1.
        sampling: how many samples, from which seed.
    """
    order = np.argsort(units, kind="stable")
    sizes = np.bincount(units)
    starts = np.cumsum(sizes) - sizes
    random = np.random.default_rng(sampling.seed)
    for _ in range(sampling.draws):
        drawn = random.integers(0, len(sizes), size=len(sizes))
        lengths = sizes[drawn]
        ends = np.cumsum(lengths)
        # position inside the unit = position in the sample - where the unit begins there
        offsets = np.repeat(starts[drawn] - (ends - lengths), lengths)
        yield order[offsets + np.arange(ends[-1])]


def bootstrap(
    measure: Callable[[Rows], Measures], units: NDArray[np.int64], sampling: Sampling,
    names: Sequence[str], *, progress: Progress | None = None,
) -> dict[str, Floats]:
    """Measures every sample; gives (draws,) values for each name, NaN where undefined."""
    values = np.full((sampling.draws, len(names)), np.nan)
    columns = {name: column for column, name in enumerate(names)}
    for row, drawn in enumerate(samples(units, sampling)):
        for name, value in measure(drawn).items():
            if name in columns:
                values[row, columns[name]] = value
        if progress is not None:
            progress()
    return {name: values[:, column] for name, column in columns.items()}


def estimate(value: float | None, drawn: Floats | None, sampling: Sampling) -> Estimate:
    """The percentile interval of a figure, given its values on the samples."""
    if value is None or drawn is None or not sampling.draws:
        return Estimate(value=value)
    defined = drawn[np.isfinite(drawn)]
    if len(defined) < DEFINED_SHARE * sampling.draws:
        missing = sampling.draws - len(defined)
        return Estimate(
            value=value, reason=f"undefined on {missing} of {sampling.draws} bootstrap samples"
        )
    tail = (1.0 - sampling.level) / 2.0
    low, high = np.quantile(defined, [tail, 1.0 - tail])
    return Estimate(value=value, low=float(low), high=float(high))


def p_value(differences: Floats) -> float | None:
    """Two-sided bootstrap p-value of the hypothesis that the difference is 0.

    Twice the share of samples on the rarer side of 0, a sample at 0 counting on both, with one
    added to count and total so that it is never 0 (Davison and Hinkley 1997, section 4.2).

    Args:
        differences: (draws,) of two figures measured on the same samples; NaN is left out.
    """
    defined = differences[np.isfinite(differences)]
    if not len(defined) or len(defined) < DEFINED_SHARE * len(differences):
        return None
    rarer = min(int((defined <= 0).sum()), int((defined >= 0).sum()))
    return min(1.0, 2.0 * (rarer + 1) / (len(defined) + 1))

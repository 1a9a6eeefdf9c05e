"""Agreement between predicted scores and human ratings, as pure functions on 1-d arrays.

Every function raises ``ValueError`` where its value is not defined (too few values, a constant
input, NaN or infinity) instead of returning NaN, so that a broken run can't look like a bad one.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = [
    "Estimate",
    "LISTED_CLIPS",
    "Logistic4",
    "MOST_PAIRS",
    "bootstrap_interval",
    "fit_logistic4",
    "krocc",
    "main_score",
    "pair_accuracy",
    "plcc",
    "rmse",
    "srocc",
    "within_group_srocc",
]

Floats = NDArray[np.float64]
LISTED_CLIPS = 1000  # whose pairs are all listed
MOST_PAIRS = LISTED_CLIPS * (LISTED_CLIPS - 1) // 2  # of more clips, this many drawn at random
_FEW = 200  # values, up to which all their pairs fit into a small table


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A figure with its interval.

    Args:
        value: the figure, on all rows; None where it is not defined.
        low, high: ends of the interval; None where there is none.
        reason: one line, why there is no value or no interval.
    """

    value: float | None
    low: float | None = None
    high: float | None = None
    reason: str | None = None


def srocc(predictions: ArrayLike, targets: ArrayLike) -> float:
    """Spearman's rank correlation (ties share their mean rank), in [-1, 1].

    Args:
        predictions: (n,) predicted scores.
        targets: (n,) human scores.

    Raises:
        ValueError: fewer than two values, different lengths, a constant input, NaN or infinity.
    """
    x, y = _checked("srocc", predictions, targets)
    return _pearson(_ranks(x), _ranks(y))


def plcc(predictions: ArrayLike, targets: ArrayLike) -> float:
    """Pearson's linear correlation, in [-1, 1]; arguments and errors as in `srocc`."""
    return _pearson(*_checked("plcc", predictions, targets))


def krocc(predictions: ArrayLike, targets: ArrayLike) -> float:
    """Kendall's rank correlation tau-b, in [-1, 1]; arguments and errors as in `srocc`."""
    from scipy.stats import kendalltau

    x, y = _checked("krocc", predictions, targets)
    if len(x) <= _FEW:  # as SciPy, without its calls' fixed cost, which a bootstrap would feel
        dx, dy = np.sign(x[:, None] - x), np.sign(y[:, None] - y)
        return float((dx * dy).sum() / np.sqrt((dx * dx).sum() * (dy * dy).sum()))
    # the exact method would only spend time on a p-value that is not used
    return float(kendalltau(x, y, method="asymptotic").statistic)


def main_score(predictions: ArrayLike, targets: ArrayLike) -> float:
    """The main score of NTIRE's quality assessment challenges, (SROCC + PLCC) / 2, in [-1, 1].

    PLCC is the raw one. Arguments and errors as in `srocc`.
    """
    return (srocc(predictions, targets) + plcc(predictions, targets)) / 2.0


def rmse(predictions: ArrayLike, targets: ArrayLike) -> float:
    """Root mean squared error, in the unit of the scores; defined from one value on.

    Raises:
        ValueError: no value, different lengths, NaN or infinity.
    """
    x, y = _checked("rmse", predictions, targets, at_least=1, varying=False)
    return float(np.sqrt(np.mean((x - y) ** 2)))


@dataclass(frozen=True, kw_only=True)
class Logistic4:
    """The monotonic map ``low + (high - low) / (1 + exp(-(x - centre) / scale))``, scale > 0."""

    high: float
    low: float
    centre: float
    scale: float

    def __call__(self, predictions: ArrayLike) -> Floats:
        """Map (n,) predictions onto the scale of the human scores."""
        z = (np.asarray(predictions, dtype=np.float64) - self.centre) / self.scale
        # tanh form of the same curve: it can't overflow
        return self.low + (self.high - self.low) * 0.5 * (1.0 + np.tanh(0.5 * z))


def fit_logistic4(
    predictions: ArrayLike, targets: ArrayLike, *, start: Logistic4 | None = None
) -> Logistic4:
    """Least-squares four-parameter logistic from predictions to human scores.

    It is the custom of the Video Quality Experts Group (VQEG FR-TV Phase II report, 2003) to apply
    it before PLCC and RMSE: ``plcc(fit(x), y)`` with ``fit = fit_logistic4(x, y)``. Report the raw
    values beside the fitted ones, because the fit has seen the targets.

    Args:
        predictions: (n,) predicted scores.
        targets: (n,) human scores.
        start: where the search begins, e.g. the fit of similar data. Otherwise it begins with the
            range of the targets, falling where the correlation is negative.

    Raises:
        ValueError: fewer than five values, a constant input, NaN, or a fit that does not converge.
    """
    from scipy.optimize import OptimizeWarning, curve_fit

    x, y = _checked("fit_logistic4", predictions, targets, at_least=5)
    centre, spread = float(x.mean()), float(x.std())
    z = (x - centre) / spread  # well-conditioned whatever the unit of the predictions

    def curve(z: Floats, high: float, low: float, middle: float, width: float) -> Floats:
        return low + (high - low) * 0.5 * (1.0 + np.tanh(0.5 * (z - middle) / np.abs(width)))

    if start is not None:
        first = (start.high, start.low, (start.centre - centre) / spread, start.scale / spread)
    else:
        ends = (y.max(), y.min()) if x @ (y - y.mean()) >= 0 else (y.min(), y.max())
        first = (*ends, 0.0, 0.25)
    try:
        with warnings.catch_warnings():
            # a straight relation leaves the curve's ends open; the curve itself is still the best
            warnings.simplefilter("ignore", OptimizeWarning)
            (high, low, middle, width), _ = curve_fit(curve, z, y, p0=first, maxfev=20_000)
    except RuntimeError as error:
        raise ValueError(f"fit_logistic4: the fit of {len(x)} values did not converge") from error
    return Logistic4(
        high=float(high), low=float(low), centre=centre + spread * float(middle),
        scale=max(spread * abs(float(width)), np.finfo(np.float64).tiny),
    )


def within_group_srocc(
    predictions: ArrayLike, targets: ArrayLike, groups: Sequence[Any] | NDArray[Any],
    *, min_size: int = 3,
) -> float:
    """Mean of the SROCCs inside each group, e.g. each generator: what is left of the agreement when
    the group itself tells nothing.

    Groups with fewer than `min_size` rows or with constant targets have no SROCC and are left out;
    constant predictions in a group count as 0, because they order nothing.

    Args:
        predictions: (n,) predicted scores.
        targets: (n,) human scores.
        groups: (n,) labels.
        min_size: smallest group that counts, at least 2.

    Raises:
        ValueError: no group counts, different lengths, NaN or infinity.
    """
    x, y = _checked("within_group_srocc", predictions, targets, at_least=1, varying=False)
    values = []
    for rows in _group_rows("within_group_srocc", groups, len(x)):
        if len(rows) < max(min_size, 2) or np.ptp(y[rows]) == 0:
            continue
        values.append(0.0 if np.ptp(x[rows]) == 0 else srocc(x[rows], y[rows]))
    if not values:
        raise ValueError(
            f"within_group_srocc: no group has {max(min_size, 2)} rows with different targets"
        )
    return float(np.mean(values))


def pair_accuracy(
    predictions: ArrayLike, targets: ArrayLike, groups: Sequence[Any] | NDArray[Any] | None = None,
    *, min_difference: float = 0.5,
) -> float:
    """Share of pairs whose order is predicted right, in [0, 1]; a predicted tie counts as half.

    Args:
        predictions: (n,) predicted scores.
        targets: (n,) human scores.
        groups: (n,) labels; only pairs of the same group count (e.g. the same prompt). None: all.
        min_difference: only pairs whose targets differ by more than this count.

    Raises:
        ValueError: no pair counts, different lengths, NaN or infinity.
    """
    x, y = _checked("pair_accuracy", predictions, targets, at_least=1, varying=False)
    labels = groups if groups is not None else np.zeros(len(x), dtype=np.int64)
    right, pairs = 0.0, 0
    for rows in _group_rows("pair_accuracy", labels, len(x)):
        step = max(1, 10_000_000 // len(rows))  # bounds the memory of a large group
        for some in (rows[i:i + step] for i in range(0, len(rows), step)):
            dx = x[some][:, None] - x[rows][None, :]
            dy = y[some][:, None] - y[rows][None, :]
            counted = dy > min_difference  # each unordered pair once: the better clip comes first
            pairs += int(counted.sum())
            right += float((dx[counted] > 0).sum() + 0.5 * (dx[counted] == 0).sum())
    if pairs == 0:
        raise ValueError(f"pair_accuracy: no pair differs by more than {min_difference}")
    return right / pairs


def bootstrap_interval(
    fn: Callable[..., float], *arrays: ArrayLike,
    groups: Sequence[Any] | NDArray[Any] | None = None,
    n: int = 1000, seed: int = 0, level: float = 0.95,
) -> tuple[float, float]:
    """Percentile bootstrap interval of ``fn(*arrays)``.

    Rows are drawn with replacement; with `groups`, whole groups are drawn, which is the honest
    choice where rows of a group (clips of a prompt, versions of a source) depend on each other.
    Draws on which `fn` is not defined (it raises ValueError) are left out.

    Args:
        fn: e.g. `srocc`, called with one resampled array per array given.
        arrays: predictions, targets and whatever else `fn` takes by position, all of length r.
        groups: (r,) labels.
        n: number of draws.
        seed: the same seed gives the same interval.
        level: coverage, in (0, 1).

    Returns:
        (low, high).

    Raises:
        ValueError: bad arguments, or `fn` is undefined on more than half of the draws.
    """
    if not arrays or not 0.0 < level < 1.0 or n < 1:
        raise ValueError(
            f"bootstrap_interval: needs arrays, n >= 1 and 0 < level < 1; got {len(arrays)} "
            f"arrays, n={n}, level={level}"
        )
    data = [np.asarray(array) for array in arrays]
    size = len(data[0])
    if size == 0 or any(len(array) != size for array in data):
        raise ValueError(f"bootstrap_interval: lengths {[len(a) for a in data]} must be equal, > 0")
    labels = groups if groups is not None else np.arange(size)
    blocks = _group_rows("bootstrap_interval", labels, size)
    random = np.random.default_rng(seed)
    values = []
    for _ in range(n):
        drawn = random.integers(0, len(blocks), size=len(blocks))
        rows = np.concatenate([blocks[i] for i in drawn])
        try:
            values.append(fn(*(array[rows] for array in data)))
        except ValueError:
            continue
    if len(values) * 2 < n:
        raise ValueError(
            f"bootstrap_interval: {getattr(fn, '__name__', 'fn')} is undefined on "
            f"{n - len(values)} of {n} draws from {size} rows in {len(blocks)} blocks"
        )
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def _checked(
    name: str, predictions: ArrayLike, targets: ArrayLike, *, at_least: int = 2,
    varying: bool = True,
) -> tuple[Floats, Floats]:
    x = np.asarray(predictions, dtype=np.float64)
    y = np.asarray(targets, dtype=np.float64)
    if x.ndim != 1 or x.shape != y.shape:
        raise ValueError(
            f"{name}: predictions and targets must be 1-d and equally long, got shapes "
            f"{x.shape} and {y.shape}"
        )
    if len(x) < at_least:
        raise ValueError(f"{name}: needs at least {at_least} values, got {len(x)}")
    for label, values in (("predictions", x), ("targets", y)):
        bad = int((~np.isfinite(values)).sum())
        if bad:
            raise ValueError(f"{name}: {bad} of {len(values)} {label} are NaN or infinite")
        if varying and np.ptp(values) == 0:
            raise ValueError(f"{name}: undefined, all {len(values)} {label} are {values[0]:g}")
    return x, y


def _pearson(x: Floats, y: Floats) -> float:
    # dividing by the largest deviation first keeps tiny and huge units from under- or overflowing
    x = x - x.mean()
    y = y - y.mean()
    x, y = x / np.abs(x).max(), y / np.abs(y).max()
    r = float(x @ y / np.sqrt((x @ x) * (y @ y)))
    return min(1.0, max(-1.0, r))


def _ranks(values: Floats) -> Floats:
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return (last - (counts - 1) / 2.0)[inverse]


def _group_rows(
    name: str, groups: Sequence[Any] | NDArray[Any], size: int
) -> list[NDArray[np.int64]]:
    labels = [label.item() if isinstance(label, np.generic) else label for label in groups]
    if len(labels) != size:
        raise ValueError(f"{name}: {len(labels)} groups for {size} rows")
    rows: dict[Any, list[int]] = {}
    for row, label in enumerate(labels):
        rows.setdefault(label, []).append(row)
    return [np.asarray(members, dtype=np.int64) for members in rows.values()]

"""Agreement between predicted scores and human ratings, as pure functions on 1-d arrays.

Every function of two lists raises ``ValueError`` where its value is not defined (too few values, a
constant input, NaN or infinity) instead of returning NaN, so that a broken run cannot look like a
bad one. A function whose name begins with ``sampled_`` is the same statistic on many bootstrap
samples at once, NaN on samples where it is not defined. `METRICS` has the statistics by name: a new
one is a function and an entry there, and is then in every table.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
LISTED_CLIPS = 1000  # whose pairs are all listed
MOST_PAIRS = LISTED_CLIPS * (LISTED_CLIPS - 1) // 2  # of more clips, this many drawn at random
_FEWEST_FITTED = 5  # values: the logistic has four parameters
_MOST_STEPS = 200  # of the search for a sample's logistic
_SAMPLED_AT_ONCE = 1_000_000  # clips of bootstrap samples, which bounds the memory


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


# ---- of two lists -------------------------------------------------------------------------------


def srocc(predictions: ArrayLike, targets: ArrayLike) -> float:
    """Spearman's rank correlation (ties share their mean rank), in [-1, 1].

    Args:
        predictions: (n,) predicted scores.
        targets: (n,) human scores.

    Raises:
        ValueError: fewer than two values, different lengths, a constant input, NaN or infinity.
    """
    return _of_all(sampled_srocc, *_checked("srocc", predictions, targets))


def plcc(predictions: ArrayLike, targets: ArrayLike) -> float:
    """Pearson's linear correlation, in [-1, 1]; arguments and errors as in `srocc`."""
    return _of_all(sampled_plcc, *_checked("plcc", predictions, targets))


def krocc(predictions: ArrayLike, targets: ArrayLike) -> float:
    """Kendall's rank correlation tau-b, in [-1, 1]; arguments and errors as in `srocc`."""
    return _of_all(sampled_krocc, *_checked("krocc", predictions, targets))


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
    return _of_all(sampled_rmse, x, y)


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
        # tanh form of the same curve: it cannot overflow
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

    x, y = _checked("fit_logistic4", predictions, targets, at_least=_FEWEST_FITTED)
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
        high=float(high),
        low=float(low),
        centre=centre + spread * float(middle),
        scale=max(spread * abs(float(width)), np.finfo(np.float64).tiny),
    )


def bootstrap_interval(
    fn: Callable[..., float],
    *arrays: ArrayLike,
    groups: Sequence[Any] | NDArray[Any] | None = None,
    n: int = 1000,
    seed: int = 0,
    level: float = 0.95,
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
    units = np.arange(size)
    if groups is not None:
        if len(groups) != size:
            raise ValueError(f"bootstrap_interval: {len(groups)} groups for {size} rows")
        units, _ = number([g.item() if isinstance(g, np.generic) else g for g in groups])
    values = []
    for times in bootstrap_samples(units, draws=n, seed=seed):
        for rows in map(np.repeat, [np.arange(size)] * len(times), times.astype(np.int64)):
            try:
                values.append(fn(*(array[rows] for array in data)))
            except ValueError:
                continue
    if len(values) * 2 < n:
        raise ValueError(
            f"bootstrap_interval: {getattr(fn, '__name__', 'fn')} is undefined on "
            f"{n - len(values)} of {n} draws from {size} rows in {units.max() + 1} blocks"
        )
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


# ---- on bootstrap samples -----------------------------------------------------------------------
# A sample is `times`: how often it has each clip. x and y are (n,), the same clips in all samples,
# or (b, n) where a sample has values of its own, such as the mean of a generator's clips.


def bootstrap_samples(units: NDArray[np.int64], *, draws: int, seed: int = 0) -> Iterator[Floats]:
    """Draws whole units with replacement, as many as there are.

    Args:
        units: (n,) number of each row's unit, 0 to u - 1. A unit is a clip, or all clips of a
            prompt, which depend on each other and would make intervals too narrow one by one.
        draws: how many samples.
        seed: the same seed gives the same samples.

    Yields:
        (b, n) how often each row is in each of b samples; as many arrays as `draws` takes.
    """
    count = int(units.max()) + 1
    random = np.random.default_rng(seed)
    most = max(1, _SAMPLED_AT_ONCE // len(units))
    for start in range(0, draws, most):
        drawn = random.integers(0, count, size=(min(most, draws - start), count))
        drawn += np.arange(len(drawn))[:, None] * count
        times = np.bincount(drawn.ravel(), minlength=drawn.size).reshape(drawn.shape)
        yield times[:, units].astype(np.float64)


def sampled_srocc(x: Floats, y: Floats, times: Floats) -> Floats:
    """SROCC of each sample, (b,)."""
    return sampled_plcc(_ranks(x, times), _ranks(y, times), times)


def sampled_plcc(x: Floats, y: Floats, times: Floats) -> Floats:
    """PLCC of each sample, (b,)."""
    defined = _varies(x, times) & _varies(y, times)
    x, y = _centred(x, times), _centred(y, times)
    with np.errstate(invalid="ignore", divide="ignore"):
        r = _sum(times, x, y) / np.sqrt(_sum(times, x, x) * _sum(times, y, y))
    return np.where(defined, np.clip(r, -1.0, 1.0), np.nan)


def sampled_krocc(x: Floats, y: Floats, times: Floats) -> Floats:
    """KROCC (tau-b) of each sample, (b,)."""
    if x.shape[-1] > (LISTED_CLIPS if x.ndim == 1 else 100):  # a table of pairs would be too large
        return np.array(list(map(_krocc, *np.broadcast_arrays(x, y, times))))
    dx = np.sign(x[..., :, None] - x[..., None, :])
    dy = np.sign(y[..., :, None] - y[..., None, :])

    def pairs(values: Floats) -> Floats:
        side = times @ values if values.ndim == 2 else np.einsum("bi,bij->bj", times, values)
        return np.asarray((side * times).sum(-1))

    with np.errstate(invalid="ignore", divide="ignore"):
        return pairs(dx * dy) / np.sqrt(pairs(dx * dx) * pairs(dy * dy))


def _krocc(x: Floats, y: Floats, times: Floats) -> float:
    from scipy.stats import kendalltau

    rows = np.repeat(np.arange(len(x)), times.astype(np.int64))
    # the exact method would only spend time on a p-value that is not used
    return float(kendalltau(x[rows], y[rows], method="asymptotic").statistic)


def sampled_main_score(x: Floats, y: Floats, times: Floats) -> Floats:
    """Main score of each sample, (b,)."""
    return (sampled_srocc(x, y, times) + sampled_plcc(x, y, times)) / 2.0


def sampled_rmse(x: Floats, y: Floats, times: Floats) -> Floats:
    """RMSE of each sample, (b,)."""
    with np.errstate(invalid="ignore"):
        return np.sqrt(_sum(times, (x - y) ** 2) / times.sum(-1))


def sampled_logistic4(x: Floats, y: Floats, times: Floats, *, start: Logistic4) -> Floats:
    """The fitted logistic of each sample at all x, (b, n); NaN where it is not defined.

    For a centre and a scale, the best ends of the curve follow by linear regression, so that these
    two alone are searched (Golub and Pereyra 1973, with Kaufman's derivative), by Levenberg and
    Marquardt's method on all samples at once.

    Args:
        x, y: (n,) predictions and human scores.
        times: (b, n).
        start: where the search begins, the fit of all clips.
    """
    from scipy.special import expit

    middle, spread = float(x.mean()), float(x.std())
    z = (x - middle) / spread
    # The curve is that of offset + slope * z. A sample's search begins at the fit of all clips, and
    # also nearer the middle: from far out on one side it would not come to the other side.
    all_clips = np.array([middle - start.centre, spread]) / start.scale
    at = np.repeat([all_clips, np.clip(all_clips, [-2.0, 0.5], [2.0, 20.0])], len(times), axis=0)
    twice = np.tile(times, (2, 1))

    def curve(at: Floats, t: Floats) -> tuple[Floats, Floats, Floats, Floats]:
        """Position on the curve, its regression on y, the rest of y, and the squares of that."""
        s = expit(at[:, :1] + at[:, 1:] * z)
        flat = _minus_mean(s, t)
        left = _minus_mean(y, t)
        height = (_sum(t, flat, left) / np.maximum(_sum(t, flat, flat), 1e-300))[:, None]
        left = left - height * flat
        return s, height, left, _sum(t, left, left)

    damping, open_ = np.full(len(at), 1e-2), np.arange(len(at))
    for _ in range(_MOST_STEPS):  # ends where an undamped one lowers the error by less than 1e-9
        t = twice[open_]
        s, height, left, error = curve(at[open_], t)
        bend, flat = s * (1.0 - s), _minus_mean(s, t)
        size = np.maximum(_sum(t, flat, flat), 1e-300)
        d = []
        for column in (height * bend, height * bend * z):
            column = _minus_mean(column, t)
            d.append(column - flat * (_sum(t, flat, column) / size)[:, None])
        a, b, c = _sum(t, d[0], d[0]), _sum(t, d[0], d[1]), _sum(t, d[1], d[1])
        down = _sum(t, d[0], left), _sum(t, d[1], left)
        more = 1.0 + damping[open_]
        whole = np.maximum(a * c * more**2 - b * b, 1e-300)
        step = np.stack(
            [
                (c * more * down[0] - b * down[1]) / whole,
                (a * more * down[1] - b * down[0]) / whole,
            ],
            axis=1,
        )
        most = np.maximum([2.0, 0.0], 0.5 * np.abs(at[open_]))
        tried = at[open_] + np.clip(step, -most, most)
        tried[:, 1] = np.clip(tried[:, 1], 0.05, 1e3)
        far = 15.0 + tried[:, 1] * np.abs(z).max()
        tried[:, 0] = np.clip(tried[:, 0], -far, far)
        fallen = error - curve(tried, t)[3]
        better = fallen > 0.0
        at[open_[better]] = tried[better]
        damping[open_] *= np.where(better, 0.2, 5.0)
        small = better & (fallen < 1e-9 * error) & (damping[open_] < 1e-2)
        open_ = open_[~(small | (damping[open_] > 1e8) | (error <= 1e-24))]
        if not len(open_):
            break
    s, height, _, error = curve(at, twice)
    best = np.arange(len(times)) + len(times) * np.argmin(error.reshape(2, -1), axis=0)
    s, height = s[best], height[best]
    mean = y - _minus_mean(y, times)
    defined = (times.sum(-1) >= _FEWEST_FITTED) & _varies(x, times) & _varies(y, times)
    return np.where(defined[:, None], mean + height * _minus_mean(s, times), np.nan)


@dataclass(frozen=True, kw_only=True)
class Metric:
    """A statistic of agreement.

    Args:
        label: its name in tables.
        sampled: function of x, y and times, see above.
        same_scale: whether it has a meaning only where predictions are on the scale of the ratings;
            it is then defined from one clip on, the others from three on.
    """

    label: str
    sampled: Callable[[Floats, Floats, Floats], Floats]
    same_scale: bool = False


METRICS: dict[str, Metric] = {
    "srocc": Metric(label="SROCC", sampled=sampled_srocc),
    "plcc": Metric(label="PLCC", sampled=sampled_plcc),
    "krocc": Metric(label="KROCC", sampled=sampled_krocc),
    "main": Metric(label="(SROCC + PLCC) / 2", sampled=sampled_main_score),
    "rmse": Metric(label="RMSE", sampled=sampled_rmse, same_scale=True),
}


# ---- parts --------------------------------------------------------------------------------------


def number(labels: Sequence[Any]) -> tuple[NDArray[np.int64], list[Any]]:
    """Gives each label its number in order of first appearance, and the labels by number."""
    numbers: dict[Any, int] = {}
    coded = [numbers.setdefault(label, len(numbers)) for label in labels]
    return np.asarray(coded, dtype=np.int64), list(numbers)


def _checked(
    name: str,
    predictions: ArrayLike,
    targets: ArrayLike,
    *,
    at_least: int = 2,
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


def _of_all(sampled: Callable[[Floats, Floats, Floats], Floats], x: Floats, y: Floats) -> float:
    return float(sampled(x, y, np.ones((1, len(x))))[0])


def _sum(times: Floats, *factors: Floats) -> Floats:
    """(b,) sum of the product over a sample's clips."""
    product = times
    for factor in factors:
        product = product * factor
    return np.asarray(product.sum(-1))


def _minus_mean(values: Floats, times: Floats) -> Floats:
    """(b, n) values less their mean in the sample."""
    with np.errstate(invalid="ignore"):
        return values - (_sum(times, values) / times.sum(-1))[:, None]


def _centred(values: Floats, times: Floats) -> Floats:
    """`_minus_mean`, at most 1 large: tiny and huge units neither under- nor overflow."""
    values = np.where(times > 0, _minus_mean(values, times), 0.0)
    largest = np.abs(values).max(-1, keepdims=True, initial=0.0)
    return values / np.where(largest > 0, largest, 1.0)


def _varies(values: Floats, times: Floats) -> NDArray[np.bool_]:
    """(b,) whether a sample has different values."""
    there = times > 0
    highest = np.where(there, values, -np.inf).max(-1, initial=-np.inf)
    return np.asarray(np.where(there, values, np.inf).min(-1, initial=np.inf) < highest)


def _ranks(values: Floats, times: Floats) -> Floats:
    """(b, n) mean ranks in each sample."""
    if values.ndim == 2:  # each once, or not at all
        from scipy.stats import rankdata

        return np.asarray(rankdata(np.where(times > 0, values, np.inf), axis=-1))
    distinct, inverse = np.unique(values, return_inverse=True)
    order = np.argsort(inverse, kind="stable")
    starts = np.searchsorted(inverse[order], np.arange(len(distinct)))
    counts = np.add.reduceat(times[:, order], starts, axis=1)
    return np.asarray((np.cumsum(counts, axis=1) - (counts - 1.0) / 2.0)[:, inverse])

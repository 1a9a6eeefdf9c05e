"""How well one score agrees with people: its figures with bootstrap intervals, from arrays.

These are the figures of `aigveval evaluate`, of the README's tables and of `examples`: pooled,
inside and between generators, inside prompts, and of one rater against the mean of the others. Each
bootstrap sample is drawn once and measured whole, and all samples are measured together.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from ..metrics import (
    METRICS,
    Estimate,
    Logistic4,
    bootstrap_samples,
    fit_logistic4,
    sampled_logistic4,
    sampled_plcc,
    sampled_rmse,
)
from .pairs import Floats, Pairs, Rows, rows_of, shares

Measures = dict[str, Floats]  # name of a figure -> its value on each sample, NaN where undefined
Progress = Callable[[int], None]  # called with how many samples are done since the last call

FEWEST = 5  # clips below which a score is not evaluated: the logistic has four parameters
SMALLEST_GROUP = 3  # clips of a generator or prompt that get correlations of their own
DEFINED_SHARE = 0.5  # of the samples, below which a figure gets no interval
FITTED = ("plcc_fitted", "rmse_fitted")
PAIRWISE = ("pair_accuracy", "pair_accuracy_ties")
FIGURES = (*METRICS, *FITTED, *PAIRWISE)
# Figures of parts, beside those of all clips; these are compared between predictors too.
_PARTS = (
    ("within_generators", ("srocc",)),
    ("between_generators", FIGURES),
    ("within_prompts", ("srocc", *PAIRWISE)),
)


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


@dataclass(frozen=True, kw_only=True)
class Columns:
    """What is known of n clips, for one score.

    Args:
        predictions: (n,) predicted scores.
        ratings: (n,) human scores.
        generators: (n,) numbers, or None where generators are not known.
        prompts: (n,) numbers, or None where no prompt is known.
        raters: (n, r) scores by rater, NaN where one did not rate; None without raters.
        comparable: whether predictions and ratings are on one scale, so that RMSE means something.
        other: (n,) scores of a second predictor to compare with, or None.
        other_comparable: `comparable` for the second one.
    """

    predictions: Floats
    ratings: Floats
    generators: Rows | None = None
    prompts: Rows | None = None
    raters: Floats | None = None
    comparable: bool = True
    other: Floats | None = None
    other_comparable: bool = True


@dataclass(frozen=True, kw_only=True)
class Group:
    """What a generator's or a prompt's clips come to.

    Args:
        number: of the generator or prompt.
        clips: how many it has.
        prediction, rating: means over its clips; without interval for a prompt.
        figures: by name; correlations of few clips mean little, see the intervals.
    """

    number: int
    clips: int
    prediction: Estimate
    rating: Estimate
    figures: dict[str, Estimate] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Difference:
    """A figure of two predictors: first minus second, and whether that could be chance."""

    first: float
    second: float
    difference: Estimate
    p_value: float | None


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """Figures of one score.

    Args:
        clips: how many have both a prediction and a rating.
        figures: of all clips together, by name.
        logistic: the fitted curve; None where there is no fit.
        tie_threshold: predictions that differ by no more than this are taken for tied, in
            `pair_accuracy_ties`; below 0, none is.
        parts: `within_generators`: mean SROCC inside a generator; `between_generators`: figures of
            the generators' means (the model level); `within_prompts`: mean SROCC inside a prompt,
            and accuracy on pairs of one prompt.
        generators, prompts: each of them; empty where none is known.
        human: one rater against the mean of the others, averaged over raters: figures by name,
            those of parts as `part/name`. Empty without raters.
        beside_human: the predictor against the same means of the others.
        comparison: figures beside those of the second predictor, named in the same way.
    """

    clips: int
    figures: dict[str, Estimate]
    logistic: Logistic4 | None = None
    tie_threshold: float | None = None
    parts: dict[str, dict[str, Estimate]] = field(default_factory=dict)
    generators: list[Group] = field(default_factory=list)
    prompts: list[Group] = field(default_factory=list)
    human: dict[str, Estimate] = field(default_factory=dict)
    beside_human: dict[str, Estimate] = field(default_factory=dict)
    comparison: dict[str, Difference] = field(default_factory=dict)


def check(columns: Columns) -> str | None:
    """Why the score cannot be evaluated at all, as one line; None where it can."""
    count = len(columns.ratings)
    if count < FEWEST:
        clips = "1 clip has" if count == 1 else f"{count} clips have"
        return f"{clips} both a prediction and a rating, at least {FEWEST} are needed"
    for label, values in (
        ("predictions", columns.predictions),
        ("ratings", columns.ratings),
        ("predictions to compare with", columns.other),
    ):
        if values is not None and np.ptp(values) == 0:
            return f"all {count} {label} are {values[0]:g}, which orders nothing"
    return None


def agree(
    columns: Columns,
    *,
    units: Rows,
    sampling: Sampling,
    margin: float,
    progress: Progress | None = None,
) -> Agreement:
    """Computes all figures and their intervals.

    Args:
        columns: the clips; a figure that is not defined on them is left out.
        units: (n,) number of each clip's unit of resampling, see `metrics.bootstrap_samples`.
        sampling: how intervals are made.
        margin: ratings that differ by no more than this are tied.
        progress: called after each batch of samples.
    """
    predictors = _predictors(columns, margin)

    def measure(times: Floats) -> Measures:
        values: Measures = {}
        for kind, several in predictors.items():
            parts = [one.measure(times, each_generator=kind == "first") for one in several]
            values.update(_mean(kind, parts))
        return values

    point, drawn = measured(measure, units, sampling, progress=progress)
    for kind, several in predictors.items():
        tables = [one.prompts for one in several if one.prompts is not None]
        if tables:
            inside = partial(_inside_prompts, kind, tables)
            own_point, own_drawn = measured(inside, np.arange(len(tables[0])), sampling)
            point.update(own_point)
            drawn.update(own_drawn)
    return _report(columns, predictors["first"][0], _Figures(point, drawn, sampling))


def measured(
    measure: Callable[[Floats], Measures],
    units: Rows,
    sampling: Sampling,
    *,
    progress: Progress | None = None,
) -> tuple[dict[str, float], Measures]:
    """Figures of all rows, as far as they are defined, and of each bootstrap sample.

    Args:
        measure: function of (b, n) how often each row is in each sample.
        units: (n,) number of each row's unit of resampling.
        sampling: how many samples, from which seed.
        progress: called after each batch of samples.

    Returns:
        Value by name, and (draws,) values by name.
    """
    values = measure(np.ones((1, len(units)))).items()
    point = {name: float(value[0]) for name, value in values if np.isfinite(value[0])}
    batches = []
    for times in bootstrap_samples(units, draws=sampling.draws, seed=sampling.seed):
        batches.append(measure(times))
        if progress is not None:
            progress(len(times))
    return point, {
        name: np.concatenate([batch[name] for batch in batches]) if batches else np.empty(0)
        for name in point
    }


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


def _predictors(columns: Columns, margin: float) -> dict[str, list[Predictor]]:
    def made(
        x: Floats, y: Floats, *, comparable: bool = columns.comparable, fit: bool = True
    ) -> Predictor:
        return Predictor(
            x,
            y,
            generators=columns.generators,
            prompts=columns.prompts,
            comparable=comparable,
            margin=margin,
            fit=fit,
        )

    found = {"first": [made(columns.predictions, columns.ratings)]}
    if columns.other is not None:
        comparable = columns.other_comparable
        found["second"] = [made(columns.other, columns.ratings, comparable=comparable)]
    if columns.raters is not None:
        for rater in columns.raters.T:
            others = _mean_of_others(columns.raters, rater)
            if len(np.unique(rater[np.isfinite(rater + others)])) < 2 or (
                np.isfinite(rater + others).sum() < FEWEST
            ):
                continue  # who always says the same or said little is no measure
            rated = np.where(np.isfinite(rater), columns.predictions, np.nan)
            found.setdefault("human", []).append(made(rater, others, comparable=True, fit=False))
            found.setdefault("beside", []).append(made(rated, others, fit=False))
    return found


def _mean_of_others(raters: Floats, rater: Floats) -> Floats:
    known = np.isfinite(raters)
    total = np.where(known, raters, 0.0).sum(axis=1) - np.nan_to_num(rater)
    count = known.sum(axis=1) - np.isfinite(rater)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def _mean(kind: str, several: list[Measures]) -> Measures:
    """Means over the raters for whom a figure is defined; a single predictor's own figures."""
    found = {}
    for name in several[0]:
        if all(name in values for values in several):
            values = np.stack([one[name] for one in several])
            known = np.isfinite(values)
            with np.errstate(invalid="ignore"):
                found[join(kind, name)] = np.where(known, values, 0.0).sum(0) / known.sum(0)
    return found


class _Figures:
    def __init__(self, point: dict[str, float], drawn: Measures, sampling: Sampling) -> None:
        self._point, self._drawn, self._sampling = point, drawn, sampling

    def without_intervals(self) -> _Figures:
        return _Figures(self._point, {}, self._sampling)

    def one(self, *parts: str) -> Estimate:
        name = join(*parts)
        return estimate(self._point.get(name), self._drawn.get(name), self._sampling)

    def all(self, *parts: str) -> dict[str, Estimate]:
        return {name: self.one(*parts, name) for name in FIGURES if self._has(*parts, name)}

    def with_parts(self, kind: str) -> dict[str, Estimate]:
        found = self.all(kind)
        for part, names in _PARTS:
            found.update(
                (join(part, name), self.one(kind, part, name))
                for name in names
                if self._has(kind, part, name)
            )
        return found

    def differences(self) -> dict[str, Difference]:
        found = {}
        for name in self.with_parts("second"):
            first, second = join("first", name), join("second", name)
            if first not in self._point:
                continue
            drawn = self._drawn[first] - self._drawn[second]
            difference = self._point[first] - self._point[second]
            found[name] = Difference(
                first=self._point[first],
                second=self._point[second],
                difference=estimate(difference, drawn, self._sampling),
                p_value=p_value(drawn),
            )
        return found

    def _has(self, *parts: str) -> bool:
        return join(*parts) in self._point


def _report(columns: Columns, predictor: Predictor, named: _Figures) -> Agreement:
    parts = {part: named.all("first", part) for part, _ in _PARTS}
    return Agreement(
        clips=len(columns.ratings),
        figures=named.all("first"),
        logistic=predictor.logistic,
        tie_threshold=predictor.pairs.threshold,
        parts={part: values for part, values in parts.items() if values},
        generators=_generators(columns, named),
        prompts=_prompts(columns),
        human=named.with_parts("human"),
        beside_human=named.with_parts("beside"),
        comparison=named.differences(),
    )


def _generators(columns: Columns, named: _Figures) -> list[Group]:
    if columns.generators is None:
        return []
    groups = []
    for number, clips in enumerate(np.bincount(columns.generators)):
        if clips:
            of_some = named if clips > 1 else named.without_intervals()  # one clip has no spread
            groups.append(
                Group(
                    number=number,
                    clips=int(clips),
                    prediction=of_some.one("first", "generator", str(number), "prediction"),
                    rating=of_some.one("first", "generator", str(number), "rating"),
                    figures=of_some.all("first", "generator", str(number)),
                )
            )
    return groups


def _prompts(columns: Columns) -> list[Group]:
    """A prompt has too few clips for intervals."""
    if columns.prompts is None:
        return []
    groups = []
    for rows in rows_of(columns.prompts, len(columns.prompts)):
        if len(rows):
            x, y = columns.predictions[rows], columns.ratings[rows]
            plain = figures(x, y, np.ones((1, len(rows))), same_scale=columns.comparable)
            groups.append(
                Group(
                    number=int(columns.prompts[rows[0]]),
                    clips=len(rows),
                    prediction=Estimate(value=float(x.mean())),
                    rating=Estimate(value=float(y.mean())),
                    figures={
                        name: Estimate(value=float(value[0]))
                        for name, value in plain.items()
                        if np.isfinite(value[0])
                    },
                )
            )
    return groups


# ---- one predictor ------------------------------------------------------------------------------


def join(*parts: str) -> str:
    """The name of a figure; no generator or prompt is part of it, only their numbers are."""
    return "/".join(parts)


def figures(
    x: Floats, y: Floats, times: Floats, *, same_scale: bool, few: bool = False
) -> Measures:
    """`METRICS` of samples of n clips, NaN where they are not defined; `few` is SROCC only."""
    enough = times.sum(-1) >= SMALLEST_GROUP
    return {
        name: np.where(enough | metric.same_scale, metric.sampled(x, y, times), np.nan)
        for name, metric in METRICS.items()
        if (name == "srocc" if few else same_scale or not metric.same_scale)
    }


class Predictor:
    """Predictions beside the scores that they should be.

    Args:
        predictions: (n,) scores, NaN where there is none.
        targets: (n,) what they should be, NaN where that is unknown.
        generators, prompts: (n,) numbers, or None where unknown.
        comparable: whether both are on one scale, so that RMSE means something.
        margin: targets that differ by no more than this are tied.
        fit: whether to have the figures after the logistic.

    Attributes:
        logistic: the fitted curve; None where there is no fit.
        pairs: the pairs of all clips.
        prompts: (p, 6) SROCC or 0, whether it counts, and the numbers of `Pairs.count` of each
            prompt; None where no prompt repeats.
    """

    def __init__(
        self,
        predictions: Floats,
        targets: Floats,
        *,
        generators: Rows | None,
        prompts: Rows | None,
        comparable: bool,
        margin: float,
        fit: bool = True,
    ) -> None:
        self._known = known = np.flatnonzero(np.isfinite(predictions) & np.isfinite(targets))
        self._x, self._y = predictions[known], targets[known]
        self._generators = None if generators is None else generators[known]
        self._comparable = comparable
        self.logistic = _fit(self._x, self._y) if fit else None
        self.pairs = Pairs(self._x, self._y, margin=margin)
        self.prompts: Floats | None = None
        if prompts is not None and len(np.unique(prompts)) < len(prompts):
            inside = Pairs(self._x, self._y, margin=margin, groups=prompts[known])
            self.prompts = self._by_prompt(inside, prompts[known], int(prompts.max()) + 1)

    def measure(self, times: Floats, *, each_generator: bool = False) -> Measures:
        """Figures of samples of the n clips, all but those inside prompts.

        Args:
            times: (b, n) how often each clip is in each sample.
            each_generator: whether to have every generator's own figures as well.
        """
        x, y, times = self._x, self._y, times[:, self._known]
        values = figures(x, y, times, same_scale=self._comparable)
        if self.logistic is not None:
            # the fit has seen the targets: to be fair, every sample gets its own
            fitted = sampled_logistic4(x, y, times, start=self.logistic)
            values["plcc_fitted"] = sampled_plcc(fitted, y, times)
            values["rmse_fitted"] = sampled_rmse(fitted, y, times)
        values.update(zip(PAIRWISE, shares(self.pairs.count(times)).T))
        if self._generators is not None:
            values.update(self._by_generator(times, self._generators, each=each_generator))
        return values

    def _by_generator(self, times: Floats, generators: Rows, *, each: bool) -> Measures:
        values: Measures = {}
        within, clips, means = [], [], []
        for inside in (np.flatnonzero(generators == g) for g in range(generators.max() + 1)):
            x, y, own_times = self._x[inside], self._y[inside], times[:, inside]
            own = figures(x, y, own_times, same_scale=self._comparable, few=not each)
            clips.append(own_times.sum(-1))
            with np.errstate(invalid="ignore"):
                means.append((own_times @ np.stack([x, y], axis=1)).T / clips[-1])
            # constant predictions order nothing; with constant targets there is nothing to order
            counts = (clips[-1] >= SMALLEST_GROUP) & np.isfinite(sampled_plcc(y, y, own_times))
            within.append(np.where(counts, np.nan_to_num(own["srocc"]), np.nan))
            if each:
                own["prediction"], own["rating"] = means[-1]
                number = str(len(clips) - 1)
                values.update((join("generator", number, name), v) for name, v in own.items())
        counted = np.isfinite(within).sum(axis=0)
        with np.errstate(invalid="ignore"):
            values[join("within_generators", "srocc")] = np.nansum(within, axis=0) / counted
        # equal means are to be ties, however their sums were rounded
        unit = np.array([np.abs(v).max() or 1.0 for v in (self._x, self._y)]).reshape(2, 1, 1)
        ties = np.round(np.moveaxis(np.nan_to_num(means), 0, -1) / unit, 12)
        ours, theirs = ties * unit  # (b, generators) each
        there = (np.stack(clips, axis=-1) > 0).astype(np.float64)
        between = figures(ours, theirs, there, same_scale=self._comparable, few=not each)
        enough = there.sum(-1) >= SMALLEST_GROUP
        for name, value in between.items():
            values[join("between_generators", name)] = np.where(enough, value, np.nan)
        return values

    def _by_prompt(self, pairs: Pairs, prompts: Rows, count: int) -> Floats:
        sroccs = np.zeros((count, 2))
        for rows in rows_of(prompts, len(prompts)):
            y = self._y[rows]
            if len(rows) >= SMALLEST_GROUP and np.ptp(y) > 0:
                own = figures(self._x[rows], y, np.ones((1, len(rows))), same_scale=False, few=True)
                sroccs[prompts[rows[0]]] = np.nan_to_num(own["srocc"][0]), 1.0
        return np.concatenate([sroccs, pairs.by_group(prompts, count)], axis=1)


def _inside_prompts(kind: str, tables: list[Floats], times: Floats) -> Measures:
    """Figures inside prompts, of samples of the prompts, whatever the units of other figures.

    Args:
        kind: of the predictors.
        tables: `Predictor.prompts` of each.
        times: (b, p) how often each prompt is in each sample.
    """
    names = [join("within_prompts", name) for name in ("srocc", *PAIRWISE)]
    return _mean(kind, [dict(zip(names, shares(times @ table).T)) for table in tables])


def _fit(x: Floats, y: Floats) -> Logistic4 | None:
    try:
        return fit_logistic4(x, y)
    except ValueError:
        return None

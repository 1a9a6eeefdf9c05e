"""How well one score agrees with people: its figures with intervals, from arrays."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ..metrics import Logistic4
from .bootstrap import (
    Estimate, Floats, Measures, Progress, Rows, Sampling, bootstrap, estimate, p_value,
)
from .predictor import FIGURES, Predictor, figures, join

FEWEST = 5  # clips below which a score is not evaluated: the logistic has four parameters
# Figures of parts, beside those of all clips; these are compared between predictors too.
_PARTS = (
    ("within_generators", ("srocc",)),
    ("between_generators", FIGURES),
    ("within_prompts", ("srocc", "pair_accuracy", "pair_accuracy_ties")),
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
    generators: NDArray[np.int64] | None = None
    prompts: NDArray[np.int64] | None = None
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
        return f"{count} clips have both a prediction and a rating, at least {FEWEST} are needed"
    for label, values in (
        ("predictions", columns.predictions), ("ratings", columns.ratings),
        ("predictions to compare with", columns.other),
    ):
        if values is not None and np.ptp(values) == 0:
            return f"all {count} {label} are {values[0]:g}, which orders nothing"
    return None


def agree(
    columns: Columns, *, units: NDArray[np.int64], sampling: Sampling, margin: float,
    progress: Progress | None = None,
) -> Agreement:
    """Computes all figures and their intervals.

    Args:
        columns: the clips; `check` has found nothing.
        units: (n,) number of each clip's unit of resampling.
        sampling: how intervals are made.
        margin: ratings that differ by no more than this are tied.
        progress: called after each bootstrap sample.
    """
    predictors = _predictors(columns, margin)

    def measure(rows: Rows) -> Measures:
        values: Measures = {}
        for kind, several in predictors.items():
            parts = [one.measure(rows, each_generator=kind == "first") for one in several]
            values.update(_mean(kind, parts))
        return values

    point = measure(np.arange(len(columns.ratings)))
    drawn = bootstrap(measure, units, sampling, list(point), progress=progress)
    for kind, several in predictors.items():
        inside = [one.inside_prompts(sampling) for one in several]
        point.update(_mean(kind, [values for values, _ in inside]))
        for name in inside[0][0]:
            drawn[join(kind, name)] = np.mean([samples[name] for _, samples in inside], axis=0)
    first = predictors["first"][0]
    return _report(columns, first, _Figures(point, drawn, sampling))


def _predictors(columns: Columns, margin: float) -> dict[str, list[Predictor]]:
    def made(
        x: Floats, y: Floats, *, comparable: bool = columns.comparable, fit: bool = True
    ) -> Predictor:
        return Predictor(
            x, y, generators=columns.generators, prompts=columns.prompts, comparable=comparable,
            margin=margin, fit=fit,
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
    """Means over the raters, of what all of them have; a single predictor's own figures."""
    common = [name for name in several[0] if all(name in values for values in several)]
    return {
        join(kind, name): float(np.mean([values[name] for values in several])) for name in common
    }


# ---- from named numbers to the report -----------------------------------------------------------


class _Figures:
    def __init__(self, point: Measures, drawn: dict[str, Floats], sampling: Sampling) -> None:
        self._point, self._drawn, self._sampling = point, drawn, sampling

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
                for name in names if self._has(kind, part, name)
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
                first=self._point[first], second=self._point[second],
                difference=estimate(difference, drawn, self._sampling), p_value=p_value(drawn),
            )
        return found

    def _has(self, *parts: str) -> bool:
        return join(*parts) in self._point


def _report(columns: Columns, predictor: Predictor, named: _Figures) -> Agreement:
    parts = {part: named.all("first", part) for part, _ in _PARTS}
    return Agreement(
        clips=len(columns.ratings), figures=named.all("first"), logistic=predictor.logistic,
        tie_threshold=predictor.pairs.threshold,
        parts={part: values for part, values in parts.items() if values},
        generators=_generators(columns, named), prompts=_prompts(columns),
        human=named.with_parts("human"), beside_human=named.with_parts("beside"),
        comparison=named.differences(),
    )


def _generators(columns: Columns, named: _Figures) -> list[Group]:
    if columns.generators is None:
        return []
    return [
        Group(
            number=number, clips=int(clips),
            prediction=named.one("first", "generator", str(number), "prediction"),
            rating=named.one("first", "generator", str(number), "rating"),
            figures=named.all("first", "generator", str(number)),
        )
        for number, clips in enumerate(np.bincount(columns.generators)) if clips
    ]


def _prompts(columns: Columns) -> list[Group]:
    """A prompt has too few clips for intervals."""
    if columns.prompts is None:
        return []
    order = np.argsort(columns.prompts, kind="stable")
    groups = []
    for rows in np.split(order, np.cumsum(np.bincount(columns.prompts))[:-1]):
        if len(rows):
            x, y = columns.predictions[rows], columns.ratings[rows]
            plain = figures(x, y, rmse=columns.comparable)
            groups.append(Group(
                number=int(columns.prompts[rows[0]]), clips=len(rows),
                prediction=Estimate(value=float(x.mean())), rating=Estimate(value=float(y.mean())),
                figures={name: Estimate(value=value) for name, value in plain.items()},
            ))
    return groups

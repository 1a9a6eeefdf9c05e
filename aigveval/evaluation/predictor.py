"""One predictor of human scores: all its figures on any sample of the clips."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .. import metrics
from .bootstrap import Floats, Measures, Rows, Sampling, bootstrap
from .pairs import Pairs

PAIRWISE = ("pair_accuracy", "pair_accuracy_ties")
FIGURES = ("srocc", "plcc", "krocc", "main", "rmse", "plcc_fitted", "rmse_fitted", *PAIRWISE)
SMALLEST_GROUP = 3  # clips of a generator or prompt that get correlations of their own


def join(*parts: str) -> str:
    """The name of a figure; no generator or prompt is part of it, only their numbers are."""
    return "/".join(parts)


def figures(x: Floats, y: Floats, *, rmse: bool, few: bool = False) -> Measures:
    """What two lists of numbers come to; undefined figures are left out, `few` is SROCC only."""
    values: Measures = {"rmse": metrics.rmse(x, y)} if rmse and not few else {}
    if len(x) >= SMALLEST_GROUP and np.ptp(x) > 0 and np.ptp(y) > 0:
        values["srocc"] = metrics.srocc(x, y)
        if not few:
            values["plcc"], values["krocc"] = metrics.plcc(x, y), metrics.krocc(x, y)
            values["main"] = (values["srocc"] + values["plcc"]) / 2.0
    return values


class Predictor:
    """Predictions beside the scores that they should be.

    Args:
        predictions: (n,) scores, NaN where there is none.
        targets: (n,) what they should be, NaN where that is unknown.
        generators, prompts: (n,) numbers, or None where unknown.
        comparable: whether both are on one scale, so that RMSE means something.
        margin: targets that differ by no more than this are tied.
        fit: whether to have the figures after the logistic.
    """

    def __init__(
        self, predictions: Floats, targets: Floats, *, generators: NDArray[np.int64] | None,
        prompts: NDArray[np.int64] | None, comparable: bool, margin: float, fit: bool = True,
    ) -> None:
        known = np.flatnonzero(np.isfinite(predictions) & np.isfinite(targets))
        self._position = np.full(len(targets), -1)
        self._position[known] = np.arange(len(known))
        self._x, self._y = predictions[known], targets[known]
        self._generators = None if generators is None else generators[known]
        self._comparable = comparable
        self.logistic = _fit(self._x, self._y) if fit else None
        self.pairs = Pairs(self._x, self._y, margin=margin)
        self._table: Floats | None = None
        if prompts is not None and len(np.unique(prompts)) < len(prompts):
            inside = Pairs(self._x, self._y, margin=margin, groups=prompts[known])
            self._table = self._by_prompt(inside, prompts[known], int(prompts.max()) + 1)

    def measure(self, rows: Rows, *, each_generator: bool = False) -> Measures:
        """Figures of a sample of the n clips, all but those inside prompts.

        Args:
            rows: row numbers.
            each_generator: whether to have every generator's own figures as well.
        """
        rows = self._position[rows]
        rows = rows[rows >= 0]
        x, y = self._x[rows], self._y[rows]
        if not len(rows):
            return {}
        values = figures(x, y, rmse=self._comparable)
        values.update(self._fitted(x, y))
        counts = self.pairs.count_rows(rows, len(self._y))
        for name, value in zip(PAIRWISE, (counts.accuracy, counts.accuracy_with_ties)):
            if value is not None:
                values[name] = value
        if self._generators is not None:
            values.update(self._by_generator(x, y, self._generators[rows], each=each_generator))
        return values

    def _fitted(self, x: Floats, y: Floats) -> Measures:
        if self.logistic is None:
            return {}
        try:  # the fit has seen the targets: to be fair, every sample gets its own
            fitted = metrics.fit_logistic4(x, y, start=self.logistic)(x)
            return {"rmse_fitted": metrics.rmse(fitted, y), "plcc_fitted": metrics.plcc(fitted, y)}
        except ValueError:
            return {}

    def _by_generator(self, x: Floats, y: Floats, groups: Rows, *, each: bool) -> Measures:
        values: Measures = {}
        within, means = [], []
        for number in np.unique(groups):
            inside = groups == number
            ours, theirs = x[inside], y[inside]
            means.append((ours.mean(), theirs.mean()))
            own = figures(ours, theirs, rmse=self._comparable, few=not each)
            if len(ours) >= SMALLEST_GROUP and np.ptp(theirs) > 0:
                within.append(own.get("srocc", 0.0))  # constant predictions order nothing
            if each:
                own["prediction"], own["rating"] = means[-1]
                for name, value in own.items():
                    values[join("generator", str(number), name)] = float(value)
        if within:
            values[join("within_generators", "srocc")] = float(np.mean(within))
        if len(means) >= SMALLEST_GROUP:
            ours, theirs = np.array(means).T
            for name, value in figures(ours, theirs, rmse=self._comparable, few=not each).items():
                values[join("between_generators", name)] = value
        return values

    # -- inside prompts: whole prompts are drawn, whatever the units of the other figures --

    def _by_prompt(self, pairs: Pairs, prompts: Rows, count: int) -> Floats:
        """(p, 6): SROCC or 0, whether it counts, and the four pair counts, of each prompt."""
        sroccs = np.zeros((count, 2))
        order = np.argsort(prompts, kind="stable")
        for rows in np.split(order, np.cumsum(np.bincount(prompts))[:-1]):
            x, y = self._x[rows], self._y[rows]
            if len(rows) >= SMALLEST_GROUP and np.ptp(y) > 0:
                value = metrics.srocc(x, y) if np.ptp(x) > 0 else 0.0
                sroccs[prompts[rows[0]]] = value, 1.0
        return np.concatenate([sroccs, pairs.by_group(prompts, count)], axis=1)

    def _inside(self, rows: Rows) -> Measures:
        assert self._table is not None
        sums = self._table[rows].sum(axis=0)
        shares = {"srocc": (0, 1), "pair_accuracy": (2, 3), "pair_accuracy_ties": (4, 5)}
        return {
            join("within_prompts", name): float(sums[part] / sums[whole])
            for name, (part, whole) in shares.items() if sums[whole] > 0
        }

    def inside_prompts(self, sampling: Sampling) -> tuple[Measures, dict[str, Floats]]:
        """Figures inside prompts, and their values on bootstrap samples of the prompts."""
        if self._table is None:
            return {}, {}
        units = np.arange(len(self._table))
        point = self._inside(units)
        return point, bootstrap(self._inside, units, sampling, list(point))


def _fit(x: Floats, y: Floats) -> metrics.Logistic4 | None:
    try:
        return metrics.fit_logistic4(x, y)
    except ValueError:
        return None

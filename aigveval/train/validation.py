"""Validation metrics: correlations with rated clips, accuracy on preference pairs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from transformers import EvalPrediction

from prompts.rubric import SCORES

from .. import metrics
from ..data.preference_pairs import PreferencePair
from .dataset import ROW, WEIGHT, QualityDataset
from .rows import Part, clip_key, preference_targets

METRICS = ("srocc", "plcc", "accuracy")


class ValidationMetrics:
    """SROCC and PLCC of each score on each manifest of clips, accuracy on each one of pairs.

    A pair with a preference counts as right when the preferred video has the higher score, a tie
    of the scores as half; pairs that people called the same are left out. The data set is that of
    `Part.clips` of each manifest.
    """

    def __init__(self, parts: Sequence[Part], dataset: QualityDataset) -> None:
        self.parts, self.names = parts, [part.name for part in parts]
        self._sources = np.array(dataset.sources)
        self._targets = np.array([row.scores for row in dataset.rows]).reshape(-1, len(SCORES))
        self._pairs = {
            number: self._indices(part.pairs, number, dataset)
            for number, part in enumerate(parts)
            if part.pairs
        }
        # With a stand-in of a perfect model: what the data allows to be measured.
        perfect = np.where(np.isnan(self._targets), 0.0, self._targets)
        self.defined = sorted(self._measured(perfect))

    @property
    def main(self) -> str:
        """The metric that the best model is chosen by: mean SROCC, or accuracy without ratings."""
        return "srocc" if any("_srocc_" in name for name in self.defined) else "accuracy"

    def __call__(self, prediction: EvalPrediction) -> dict[str, float]:
        """Every metric, and the mean over all of a kind under the kind's name."""
        labels = np.asarray(prediction.label_ids)
        seen = labels[:, WEIGHT] > 0  # else the file could not be read
        scores = np.full_like(self._targets, np.nan)
        scores[labels[seen, ROW].astype(int)] = np.asarray(prediction.predictions)[seen]
        found = self._measured(scores)
        means = {}
        for kind in ("srocc", "accuracy"):
            values = [value for name, value in found.items() if f"_{kind}_" in name]
            if values:
                means[kind] = float(np.mean(values))
        return {**{self.main: 0.0}, **means, **found}

    def _indices(
        self, pairs: Sequence[PreferencePair], source: int, dataset: QualityDataset
    ) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Rows (p, 2) of the sides, and preferences (p, 4)."""
        rows = {clip_key(r): i for i, r in enumerate(dataset.rows) if dataset.sources[i] == source}
        sides = [[rows[v, p.prompt] for v in (p.video_a, p.video_b)] for p in pairs]
        return np.array(sides), np.array([preference_targets(pair) for pair in pairs])

    def _measured(self, scores: NDArray[np.float64]) -> dict[str, float]:
        result: dict[str, float] = {}
        for number, part in enumerate(self.parts):
            for column, score in enumerate(SCORES):
                found = self._correlations(scores[:, column], number, column)
                if number in self._pairs:
                    found |= self._accuracy(scores[:, column], number, column)
                result |= {f"{part.name}_{kind}_{score}": value for kind, value in found.items()}
        return result

    def _correlations(self, scores: Any, source: int, column: int) -> dict[str, float]:
        targets = self._targets[:, column]
        rows = (self._sources == source) & ~np.isnan(targets) & ~np.isnan(scores)
        x, y = scores[rows], targets[rows]
        if len(x) < 3 or np.ptp(y) == 0:
            return {}
        if np.ptp(x) == 0:  # a model that gives every clip the same score orders nothing
            return {"srocc": 0.0, "plcc": 0.0}
        return {"srocc": metrics.srocc(x, y), "plcc": metrics.plcc(x, y)}

    def _accuracy(self, scores: Any, source: int, column: int) -> dict[str, float]:
        sides, preferences = self._pairs[source]
        difference = scores[sides[:, 0]] - scores[sides[:, 1]]
        wanted = preferences[:, column]
        asked = ~np.isnan(wanted) & (wanted != 0) & ~np.isnan(difference)
        if not asked.any():
            return {}
        right = np.sign(difference[asked]) * wanted[asked]
        return {"accuracy": float((right > 0).mean() + 0.5 * (right == 0).mean())}


def gain_line(
    before: NDArray[np.float32],
    after: NDArray[np.float32],
    dataset: QualityDataset,
    *,
    name: str,
) -> str | None:
    """One line: is a model better than the one that it started from, on the validation clips?

    Args:
        before, after: Scores (n, 4) of the data set's rows.
        dataset: Of the validation clips; prompts are resampled whole for the interval.
        name: Of the model before.

    Returns:
        None where no score has four known, differing ratings.
    """
    targets = np.array([row.scores for row in dataset.rows]).reshape(-1, len(SCORES))
    known = ~np.isnan(targets) & ~np.isnan(before) & ~np.isnan(after)
    column = int(known.sum(0).argmax()) if not known[:, -1].any() else len(SCORES) - 1
    rows = np.flatnonzero(known[:, column])
    y, old, new = targets[rows, column], before[rows, column], after[rows, column]
    if len(rows) < 4 or np.ptp(y) == 0:
        return None

    def gain(old: Any, new: Any, y: Any) -> float:
        return metrics.srocc(new, y) - metrics.srocc(old, y)

    groups = [str(dataset.rows[n].group or dataset.rows[n].prompt or n) for n in rows]
    try:
        found = gain(old, new, y)
        low, high = metrics.bootstrap_interval(gain, old, new, y, groups=groups)
    except ValueError:  # one of them gives all clips the same score
        return None
    verdict = "better" if low > 0 else "worse" if high < 0 else "not certain to differ"
    return (
        f"{SCORES[column]} against {name} on {len(rows)} validation clips: SROCC "
        f"{metrics.srocc(new, y):.2f} instead of {metrics.srocc(old, y):.2f}, difference "
        f"{found:+z.2f} [{low:+.2f}, {high:+.2f}]: {verdict}"
    )


def metric_lines(found: Mapping[str, float], parts: Sequence[str]) -> list[str]:
    """One line per manifest with SROCC / PLCC, or the accuracy, of each score that it rates."""
    width = max((len(part) for part in parts), default=0)
    lines = []
    for part in parts:
        rated = [
            f"{score} {found[f'{part}_srocc_{score}']:+.3f} / {found[f'{part}_plcc_{score}']:+.3f}"
            for score in SCORES
            if f"{part}_srocc_{score}" in found
        ]
        paired = [
            f"{score} {found[f'{part}_accuracy_{score}']:.3f}"
            for score in SCORES
            if f"{part}_accuracy_{score}" in found
        ]
        for title, values in (("SROCC / PLCC", rated), ("accuracy", paired)):
            if values:
                lines.append(f"  {part:{width}}  {title}  " + "   ".join(values))
    return lines

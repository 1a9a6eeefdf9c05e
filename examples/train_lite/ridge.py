"""Ridge regression on the mean tokens of the `lite` encoders: baseline, teacher and starting point.

With a few dozen rated clips, a linear map on fixed features is hard to beat. It is what our model
is compared with, on the same folds; it labels the clips that nobody has rated; and since it is
linear in the tokens, the projectors can start from it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import manifests
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from aigveval.features.cache import FeatureCache
from aigveval.model.projector import AIGVEvalBackbone
from aigveval.train.dataset import QualityDataset
from aigveval.train.rows import TrainingRow
from encoders import Encoder
from prompts.rubric import DIMENSIONS, Dimension

Array = NDArray[np.float64]

ALPHA = 0.3
_PLAIN = 2 * (1280 + 512 + 29)
# Columns of an encoder's tokens.
FRAMES = ("technical_lite", 0, 1280)
CHANGE = ("technical_lite", _PLAIN, _PLAIN + 1280)  # of the above over the clip
STATISTICS = ("technical_lite", 1792, 1821)
FRAGMENTS = ("technical_lite", 1821, 1821 + 1280)
FLOW = ("motion_flow", 171, 513)  # the part of a token that describes the whole clip
ALIGNMENT = ("semantic_lite", 3 * 384, 3 * 384 + 6)
# Blocks with their scale. Chosen among some thirty combinations on the same data, so its figures
# are slightly optimistic.
USED = {
    "technical": {FRAMES: 1.0, CHANGE: 1.0, STATISTICS: 1.0},
    "motion": {FLOW: 1.0, FRAMES: 1.0},
    "semantic": {ALIGNMENT: 2.0, FRAGMENTS: 1.0, FLOW: 1.0},
}


# What a ladder's row weighs beside a rated clip, and how many points of a rating one point of its
# nominal drop is worth. Chosen likewise, among a dozen. Technical damage doesn't count here: it
# made ratings worse, and the alignment learns it anyway.
LADDER_WEIGHT: dict[Dimension, float] = {"motion": 0.01, "semantic": 0.01}
POINTS_PER_DROP = 0.5


@dataclass(frozen=True, kw_only=True)
class Falls:
    """What damage changes: differences of mean tokens between damaged clips and their clean ones.

    Attributes:
        tokens: Encoder to (m, d).
        drops: (m, 3) by `DIMENSIONS`, nominal; NaN where unknown.
    """

    tokens: dict[str, Array]
    drops: Array


@dataclass(frozen=True, kw_only=True)
class LinearMap:
    """Scores from mean standardised tokens: encoder to weights (3, d), and bias (3,)."""

    weights: dict[str, Array]
    bias: Array

    def __call__(self, tokens: Mapping[str, Array]) -> Array:
        """(n, 3) from encoder to (n, d)."""
        return self.bias + sum(tokens[name] @ w.T for name, w in self.weights.items())

    def with_overall(self) -> tuple[dict[str, Tensor], Tensor]:
        """Weights (4, d) and bias (4,) as tensors: the overall score is the mean of the three."""

        def extended(rows: Array) -> Tensor:
            return torch.from_numpy(np.concatenate([rows, rows.mean(0, keepdims=True)])).float()

        return {name: extended(w) for name, w in self.weights.items()}, extended(self.bias)


def mean_tokens(
    rows: Sequence[TrainingRow],
    backbone: AIGVEvalBackbone,
    encoders: Sequence[Encoder],
    cache: FeatureCache,
) -> dict[str, Array]:
    """Encoder to (n, d): each clip's tokens, standardised as its projector does, then averaged."""
    digests = {row.video: cache.digest(row.video) for row in rows}
    dataset = QualityDataset([list(rows)], digests, encoders, cache)
    result: dict[str, list[Tensor]] = {encoder.spec.name: [] for encoder in encoders}
    for number, row in enumerate(rows):
        for (name, values), tokens in zip(result.items(), dataset.tokens(number, row.prompt)):
            projector = backbone.projectors[name]
            values.append(projector.standardise(tokens).mean(0))
    return {name: torch.stack(values).double().numpy() for name, values in result.items()}


def falls(tokens: Mapping[str, Array], records: Sequence[Mapping[str, Any]]) -> Falls:
    """Of a ladder's mean tokens (n, d) by encoder, and its records."""
    clean = manifests.clean_numbers(records)
    start = np.array([clean[r["group"]] for r in records])
    damaged = np.flatnonzero(start != np.arange(len(records)))
    drops = [[records[n][f"{name}_drop"] for name in DIMENSIONS] for n in damaged]
    return Falls(
        tokens={name: t[damaged] - t[start[damaged]] for name, t in tokens.items()},
        drops=np.array(drops, float),
    )


def fitted(
    tokens: Mapping[str, Array],
    targets: Array,
    weights: Array | None = None,
    ladder: Falls | None = None,
) -> LinearMap:
    """Fit on all rows, and on what damage changes.

    Each block's columns are scaled to unit variance and then by the block's scale over the root of
    its width, so that a wide one doesn't drown a narrow one.

    Args:
        tokens: Encoder to (n, d).
        targets: (n, 3) by `DIMENSIONS`.
        weights: (n,) of the rows.
        ladder: Without it, a ridge on ratings alone reads much damage the wrong way: overexposure
            raised its technical score, ghosting its motion score.
    """
    weights = np.ones(len(targets)) if weights is None else weights
    maps = {name: np.zeros((len(DIMENSIONS), t.shape[1])) for name, t in tokens.items()}
    bias = np.zeros(len(DIMENSIONS))
    for row, dimension in enumerate(DIMENSIONS):
        used = USED[dimension]
        scaled, columns, fallen = [], [], []
        for (name, start, stop), scale in used.items():
            part = tokens[name][:, start:stop]
            factors = scale / np.sqrt(stop - start) / (part.std(0) + 1e-3)
            columns.append((name, start, stop, factors))
            scaled.append(part * factors)
            if ladder is not None:
                fallen.append(ladder.tokens[name][:, start:stop] * factors)
        x, y = np.hstack(scaled), targets[:, row]
        mean, middle = np.average(x, 0, weights), np.average(y, weights=weights)
        design, target, share = x - mean, y - middle, weights
        if ladder is not None and dimension in LADDER_WEIGHT:
            known = ~np.isnan(ladder.drops[:, row])
            design = np.vstack([design, np.hstack(fallen)[known]])
            target = np.append(target, -POINTS_PER_DROP * ladder.drops[known, row])
            share = np.append(share, np.full(known.sum(), LADDER_WEIGHT[dimension]))
        dual = np.linalg.solve(design @ design.T + ALPHA * np.diag(1 / share), target)
        found = design.T @ dual
        bias[row] = middle - mean @ found
        for name, start, stop, factors in columns:
            maps[name][row, start:stop] = found[: stop - start] * factors
            found = found[stop - start :]
    return LinearMap(weights=maps, bias=bias)


def subset(tokens: Mapping[str, Array], keep: Array | NDArray[np.bool_]) -> dict[str, Array]:
    """The rows where `keep` is true, or of these numbers."""
    return {name: values[keep] for name, values in tokens.items()}

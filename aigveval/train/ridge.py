"""Ratings by ridge regression: the linear maps of the projectors learn what their model gets wrong.

With some dozens of rated clips nothing learns more of them than a linear map of fixed features on
top of what the model says already, and it takes seconds. How far it may go is found by folds: whole
groups, or prompts where rows have no group, are left out, and where no strength helps with those,
the model stays as it is. As a few groups say little of that, the strength is `USUAL` unless another
is better by more than a standard error, and then the model stays as it is unless that is worse by
more than one.

Axis legend: n rows, D width of all encoders' tokens together.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console

from prompts.rubric import SCORES

from ..model.projector import AIGVEvalBackbone, FeatureProjector, pack_features
from .config import FitError
from .dataset import QualityDataset

Array = NDArray[np.float64]

# Of standardised columns that count alike, of all encoders: with the strongest nothing is left to
# learn. `USUAL` is best on average where a `lite` that has not seen them learns two data sets.
STRENGTHS = (0.1, 0.3, 1.0, 3.0, 10.0, 30.0, np.inf)
USUAL = 1.0
FOLDS, ROUNDS = 5, 3
FEW = 500  # rows; with more, one round of folds is enough
LEAST_ROWS, MOST_ROWS = 8, 5000  # with a score; it takes memory by their square


@torch.inference_mode()
def fit_ridge(
    backbone: AIGVEvalBackbone, dataset: QualityDataset, console: Console, *, seed: int
) -> dict[str, float]:
    """Add to each projector's given linear map what the rated rows say beyond the score hints.

    Each score is regressed on the clips' mean standardised tokens. Each manifest has an offset of
    its own; so that the scale isn't moved by one of them, the model's changes by their mean.

    Args:
        backbone: Of a model with score hints.
        dataset: Of the training rows; those of preference pairs have no scores.
        console: Gets a line for each score.
        seed: Of the folds.

    Returns:
        Score to the strength of the regression, for those that enough rows have; infinite where
        the model stays as it is but for its offset.

    Raises:
        FitError: No score is known for enough rows, or there are too many.
    """
    if len(dataset.rows) > MOST_ROWS:
        raise FitError(
            f"ridge is for {MOST_ROWS} rows at most, got {len(dataset.rows)}; "
            "align_epochs learns from more"
        )
    means, hints = _evidence(backbone, dataset)
    truth = np.array([row.scores for row in dataset.rows], np.float64)
    weights = np.array([row.weight for row in dataset.rows], np.float64)
    sources = np.array(dataset.sources)
    groups = _groups(dataset)
    found: dict[str, float] = {}
    change = np.zeros((len(SCORES), means.shape[1]))
    offset = np.zeros(len(SCORES))
    for column, score in enumerate(SCORES):
        rows = np.flatnonzero(~np.isnan(truth[:, column]) & (weights > 0))
        if len(rows) < LEAST_ROWS:
            continue
        rest = truth[rows, column] - hints[rows, column]
        part = _Rows(
            products=means[rows] @ means[rows].T,
            y=rest,
            weights=weights[rows],
            sources=sources[rows],
            groups=groups[rows],
        )
        strength = part.chosen(np.random.default_rng((seed, column)))
        change[column] = part.solutions([strength])[0] @ means[rows]
        error = rest - means[rows] @ change[column]
        offset[column] = np.average(error, weights=weights[rows])
        found[score] = strength
        console.print(
            f"{score}: ridge regression on {len(rows)} rows, "
            + ("which left the order as it is" if np.isinf(strength) else f"strength {strength:g}"),
            highlight=False,
        )
    if not found:
        raise FitError(f"ridge needs at least {LEAST_ROWS} rows with a score")
    start = 0
    scale = _column_scale(backbone)
    projectors = cast(Iterable[FeatureProjector], backbone.projectors.values())
    for projector, (_, width) in zip(projectors, backbone.config.feature_shapes):
        weight = torch.from_numpy(change[:, start : start + width] * scale).float()
        bias = torch.from_numpy(offset / len(backbone.projectors)).float()
        projector.set_probe(projector.probe.cpu() + weight, bias)
        start += width
    return found


def _evidence(backbone: AIGVEvalBackbone, dataset: QualityDataset) -> tuple[Array, Array]:
    """Of each row, the scaled mean tokens (n, D) and the score hints (n, 4)."""
    device = next(backbone.projectors.parameters()).device
    scale = _column_scale(backbone)
    means, hints = [], []
    for number, row in enumerate(dataset.rows):
        tokens = [part[None] for part in dataset.tokens(number, row.prompt)]
        features = pack_features(tokens).to(device)
        parts = backbone.standardised(features)
        scaled = [part.mean(1)[0] * scale for part in parts]
        means.append(torch.cat(scaled).cpu().double().numpy())
        hints.append(backbone.score_hints(features)[0].cpu().double().numpy())
    return np.array(means), np.array(hints)


def _column_scale(backbone: AIGVEvalBackbone) -> float:
    """What brings an encoder of mean width to unit variance in all."""
    widths = [width for _, width in backbone.config.feature_shapes]
    return float(np.mean(widths) ** -0.5)


def _groups(dataset: QualityDataset) -> NDArray[np.int_]:
    """Number (n,) of the group of each row, or of its prompt where it has none.

    Where all rows have the same prompt and no group, each is one by itself.
    """
    names = [row.group or row.prompt for row in dataset.rows]
    if len(set(names)) == 1 and dataset.rows[0].group is None:
        names = [None] * len(names)
    numbers: dict[str, int] = {}
    return np.array(
        [-1 - numbers.setdefault(name, len(numbers)) if name else n for n, name in enumerate(names)]
    )


@dataclass(frozen=True, kw_only=True)
class _Rows:
    """Rows of a regression: products of their features (n, n), what is to learn (n,), and so on."""

    products: Array
    y: Array
    weights: Array
    sources: NDArray[np.int_]
    groups: NDArray[np.int_]

    def solutions(self, strengths: Sequence[float]) -> list[Array]:
        """For each strength the coefficients (n,) of the rows' features, whose sum is the map."""
        centred = np.eye(len(self.y))
        for source in np.unique(self.sources):
            own = np.flatnonzero(self.sources == source)
            centred[np.ix_(own, own)] -= self.weights[own] / self.weights[own].sum()
        centred *= np.sqrt(self.weights)[:, None]
        values, vectors = np.linalg.eigh(centred @ self.products @ centred.T)
        goal = vectors.T @ (centred @ self.y)
        return [centred.T @ (vectors @ (goal / (values + strength))) for strength in strengths]

    def chosen(self, random: np.random.Generator) -> float:
        """The strength with the least squared error on groups left out.

        Or `USUAL`, else infinity, whose error is larger by no more than a standard error, which is
        that of the difference over the groups.
        """
        names, place = np.unique(self.groups, return_inverse=True)
        folds = min(FOLDS, len(names))
        if folds < 2:
            return np.inf
        errors = np.zeros((len(names), len(STRENGTHS)))
        for _ in range(ROUNDS if len(self.y) <= FEW else 1):
            fold = random.permutation(len(names))[place] % folds
            for number in range(folds):
                left_out = fold == number
                np.add.at(errors, place[left_out], self._errors(~left_out).T)
        best = int(np.argmin(errors.sum(0)))
        for number in (STRENGTHS.index(USUAL), len(STRENGTHS) - 1):
            worse = errors[:, number] - errors[:, best]
            if worse.sum() <= worse.std() * np.sqrt(len(names)):
                return STRENGTHS[number]
        return STRENGTHS[best]

    def _errors(self, kept: NDArray[np.bool_]) -> Array:
        """The squared error of each other row, weighted, for each strength: (7, m)."""
        rest = _Rows(
            products=self.products[np.ix_(kept, kept)],
            y=self.y[kept],
            weights=self.weights[kept],
            sources=self.sources[kept],
            groups=self.groups[kept],
        )
        found = []
        for coefficients in rest.solutions(STRENGTHS):
            error = self.y - self.products[:, kept] @ coefficients
            left = error.copy()
            for source in np.unique(self.sources):
                own = self.sources == source
                known = own & kept if (own & kept).any() else kept
                left[own] -= np.average(error[known], weights=self.weights[known])
            found.append(self.weights[~kept] * left[~kept] ** 2)
        return np.array(found)

"""Losses of scores and answers, as pure functions of torch tensors.

Axis legend: b batch, n values or tokens, v vocabulary, w processes. Scores are on the 1-5 MOS
scale. A weight of 0 marks an unknown score: it takes no part and gets no gradient, whatever stands
in its place (NaN included).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch import distributed as dist
from torch.nn import functional as F

from prompts.rubric import LEVEL_WEIGHTS, SCORES

from ..model.base import score_levels
from .config import LOSS_TERMS
from .dataset import GROUP, PAIR, PREFERENCES, WEIGHT

IGNORED = -100  # in place of the id of a token that has no loss

# Correlation has no direction on a batch whose standard deviation is below this.
_MIN_STD = 1e-6


def level_distribution(scores: Tensor, *, smoothing: float = 0.0) -> Tensor:
    """Soft target over the five levels: linear between the two neighbouring ones.

    3.2 gives 0.8 for fair (3) and 0.2 for good (4), so that the expectation is the score itself.

    Args:
        scores: (...) in [1, 5].
        smoothing: share in [0, 1) that is spread evenly over the five levels. It pulls the
            expectation towards 3 by that share.

    Returns:
        (..., 5), sums to 1 over the last axis.
    """
    levels = torch.tensor(LEVEL_WEIGHTS, dtype=scores.dtype, device=scores.device)
    target = (1.0 - (scores.unsqueeze(-1) - levels).abs()).clamp(min=0.0)
    return target * (1.0 - smoothing) + smoothing / len(LEVEL_WEIGHTS)


def level_loss(
    level_logits: Tensor, targets: Tensor, weights: Tensor, *, smoothing: float = 0.0
) -> Tensor:
    """Weighted mean cross-entropy of the levels against `level_distribution` of the targets.

    Args:
        level_logits: (..., 5).
        targets: (...) scores in [1, 5].
        weights: (...) at least 0; 0 = unknown. bool works.
        smoothing: see `level_distribution`.

    Returns:
        Scalar, 0 where nothing is known.
    """
    weights = weights.to(level_logits.dtype)
    known = weights > 0
    goal = level_distribution(torch.where(known, targets, 3.0), smoothing=smoothing)
    cross_entropy = -(goal * F.log_softmax(level_logits, dim=-1)).sum(-1)
    return (cross_entropy * weights).sum() / weights.sum().clamp(min=1e-12)


def plcc_loss(predictions: Tensor, targets: Tensor, weights: Tensor | None = None) -> Tensor:
    """(1 - r) / 2 with Pearson's r over the known values: 0 is a perfect line, 1 a reversed one.

    Source: ``plcc_loss`` of FAST-VQA (its first half), as AIGVEval uses it.

    Args:
        predictions: (n,).
        targets: (n,).
        weights: (n,) at least 0, 0 = unknown; None = all known.

    Returns:
        Scalar; 0 (no gradient) where fewer than two values are known or the targets are constant.
    """
    weights = torch.ones_like(targets) if weights is None else weights.to(predictions.dtype)
    known = weights > 0
    x, y, w = predictions[known], targets[known], weights[known]
    if len(x) < 2:
        return predictions.sum() * 0.0
    w = w / w.sum()
    x = x - (w * x).sum()
    y = y - (w * y).sum()
    variance_x, variance_y = (w * x * x).sum(), (w * y * y).sum()
    if variance_y < _MIN_STD**2:
        return predictions.sum() * 0.0
    # the clamp keeps constant predictions from an infinite gradient: r is then 0
    r = (w * x * y).sum() / (variance_x.clamp(min=_MIN_STD**2) * variance_y).sqrt()
    return (1.0 - r) / 2.0


def rank_loss(
    predictions: Tensor,
    targets: Tensor,
    weights: Tensor | None = None,
    *,
    groups: Tensor | None = None,
    min_difference: float = 0.0,
) -> Tensor:
    """Mean hinge on pairs in the wrong order: relu(-(x_i - x_j) * sign(y_i - y_j)), rescaled.

    Source: ``rank_loss`` of FAST-VQA, whose division by (1 + largest hinge) is kept. Other than
    there, tied targets are not counted as pairs, so many ties do not dilute the loss.

    Args:
        predictions: (n,).
        targets: (n,).
        weights: (n,) at least 0, 0 = unknown; None = all known. A pair weighs the product.
        groups: (n,) integers; only pairs of the same group count, a negative one has no pairs.
            None: all pairs.
        min_difference: only pairs whose targets differ by more than this count.

    Returns:
        Scalar in [0, 1); 0 (no gradient) where no pair counts.
    """
    weights = torch.ones_like(targets) if weights is None else weights.to(predictions.dtype)
    y = torch.where(weights > 0, targets, 0.0)
    dx = predictions[:, None] - predictions[None, :]
    dy = y[:, None] - y[None, :]
    pairs = weights[:, None] * weights[None, :] * (dy.abs() > min_difference)
    if groups is not None:
        pairs = pairs * ((groups[:, None] == groups[None, :]) & (groups >= 0)[:, None])
    total = pairs.sum()
    if total == 0:
        return predictions.sum() * 0.0
    hinge = F.relu(-dx * dy.sign()) * (pairs > 0)
    return (hinge * pairs).sum() / total / (1.0 + hinge.max())


def pair_loss(
    first: Tensor,
    second: Tensor,
    preferences: Tensor,
    weights: Tensor | None = None,
    *,
    scale: float = 2.0,
    tie: float = 5.0,
) -> Tensor:
    """Mean negative log-likelihood of preferences under Bradley-Terry with ties.

    Source: Rao and Kupper, "Ties in paired-comparison experiments" (JASA 1967), as VideoAlign
    (arXiv 2501.13918) trains rewards of videos. With d = scale * (first - second):
    P(first is better) = 1 / (1 + tie * exp(-d)), P(second is) = 1 / (1 + tie * exp(d)), and what is
    left is P(same), largest at d = 0.

    Args:
        first: (...) scores.
        second: (...) scores.
        preferences: (...) 1 where the first was preferred, -1 the second, 0 neither, NaN unknown.
        weights: (...) at least 0; None = all 1.
        scale: Log-odds for a point of difference.
        tie: Above 1; the larger, the likelier a tie. 1 would be Bradley-Terry without ties.

    Returns:
        Scalar; 0 (no gradient) where no preference is known.
    """
    known = ~preferences.isnan()
    weights = known if weights is None else known * weights
    total = weights.sum()
    if total == 0:
        return (first.sum() + second.sum()) * 0.0
    difference = scale * (first - second)
    log_tie = math.log(tie)
    won, lost = -F.softplus(log_tie - difference), -F.softplus(log_tie + difference)
    same = math.log(tie**2 - 1) + won + lost
    likelihood = torch.where(preferences > 0, won, torch.where(preferences < 0, lost, same))
    return -(likelihood * weights).sum() / total


def quality_loss(
    level_logits: Tensor,
    targets: Tensor,
    weights: Tensor,
    terms: Mapping[str, float],
    *,
    groups: Tensor | None = None,
    smoothing: float = 0.0,
    min_difference: float = 0.0,
) -> Tensor:
    """The regression loss: weighted sum of its terms, over the scores that are known.

    PLCC and rank terms are computed for each of the four scores over the batch and averaged over
    the scores that have at least two known, different targets.

    Args:
        level_logits: (b, 4, 5), scores in the order of ``prompts.rubric.SCORES``.
        targets: (b, 4) in [1, 5], anything where unknown.
        weights: (b, 4) at least 0; 0 = unknown.
        terms: weight of each of "level", "plcc", "rank" (pairs of the whole batch) and
            "group_rank" (pairs inside a group); a missing one is 0. "pair" is `preference_loss`'s.
        groups: (b,) integers, negative for rows without a group; needed by "group_rank".
        smoothing: see `level_distribution`.
        min_difference: see `rank_loss`.

    Raises:
        ValueError: Shapes do not fit, or a term has an unknown name.
    """
    unknown = set(terms) - set(LOSS_TERMS)
    if unknown:
        raise ValueError(f"unknown loss terms {sorted(unknown)}; there are {', '.join(LOSS_TERMS)}")
    if level_logits.shape[:2] != targets.shape or targets.shape != weights.shape:
        raise ValueError(
            f"expected (b, 4, 5) logits with (b, 4) targets and weights, got "
            f"{tuple(level_logits.shape)}, {tuple(targets.shape)}, {tuple(weights.shape)}"
        )
    level_logits = level_logits.float()
    predictions, _ = score_levels(level_logits)
    weights = weights.float()
    targets = torch.where(weights > 0, targets.float(), 0.0)
    if groups is None:
        groups = torch.full_like(targets[:, 0], -1, dtype=torch.long)

    loss = terms.get("level", 0.0) * level_loss(level_logits, targets, weights, smoothing=smoothing)
    columns = [c for c in range(targets.shape[1]) if _varies(targets[:, c], weights[:, c])]
    for c in columns:
        x, y, w = predictions[:, c], targets[:, c], weights[:, c]
        share = 1.0 / len(columns)
        if terms.get("plcc"):
            loss = loss + share * terms["plcc"] * plcc_loss(x, y, w)
        if terms.get("rank"):
            loss = loss + share * terms["rank"] * rank_loss(x, y, w, min_difference=min_difference)
        if terms.get("group_rank"):
            loss = loss + share * terms["group_rank"] * rank_loss(
                x, y, w, groups=groups, min_difference=min_difference
            )
    return loss


def preference_loss(
    level_logits: Tensor,
    pairs: Tensor,
    preferences: Tensor,
    weights: Tensor,
    *,
    scale: float,
    tie: float,
) -> Tensor:
    """`pair_loss` of the preference pairs of a batch, over all four scores.

    Args:
        level_logits: (b, 4, 5).
        pairs: (b,) number of the pair that a row is one side of, negative for none. The two sides
            are neighbours, the first first; one without the other is ignored.
        preferences: (b, 4) of the row's pair, see `pair_loss`.
        weights: (b,) of the row's pair.
        scale: See `pair_loss`.
        tie: See `pair_loss`.
    """
    predictions, _ = score_levels(level_logits.float())
    first = ((pairs[:-1] == pairs[1:]) & (pairs[:-1] >= 0)).nonzero().squeeze(1)
    return pair_loss(
        predictions[first],
        predictions[first + 1],
        preferences[first],
        weights[first, None],
        scale=scale,
        tie=tie,
    )


@dataclass(frozen=True, kw_only=True)
class ScoreLoss:
    """The loss of the scores of a batch, with its preference pairs.

    Attributes:
        terms: Weights, see `quality_loss`, and that of `preference_loss` as "pair".
        smoothing: See `level_distribution`.
        min_difference: See `rank_loss`.
        pair_scale: See `pair_loss`.
        pair_tie: See `pair_loss`.
    """

    terms: Mapping[str, float]
    smoothing: float
    min_difference: float
    pair_scale: float
    pair_tie: float

    def __call__(self, level_logits: Tensor, labels: Tensor, slot_mask: Tensor) -> Tensor:
        """The loss, a scalar.

        Args:
            level_logits: (b, 4, 5).
            labels: (b, 13), see `dataset`.
            slot_mask: (b, 4), false where there is nothing to score by: no prompt, or no encoder
                of the dimension.
        """
        targets, weights = labels[:, : len(SCORES)], labels[:, WEIGHT]
        known = ~targets.isnan() & slot_mask
        loss = quality_loss(
            level_logits,
            targets,
            known * weights[:, None],
            self.terms,
            groups=labels[:, GROUP].long(),
            smoothing=self.smoothing,
            min_difference=self.min_difference,
        )
        if self.terms.get("pair"):
            preferences = labels[:, PREFERENCES].masked_fill(~slot_mask, torch.nan)
            loss = loss + self.terms["pair"] * preference_loss(
                level_logits,
                labels[:, PAIR].long(),
                preferences,
                weights,
                scale=self.pair_scale,
                tie=self.pair_tie,
            )
        return loss


def answer_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Mean cross-entropy of the tokens that a model writes; 0 where there are none.

    Args:
        logits: (b, n + 1, v) at the last positions; the very last has no target.
        targets: (b, n), `IGNORED` where there is no loss.
    """
    total = F.cross_entropy(
        logits[:, :-1].flatten(0, 1).float(),
        targets.flatten(),
        ignore_index=IGNORED,
        reduction="sum",
    )
    return total / (targets != IGNORED).sum().clamp(min=1)


def gather_rows(rows: Tensor) -> Tensor:
    """The rows (b, ...) of all processes (w * b, ...), by rank; equally many of each.

    Gradients go back to a process's own rows only. Where each process computes the same loss of all
    rows, each gets the gradient of its share, and these add up to the whole: see `global_loss`.
    """
    size = _world_size()
    if size == 1:
        return rows
    parts = [torch.empty_like(rows) for _ in range(size)]
    dist.all_gather(parts, rows.detach().contiguous())
    parts[dist.get_rank()] = rows
    return torch.cat(parts)


def global_loss(loss: Tensor) -> Tensor:
    """A loss of gathered rows, with the gradient multiplied by the number of processes.

    DDP and FSDP divide the sum of the processes' gradients by that number, as if each had a loss of
    its own; here the sum itself is the gradient. The value stays.
    """
    size = _world_size()
    return loss if size == 1 else loss.detach() + size * (loss - loss.detach())


def _world_size() -> int:
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def _varies(targets: Tensor, weights: Tensor) -> bool:
    known = targets[weights > 0]
    return len(known) > 1 and bool(known.max() - known.min() > _MIN_STD)

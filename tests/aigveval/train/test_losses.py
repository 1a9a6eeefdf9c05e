"""Losses against their definitions written as loops, and what must not matter."""

import math

import pytest
import torch
from scipy import stats

from aigveval.train import losses
from prompts import rubric

TERMS = {"level": 1.0, "plcc": 1.0, "rank": 0.3, "group_rank": 0.3}


def _batch(seed: int = 0, rows: int = 8) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    random = torch.Generator().manual_seed(seed)
    logits = torch.randn(rows, 4, 5, generator=random, requires_grad=True)
    targets = 1 + 4 * torch.rand(rows, 4, generator=random)
    weights = (torch.rand(rows, 4, generator=random) < 0.7).float()
    return logits, targets, weights


@pytest.mark.parametrize("mos", [1.0, 1.4, 2.0, 3.25, 4.9, 5.0])
def test_level_distribution_is_the_rubrics(mos):
    ours = losses.level_distribution(torch.tensor([mos], dtype=torch.float64))[0]
    assert ours.tolist() == pytest.approx(rubric.level_distribution(mos))
    smooth = losses.level_distribution(torch.tensor([mos], dtype=torch.float64), smoothing=0.1)[0]
    assert float(smooth.sum()) == pytest.approx(1.0)
    assert float(smooth @ torch.arange(1.0, 6.0).double()) == pytest.approx(0.9 * mos + 0.1 * 3)


def test_level_loss_is_least_at_the_target():
    targets, weights = torch.tensor([[3.2, 1.0]]), torch.ones(1, 2)
    best = losses.level_distribution(targets).clamp(min=1e-9).log()
    entropy = -(0.8 * math.log(0.8) + 0.2 * math.log(0.2))
    assert float(losses.level_loss(best, targets, weights)) == pytest.approx(entropy / 2, abs=1e-6)
    worse = best + torch.randn(1, 2, 5, generator=torch.Generator().manual_seed(0))
    assert losses.level_loss(worse, targets, weights) > losses.level_loss(best, targets, weights)


@pytest.mark.parametrize("n", [2, 5, 40])
def test_plcc_loss_is_half_of_one_minus_r(n):
    x, y = torch.randn(2, n, generator=torch.Generator().manual_seed(n), dtype=torch.float64)
    expected = (1 - stats.pearsonr(x, y).statistic) / 2
    assert float(losses.plcc_loss(x, y)) == pytest.approx(expected, abs=1e-9)


def test_integer_weights_equal_repetition():
    x, y = torch.randn(2, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    weights = torch.tensor([1.0, 3.0, 0.0, 2.0])
    repeat = torch.tensor([0, 1, 1, 1, 3, 3])
    assert float(losses.plcc_loss(x, y, weights)) == pytest.approx(
        float(losses.plcc_loss(x[repeat], y[repeat])), abs=1e-9
    )


def _rank_by_loop(x, y, groups=None, min_difference=0.0):
    hinges = []
    for i in range(len(x)):
        for j in range(len(x)):
            same = groups is None or (groups[i] == groups[j] and groups[i] >= 0)
            if same and abs(y[i] - y[j]) > min_difference:
                hinges.append(max(0.0, -(x[i] - x[j]) * math.copysign(1.0, y[i] - y[j])))
    return sum(hinges) / len(hinges) / (1 + max(hinges))


@pytest.mark.parametrize("min_difference", [0.0, 1.0])
@pytest.mark.parametrize("grouped", [False, True])
def test_rank_loss_equals_a_loop(min_difference, grouped):
    random = torch.Generator().manual_seed(4)
    x = torch.randn(12, generator=random, dtype=torch.float64)
    y = torch.randint(1, 6, (12,), generator=random).double()
    groups = torch.tensor([0, 0, 0, 0, 1, 1, 1, 1, -1, -1, -1, -1]) if grouped else None
    ours = losses.rank_loss(x, y, groups=groups, min_difference=min_difference)
    expected = _rank_by_loop(
        x.tolist(), y.tolist(), None if groups is None else groups.tolist(), min_difference
    )
    assert float(ours) == pytest.approx(expected, abs=1e-12)


def test_rank_loss_of_the_right_order_is_zero():
    y = torch.tensor([1.0, 2.0, 3.0])
    assert losses.rank_loss(y * 10, y) == 0
    # hinges 1, 2 and 1, mean 4 / 3, over (1 + 2)
    assert float(losses.rank_loss(-y, y)) == pytest.approx(4 / 9)


def test_unknown_scores_do_not_matter():
    logits, targets, weights = _batch()
    groups = torch.arange(8) // 4
    loss = losses.quality_loss(logits, targets, weights, TERMS, groups=groups)
    (gradient,) = torch.autograd.grad(loss, logits)
    assert loss > 0 and torch.isfinite(gradient).all()
    assert (gradient[weights == 0] == 0).all()
    assert (gradient[weights > 0] != 0).any(-1).all()

    other = torch.where(weights > 0, targets, torch.nan)
    moved = torch.where(weights[..., None] > 0, logits, 50.0).detach().requires_grad_()
    again = losses.quality_loss(moved, other, weights, TERMS, groups=groups)
    (again_gradient,) = torch.autograd.grad(again, moved)
    assert torch.equal(loss, again)
    assert torch.equal(gradient, again_gradient)


def test_undefined_terms_have_no_gradient():
    logits, targets, weights = _batch()
    nothing = losses.quality_loss(logits, targets, torch.zeros_like(weights), TERMS)
    nothing.backward()
    assert nothing == 0 and (logits.grad == 0).all()
    assert losses.plcc_loss(torch.randn(3), torch.full((3,), 2.0)) == 0
    assert losses.rank_loss(torch.randn(3), torch.full((3,), 2.0)) == 0

    # equal predictions: r is 0, and the gradient finite
    constant = torch.zeros(4, requires_grad=True)
    loss = losses.plcc_loss(constant, torch.tensor([1.0, 2.0, 3.0, 4.0]))
    loss.backward()
    assert loss == 0.5 and torch.isfinite(constant.grad).all()


def test_one_row_leaves_the_level_term():
    logits, targets, _ = _batch(rows=1)
    weights = torch.ones(1, 4)
    loss = losses.quality_loss(logits, targets, weights, TERMS)
    assert torch.equal(loss, losses.level_loss(logits, targets, weights))


def test_the_terms_add_up():
    logits, targets, _ = _batch()
    weights = torch.ones_like(targets)
    weights[:, 3] = 0  # a score that nobody rated is not averaged in
    scores = logits.softmax(-1) @ torch.arange(1.0, 6.0)
    plcc = sum(losses.plcc_loss(scores[:, c], targets[:, c]) for c in range(3)) / 3
    rank = sum(losses.rank_loss(scores[:, c], targets[:, c]) for c in range(3)) / 3
    level = losses.level_loss(logits, targets, weights)
    loss = losses.quality_loss(logits, targets, weights, {"level": 2.0, "plcc": 0.5, "rank": 0.3})
    assert loss.item() == pytest.approx((2 * level + 0.5 * plcc + 0.3 * rank).item(), abs=1e-5)


def test_a_wrong_term_or_shape_raises():
    logits, targets, weights = _batch()
    with pytest.raises(ValueError, match=r"unknown loss terms \['plc'\]; there are level, plcc"):
        losses.quality_loss(logits, targets, weights, {"plc": 1.0})
    with pytest.raises(ValueError, match=r"expected \(b, 4, 5\) logits"):
        losses.quality_loss(logits, targets[:3], weights[:3], {"level": 1.0})

"""Scores out of level logits."""

import math

import numpy as np
import pytest
import scipy.special
import torch

from aigveval.model.base import level_probabilities, score_levels


@pytest.mark.parametrize("level", range(5))
def test_certain_level_gives_its_mos(level):
    logits = torch.full((5,), -50.0)
    logits[level] = 50.0
    score, std = score_levels(logits)
    assert score.item() == level + 1  # bad is 1, excellent is 5
    assert std.item() == pytest.approx(0, abs=1e-5)


def test_equal_logits_give_the_middle():
    score, std = score_levels(torch.zeros(2, 4, 5))
    assert score.shape == std.shape == (2, 4)
    torch.testing.assert_close(score, torch.full((2, 4), 3.0))
    torch.testing.assert_close(std, torch.full((2, 4), math.sqrt(2)))


def test_agrees_with_scipy_and_stays_on_the_scale():
    logits = torch.randn(500, 5, generator=torch.Generator().manual_seed(0)) * 20
    score, std = score_levels(logits)
    p = scipy.special.softmax(logits.double().numpy(), axis=-1)
    mean = p @ np.arange(1.0, 6.0)
    spread = np.sqrt((p * (np.arange(1.0, 6.0) - mean[:, None]) ** 2).sum(-1))
    np.testing.assert_allclose(score, mean, atol=1e-5)
    np.testing.assert_allclose(std, spread, atol=1e-3)
    assert score.min() >= 1 and score.max() <= 5
    np.testing.assert_allclose(level_probabilities(logits), p, atol=1e-6)


def test_half_precision_is_scored_in_float32():
    logits = torch.randn(10, 5, generator=torch.Generator().manual_seed(0)).bfloat16()
    score, std = score_levels(logits)
    assert score.dtype == std.dtype == torch.float32
    torch.testing.assert_close(score, score_levels(logits.float())[0])


def test_gradient_is_finite_where_the_spread_is_zero():
    logits = torch.tensor([200.0, 0.0, 0.0, 0.0, 0.0], requires_grad=True)
    score, std = score_levels(logits)
    (score + std).backward()
    assert logits.grad.isfinite().all()


def test_wrong_number_of_levels():
    with pytest.raises(ValueError, match=r"^level_logits must end in 5 levels, got \(2, 4\)$"):
        score_levels(torch.zeros(2, 4))

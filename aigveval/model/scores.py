"""Level logits to scores: pure functions of tensors."""

import torch
from torch import Tensor

from prompts.rubric import LEVEL_WEIGHTS, MAX_SCORE, MIN_SCORE


def level_probabilities(level_logits: Tensor) -> Tensor:
    """Softmax over the five level words, worst first, in float32: (..., 5) to (..., 5)."""
    return level_logits.float().softmax(dim=-1)


def score_levels(level_logits: Tensor) -> tuple[Tensor, Tensor]:
    """Expectation and standard deviation of the level distribution on the 1-5 MOS scale.

    As Q-Align (arXiv 2312.17090) and AIGVEval (arXiv 2506.04715) read a score, with "excellent"
    as 5 (AIGVEval's public code has it as 1) and no temperature.

    Args:
        level_logits: (..., 5), worst level first.

    Returns:
        Scores within 1-5 and standard deviations within 0-2, both float32 of shape (...).
    """
    if level_logits.shape[-1] != len(LEVEL_WEIGHTS):
        raise ValueError(
            f"level_logits must end in {len(LEVEL_WEIGHTS)} levels, got {tuple(level_logits.shape)}"
        )
    probabilities = level_probabilities(level_logits)
    weights = torch.tensor(LEVEL_WEIGHTS, device=level_logits.device)
    # Rounding can leave the expectation a hair outside of the scale.
    score = (probabilities * weights).sum(-1).clamp(MIN_SCORE, MAX_SCORE)
    variance = (probabilities * (weights - score.unsqueeze(-1)).square()).sum(-1)
    # sqrt has no finite gradient at 0; a distribution that sharp has a spread of 0 anyway.
    return score, variance.clamp_min(1e-12).sqrt()

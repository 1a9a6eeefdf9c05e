"""Before the regression stage: the projectors alone learn the scores, by their score heads.

The score heads' predictions are also what the LLM is shown (see `AIGVEvalBackbone`). Minutes, where
training through the LLM takes hours of a CPU. LLaVA's first stage (arXiv 2304.08485) likewise
trains the projector alone, but through the LLM.

Axis legend: b batch, K tokens of all encoders, D width of the widest.
"""

from __future__ import annotations

import math

import torch
from rich.console import Console
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import DataLoader

from prompts.rubric import SCORES

from ..model.projector import AIGVEvalBackbone
from .callbacks import steps_bar
from .config import FitConfig
from .dataset import GROUP, WEIGHT, EpochSampler, QualityDataset, features_of
from .losses import rank_loss

_BATCH = 64
_GROUP = 8


def pretrain_projectors(
    backbone: AIGVEvalBackbone,
    dataset: QualityDataset,
    config: FitConfig,
    console: Console,
) -> float:
    """Train the projectors on the rows for `config.align_epochs`; returns the last epoch's loss.

    The loss is the squared error of the known scores plus the rank loss inside of groups. Wrong
    prompts come as in the dataset.
    """
    torch.manual_seed(config.seed)
    sampler = EpochSampler(dataset.groups, batch_size=_BATCH, group_size=_GROUP, seed=config.seed)
    loader: DataLoader = DataLoader(
        dataset, batch_size=_BATCH, sampler=sampler, collate_fn=features_of
    )
    parameters = [
        parameter
        for projector in backbone.projectors.values()
        for name, parameter in projector.named_parameters()
        if name.startswith(("up.", "score_head."))
    ]
    optimizer = torch.optim.AdamW(
        parameters, lr=config.align_learning_rate, weight_decay=config.weight_decay
    )
    steps = config.align_epochs * len(loader)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer,
        config.align_learning_rate,
        total_steps=max(2, steps),  # the last one's rate is next to nothing
        pct_start=0.1 if steps > 10 else 0.0,  # it divides by the steps of the warm-up less one
    )
    backbone.projectors.train()
    device = parameters[0].device
    mean = math.nan
    with steps_bar(console) as bar:
        task = bar.add_task("Aligning", total=steps, note="")
        for epoch in range(config.align_epochs):
            sampler.set_epoch(epoch)
            total = 0.0
            for features, labels in loader:
                scores = backbone.score_hints(features.to(device))
                loss = _loss(scores, labels.to(device), config.rank_min_difference)
                optimizer.zero_grad()
                loss.backward()
                torch.nn.utils.clip_grad_norm_(parameters, config.max_grad_norm or math.inf)
                optimizer.step()
                schedule.step()
                total += loss.item()
                bar.advance(task)
            mean = total / len(loader)
    optimizer.zero_grad()
    return mean


def _loss(scores: Tensor, labels: Tensor, min_difference: float) -> Tensor:
    targets = labels[:, : len(SCORES)]
    weights = (~targets.isnan()) * labels[:, WEIGHT, None]
    goal = torch.where(weights > 0, targets, 0.0)
    error = F.mse_loss(scores, goal, reduction="none")
    loss = (error * weights).sum() / weights.sum().clamp(min=1e-12)
    groups = labels[:, GROUP].long()
    for column in range(len(SCORES)):
        loss = loss + rank_loss(
            scores[:, column],
            goal[:, column],
            weights[:, column],
            groups=groups,
            min_difference=min_difference,
        )
    return loss

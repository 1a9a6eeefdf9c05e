"""Before the regression stage: the projectors learn to tell the scores, the LLM to read them.

The projectors give a hint of each score (see `AIGVEvalBackbone`). `align` trains them by
that, in minutes, where training through the LLM takes hours of a CPU. Then `DistillTrainer` trains
the LLM's LoRA to answer what it's shown, which needs no rating at all, so that one LoRA can read
projectors that were aligned on other ratings. LLaVA's first stage (arXiv 2304.08485) likewise
trains the projector alone, but through the LLM.

Axis legend: b batch, K tokens of all encoders, D width of the widest.
"""

from __future__ import annotations

import math
from typing import Any, cast

import torch
from rich.console import Console
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader

from ..model.projector import AIGVEvalBackbone, FeatureProjector
from ..model.modeling import AIGVEvalModel
from prompts.rubric import SCORES

from .dataset import GROUP, PAIR, WEIGHT, Collator, EpochSampler, QualityDataset
from .config import FitConfig
from .losses import rank_loss
from .progress import steps_bar
from .trainer import QualityTrainer

_BATCH = 64
_GROUP = 8


def align(
    backbone: AIGVEvalBackbone, dataset: QualityDataset, collate: Collator, config: FitConfig,
    console: Console,
) -> float:
    """Train the projectors on the rows for `config.align_epochs`; gives the last epoch's loss.

    The loss is the squared error of the known scores plus the rank loss inside of groups. Rows
    with a wrong prompt come as in the dataset.
    """
    torch.manual_seed(config.seed)
    sampler = EpochSampler(
        dataset.groups, batch_size=_BATCH, group_size=_GROUP, seed=config.seed
    )
    loader: DataLoader = DataLoader(
        dataset, batch_size=_BATCH, sampler=sampler, collate_fn=collate.features
    )
    parameters = [
        parameter for projector in backbone.projectors.values()
        for name, parameter in projector.named_parameters()
        if name.startswith(("up.", "score_head."))
    ]
    optimizer = torch.optim.AdamW(
        parameters, lr=config.align_learning_rate, weight_decay=config.weight_decay
    )
    steps = config.align_epochs * len(loader)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, config.align_learning_rate, total_steps=steps,
        pct_start=0.1 if steps > 10 else 0.0,  # it divides by the steps of the warm-up less one
    )
    backbone.projectors.train()
    mean = math.nan
    with steps_bar(console) as bar:
        task = bar.add_task("Aligning", total=steps, note="")
        for epoch in range(config.align_epochs):
            sampler.set_epoch(epoch)
            total = 0.0
            for features, labels in loader:
                loss = _loss(backbone.score_hints(features), labels, config.rank_min_difference)
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


class DistillTrainer(QualityTrainer):
    """The target of a score is the hint that the LLM is shown; the projectors stay.

    So that the LLM reads nothing else, the encoders' tokens come from different rows of a batch,
    beside the prompt of a third; and a random shift of all that is told, of a standard deviation
    of `SHIFT`, lets every score occur.
    """

    SHIFT = 0.7

    def __init__(self, *, model: AIGVEvalModel, **options: Any) -> None:
        model.model.projectors.requires_grad_(False)
        super().__init__(model=model, **options)

    def compute_loss(
        self, model: nn.Module, inputs: dict[str, Tensor], return_outputs: bool = False,
        num_items_in_batch: Any = None,
    ) -> Any:
        if not model.training:
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        backbone = self.quality_model.model
        parts = inputs["features"].split([k for k, _ in backbone.config.feature_shapes], dim=1)
        features = torch.cat([part[torch.randperm(len(part))] for part in parts], dim=1)
        backbone.projectors.eval()  # no noise: target and tokens must be of one kind
        bias = cast(FeatureProjector, next(iter(backbone.projectors.values()))).score_head.bias.data
        kept = bias.clone()
        try:
            bias += self.SHIFT * torch.randn(len(SCORES), device=kept.device)
            with torch.no_grad():
                told = backbone.score_hints(features).clamp(1.0, 5.0)
            labels = inputs["labels"].clone()
            labels[:, : len(SCORES)], labels[:, WEIGHT] = told, 1.0
            labels[:, GROUP] = labels[:, PAIR] = -1
            inputs = {**inputs, "features": features, "labels": labels}
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        finally:
            bias.copy_(kept)


def _loss(scores: Tensor, labels: Tensor, min_difference: float) -> Tensor:
    targets = labels[:, : len(SCORES)]
    weights = (~targets.isnan()) * labels[:, WEIGHT, None]
    goal = torch.where(weights > 0, targets, 0.0)
    error = F.mse_loss(scores, goal, reduction="none")
    loss = (error * weights).sum() / weights.sum().clamp(min=1e-12)
    groups = labels[:, GROUP].long()
    for column in range(len(SCORES)):
        loss = loss + rank_loss(
            scores[:, column], goal[:, column], weights[:, column],
            groups=groups, min_difference=min_difference,
        )
    return loss

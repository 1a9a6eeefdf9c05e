"""Before stage sft: a head learns to find signs of the defects that the answers name.

See `aigveval.signs`. It's trained by itself, in minutes, where the LLM would need hours.

Axis legend: b batch, n defects, t time steps.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from rich.console import Console
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import DataLoader

from aigveval.fusion import AIGVEvalBackbone
from aigveval.signs import Found, ordered
from prompts import DEFECTS, Defect, parse

from .answers import answers_of
from .dataset import Collator, EpochSampler, QualityDataset
from .fit_config import FitConfig
from .progress import steps_bar

_BATCH = 64
_NOISE = 0.3  # standard deviation of noise on standardised tokens
_SLIGHT = 0.3  # weight of a clip whose defects hardly show
_MISMATCH = "prompt_mismatch"


def names_in(dataset: QualityDataset) -> list[str]:
    """The defects that answers name, in the order of the rubric."""
    return ordered([d.name for row in dataset.rows for d in defects_of(answers_of(row)) or ()])


def defects_of(answers: Sequence[str]) -> tuple[Defect, ...] | None:
    """The defects of a clip by its answers; None where nobody looked."""
    return parse(answers[0]).defects if answers else None


class _Labels:
    """Adds what is known of defects to a batch of features."""

    def __init__(
        self, dataset: QualityDataset, collate: Collator, *, names: Sequence[str], steps: int,
        length: float,
    ) -> None:
        self.dataset, self.collate, self.names = dataset, collate, list(names)
        self.steps, self.length = steps, length
        self.defects = [defects_of(answers_of(row)) for row in dataset.rows]

    def __call__(self, items: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
        features, _ = self.collate.features(items)
        severity = torch.zeros(len(items), len(self.names))
        steps = torch.zeros(len(items), self.steps, len(self.names))
        weight = torch.ones(len(items), len(self.names))
        for row, item in enumerate(items):
            for defect in self.shown(item):
                column = self.names.index(defect.name)
                severity[row, column] = defect.severity
                start, end = defect.span(self.length)
                edges = torch.arange(self.steps + 1) * (self.length / self.steps)
                overlap = edges[1:].clamp(max=end) - edges[:-1].clamp(min=start)
                steps[row, :, column] = (overlap * self.steps / self.length).clamp(min=0)
            weight[row, (severity[row] > 0) & (severity[row] < 2)] = _SLIGHT
            if item["prompt"] is None:
                weight[row, [DEFECTS[name].dimension == "semantic" for name in self.names]] = 0
        return {"features": features, "severity": severity, "steps": steps, "weight": weight}

    def shown(self, item: Mapping[str, Any]) -> list[Defect]:
        """With another prompt than its own, a clip's one semantic defect is that."""
        row = self.dataset.rows[item["row"]]
        known = [defect for defect in self.defects[item["row"]] or () if defect.name in self.names]
        if item["prompt"] in (None, row.prompt):
            return known
        kept = [defect for defect in known if defect.dimension != "semantic"]
        return kept + [Defect(name=_MISMATCH, severity=5)] * (_MISMATCH in self.names)


def train_signs(
    backbone: AIGVEvalBackbone, dataset: QualityDataset, collate: Collator, config: FitConfig,
    console: Console,
) -> float:
    """Train the head on the rows with answers for `config.signs_epochs`; gives the last loss.

    Rows with a wrong prompt come as in the dataset.
    """
    finder = backbone.signs
    assert finder is not None
    torch.manual_seed(config.seed)
    chosen = [i for i, row in enumerate(dataset.rows) if answers_of(row)]
    sampler = EpochSampler([-1] * len(chosen), batch_size=_BATCH, seed=config.seed)
    labels = _Labels(
        dataset, collate, names=finder.names, steps=finder.steps, length=10.0
    )
    loader: DataLoader = DataLoader(
        _Chosen(dataset, chosen), batch_size=_BATCH, sampler=sampler, collate_fn=labels
    )
    finder.requires_grad_(True).train()
    rate = config.signs_learning_rate
    optimizer = torch.optim.AdamW(finder.parameters(), lr=rate, weight_decay=config.weight_decay)
    steps = config.signs_epochs * len(loader)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, rate, total_steps=steps, pct_start=0.1 if steps > 10 else 0.0
    )
    device = next(finder.parameters()).device
    mean = math.nan
    with steps_bar(console) as bar:
        task = bar.add_task("Signs", total=steps, note="")
        for epoch in range(config.signs_epochs):
            sampler.set_epoch(epoch)
            total = 0.0
            for batch in loader:
                batch = {name: value.to(device) for name, value in batch.items()}
                tokens = backbone.standardised(batch.pop("features"))
                found = finder([part + _NOISE * torch.randn_like(part) for part in tokens])
                loss = signs_loss(found, **batch)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                schedule.step()
                total += loss.item()
                bar.advance(task)
            mean = total / len(loader)
    optimizer.zero_grad()
    finder.requires_grad_(False).eval()
    return mean


class _Chosen(torch.utils.data.Dataset[dict[str, Any]]):
    """Some rows of a data set, by `(epoch, number)`."""

    def __init__(self, dataset: QualityDataset, chosen: Sequence[int]) -> None:
        self.dataset, self.chosen = dataset, chosen

    def __getitem__(self, key: tuple[int, int]) -> dict[str, Any]:
        return self.dataset[key[0], self.chosen[key[1]]]

    def __len__(self) -> int:
        return len(self.chosen)


def signs_loss(found: Found, *, severity: Tensor, steps: Tensor, weight: Tensor) -> Tensor:
    """Whether a clip has each defect, and, of those it has, how severe and when.

    Args:
        found: By the head.
        severity: (b, n), 1-5; 0 where the clip hasn't the defect.
        steps: (b, t, n), share of each step that has it.
        weight: (b, n).
    """
    present = (severity > 0).float()
    whether = F.binary_cross_entropy_with_logits(found.logits, present, reduction="none")
    loss = (whether * weight).mean(0).sum()
    there = present * weight
    count = there.sum().clamp(min=1)
    degree = F.smooth_l1_loss(found.severity, severity, reduction="none")
    when = F.binary_cross_entropy_with_logits(found.steps, steps, reduction="none").mean(1)
    return loss + ((0.3 * degree + when) * there).sum() / count

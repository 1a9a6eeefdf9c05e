"""Trainer with our loss, and the correlations that it validates with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import EvalPrediction, Trainer

from aigveval import metrics
from aigveval.checkpoint import trained_keys
from aigveval.modeling import AIGVEvalModel
from prompts.rubric import SCORES

from .dataset import GROUP, SOURCE, WEIGHT, EpochSampler, QualityDataset
from .fit_config import FitConfig, FitError
from .losses import quality_loss


class QualityTrainer(Trainer):
    """Trainer with our loss, learning rates and order of rows; nothing else differs."""

    def __init__(
        self, *, fit: FitConfig, model: AIGVEvalModel, train_dataset: QualityDataset, **options: Any
    ) -> None:
        super().__init__(model=model, train_dataset=train_dataset, **options)
        self.fit, self.quality_model, self.groups = fit, model, train_dataset.groups
        self.model_accepts_loss_kwargs = False  # so the loss is divided by grad_accum

    def compute_loss(
        self, model: nn.Module, inputs: dict[str, Tensor], return_outputs: bool = False,
        num_items_in_batch: Any = None,
    ) -> Any:
        labels = inputs.pop("labels")
        outputs = model(**inputs)
        targets = labels[:, : len(SCORES)]
        loss = quality_loss(
            outputs.level_logits, targets, (~targets.isnan()) * labels[:, WEIGHT, None],
            self.fit.loss, groups=labels[:, GROUP].long(), smoothing=self.fit.smoothing,
            min_difference=self.fit.rank_min_difference,
        )
        return (loss, outputs) if return_outputs else loss

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        if self.optimizer is None:
            groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
            for name, parameter in (model or self.quality_model).named_parameters():
                if parameter.requires_grad:
                    decays = parameter.ndim > 1 and not name.endswith("position")
                    groups.setdefault(("lora_" in name, decays), []).append(parameter)
            fit = self.fit
            self.optimizer = torch.optim.AdamW([
                {"params": groups[lora, decays],
                 "lr": fit.lora_learning_rate if lora else fit.learning_rate,
                 "weight_decay": fit.weight_decay if decays else 0.0}
                for lora, decays in sorted(groups)
            ])
        return self.optimizer

    def _get_train_sampler(self, train_dataset: Any = None) -> EpochSampler:
        return EpochSampler(
            self.groups, batch_size=self.fit.batch_size, seed=self.fit.seed,
            group_size=self.fit.group_size if self.fit.group_batches else 1,
        )

    def _issue_warnings_after_load(self, load_result: Any) -> None:
        missing = trained_keys(self.quality_model) & set(load_result.missing_keys)
        if missing or load_result.unexpected_keys:
            raise FitError(
                f"a checkpoint doesn't fit the model: missing {sorted(missing)[:3]}, "
                f"unexpected {sorted(load_result.unexpected_keys)[:3]}"
            )


class CorrelationMetrics:
    """SROCC and PLCC of each score on each validation manifest, and their mean SROCC."""

    def __init__(self, parts: Sequence[str]) -> None:
        self.parts = parts

    def defined(self, dataset: QualityDataset) -> list[str]:
        """The names that a validation on this data set has."""
        scores = np.array([row.scores for row in dataset.rows]).reshape(-1, len(SCORES))
        sources = np.array(dataset.sources)
        return [f"{self.parts[part]}_srocc_{SCORES[column]}"
                for part, column, _ in self._known(scores, sources)]

    def __call__(self, prediction: EvalPrediction) -> dict[str, float]:
        scores, labels = np.asarray(prediction.predictions), np.asarray(prediction.label_ids)
        result: dict[str, float] = {}
        for part, column, rows in self._known(labels[:, : len(SCORES)], labels[:, SOURCE]):
            x, y = scores[rows, column], labels[rows, column]
            for metric in (metrics.srocc, metrics.plcc):
                # a model that gives every clip the same score orders nothing
                value = 0.0 if np.ptp(x) == 0 else metric(x, y)
                result[f"{self.parts[part]}_{metric.__name__}_{SCORES[column]}"] = value
        rank = [value for name, value in result.items() if "_srocc_" in name]
        return {"srocc": float(np.mean(rank)), **result}

    def _known(self, scores: Any, sources: Any) -> list[tuple[int, int, Any]]:
        found = []
        for part in range(len(self.parts)):
            for column in range(len(SCORES)):
                rows = (sources == part) & ~np.isnan(scores[:, column])
                if rows.sum() >= 3 and np.ptp(scores[rows, column]) > 0:
                    found.append((part, column, rows))
        return found

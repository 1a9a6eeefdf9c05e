"""Trainer with our loss over the clips of all processes, and with averaged weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import (
    Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments,
)

from aigveval.checkpoint import trained_keys
from aigveval.modeling import AIGVEvalModel
from prompts.rubric import SCORES

from .averaging import WeightAverage
from .dataset import GROUP, PAIR, PREFERENCES, WEIGHT, EpochSampler, QualityDataset
from .fit_config import FitConfig, FitError
from .losses import preference_loss, quality_loss
from .parallel import gather_rows, global_loss

_KINDS = ("projector", "lora", "encoder")  # of parameters; in the order of the optimizer's groups


class QualityTrainer(Trainer):
    """Trainer with our loss, learning rates, order of rows and `WeightAverage`."""

    def __init__(
        self, *, fit: FitConfig, model: AIGVEvalModel, train_dataset: QualityDataset, **options: Any
    ) -> None:
        super().__init__(model=model, train_dataset=train_dataset, **options)
        self.fit, self.quality_model, self.train_rows = fit, model, train_dataset
        self.model_accepts_loss_kwargs = False  # so the loss is divided by grad_accum
        # After Trainer has moved the model to its device.
        self.average = None if fit.ema is None else WeightAverage(model, fit.ema)
        self.sampler: EpochSampler | None = None
        self.add_callback(_Hooks(self))

    def compute_loss(
        self, model: nn.Module, inputs: dict[str, Any], return_outputs: bool = False,
        num_items_in_batch: Any = None,
    ) -> Any:
        labels, slot_mask = inputs.pop("labels"), inputs["slot_mask"]
        outputs = model(**inputs)
        if model.training:  # else each process has its own rows to measure
            # PLCC and ranks are of a batch as a whole.
            logits = gather_rows(outputs.level_logits)
            loss = global_loss(self._loss(logits, gather_rows(labels), gather_rows(slot_mask)))
        else:
            loss = self._loss(outputs.level_logits, labels, slot_mask)
        return (loss, outputs) if return_outputs else loss

    def _loss(self, level_logits: Tensor, labels: Tensor, slot_mask: Tensor) -> Tensor:
        fit = self.fit
        targets, weights = labels[:, : len(SCORES)], labels[:, WEIGHT]
        # A slot is masked where there's no evidence: no prompt, or no encoder of the dimension.
        known = ~targets.isnan() & slot_mask
        loss = quality_loss(
            level_logits, targets, known * weights[:, None], fit.loss,
            groups=labels[:, GROUP].long(), smoothing=fit.smoothing,
            min_difference=fit.rank_min_difference,
        )
        if fit.loss.get("pair"):
            preferences = labels[:, PREFERENCES].masked_fill(~slot_mask, torch.nan)
            loss = loss + fit.loss["pair"] * preference_loss(
                level_logits, labels[:, PAIR].long(), preferences, weights,
                scale=fit.pair_scale, tie=fit.pair_tie,
            )
        return loss

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        if self.optimizer is None:
            fit = self.fit
            rates = {
                "encoder": fit.encoder_learning_rate, "lora": fit.lora_learning_rate,
                "projector": fit.learning_rate,
            }
            groups: dict[tuple[str, bool], list[nn.Parameter]] = {}
            for name, parameter in (model or self.quality_model).named_parameters():
                if parameter.requires_grad:
                    decays = parameter.ndim > 1 and "position" not in name
                    groups.setdefault((_kind(name), decays), []).append(parameter)
            self.optimizer = torch.optim.AdamW([
                {"params": groups[kind, decays], "lr": rates[kind],
                 "weight_decay": fit.weight_decay if decays else 0.0}
                for kind in _KINDS for decays in (False, True) if (kind, decays) in groups
            ])
        return self.optimizer

    def save_trained(self, folder: Path) -> None:
        """Write the model as it is, once, whatever its parameters are spread over."""
        model, state = self.quality_model, None
        if self.is_fsdp_enabled:
            state = self.accelerator.get_state_dict(self.model)
            model = self.accelerator.unwrap_model(self.model)
        if self.args.should_save:
            model.eval().save_pretrained(folder, state_dict=state)

    def use_average(self) -> None:
        """Let the model have the averaged weights for good."""
        if self.average is not None:
            self.average.copy_to_model()

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        if self.average is None:
            return super().evaluate(*args, **kwargs)
        with self.average.in_place():
            return super().evaluate(*args, **kwargs)

    def _get_train_sampler(self, train_dataset: Any = None) -> EpochSampler:
        fit, rows = self.fit, self.train_rows
        batch = fit.batch_size * self.args.world_size
        self.sampler = EpochSampler(
            rows.groups, batch_size=batch, seed=fit.seed, pairs_from=rows.pairs_from,
            group_size=fit.group_size if fit.group_batches else 1,
            # Otherwise accelerate would repeat rows until each process has as many.
            multiple_of=batch if self.args.world_size > 1 else 1,
        )
        return self.sampler

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        super()._save_optimizer_and_scheduler(output_dir)
        if self.average is not None and self.args.should_save:
            self.average.save(Path(output_dir))

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        super()._load_from_checkpoint(resume_from_checkpoint, model)
        if self.average is not None:
            self.average.load(Path(resume_from_checkpoint))

    def _load_best_model(self) -> None:
        super()._load_best_model()
        if self.average is not None:
            self.average.load(Path(self.state.best_model_checkpoint or ""))

    def _issue_warnings_after_load(self, load_result: Any) -> None:
        missing = trained_keys(self.quality_model) & set(load_result.missing_keys)
        if missing or load_result.unexpected_keys:
            raise FitError(
                f"a checkpoint doesn't fit the model: missing {sorted(missing)[:3]}, "
                f"unexpected {sorted(load_result.unexpected_keys)[:3]}"
            )


class _Hooks(TrainerCallback):
    def __init__(self, trainer: QualityTrainer) -> None:
        self.trainer = trainer

    def on_epoch_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        # Of several processes that go on in the middle of an epoch, the Trainer doesn't reach it.
        if self.trainer.sampler is not None:
            self.trainer.sampler.set_epoch(int(state.epoch or 0))

    def on_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if self.trainer.average is not None:
            self.trainer.average.update()


def _kind(name: str) -> str:
    if "lora_" in name:
        return "lora"
    return "encoder" if name.removeprefix("module.").startswith("encoders.") else "projector"

"""Trainer with our loss over the clips of all processes, and with averaged weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader
from transformers import (
    Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments,
)

from ..model.modeling import AIGVEvalModel
from prompts.rubric import SCORES

from .averaging import WeightAverage
from .dataset import GROUP, PAIR, PREFERENCES, WEIGHT, EpochSampler, QualityDataset
from .config import FitConfig
from .losses import preference_loss, quality_loss
from .optimizer import check_checkpoint, make_optimizer
from .parallel import gather_rows, global_loss


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
        self.resumes_from: Path | None = None
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
        return score_loss(self.fit, level_logits, labels, slot_mask)

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        if self.optimizer is None:
            self.optimizer = make_optimizer(model or self.quality_model, self.fit)
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
        """Let the model have the averaged weights for good: of the best checkpoint, if chosen."""
        if self.average is not None:
            best = self.state.best_model_checkpoint
            if best is not None and self.args.load_best_model_at_end:
                self.average.load(Path(best))
            self.average.copy_to_model()

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        if self.average is None:
            return super().evaluate(*args, **kwargs)
        with self.average.in_place():
            return super().evaluate(*args, **kwargs)

    def get_train_dataloader(self) -> DataLoader:
        self.sampler = None
        loader = super().get_train_dataloader()
        if self.sampler is not None:
            return loader
        # This version of transformers doesn't ask for our order of rows where others do.
        options = self.args
        return self.accelerator.prepare(DataLoader(
            self.train_rows, batch_size=self.fit.batch_size, sampler=self._get_train_sampler(),
            collate_fn=self.data_collator, num_workers=options.dataloader_num_workers,
            pin_memory=options.dataloader_pin_memory,
        ))

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

    def train(  # type: ignore[override]
        self, resume_from_checkpoint: Any = None, **options: Any
    ) -> Any:
        """As the Trainer does; a checkpoint is a path."""
        self.resumes_from = None if resume_from_checkpoint is None else Path(resume_from_checkpoint)
        if self.resumes_from is not None:
            check_checkpoint(self.quality_model, self.resumes_from)
        return super().train(resume_from_checkpoint=resume_from_checkpoint, **options)

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        super().save_model(output_dir, _internal_call)
        if self.average is not None and self.args.should_save:
            self.average.save(Path(output_dir or str(self.args.output_dir)))

    def _issue_warnings_after_load(self, load_result: Any) -> None:
        """Nothing: what is frozen isn't in a checkpoint; `check_checkpoint` looks at the rest."""


class _Hooks(TrainerCallback):
    def __init__(self, trainer: QualityTrainer) -> None:
        self.trainer = trainer

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        trainer = self.trainer
        if trainer.average is not None and trainer.resumes_from is not None:
            trainer.average.load(trainer.resumes_from)

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


def score_loss(
    fit: FitConfig, level_logits: Tensor, labels: Tensor, slot_mask: Tensor
) -> Tensor:
    """The loss of the scores of a batch, with its pairs.

    Args:
        fit: Has the weights of its terms.
        level_logits: (b, 4, 5).
        labels: (b, 13), see `dataset`.
        slot_mask: (b, 4), false where there is no score to give.
    """
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

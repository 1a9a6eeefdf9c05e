"""Stage grpo: answers are sampled in groups, and the better ones of a group become likelier.

TRL's GRPOTrainer does the training; what is ours is how answers are sampled and judged, see
`rollout` and `rewards`. The scores are kept where they are by the loss of stage regression on the
same clips, with the weight `score_weight`.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from datasets import Dataset
from rich.console import Console
from torch import nn
from transformers import (
    EvalPrediction, PreTrainedModel, PrinterCallback, TrainerCallback, TrainerControl,
    TrainerState, TrainingArguments,
)
from trl import GRPOConfig, GRPOTrainer

from ..model.library_internals import add_reference

from .answers import AnswerRow, answers_of
from .arguments import tensorboard, training_arguments
from .rejection_sampling import COMPLETIONS, forget_completions
from .control import SaveCallback
from .dataset import QualityDataset
from .config import FitConfig
from .grpo_options import GrpoOptions
from .optimizer import check_checkpoint, make_optimizer
from .progress import ProgressCallback
from .resume import step_of
from .rollout import Evidence, NotedRewards, RowProcessor, Rollouts
from .sft import Means
from .trainer import score_loss
from .validation import ValidationMetrics


class GroupTrainer(GRPOTrainer):
    """GRPOTrainer with our optimizer, a reference that shares frozen weights, and the scores' loss.

    Args:
        fit: Options of the run.
        reference: Copy of the model as it starts, for the KL divergence; None for none.
        beta: Weight of that.
        evidence: Of the training rows.
        **options: Of GRPOTrainer.
    """

    def __init__(
        self, *, fit: FitConfig, reference: PreTrainedModel | None, beta: float, evidence: Evidence,
        **options: Any,
    ) -> None:
        self.fit, self.evidence, self.means = fit, evidence, Means()
        super().__init__(**options)
        # TRL would load a whole model; only what is trained differs from ours.
        if reference is not None:
            add_reference(self, reference, beta=beta)

    def compute_loss(
        self, model: nn.Module, inputs: dict[str, Any], return_outputs: bool = False,
        num_items_in_batch: Any = None,
    ) -> Any:
        loss = super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        if not self.fit.score_weight:
            return loss
        rows = list(dict.fromkeys(inputs["pixel_values"][:, 0].tolist()))
        batch = self.evidence.batch(rows, device=self.accelerator.device)
        labels = batch.pop("labels")
        level_logits = model(**batch).level_logits
        scores = score_loss(self.fit, level_logits, labels, batch["slot_mask"])
        self.means.note("score_loss", scores)
        # TRL divides by the number of batches of a step itself.
        return loss + self.fit.score_weight * scores / self.current_gradient_accumulation_steps

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        if self.optimizer is None:
            self.optimizer = make_optimizer(cast(nn.Module, model or self.model), self.fit)
        return self.optimizer

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        if "loss" in logs:
            logs = {**logs, **self.means.take()}
        super().log(logs, *args, **kwargs)

    def train(  # type: ignore[override]
        self, resume_from_checkpoint: Any = None, **options: Any
    ) -> Any:
        """As TRL does; a checkpoint is a path."""
        if resume_from_checkpoint is not None:
            check_checkpoint(self.model, Path(resume_from_checkpoint))
        return super().train(resume_from_checkpoint=resume_from_checkpoint, **options)

    def _issue_warnings_after_load(self, load_result: Any) -> None:
        """Nothing: what is frozen isn't in a checkpoint; `check_checkpoint` looks at the rest."""

    def create_model_card(self, *args: Any, **kwargs: Any) -> None:
        """None: checkpoints are for going on."""

    def _send_telemetry(self) -> None:
        """Nothing leaves the machine."""


class _RewardProgress(ProgressCallback):
    """Shows the mean reward instead of the loss, which says little here."""

    reward = math.nan

    def on_log(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl,
        logs: Mapping[str, float] | None = None, **kwargs: Any,
    ) -> None:
        if logs and logs.get("reward") is not None:
            self.reward = logs["reward"]
            self._update(state)

    def note(self) -> str:
        return "" if math.isnan(self.reward) else f"reward {self.reward:.3f}"


def train(
    config: FitConfig, *, model: Any, processor: Any, dataset: QualityDataset, collate: Any,
    checkpoint: Path | None, console: Console,
) -> int:
    """Train a model in place; gives the number of optimizer steps of the whole run.

    Args:
        config: Of stage grpo.
        model: Writes answers (`answer_writer`) and scores (`score`).
        processor: With its tokenizer.
        dataset: The training rows; those with answers are sampled for.
        collate: Makes a batch of scores of its items.
        checkpoint: To go on from, or None.
        console: Where to print.
    """
    options = GrpoOptions(**config.grpo)
    folder = Path(config.output_dir)
    per_step = options.groups_per_step(config)
    chosen = [i for i, row in enumerate(dataset.rows) if answers_of(row)]
    steps = config.max_steps or math.ceil(config.epochs * len(chosen) / per_step)
    arguments = cast(GRPOConfig, training_arguments(
        replace(config, valid=[], max_steps=steps), kind=GRPOConfig,
        num_generations=options.group, temperature=options.temperature, top_p=options.top_p,
        top_k=0, max_completion_length=options.max_new_tokens, epsilon=options.clip,
        loss_type=options.loss, beta=0.0, reward_weights=list(options.weights.values()),
        disable_dropout=True, shuffle_dataset=False, log_completions=False,
    ))
    if config.learn == "reading":
        model.model.projectors.requires_grad_(False)
    step = 0 if checkpoint is None else step_of(checkpoint)
    evidence = Evidence(dataset, collate)
    noted = NotedRewards(folder, dataset, options.weights)
    if arguments.process_index == 0:
        forget_completions(folder / COMPLETIONS, from_step=step)
    reference = _frozen_copy(model) if options.beta else None
    for one in filter(None, (model, reference)):
        evidence.attach(one)
    progress = _RewardProgress(console, [])
    saving = SaveCallback(console, steps=config.save_steps, minutes=config.save_minutes)
    callbacks: list[TrainerCallback] = [progress, saving]
    if arguments.process_index == 0 and (log := tensorboard(config, from_step=step)):
        callbacks.append(log)
    trainer = GroupTrainer(
        fit=config, reference=reference, beta=options.beta, evidence=evidence, model=model,
        args=arguments,
        processing_class=RowProcessor(processor.tokenizer),
        train_dataset=_sequence(dataset, chosen, count=steps * per_step, seed=config.seed),
        reward_funcs=noted.functions(), callbacks=callbacks,
        rollout_func=Rollouts(evidence, processor.tokenizer, options, seed=config.seed),
    )
    trainer.remove_callback(PrinterCallback)  # it prints dicts
    try:
        trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
    finally:
        progress.stop()
        saving.stop()
    rewards = [entry["reward"] for entry in trainer.state.log_history if "reward" in entry]
    if rewards:
        console.print(
            f"Mean reward {rewards[0]:.3f} at first, {rewards[-1]:.3f} at last; the answers are in "
            f"{folder / COMPLETIONS}", highlight=False, soft_wrap=True,
        )
    return trainer.state.global_step


def _frozen_copy(model: PreTrainedModel) -> PreTrainedModel:
    """A copy with its own trained weights; the frozen ones, nearly all, are those of the model."""
    shared = {id(p): p for p in model.parameters() if not p.requires_grad}
    return copy.deepcopy(model, shared).requires_grad_(False).eval()


def _sequence(
    dataset: QualityDataset, chosen: Sequence[int], *, count: int, seed: int
) -> Dataset:
    """The rows of a whole run in their order, one shuffled epoch after the other, for TRL.

    TRL's own sampler would begin anew in a run that goes on.
    """
    epochs = math.ceil(count / len(chosen))
    order = [
        chosen[i] for epoch in range(epochs)
        for i in np.random.default_rng((seed, epoch)).permutation(len(chosen))
    ]
    records = []
    for row in order[:count]:
        clip = cast(AnswerRow, dataset.rows[row])
        records.append({
            "prompt": [{"role": "user", "content": clip.prompt or ""}], "image": row,
            "answer": clip.answers[0], "clip_length": clip.clip_length,
        })
    return Dataset.from_list(records)


def measure(
    model: Any, dataset: QualityDataset, collate: Any, metrics: ValidationMetrics, *,
    batch_size: int, device: torch.device,
) -> dict[str, float]:
    """The validation's metrics, measured at once."""
    predictions, labels = [], []
    for start in range(0, len(dataset), batch_size):
        part = range(start, min(start + batch_size, len(dataset)))
        batch = collate([dataset[i] for i in part])
        labels.append(batch.pop("labels").numpy())
        found = model.score(**{
            name: value.to(device) if isinstance(value, torch.Tensor) else value
            for name, value in batch.items()
        })
        predictions.append(found.scores.float().cpu().numpy())
    return metrics(EvalPrediction(
        predictions=np.concatenate(predictions), label_ids=np.concatenate(labels)
    ))

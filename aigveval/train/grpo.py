"""Stage grpo: answers are sampled in groups, and the better ones of a group become likelier.

TRL's GRPOTrainer does the training; what is ours is how answers are sampled (`Rollouts`) and judged
(`rewards`). The scores are kept where they are by the loss of stage regression on the same clips,
with the weight `score_weight`.

TRL carries an image per prompt. Ours is the number of a training row, from which the evidence is
made where the model needs it (`Evidence`), whatever a model sees of a clip. The scoring pass gives
the levels that an answer begins with, and the model writes on from its cache.
"""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from statistics import fmean
from typing import Any, cast

import numpy as np
import torch
from accelerate.utils import gather_object
from datasets import Dataset
from rich.console import Console
from torch import nn
from transformers import (
    BatchFeature,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    ProcessorMixin,
    TrainerCallback,
)
from trl import GRPOConfig, GRPOTrainer

from prompts import SCORES

from ..model.base import name_scores
from ..model.generation import AnswerWriter, answer_heads, evidence_of, max_new_tokens_of
from ..model.library_internals import add_reference, cache_of
from .callbacks import ProgressCallback, SaveCallback, print_line
from .config import FitConfig, GrpoOptions
from .dataset import QualityDataset
from .predict import on_device
from .rejection_sampling import (
    COMPLETIONS,
    Completion,
    append_completions,
    drop_completions,
    weighted_reward,
)
from .resume import step_of
from .rewards import RewardFunction, text_of, trl_rewards
from .trainer import TrainerParts, score_loss, tensorboard, training_arguments

REWARD = "mean_reward"  # logged beside TRL's "reward", where unknown rewards count 0


class GroupTrainer(TrainerParts, GRPOTrainer):
    """GRPOTrainer with our optimizer, a reference that shares frozen weights, and the scores' loss.

    The reference is a copy of the model as it starts, for the KL divergence, whose weight is beta.
    """

    def __init__(
        self,
        *,
        config: FitConfig,
        model: Any,
        reference: PreTrainedModel | None,
        beta: float,
        evidence: Evidence,
        **options: Any,
    ) -> None:
        self.config, self.scorer, self.evidence = config, model, evidence
        self.score_loss = score_loss(config)
        super().__init__(model=model, **options)
        # TRL would load a whole model; only what is trained differs from ours.
        if reference is not None:
            add_reference(self, reference, beta=beta)

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Any = None,
    ) -> Any:
        loss = super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        if not self.config.score_weight:
            return loss
        rows = list(dict.fromkeys(inputs["pixel_values"][:, 0].tolist()))
        batch = self.evidence.batch(rows, device=self.accelerator.device)
        labels = batch.pop("labels")
        scores = self.score_loss(model(**batch).level_logits, labels, batch["slot_mask"])
        self.note("score_loss", scores)
        # TRL divides by the number of batches of a step itself.
        return loss + self.config.score_weight * scores / self.current_gradient_accumulation_steps

    def create_model_card(self, *args: Any, **kwargs: Any) -> None:
        """None: checkpoints are for resuming."""

    def _send_telemetry(self) -> None:
        """Nothing leaves the machine."""


def train(
    config: FitConfig,
    *,
    model: Any,
    processor: Any,
    dataset: QualityDataset,
    collate: Any,
    checkpoint: Path | None,
    console: Console,
) -> int:
    """Train a model in place; returns the number of optimizer steps of the whole run.

    Sampled for are the rows with answers.
    """
    options = GrpoOptions.of(config.grpo)
    limit = options.max_new_tokens or max_new_tokens_of(model)
    folder = Path(config.output_dir)
    per_step = options.groups_per_step(config)
    chosen = [i for i, row in enumerate(dataset.rows) if row.answers]
    steps = config.max_steps or math.ceil(config.epochs * len(chosen) / per_step)
    arguments = cast(
        GRPOConfig,
        training_arguments(
            replace(config, valid=[], max_steps=steps),
            kind=GRPOConfig,
            num_generations=options.group,
            temperature=options.temperature,
            top_p=options.top_p,
            top_k=0,
            max_completion_length=limit,
            epsilon=options.clip,
            loss_type=options.loss,
            beta=0.0,
            reward_weights=list(options.weights.values()),
            disable_dropout=True,
            shuffle_dataset=False,
            log_completions=False,
        ),
    )
    if config.learn == "distill":
        model.model.projectors.requires_grad_(False)
    step = 0 if checkpoint is None else step_of(checkpoint)
    evidence = Evidence(dataset, collate)
    logged = LoggedRewards(folder, dataset, options.weights)
    if arguments.process_index == 0:
        drop_completions(folder / COMPLETIONS, from_step=step)
    reference = _frozen_copy(model) if options.beta else None
    for one in filter(None, (model, reference)):
        evidence.attach(one)
    callbacks: list[TrainerCallback] = [
        ProgressCallback(console, [], shown=REWARD),  # the loss says little here
        SaveCallback(console, steps=config.save_steps, minutes=config.save_minutes),
    ]
    if arguments.process_index == 0 and (log := tensorboard(config, from_step=step)):
        callbacks.append(log)
    trainer = GroupTrainer(
        config=config,
        reference=reference,
        beta=options.beta,
        evidence=evidence,
        model=model,
        args=arguments,
        processing_class=RowProcessor(processor.tokenizer),
        train_dataset=_sequence(dataset, chosen, count=steps * per_step, seed=config.seed),
        reward_funcs=logged.functions(),
        callbacks=callbacks,
        rollout_func=Rollouts(
            evidence, processor.tokenizer, options, max_new_tokens=limit, seed=config.seed
        ),
    )
    trainer.train(checkpoint)
    rewards = [entry[REWARD] for entry in trainer.state.log_history if REWARD in entry]
    if rewards:
        print_line(
            console,
            f"Mean reward {rewards[0]:.3f} at first, {rewards[-1]:.3f} at last; the answers are in "
            f"{folder / COMPLETIONS}",
            markup=False,
        )
    return trainer.state.global_step


def _frozen_copy(model: PreTrainedModel) -> PreTrainedModel:
    """A copy with its own trained weights, which shares the frozen ones with the model."""
    shared = {id(p): p for p in model.parameters() if not p.requires_grad}
    return copy.deepcopy(model, shared).requires_grad_(False).eval()


def _sequence(dataset: QualityDataset, chosen: Sequence[int], *, count: int, seed: int) -> Dataset:
    """The rows of a whole run in their order, one shuffled epoch after the other, for TRL.

    TRL's own sampler would start over in a resumed run.
    """
    epochs = math.ceil(count / len(chosen))
    order = [
        chosen[i]
        for epoch in range(epochs)
        for i in np.random.default_rng((seed, epoch)).permutation(len(chosen))
    ]
    records = []
    for row in order[:count]:
        clip = dataset.rows[row]
        records.append(
            {
                "prompt": [{"role": "user", "content": clip.prompt or ""}],
                "image": row,
                "answer": clip.answers[0],
                "clip_length": clip.clip_length,
                "evidence": json.dumps([fact.to_dict() for fact in clip.facts]),
            }
        )
    return Dataset.from_list(records)


# ---- evidence, sampling and rewards --------------------------------------------------------------


class Evidence:
    """Batches of training rows by their numbers, and what a model sees of their clips."""

    def __init__(
        self,
        dataset: QualityDataset,
        collate: Callable[[Sequence[Mapping[str, Any]]], dict[str, Any]],
    ) -> None:
        self.dataset, self.collate = dataset, collate
        self._item = lru_cache(maxsize=dataset.kept_items)(dataset.__getitem__)

    def batch(self, rows: Sequence[int], *, device: torch.device) -> dict[str, Any]:
        """The batch of scores of some rows, with ``labels``."""
        return on_device(self.collate([self._item(row) for row in rows]), device)

    def attach(self, model: Any) -> None:
        """Make a model take the numbers of rows, as `pixel_values`, in place of their evidence."""
        model.base_model.register_forward_pre_hook(self._look_up, prepend=True, with_kwargs=True)

    def _look_up(
        self, backbone: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        rows = kwargs.get("pixel_values")
        if rows is None or rows.dtype != torch.long:  # evidence itself
            return args, kwargs
        rest = {name: value for name, value in kwargs.items() if name != "pixel_values"}
        batch = self.batch(rows[:, 0].tolist(), device=rows.device)
        return args, {**rest, **evidence_of(batch)}


class RowProcessor(ProcessorMixin):
    """TRL's processor: gives the numbers of rows as `pixel_values` (b, 1)."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        super().__init__(tokenizer)

    def __call__(self, *, images: Sequence[Sequence[int]], **options: Any) -> BatchFeature:
        return BatchFeature({"pixel_values": torch.tensor([list(row) for row in images])})

    def apply_chat_template(  # type: ignore[override]
        self, conversation: Any, **options: Any
    ) -> str:
        return ""  # `Rollouts` finds the question by the row

    def batch_decode(self, ids: Any, **options: Any) -> list[str]:
        return self.tokenizer.batch_decode(
            ids, skip_special_tokens=True, clean_up_tokenization_spaces=False
        )

    def save_pretrained(self, *args: Any, **options: Any) -> None:
        """Nothing: checkpoints are for resuming."""


class Rollouts:
    """TRL's `rollout_func`: samples an answer for each prompt of a generation batch.

    The same step of the same run gives the same answers.
    """

    def __init__(
        self,
        evidence: Evidence,
        tokenizer: PreTrainedTokenizerBase,
        options: GrpoOptions,
        *,
        max_new_tokens: int,
        seed: int,
    ) -> None:
        self.evidence, self.tokenizer, self.options, self.seed = evidence, tokenizer, options, seed
        self.max_new_tokens = max_new_tokens

    def __call__(self, prompts: Sequence[Any], trainer: Any) -> dict[str, Any]:
        rows = [_row_of(prompt) for prompt in prompts]
        model = trainer.accelerator.unwrap_model(trainer.model)
        training = model.training
        model.eval()
        try:
            return self._sample(rows, model, trainer)
        finally:
            model.train(training)

    def _sample(self, rows: Sequence[int], model: Any, trainer: Any) -> dict[str, Any]:
        unique = list(dict.fromkeys(rows))
        batch = self.evidence.batch(unique, device=trainer.accelerator.device)
        del batch["labels"]
        output = model.score(**batch, use_cache=True)
        known = []
        for scores in name_scores(output, batch["slot_mask"]):
            if isinstance(scores, Exception):
                raise RuntimeError(f"the model gives no scores any more: {scores}")
            known.append({name: scores[name].score for name in SCORES if scores.get(name)})
        facts = [self.evidence.dataset.rows[row].facts for row in unique]
        heads = answer_heads(model, batch, known, facts)
        writer = AnswerWriter(
            model, self.tokenizer, batch=batch, cache=cache_of(output), heads=heads
        )
        numbers = [unique.index(row) for row in rows]
        state = (self.seed, trainer.state.global_step, trainer.accelerator.process_index)
        written = writer.sample(
            numbers,
            max_new_tokens=self.max_new_tokens,
            temperature=self.options.temperature,
            top_p=self.options.top_p,
            seed=int(np.random.default_rng(state).integers(2**63)),
        )
        return {
            "prompt_ids": [writer.prompt_ids[number] for number in numbers],
            "completion_ids": [list(one.token_ids) for one in written],
            "logprobs": None,
            "given": [heads[number] for number in numbers],
            "finished": [one.finished for one in written],
        }


def _row_of(prompt: Any) -> int:
    """The image of a chat that TRL made: the number of a row."""
    return next(part["image"] for part in prompt[0]["content"] if part["type"] == "image")


class LoggedRewards:
    """Reward functions for TRL, which log each completion in `COMPLETIONS`."""

    def __init__(self, folder: Path, dataset: QualityDataset, weights: Mapping[str, float]) -> None:
        self.path, self.dataset, self.weights = folder / COMPLETIONS, dataset, dict(weights)
        self._found: dict[str, Sequence[float | None]] = {}

    def functions(self) -> list[RewardFunction]:
        """One per reward, in the order of the weights."""
        return [self._logging(function) for function in trl_rewards(list(self.weights))]

    def _logging(self, function: RewardFunction) -> RewardFunction:
        def reward(**columns: Any) -> list[float | None]:
            values = function(**columns)
            self._found[function.__name__] = values
            if len(self._found) == len(self.weights):
                self._log(columns)
                self._found = {}
            return values

        reward.__name__ = function.__name__
        return reward

    def _log(self, columns: Mapping[str, Any]) -> None:
        state, lines = columns["trainer_state"], []
        for i, row in enumerate(columns["image"]):
            rewards = {name: self._found[name][i] for name in self.weights}
            clip = self.dataset.rows[row]
            lines.append(
                Completion(
                    step=state.global_step,
                    row=row,
                    video=clip.video,
                    prompt=clip.prompt,
                    given=columns["given"][i],
                    completion=text_of(columns["completions"][i]),
                    finished=columns["finished"][i],
                    rewards=rewards,
                    reward=round(weighted_reward(rewards, self.weights), 5),
                )
            )
        columns["log_metric"](REWARD, fmean(line.reward for line in lines))
        lines = gather_object(lines)
        if state.is_world_process_zero:
            append_completions(self.path, lines)

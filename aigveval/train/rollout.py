"""Answers for GRPO: sampled as `aigveval score --explain` writes them, noted with their rewards.

TRL carries an image per prompt. Ours is the number of a training row, from which the evidence is
made where the model needs it (`Evidence`), whatever a model sees of a clip. The scoring pass gives
the levels that an answer begins with, and the model writes on from its cache (`Rollouts`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate.utils import gather_object
from torch import Tensor, nn
from transformers import BatchFeature, PreTrainedTokenizerBase, ProcessorMixin

from ..model.base import name_scores
from ..model.generation import AnswerWriter, answer_heads
from ..model.library_internals import cache_of
from prompts import SCORES

from .rejection_sampling import COMPLETIONS, Completion, append_completions, weighted_reward
from .dataset import QualityDataset
from .grpo_options import GrpoOptions
from .rewards import RewardFunction, text_of, trl_rewards
from .sft import evidence_of


class Evidence:
    """Batches of training rows by their numbers, and what a model sees of their clips.

    Args:
        dataset: The training rows, each shown as it is.
        collate: Makes a batch of scores.
    """

    def __init__(
        self, dataset: QualityDataset,
        collate: Callable[[Sequence[Mapping[str, Any]]], dict[str, Any]],
    ) -> None:
        self.collate = collate
        self._item = lru_cache(maxsize=dataset.kept_items)(dataset.__getitem__)

    def batch(self, rows: Sequence[int], *, device: torch.device) -> dict[str, Any]:
        """The batch of scores of some rows, with ``labels``."""
        batch = self.collate([self._item(row) for row in rows])
        return {
            name: value.to(device) if isinstance(value, Tensor) else value
            for name, value in batch.items()
        }

    def attach(self, model: Any) -> None:
        """Let a model take the numbers of rows, as `pixel_values`, for their evidence."""
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
    """What TRL asks for evidence: it gets the numbers of rows as `pixel_values` (b, 1).

    Args:
        tokenizer: Decodes completions.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        super().__init__(tokenizer)

    def __call__(self, *, images: Sequence[Sequence[int]], **options: Any) -> BatchFeature:
        return BatchFeature({"pixel_values": torch.tensor([list(row) for row in images])})

    def apply_chat_template(  # type: ignore[override]
        self, conversation: Any, **options: Any
    ) -> str:
        return ""  # `Rollouts` knows the question by the row

    def batch_decode(self, ids: Any, **options: Any) -> list[str]:
        return self.tokenizer.batch_decode(
            ids, skip_special_tokens=True, clean_up_tokenization_spaces=False
        )

    def save_pretrained(self, *args: Any, **options: Any) -> None:
        """Nothing: checkpoints are for going on."""


class Rollouts:
    """TRL's `rollout_func`: samples an answer for each prompt of a generation batch.

    The same step of the same run gives the same answers.

    Args:
        evidence: Of the training rows.
        tokenizer: The processor's.
        options: Of the sampling.
        seed: Of the run.
    """

    def __init__(
        self, evidence: Evidence, tokenizer: PreTrainedTokenizerBase, options: GrpoOptions, *,
        seed: int,
    ) -> None:
        self.evidence, self.tokenizer, self.options, self.seed = evidence, tokenizer, options, seed

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
        heads = answer_heads(model, batch, known)
        writer = AnswerWriter(
            model, self.tokenizer, batch=batch, cache=cache_of(output), heads=heads
        )
        numbers = [unique.index(row) for row in rows]
        state = (self.seed, trainer.state.global_step, trainer.accelerator.process_index)
        written = writer.sample(
            numbers, max_new_tokens=self.options.max_new_tokens,
            temperature=self.options.temperature, top_p=self.options.top_p,
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


class NotedRewards:
    """Reward functions for TRL, which note each completion in `COMPLETIONS`.

    Args:
        folder: Of the run.
        dataset: The training rows.
        weights: Of the rewards by name.
    """

    def __init__(
        self, folder: Path, dataset: QualityDataset, weights: Mapping[str, float]
    ) -> None:
        self.path, self.dataset, self.weights = folder / COMPLETIONS, dataset, dict(weights)
        self._found: dict[str, Sequence[float | None]] = {}

    def functions(self) -> list[RewardFunction]:
        """One per reward, in the order of the weights."""
        return [self._noting(function) for function in trl_rewards(list(self.weights))]

    def _noting(self, function: RewardFunction) -> RewardFunction:
        def reward(**columns: Any) -> list[float | None]:
            values = function(**columns)
            self._found[function.__name__] = values
            if len(self._found) == len(self.weights):
                self._note(columns)
                self._found = {}
            return values

        reward.__name__ = function.__name__
        return reward

    def _note(self, columns: Mapping[str, Any]) -> None:
        state, lines = columns["trainer_state"], []
        for i, row in enumerate(columns["image"]):
            rewards = {name: self._found[name][i] for name in self.weights}
            clip = self.dataset.rows[row]
            lines.append(Completion(
                step=state.global_step, row=row, video=clip.video, prompt=clip.prompt,
                given=columns["given"][i], completion=text_of(columns["completions"][i]),
                finished=columns["finished"][i], rewards=rewards,
                reward=round(weighted_reward(rewards, self.weights), 5),
            ))
        lines = gather_object(lines)
        if state.is_world_process_zero:
            append_completions(self.path, lines)

"""Stages sft and sft2: scores as in stage regression, and answers word by word.

A step reads each clip twice. The scoring pass is that of stage regression: the question with empty
slots, as a model scores. The second pass has the written answer, and its loss is on what the model
writes: the levels at its head come from the scores, also when an answer is generated.

Axis legend: b batch, s sequence, n tokens of the longest answer, v vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import PreTrainedTokenizerBase

from ..model.generation import question_ids
from prompts import split_levels

from .projector_pretraining import DistillTrainer
from .answer_targets import Telling
from .trainer import QualityTrainer

IGNORED = -100  # in place of the id of a token that has no loss
# Of a batch of questions. What else is in one, labels apart, is what the model sees of the clips.
_TEXT = ("input_ids", "attention_mask", "slot_positions", "slot_mask")
_LABELS = "labels"


def evidence_of(batch: Mapping[str, Any]) -> dict[str, Any]:
    """What a batch has of the clips, to go with another text."""
    return {name: value for name, value in batch.items() if name not in (*_TEXT, _LABELS)}


def with_answers(
    batch: Mapping[str, Any], tokenizer: PreTrainedTokenizerBase, answers: Sequence[str],
    detections: Sequence[str] | None = None,
) -> dict[str, Any]:
    """A batch of questions, each with its answer in place of the slots.

    Args:
        batch: b questions, see `aigveval.model.generation.question_ids`.
        tokenizer: The processor's.
        answers: b texts as of `prompts.render`.
        detections: b lines that are given after the levels; see `ScorerModel.detection_lines`.

    Returns:
        What the model sees of the clips, `input_ids` and `attention_mask` (b, s), padded on the
        left, so that the answers end together, and `targets` (b, n): the last n tokens, but
        `IGNORED` where the model doesn't write them.
    """
    if tokenizer.eos_token_id is None:
        raise ValueError("the tokenizer has no token that ends a text")
    rows: list[list[int]] = []
    written: list[list[int]] = []
    lines = detections or [""] * len(answers)
    questions = question_ids(batch, tokenizer)
    for question, answer, line in zip(questions, answers, lines, strict=True):
        levels, text = split_levels(answer)
        head, rest = (tokenizer(part, add_special_tokens=False).input_ids if part else []
                      for part in (levels + line, text))
        written.append([*rest, tokenizer.eos_token_id])
        rows.append([*question, *head, *written[-1]])
    pad = tokenizer.pad_token_id or 0
    ones = [[1] * len(row) for row in rows]
    return {
        **evidence_of(batch), "input_ids": _left_padded(rows, pad),
        "attention_mask": _left_padded(ones, 0), "targets": _left_padded(written, IGNORED),
    }


def _left_padded(rows: Sequence[Sequence[int]], value: int) -> Tensor:
    length = max(map(len, rows))
    return torch.tensor([[value] * (length - len(row)) + list(row) for row in rows])


def answer_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Mean cross-entropy of the tokens that a model writes; 0 where there are none.

    Args:
        logits: (b, n + 1, v) at the last positions, of which the last tells nothing.
        targets: (b, n), `IGNORED` where there is no loss.
    """
    total = F.cross_entropy(
        logits[:, :-1].flatten(0, 1).float(), targets.flatten(), ignore_index=IGNORED,
        reduction="sum",
    )
    return total / (targets != IGNORED).sum().clamp(min=1)


@dataclass(frozen=True, kw_only=True)
class AnswerCollator:
    """Adds ``answers``, a second batch of those items that have one, to the batch of scores.

    Where none has, there's one without loss, so that all processes make as many passes.

    Attributes:
        collate: Makes the batch of scores, with ``labels``.
        tokenizer: The processor's.
        tell: Gives the answers' texts.
    """

    collate: Callable[[Sequence[Mapping[str, Any]]], dict[str, Any]]
    tokenizer: PreTrainedTokenizerBase
    tell: Telling

    def __call__(self, items: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        batch = self.collate(items)
        if "answer" not in items[0]:  # in validation
            return batch
        chosen = [item for item in items if item["answer"]]
        questions = self.collate(chosen or items[:1])
        answers, detections = self.tell(questions, chosen or items[:1])
        told = with_answers(questions, self.tokenizer, answers, detections)
        if not chosen:
            told["targets"].fill_(IGNORED)
        return {**batch, "answers": told}


class Means:
    """Means of what was noted since they were last taken."""

    def __init__(self) -> None:
        self._noted: dict[str, list[float]] = {}

    def note(self, name: str, value: Tensor) -> None:
        self._noted.setdefault(name, []).append(value.detach().item())

    def take(self) -> dict[str, float]:
        noted, self._noted = self._noted, {}
        return {name: fmean(values) for name, values in noted.items()}


class AnswerTrainer(QualityTrainer):
    """Weighs the loss of the scores and that of the answers, and logs both."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.means = Means()

    def compute_loss(
        self, model: nn.Module, inputs: dict[str, Any], return_outputs: bool = False,
        num_items_in_batch: Any = None,
    ) -> Any:
        answers = inputs.pop("answers", None)
        scores, outputs = super().compute_loss(model, inputs, return_outputs=True)
        loss = self.fit.score_weight * scores
        if model.training:
            self.means.note("score_loss", scores)
        if answers is not None:
            targets = answers.pop("targets")
            logits = model(**answers, logits_to_keep=targets.shape[1] + 1).logits
            text = answer_loss(logits, targets)
            loss = loss + self.fit.text_weight * text
            if model.training and (targets != IGNORED).any():
                self.means.note("text_loss", text)
        return (loss, outputs) if return_outputs else loss

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        if "loss" in logs:
            logs = {**logs, **self.means.take()}
        super().log(logs, *args, **kwargs)


class DistillAnswerTrainer(AnswerTrainer, DistillTrainer):
    """Answers from the rows' labels; the scores are those that the LLM is shown."""

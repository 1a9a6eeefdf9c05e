"""Answers to learn: read from files of `aigveval cot` or made of labels, and put into batches.

A step of stages sft and sft2 reads each clip twice. The scoring pass is that of stage regression:
the question with empty slots, as a model scores. The second pass has the written answer, and its
loss is on what the model writes: the levels at its head come from the scores, also when an answer
is generated.

Axis legend: b batch, s sequence, n tokens of the longest answer.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from prompts import SCORES, split_levels
from prompts.answer import TENTHS

from ..data.attributions import read_labels
from ..data.cot import CotRow, Times, make_row, read_cot, with_length
from ..data.readers import read_rows
from ..data.scales import MOS, Scale
from ..model.generation import evidence_of, question_ids
from .answer_targets import AnswerTargets
from .config import FitConfig, FitError
from .losses import IGNORED
from .rows import Part, TrainingRow, read_parts

# ---- read or made -------------------------------------------------------------------------------


def read_answer_parts(config: FitConfig, paths: Sequence[str]) -> list[Part]:
    """`read_parts` with rows that have answers where there are any.

    Raises:
        FitError: No row has one, or the times of some are in another unit.
        ManifestError: A file cannot be read, or a row is not as it should be.
    """
    read = partial(
        read_answers, times=config.answer_times, variants=config.answer_variants, seed=config.seed
    )
    parts = read_parts(paths, scale=config.score_scale, read_rows=read)
    if not any(row.answers for part in parts for row in part.rows):
        raise FitError(
            f"{', '.join(paths)}: no row has an answer to learn: stage {config.stage} needs files "
            "of `aigveval cot`, or manifests with labels of defects"
        )
    return parts


def read_answers(
    path: str | Path,
    *,
    scale: Scale = MOS,
    times: Times = "tenths",
    variants: int = 1,
    seed: int = 0,
) -> list[TrainingRow]:
    """The clips of a file of `aigveval cot`, or of a manifest, of whose labels answers are made.

    Args:
        path: See `FitConfig.train`.
        scale: Of the scores in a manifest.
        times: Unit of the answers' times.
        variants: Wordings of an answer that is made.
        seed: Of the choice of words.

    Raises:
        FitError: The times of a file of `aigveval cot` are in another unit.
        ManifestError: The file cannot be read, or a row is not as it should be.
    """
    if not _is_cot(path):
        return _from_labels(path, scale=scale, times=times, variants=variants, seed=seed)
    rows: dict[tuple[Any, ...], TrainingRow] = {}  # a clip's variants become one row
    for row in read_cot(path):
        if row.times != times:
            raise FitError(
                f"{path}: its times are in {row.times}, answer_times is {times}; "
                f"`aigveval cot --times {times}` writes it anew"
            )
        key = (row.video, row.video_prompt, repr(row.scores), repr(row.labels().defects))
        before = rows.get(key)
        rows[key] = _answer_row(row, (*(before.answers if before else ()), row.answer))
    return list(rows.values())


def _is_cot(path: str | Path) -> bool:
    for _, row in read_rows(path, required=(), aliases=False, on_fault=lambda fault: None):
        return {"answer", "variant", "times"} <= set(row)
    return False


def _from_labels(
    path: str | Path, *, scale: Scale, times: Times, variants: int, seed: int
) -> list[TrainingRow]:
    rows: list[TrainingRow] = []
    for labels in read_labels(path, scale=scale):
        if not labels.scores:
            continue
        if labels.attributions is None:
            known = [labels.scores.get(name, math.nan) for name in SCORES]
            rows.append(TrainingRow.of(labels.row, known))
            continue
        if times == "tenths":
            labels = with_length(labels, str(path))
        made = [
            make_row(labels, variant=variant, times=times, seed=seed) for variant in range(variants)
        ]
        rows.append(_answer_row(made[0], tuple(row.answer for row in made)))
    return rows


def _answer_row(row: CotRow, answers: Sequence[str]) -> TrainingRow:
    return TrainingRow(
        video=row.video,
        prompt=row.video_prompt,
        scores=row.scores,
        group=row.group,
        generator=row.generator,
        weight=row.weight,
        answers=tuple(dict.fromkeys(answers)),
        clip_length=TENTHS if row.times == "tenths" else row.clip_length,
        facts=row.evidence,
    )


# ---- in batches ---------------------------------------------------------------------------------


def with_answers(
    batch: Mapping[str, Any],
    tokenizer: PreTrainedTokenizerBase,
    answers: Sequence[str],
    given: Sequence[str] | None = None,
) -> dict[str, Any]:
    """A batch of questions, each with its answer in place of the slots.

    Args:
        batch: b questions, see `aigveval.model.generation.question_ids`.
        tokenizer: The processor's.
        answers: b texts as of `prompts.render`.
        given: b texts that are given after the levels; see `generation.given_lines`.

    Returns:
        What the model sees of the clips, `input_ids` and `attention_mask` (b, s), padded on the
        left, so that the answers end together, and `targets` (b, n): the last n tokens, but
        `IGNORED` where the model does not write them.
    """
    if tokenizer.eos_token_id is None:
        raise ValueError("the tokenizer has no token that ends a text")
    rows: list[list[int]] = []
    written: list[list[int]] = []
    lines = given or [""] * len(answers)
    questions = question_ids(batch, tokenizer)
    for question, answer, line in zip(questions, answers, lines, strict=True):
        levels, text = split_levels(answer)
        head, rest = (
            tokenizer(part, add_special_tokens=False).input_ids if part else []
            for part in (levels + line, text)
        )
        written.append([*rest, tokenizer.eos_token_id])
        rows.append([*question, *head, *written[-1]])
    pad = tokenizer.pad_token_id or 0
    ones = [[1] * len(row) for row in rows]
    return {
        **evidence_of(batch),
        "input_ids": _left_padded(rows, pad),
        "attention_mask": _left_padded(ones, 0),
        "targets": _left_padded(written, IGNORED),
    }


def _left_padded(rows: Sequence[Sequence[int]], value: int) -> Tensor:
    length = max(map(len, rows))
    return torch.tensor([[value] * (length - len(row)) + list(row) for row in rows])


@dataclass(frozen=True, kw_only=True)
class AnswerCollator:
    """Adds ``answers``, a second batch of those items that have one, to the batch of scores.

    Where none has, it is one without loss, so that all processes make as many passes.
    """

    collate: Callable[[Sequence[Mapping[str, Any]]], dict[str, Any]]
    tokenizer: PreTrainedTokenizerBase
    targets: AnswerTargets

    def __call__(self, items: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        batch = self.collate(items)
        if "answer" not in items[0]:  # in validation
            return batch
        chosen = [item for item in items if item["answer"]]
        questions = self.collate(chosen or items[:1])
        texts, lines = self.targets(questions, chosen or items[:1])
        answers = with_answers(questions, self.tokenizer, texts, lines)
        if not chosen:
            answers["targets"].fill_(IGNORED)
        return {**batch, "answers": answers}

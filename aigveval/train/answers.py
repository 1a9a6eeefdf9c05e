"""Answers to learn: read from files of `aigveval cot`, or made of labels, and shown in training."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from ..data.attributions import read_labels
from ..data.cot import CotRow, Times, make_row, read_cot, with_length
from ..data.scales import MOS, Scale
from ..data.readers import read_rows
from prompts import SCORES, parse, render
from prompts.answer import TENTHS

from .rows import TrainingRow
from .dataset import QualityDataset
from .config import FitConfig, FitError
from .parts import Part, read_parts


@dataclass(frozen=True, kw_only=True, slots=True)
class AnswerRow(TrainingRow):
    """A clip with answers to learn, and the scores that are known of it.

    Attributes:
        answers: Texts in different words; empty where there is no more than scores.
        clip_length: In the unit of their times; None where unknown.
    """

    answers: tuple[str, ...] = ()
    clip_length: float | None = None

    def without(self, dimensions: Collection[str]) -> AnswerRow:
        """The row with answers that say nothing of some dimensions."""
        return replace(self, answers=tuple(_without(text, dimensions) for text in self.answers))


def read_answer_parts(config: FitConfig, paths: Sequence[str]) -> list[Part]:
    """`read_parts` with rows that have answers where there are any.

    Raises:
        FitError: No row has one, or the times of some are in another unit.
        aigveval.data.readers.ManifestError: A file can't be read, or a row isn't as it should be.
    """
    read = partial(
        read_answers, times=config.answer_times, variants=config.answer_variants, seed=config.seed
    )
    parts = read_parts(paths, scale=config.score_scale, read_rows=read)
    if not any(answers_of(row) for part in parts for row in part.rows):
        raise FitError(
            f"{', '.join(paths)}: no row has an answer to learn: stage {config.stage} needs files "
            "of `aigveval cot`, or manifests with labels of defects"
        )
    return parts


def read_answers(
    path: str | Path, *, scale: Scale = MOS, times: Times = "tenths", variants: int = 1,
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
        aigveval.data.readers.ManifestError: The file can't be read, or a row isn't as it should be.
    """
    if not _is_cot(path):
        return _from_labels(path, scale=scale, times=times, variants=variants, seed=seed)
    rows: dict[tuple[Any, ...], AnswerRow] = {}  # a clip's variants become one row
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
        known = [labels.scores.get(name, math.nan) for name in SCORES]
        if labels.attributions is None or not labels.scores:
            row = labels.row
            if labels.scores:
                rows.append(TrainingRow(
                    video=row.path, prompt=row.prompt, scores=tuple(known), group=row.group,
                    generator=row.generator, weight=row.weight,
                ))
            continue
        if times == "tenths":
            labels = with_length(labels, str(path))
        made = [
            make_row(labels, variant=variant, times=times, seed=seed) for variant in range(variants)
        ]
        rows.append(_answer_row(made[0], tuple(row.answer for row in made)))
    return rows


def _answer_row(row: CotRow, answers: Sequence[str]) -> AnswerRow:
    return AnswerRow(
        video=row.video, prompt=row.video_prompt, scores=row.scores, group=row.group,
        generator=row.generator, weight=row.weight, answers=tuple(dict.fromkeys(answers)),
        clip_length=TENTHS if row.times == "tenths" else row.clip_length,
    )


def answers_of(row: TrainingRow) -> tuple[str, ...]:
    """The answers of a row, of whatever kind it is."""
    return row.answers if isinstance(row, AnswerRow) else ()


def without_blind(parts: Sequence[Part], blind: Collection[str]) -> list[Part]:
    """Parts whose answers say nothing of dimensions that no encoder looks at."""
    return [
        replace(part, rows=[
            row.without(blind) if isinstance(row, AnswerRow) else row for row in part.rows
        ])
        for part in parts
    ]


def _without(text: str, dimensions: Collection[str]) -> str:
    """An answer without what it says of some dimensions."""
    answer = parse(text)
    if answer.problems:
        return text
    kept = replace(
        answer,
        scores={n: score for n, score in answer.scores.items() if n not in dimensions},
        reasoning={n: line for n, line in answer.reasoning.items() if n not in dimensions},
        defects=None if answer.defects is None else tuple(
            defect for defect in answer.defects if defect.dimension not in dimensions
        ),
    )
    return render(kept)


class WithAnswers:
    """Adds ``answer``, another wording in each epoch, to the items of a `QualityDataset`'s like.

    There is none where an item shows another prompt than its row's, or none: the answer was not
    written for it.
    """

    rows: list[TrainingRow]

    def __getitem__(self, key: Any) -> dict[str, Any]:
        item: dict[str, Any] = super().__getitem__(key)  # type: ignore[misc]
        epoch = key[0] if isinstance(key, tuple) else 0
        row = self.rows[item["row"]]
        texts = answers_of(row) if item["weight"] and item["prompt"] == row.prompt else ()
        item["answer"] = texts[(epoch + item["row"]) % len(texts)] if texts else None
        return item


class AnswerDataset(WithAnswers, QualityDataset):
    """`QualityDataset` whose items have answers."""

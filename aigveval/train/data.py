"""Training manifests: clips with the scores that are known of them."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prompts import clean
from prompts.rubric import MAX_SCORE, MIN_SCORE, SCORES


class ManifestError(ValueError):
    """A manifest can't be used; the one-line message names the file, the line and the reason."""


@dataclass(frozen=True, kw_only=True)
class TrainingRow:
    """A clip with the scores that are known of it.

    Attributes:
        video: Path of the file.
        prompt: What it was generated from, or None.
        scores: By the order of ``prompts.rubric.SCORES``, on 1-5; NaN where unknown.
        group: Label of rows that belong together (a ladder source, a prompt), or None.
        generator: Name of the model that made the clip, or None.
        weight: Weight in the loss, above 0.
    """

    video: str
    prompt: str | None
    scores: tuple[float, ...]
    group: str | None = None
    generator: str | None = None
    weight: float = 1.0


def read_training_manifest(path: str | Path) -> list[TrainingRow]:
    """Read a manifest: JSONL, or CSV with a header line, by the file's suffix.

    Columns: ``video`` (relative to the manifest's folder, or absolute), ``prompt``, any of
    ``technical, motion, semantic, overall`` (1-5; empty or null where unknown), and optionally
    ``group``, ``generator``, ``weight``. Others are ignored.

    Raises:
        ManifestError: the file can't be read, or a row is not as described; names the line.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not UTF-8 text"
        raise ManifestError(f"{path}: {reason}") from error
    records: Iterator[tuple[int, Any]]
    if path.suffix == ".jsonl":
        records = _json_lines(path, text)
    elif path.suffix == ".csv":
        reader = csv.DictReader(text.splitlines(keepends=True))
        records = ((reader.line_num, record) for record in reader)
    else:
        raise ManifestError(f"{path}: a manifest must end in .jsonl or .csv")
    rows = [_row(f"{path} line {line}", record, path.parent) for line, record in records]
    if not rows:
        raise ManifestError(f"{path}: no rows")
    return rows


def _json_lines(path: Path, text: str) -> Iterator[tuple[int, Any]]:
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            try:
                yield number, json.loads(line)
            except json.JSONDecodeError as error:
                raise ManifestError(f"{path} line {number}: not JSON ({error.msg})") from error


def _row(where: str, record: Any, folder: Path) -> TrainingRow:
    if not isinstance(record, dict):
        raise ManifestError(f"{where}: expected an object with named columns")
    video, prompt = record.get("video"), record.get("prompt")
    if not isinstance(video, str) or not video:
        raise ManifestError(f"{where}: column 'video' is missing or empty")
    if prompt is not None and not isinstance(prompt, str):
        raise ManifestError(f"{where}: prompt must be text or null, got {prompt!r}")
    scores = tuple(_number(where, name, record.get(name)) for name in SCORES)
    for name, score in zip(SCORES, scores, strict=True):
        if score < MIN_SCORE or score > MAX_SCORE:
            raise ManifestError(
                f"{where}: {name} must lie in {MIN_SCORE:g}-{MAX_SCORE:g}, got {score:g}"
            )
    if all(map(math.isnan, scores)):
        raise ManifestError(f"{where}: none of {', '.join(SCORES)} is known")
    prompt = prompt if clean(prompt or "") else None  # as the model will see it
    if prompt is None and not math.isnan(scores[SCORES.index("semantic")]):
        raise ManifestError(f"{where}: a semantic score needs a prompt")
    weight = _number(where, "weight", record.get("weight"))
    if not math.isnan(weight) and not 0 < weight < math.inf:
        raise ManifestError(f"{where}: weight must be above 0, got {weight:g}")
    group, generator = (
        None if record.get(name) in (None, "") else str(record[name])
        for name in ("group", "generator")
    )
    return TrainingRow(
        video=str(folder / video), prompt=prompt, scores=scores, group=group,
        generator=generator, weight=1.0 if math.isnan(weight) else weight,
    )


def _number(where: str, name: str, value: Any) -> float:
    if value is None or (isinstance(value, str) and not value.strip()):
        return math.nan
    try:
        if isinstance(value, bool) or math.isnan(number := float(value)):
            raise ValueError
    except (TypeError, ValueError):
        raise ManifestError(f"{where}: {name} must be a number, got {value!r}") from None
    return number

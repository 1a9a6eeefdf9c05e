"""Predictions and human ratings, read from files and joined by video."""

from __future__ import annotations

import math
import os
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from prompts.rubric import SCORES

from ..assessment import SCORE_FIELDS
from ..data.inputs import pair_by_ends
from ..data.manifest import ManifestRow, iter_manifest, locate, read_label, spelling
from ..data.readers import folder_of, read_rows
from ..data.scales import MOS, Scale
from ..errors import InputError, as_text, one_line

_MANIFEST_COLUMNS = ("video", "prompt", "generator", "group", "split", "weight")
# What others call the one score of a clip: NTIRE's submissions, and plain use.
_OVERALL = ("overall", "predict_score", "prediction", "score")


@dataclass(frozen=True, kw_only=True, slots=True)
class RatedClip:
    """What one row of a file says of a video.

    Args:
        row: its number in the file, as an editor shows it.
        video: as the file names it.
        path: where the video should be.
        prompt, generator: None where the file has none.
        scores: the known scores.
        stds: the known spreads of the scores.
        raters: score -> rater -> what this rater gave.
        error: why there are no scores, where the file says so.
        seconds: what scoring took, where the file says so.
        model: what scored, where the file says so.
    """

    row: int
    video: str
    path: Path
    prompt: str | None = None
    generator: str | None = None
    scores: Mapping[str, float]
    stds: Mapping[str, float] = field(default_factory=dict)
    raters: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    error: str | None = None
    seconds: float | None = None
    model: str | None = None


def read_predictions(path: str | Path, *, column: str | None = None) -> list[RatedClip]:
    """Reads results of `aigveval score`, or another table of `video` and scores.

    Scores are in `overall`, `technical`, `motion`, `semantic`, as numbers or as
    `{"score", "std"}`; `predict_score`, `prediction` and `score` count as `overall`.

    Args:
        path: JSON, JSON Lines, CSV or Parquet.
        column: takes `overall` from this column, and nothing else.

    Raises:
        InputError: it cannot be read, or a row is wrong, which is named.
    """
    clips = []
    columns: dict[str, None] = {}
    for number, row in read_rows(path):
        columns.update(dict.fromkeys(map(str, row)))
        clips.append(_prediction(path, number, row, column))
    if column is not None and not {column, column.lower()} & set(columns):
        raise _no_column(path, column, columns)
    return clips


def read_ratings(
    path: str | Path, *, scale: Scale = MOS, where: Sequence[str] = ()
) -> list[RatedClip]:
    """Reads a manifest with human scores; they come back on 1-5.

    Args:
        path: the manifest.
        scale: that its scores are on.
        where: conditions `COLUMN=VALUE` or `COLUMN!=VALUE` that all rows kept fulfil; upper and
            lower case are the same.

    Raises:
        InputError: it cannot be read, or no row is kept.
    """
    conditions = [_condition(text) for text in where]
    clips = []
    columns: dict[str, None] = {}
    for row in iter_manifest(path, scale=scale):
        columns.update(dict.fromkeys((*_MANIFEST_COLUMNS, *row.extra)))
        if all(_holds(row, *condition) for condition in conditions):
            scores = dict(zip(SCORES, row.scores, strict=True))
            clips.append(
                RatedClip(
                    row=row.number,
                    video=row.video,
                    path=Path(row.path),
                    prompt=row.prompt,
                    generator=row.generator,
                    raters=row.raters,
                    scores={name: score for name, score in scores.items() if not math.isnan(score)},
                )
            )
    names = set(map(str.lower, columns))
    for name, _, _ in conditions:
        if name not in names:
            raise _no_column(path, name, columns)
    if not clips:
        raise InputError(f"{as_text(path)}: no row has {' and '.join(where)}")
    return clips


def _prediction(
    path: str | Path, number: int, row: Mapping[str, Any], column: str | None
) -> RatedClip:
    where = f"{as_text(path)}: row {number}"
    video = row.get("video")
    if not isinstance(video, str) or not video.strip():
        found = one_line(", ".join(map(str, row)) or "nothing", limit=120)
        raise InputError(f"{where}: video must be a name, got {video!r} among {found}")
    scores: dict[str, float] = {}
    stds: dict[str, float] = {}
    for name, aliases in _score_columns(column):
        alias = next((a for a in aliases if row.get(a) not in (None, "")), None)
        if alias is None:
            continue
        value: Any = row[alias]
        std = row.get(f"{alias}_std")
        if isinstance(value, Mapping):
            value, std = value.get("score"), value.get("std")
        scores[name] = _number(where, alias, value)
        if std not in (None, ""):
            stds[name] = _number(where, f"{alias}_std", std)
    seconds = row.get("seconds")
    return RatedClip(
        row=number,
        video=video,
        path=locate(video, folder_of(path)),
        scores=scores,
        stds=stds,
        prompt=_text(row.get("prompt")),
        generator=read_label(row, "generator"),
        error=_text(row.get("error")),
        model=_text(row.get("model")),
        seconds=None if seconds in (None, "") else _number(where, "seconds", seconds),
    )


def _score_columns(column: str | None) -> list[tuple[str, Sequence[str]]]:
    if column is not None:
        return [("overall", (column, column.lower()))]  # as the header of a CSV file is read
    return [(name, _OVERALL if name == "overall" else (name,)) for name in SCORE_FIELDS]


def _number(where: str, name: str, value: Any) -> float:
    try:
        if isinstance(value, bool):
            raise TypeError
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        got = one_line(repr(value), limit=60)
        raise InputError(f"{where}: {name} must be a number, got {got}") from None
    if not math.isfinite(number):
        raise InputError(f"{where}: {name} is {number}; leave it empty where it is unknown")
    return number


def _text(value: Any) -> str | None:
    text = "" if value is None else as_text(str(value))
    return text if text.strip() else None


def _condition(text: str) -> tuple[str, str, str]:
    match = re.fullmatch(r"\s*([^=!]+?)\s*(!?=)\s*(.*?)\s*", text)
    if match is None:
        raise InputError(f"{text!r}: expected COLUMN=VALUE or COLUMN!=VALUE")
    if match[1].lower() in SCORE_FIELDS:
        raise InputError(f"{text!r}: a condition is on a label of a row, not on a score")
    return match[1].lower(), match[2], match[3].lower()


def _holds(row: ManifestRow, column: str, sign: str, value: str) -> bool:
    if column in _MANIFEST_COLUMNS:
        found = getattr(row, column)
    else:
        found = next((row.extra[name] for name in row.extra if name.lower() == column), None)
    return (("" if found is None else str(found).strip().lower()) == value) == (sign == "=")


def _no_column(path: str | Path, name: str, columns: Mapping[str, None]) -> InputError:
    found = one_line(", ".join(columns), limit=200)
    return InputError(f"{as_text(path)}: has no column {name!r}, it has {found}")


# ---- joining ------------------------------------------------------------------------------------


def match(
    wanted: Sequence[RatedClip],
    offered: Sequence[RatedClip],
    *,
    wanted_folder: Path,
    path: str | Path,
) -> tuple[list[RatedClip | None], list[RatedClip]]:
    """Finds for each wanted video its row among the offered ones.

    A video is the same where its text is the same, or its path, or where the longest end of its
    path that occurs once among the wanted and once among the offered videos is.

    Args:
        wanted: rows to find partners for.
        offered: rows to choose from.
        wanted_folder: what the paths of `wanted` are relative to.
        path: name of the file that `offered` is from, for errors.

    Returns:
        A row or None for each wanted one, and the offered rows that nobody wanted.

    Raises:
        InputError: a video occurs twice on one side with different scores.
    """
    by_key: dict[str, list[RatedClip]] = defaultdict(list)
    for clip in offered:
        by_key[name_key(clip.video)].append(clip)
    found: dict[str, list[RatedClip]] = {}
    prompts: dict[str, set[str | None]] = defaultdict(set)
    for clip in wanted:
        prompts[name_key(clip.video)].add(clip.prompt)
    keys = list(prompts)
    for key in keys:
        path_from_here = os.path.normpath(wanted_folder / key)
        for name in (key, path_from_here, os.path.abspath(path_from_here)):
            if same := by_key.get(name_key(name)):
                found[key] = same
                break
    taken = {name_key(rows[0].video) for rows in found.values()}
    for left, right in pair_by_ends(keys, by_key).items():
        if left not in found and right not in taken:
            found[left] = by_key[right]
            taken.add(right)
    partners = []
    for clip in wanted:
        key = name_key(clip.video)
        rows = found.get(key, [])
        if clip.prompt is not None and len(prompts[key]) > 1:  # a score of another is none of it
            rows = [row for row in rows if row.prompt in (clip.prompt, None)]
        partners.append(_choose(clip, rows, path))
    return partners, [e for key, rows in by_key.items() if key not in taken for e in rows]


def name_key(video: str) -> str:
    """A video's name, equal for two ways of writing it."""
    return "/".join(part for part in spelling(video.strip()).split("/") if part != ".")


def _choose(clip: RatedClip, rows: Sequence[RatedClip], path: str | Path) -> RatedClip | None:
    if len(rows) > 1 and clip.prompt is not None:  # scored with several prompts
        rows = [row for row in rows if row.prompt == clip.prompt] or rows
    usable = [row for row in rows if row.scores] or list(rows)
    if len({tuple(sorted(row.scores.items())) for row in usable}) > 1:
        numbers = ", ".join(str(row.row) for row in usable[:5])
        raise InputError(f"{as_text(path)}: {clip.video} has different scores in rows {numbers}")
    return usable[0] if usable else None

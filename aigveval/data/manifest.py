"""Manifests: which videos there are, and the prompts they were generated from.

A manifest is a JSON file `{path: prompt}` (as VBench's custom prompts), a JSON list of
`{"video", "prompt"}`, or a CSV or JSON Lines file with the columns `video` and `prompt`; other
columns are ignored. Paths are relative to the manifest's folder.
"""

from __future__ import annotations

import csv
import io
import json
import os
import unicodedata
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import takewhile
from pathlib import Path, PurePath
from typing import Any

from prompts.template import clean

from ..report import one_line

MANIFEST_SUFFIXES = (".json", ".jsonl", ".csv")


class InputError(Exception):
    """The inputs or the manifest cannot be used; the message is one line."""


@dataclass(frozen=True, kw_only=True)
class Clip:
    """One video to assess, which becomes one row of the results.

    Args:
        path: file to open.
        video: the path as text for people and files; always valid Unicode.
        prompt: text the video was generated from; None when unknown.
        problem: why it cannot be assessed, when that is known before opening it.
    """

    path: Path
    video: str
    prompt: str | None = None
    problem: str | None = None


def make_clip(path: str | os.PathLike[str], prompt: str | None = None) -> Clip:
    """Makes a clip; a prompt without a visible character counts as none."""
    text = as_text(prompt) if prompt and clean(prompt) else None
    return Clip(path=Path(path), video=as_text(path), prompt=text)


def as_text(text: str | os.PathLike[str]) -> str:
    """Gives a path or a text as valid Unicode."""
    # Names and arguments that are not UTF-8 arrive as lone surrogates, which no file takes.
    return os.fspath(text).encode("utf-8", "backslashreplace").decode("utf-8")


def check_exists(clip: Clip) -> Clip:
    """Sets the problem of a clip whose file is missing or cannot be reached."""
    try:
        if os.path.islink(clip.path) and not os.path.exists(clip.path):
            return replace(clip, problem=f"broken link to {as_text(os.readlink(clip.path))}")
        clip.path.stat()
    except FileNotFoundError:
        return replace(clip, problem="no such file")
    except OSError as error:
        return replace(clip, problem=one_line(error.strerror or error))
    return clip


# ---- manifests ----------------------------------------------------------------------------------


def read_manifest(path: str | os.PathLike[str], *, need_prompt: bool = False) -> list[Clip]:
    """Reads a manifest, one clip per row, in its order.

    Raises:
        InputError: when it cannot be read, naming the row at fault.
    """
    clips = []
    for number, row in read_rows(path):
        where = f"{as_text(path)}: row {number}"
        video, prompt = row.get("video"), row.get("prompt")
        if "video" not in row or (need_prompt and "prompt" not in row):
            lacking = "prompt" if "video" in row else "video"
            found = one_line(", ".join(map(str, row)) or "nothing", limit=120)
            raise InputError(f"{where} has no {lacking!r}; expected video and prompt, got {found}")
        if not isinstance(video, str) or not video.strip() or "\0" in video:
            got = one_line(repr(video), limit=60)
            raise InputError(f"{where}: video must be a path, got {got}")
        if prompt is not None and not isinstance(prompt, str):
            got = one_line(repr(prompt), limit=60)
            raise InputError(f"{where}: prompt must be text or null, got {got}")
        clips.append(check_exists(make_clip(_locate(video, Path(path).parent), prompt)))
    return clips


def _locate(video: str, folder: Path) -> Path:
    candidates = [
        folder / video,
        folder / video.replace("\\", "/"),  # a manifest written on Windows
        Path(video),  # our own results: relative to where they were made
    ]
    return next((path for path in candidates if os.path.lexists(path)), candidates[0])


def read_rows(path: str | os.PathLike[str]) -> list[tuple[int, dict[str, Any]]]:
    """Reads the rows of a JSON, JSON Lines or CSV file with their numbers.

    Numbers are those an editor or a spreadsheet shows: the line in JSON Lines, the row in CSV with
    its header as row 1, the position in JSON. Of a JSON object `{path: prompt}` each entry is a
    row, repeated keys included.

    Raises:
        InputError: when the file cannot be read, or a row is not as the format wants it.
    """
    path, name = Path(path), as_text(path)
    readers = {".json": _rows_of_json, ".jsonl": _rows_of_jsonl, ".csv": _rows_of_csv}
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise InputError(f"{name}: a manifest is one of {', '.join(MANIFEST_SUFFIXES)}")
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise InputError(f"{name}: {error.strerror or error}") from None
    try:
        text = raw.decode("utf-16" if raw[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise InputError(f"{name}: line {line} is not UTF-8 text") from None
    try:
        rows = list(reader(text))
    except (ValueError, csv.Error, RecursionError) as error:
        raise InputError(f"{name}: {one_line(error)}") from None
    if not rows:
        raise InputError(f"{name}: holds no rows")
    return rows


def _rows_of_json(text: str) -> Iterator[tuple[int, dict[str, Any]]]:
    try:
        data = json.loads(text, object_pairs_hook=_Pairs)
    except json.JSONDecodeError as error:
        raise ValueError(f"not JSON: line {error.lineno}: {error.msg}") from None
    if isinstance(data, _Pairs):
        for number, (video, prompt) in enumerate(data, start=1):
            yield number, {"video": video, "prompt": prompt}
    elif isinstance(data, list):
        for number, row in enumerate(data, start=1):
            if not isinstance(row, _Pairs):
                raise ValueError(f"row {number} is not an object: {one_line(repr(row), limit=60)}")
            yield number, dict(row)
    else:
        raise ValueError("expected an object {path: prompt} or a list of {video, prompt}")


class _Pairs(list[tuple[str, Any]]):
    """A JSON object that keeps repeated keys: a video named twice is two rows."""


def _rows_of_jsonl(text: str) -> Iterator[tuple[int, dict[str, Any]]]:
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise ValueError(f"row {number} is not JSON: {error.msg}") from None
        if not isinstance(row, dict):
            raise ValueError(f"row {number} is not an object: {one_line(line, limit=60)}")
        yield number, row


def _rows_of_csv(text: str) -> Iterator[tuple[int, dict[str, Any]]]:
    header = text.split("\n", 1)[0].lower()
    # Spreadsheets write ; or tabs where the comma is the decimal mark.
    delimiter = max(",;\t", key=header.count)
    records = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
    columns = [column.strip().lower() for column in next(records, [])]
    if "video" not in columns:
        found = one_line(", ".join(columns) or "nothing", limit=120)
        raise ValueError(f"row 1, the header, names no column 'video', it has {found}")
    for number, record in enumerate(records, start=2):
        if not any(map(str.strip, record)):
            continue
        if len(record) > len(columns):
            raise ValueError(
                f"row {number} has {len(record)} values for {len(columns)} columns; "
                "text with commas needs double quotes around it"
            )
        yield number, dict(zip(columns, record))


# ---- prompts for videos that were found ---------------------------------------------------------


def match_prompts(clips: Sequence[Clip], rows: Sequence[Clip]) -> tuple[list[Clip], list[Clip]]:
    """Gives each clip the prompts of its rows: by path, then by link target, then by name.

    Returns:
        The clips, as many times as rows name them, at least once; and the rows whose file is
        missing and that matched no clip.
    """
    by_path, by_target = defaultdict(list), defaultdict(list)
    for row in rows:
        by_path[os.path.abspath(row.path)].append(row)
        by_target[os.path.realpath(row.path)].append(row)
    matches: dict[str, list[Clip]] = {}
    for clip in clips:
        path = os.path.abspath(clip.path)
        matches[path] = by_path[path] or by_target[os.path.realpath(path)]
    used = {id(row) for found in matches.values() for row in found}
    strangers = {os.path.abspath(row.path) for row in rows if id(row) not in used}
    orphans = [path for path, found in matches.items() if not found]
    for path, stranger in _pair_by_name(orphans, sorted(strangers)):
        matches[path] = by_path[stranger]
        used.update(id(row) for row in by_path[stranger])
    matched: list[Clip] = []
    for clip in clips:
        found = [] if clip.prompt else matches[os.path.abspath(clip.path)]
        matched += [replace(clip, prompt=row.prompt) for row in found] or [clip]
    return matched, [row for row in rows if row.problem and id(row) not in used]


def _pair_by_name(lefts: Sequence[str], rights: Sequence[str]) -> list[tuple[str, str]]:
    """Pairs paths by the longest end they share, where neither side leaves a choice."""
    ends: dict[str, dict[str, int]] = defaultdict(dict)
    same_name: dict[str, list[str]] = defaultdict(list)
    for right in rights:
        same_name[_parts(right)[-1]].append(right)
    for left in lefts:
        for right in same_name[_parts(left)[-1]]:
            ends[left][right] = ends[right][left] = _common_end(left, right)
    pairs = ((left, _only_best(ends[left])) for left in lefts if left in ends)
    return [(left, right) for left, right in pairs if right and _only_best(ends[right]) == left]


def _only_best(lengths: dict[str, int]) -> str | None:
    best = [path for path in lengths if lengths[path] == max(lengths.values())]
    return best[0] if len(best) == 1 else None


def _common_end(left: str, right: str) -> int:
    pairs = zip(reversed(_parts(left)), reversed(_parts(right)))
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))


def _parts(path: str) -> tuple[str, ...]:
    # macOS stores accents apart from their letters, other systems together.
    return PurePath(unicodedata.normalize("NFC", path)).parts

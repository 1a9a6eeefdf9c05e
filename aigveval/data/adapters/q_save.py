"""Q-Save (arXiv 2511.18825) and data like it: a MOS with attributions on three dimensions.

The data set is not public, so this form is ours, after the paper's description. A table with the
columns `video`, `prompt`, `mos` (1-5), optionally `generator` (or `model`), and any of
`visual_quality`, `dynamic_quality`, `text_video_alignment`. Each of these is a number (a MOS of
that dimension), a text or a list of texts (the attribution), or an object `{score, attribution}`.
Attributions go to the column `reasoning`, an object from dimension to text; see `attributions`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ...errors import one_line
from ..readers import Row, RowFault, read_rows
from ..scales import Scale
from . import Adapter, Options

DIMENSIONS = {
    "technical": "visual_quality",
    "motion": "dynamic_quality",
    "semantic": "text_video_alignment",
}


def read(source: Path, options: Options) -> Iterator[Row]:
    """Yields a row per video."""
    for number, values in read_rows(source):
        row = {
            "video": values.get("video"),
            "prompt": values.get("prompt"),
            "overall": values.get("mos"),
            "generator": values.get("generator") or values.get("model"),
        }
        reasoning = {}
        for ours, theirs in DIMENSIONS.items():
            row[ours], words = _judgement(number, theirs, values.get(theirs))
            if words:
                reasoning[ours] = words
        row["reasoning"] = reasoning or None
        yield number, row


def _judgement(number: int, name: str, value: Any) -> tuple[float | None, str | None]:
    """Score and attribution, each None where unknown."""
    if isinstance(value, Mapping):
        score = _judgement(number, name, value.get("score"))[0]
        return score, _judgement(number, name, value.get("attribution"))[1]
    if value is None or value == "":
        return None, None
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return value, None
    if isinstance(value, str):
        try:
            return float(value), None  # a number in CSV
        except ValueError:
            return None, value.strip()
    if isinstance(value, list) and all(isinstance(part, str) for part in value):
        return None, "; ".join(part.strip() for part in value) or None
    got = one_line(repr(value), limit=60)
    raise RowFault(number, f"row {number}: {name} must be a number, text or list, got {got}")


ADAPTER = Adapter(
    title="Q-Save and data like it",
    read=read,
    scale=Scale(1, 5),
    reads="json, jsonl, csv or parquet with mos and attributions",
)

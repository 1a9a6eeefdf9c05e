"""Human preference labels of VBench (arXiv 2311.17982).

A JSON file of one dimension is a list of `{"prompt_en", "videos": {model: path}, "human_anno":
{a: {b: 1, 0.5 or 0}}}`: 1 where the video of model a was preferred to that of b. The dimension is
read from a field `dimension` or from the file's name. Where VBench's sixteen dimensions go is our
choice: pictures to technical, what changes in time to motion, content to semantic.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import combinations
from pathlib import Path
from typing import Any

from prompts.rubric import Score

from ...errors import one_line
from ..readers import Row, RowFault, read_rows
from . import Adapter, Options

DIMENSIONS: dict[str, Score] = {
    "aesthetic_quality": "technical",
    "imaging_quality": "technical",
    "technical_quality": "technical",  # of the labels, for imaging_quality of the code
    "subject_consistency": "motion",
    "background_consistency": "motion",
    "temporal_flickering": "motion",
    "motion_smoothness": "motion",
    "dynamic_degree": "motion",
    "object_class": "semantic",
    "multiple_objects": "semantic",
    "human_action": "semantic",
    "color": "semantic",
    "spatial_relationship": "semantic",
    "scene": "semantic",
    "appearance_style": "semantic",
    "temporal_style": "semantic",
    "overall_consistency": "semantic",
}
_MEANINGS = {1.0: "A", 0.5: "same", 0.0: "B"}


def read(source: Path, options: Options) -> Iterator[Row]:
    """Yields a pair for every two models that were compared on a prompt."""
    for number, row in read_rows(source, required=(), aliases=False):
        videos, labels = row.get("videos"), row.get("human_anno")
        if not isinstance(videos, Mapping) or not isinstance(labels, Mapping):
            raise RowFault(number, f"row {number}: expected objects 'videos' and 'human_anno'")
        score = options.score or _score(number, row, source)
        for a, b in combinations(sorted(videos), 2):
            label = _label(number, labels, a, b)
            if label is not None:
                pair = {
                    "video_a": videos[a],
                    "video_b": videos[b],
                    "prompt": row.get("prompt_en"),
                    score: label,
                    "generator_a": a,
                    "generator_b": b,
                }
                yield number, pair


def _label(number: int, labels: Mapping[str, Any], a: str, b: str) -> str | None:
    if not all(isinstance(labels.get(x, {}), Mapping) for x in (a, b)):
        raise RowFault(number, f"row {number}: the labels of {a} and {b} must be objects by model")
    forward, backward = (labels.get(x, {}).get(y) for x, y in ((a, b), (b, a)))
    try:
        share = forward if forward is not None else None if backward is None else 1 - backward
        if share is None:
            return None
        if backward is not None and share + backward != 1:
            raise ValueError
        return _MEANINGS[float(share)]
    except (KeyError, TypeError, ValueError):
        got = one_line(f"{forward!r} and {backward!r}", limit=60)
        raise RowFault(
            number,
            f"row {number}: the labels of {a} and {b} must be 0, 0.5 or 1 and add up to "
            f"1, got {got}",
        ) from None


def _score(number: int, row: Mapping[str, Any], source: Path) -> Score:
    given = row.get("dimension")
    given = given[0] if isinstance(given, list) and len(given) == 1 else given
    stem = source.stem.lower().replace(" ", "_").replace("-", "_")
    by_length = sorted(DIMENSIONS, key=len, reverse=True)  # no "color" in a longer name
    found = given if given in DIMENSIONS else next((d for d in by_length if d in stem), None)
    if found is None:
        raise RowFault(
            number,
            f"row {number}: neither it nor the file's name tells a dimension of VBench; "
            "say with --score which score it is",
        )
    return DIMENSIONS[found]


ADAPTER = Adapter(
    title="VBench human preference",
    read=read,
    pairs=True,
    reads="json of one dimension",
)

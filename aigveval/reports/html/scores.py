"""The report of `aigveval score`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path, PurePath

import numpy as np

from prompts.rubric import MAX_SCORE, MIN_SCORE

from ...assessment import SCORE_FIELDS, Assessment
from ..strips import ranges_of
from . import figures
from .page import MOST_ROWS, ClipRow, Progress, ScoreCell, add_strips, write_page


def write_report(
    path: Path, rows: Sequence[Assessment], *, progress: Progress | None = None
) -> None:
    """Writes the page, the worst clips first.

    Raises:
        InputError: it cannot be written.
    """
    scored = sorted(
        (row for row in rows if row.overall is not None),
        key=lambda row: row.overall.score if row.overall else 0.0,
    )
    values = {
        name: np.array([score.score for row in scored if (score := getattr(row, name))])
        for name in SCORE_FIELDS
    }
    values = {name: found for name, found in values.items() if len(found)}
    clips = [_clip(row) for row in scored[:MOST_ROWS]]
    add_strips(clips, progress=progress)
    ends = {"low": MIN_SCORE, "high": MAX_SCORE}
    folders: dict[str, list[Assessment]] = {}
    for row in scored:
        folders.setdefault(PurePath(row.video).parent.name, []).append(row)
    by_folder = {}
    if len(folders) > 1:
        for name in values:
            groups = {
                folder: {"predicted": np.array(found)}
                for folder, members in folders.items()
                if (found := [s.score for m in members if (s := getattr(m, name))])
            }
            by_folder[name] = figures.boxes(groups, title=f"{name} by folder", **ends)
    write_page(
        path,
        "scores.html.j2",
        rows=clips,
        total=len(scored),
        scores=list(values),
        failed=[row for row in rows if row.error is not None],
        means={name: float(found.mean()) for name, found in values.items()},
        spreads={name: float(found.std()) for name, found in values.items()},
        histograms={
            name: figures.histogram(found, title=f"how often {name} occurs", **ends)
            for name, found in values.items()
            if len(found) > 1
        },
        folders=by_folder,
        models=sorted({f"{row.model}, aigveval {row.version}" for row in rows}),
    )


def _clip(row: Assessment) -> ClipRow:
    cells = {
        name: ScoreCell(
            value=score.score,
            std=score.std,
            interval=None if score.low is None else (score.low, score.high),
            sort=score.score,
        )
        for name in SCORE_FIELDS
        if (score := getattr(row, name))
    }
    return ClipRow(
        video=row.video,
        path=Path(row.video),
        prompt=row.prompt,
        cells=cells,
        warnings=row.notes,
        explanation=row.explanation or {},
        advice=row.advice or (),
        evidence=row.evidence or (),
        ranges=ranges_of(row),
    )

"""The report of `aigveval score`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path, PurePath

import numpy as np

from prompts.rubric import MAX_SCORE, MIN_SCORE

from ...assessment import SCORE_FIELDS, Assessment
from . import figures
from .page import MOST_ROWS, Progress, add_strips, clip_of, write_page


def write_report(
    path: Path,
    rows: Sequence[Assessment],
    *,
    progress: Progress | None = None,
    files: Mapping[str, Path] | None = None,
) -> None:
    """Writes the page, the worst clips first.

    Args:
        files: where the videos are, by the rows' names; by default these are paths.

    Raises:
        InputError: it cannot be written.
    """
    scored = sorted(
        (row for row in rows if row.overall is not None),
        key=lambda row: row.overall.score if row.overall else 0.0,
    )
    values = {
        name: np.array(found)
        for name in SCORE_FIELDS
        if (found := [score.score for row in scored if (score := getattr(row, name))])
    }
    clips = [clip_of(row, files) for row in scored[:MOST_ROWS]]
    add_strips(clips, progress=progress)
    ends = {"low": MIN_SCORE, "high": MAX_SCORE}
    folders: dict[PurePath, list[Assessment]] = {}
    for row in scored:
        folders.setdefault(PurePath(row.video).parent, []).append(row)
    folder_names = _shortest_names(list(folders))
    by_folder = {}
    if len(folders) > 1:
        for name in values:
            groups = {
                folder: {"predicted": np.array(found)}
                for folder, members in zip(folder_names, folders.values())
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
        counts={name: len(found) for name, found in values.items()},
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


def _shortest_names(folders: Sequence[PurePath]) -> list[str]:
    """Ends of paths, as short as all of them differ by."""
    names = [folder.name for folder in folders]
    length = 1
    while len(set(names)) < len(names):
        length += 1
        names = ["/".join(folder.parts[-length:]) for folder in folders]
    return names

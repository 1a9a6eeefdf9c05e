"""The report of `aigveval leaderboard`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from ...evaluation.ratings import Entry
from ...evaluation.leaderboard import Leaderboard, tables
from ...assessment import HIGHEST, LOWEST
from . import figures
from .page import MOST_ROWS, ClipRow, ScoreCell, add_strips, write_page

SHOWN = 3  # best and worst clips of each generator


def write_report(path: Path, board: Leaderboard, *, quiet: bool = False) -> None:
    """Writes the page.

    Raises:
        InputError: it cannot be written.
    """
    scores = [board.by, *(name for name in board.places[0].scores if name != board.by)]
    names = [place.generator for place in board.places]
    low, high = _ends(board)
    sections: list[dict[str, Any]] = []
    rows: list[ClipRow] = []
    for name in names:
        scored = [entry for entry in board.entries[name] if board.by in entry.scores]
        scored.sort(key=lambda entry: -entry.scores[board.by])
        clips = [_clip(entry, low, high) for entry in scored]
        rows += clips
        best = clips[:min(SHOWN, (len(clips) + 1) // 2)]
        worst = clips[max(len(best), len(clips) - SHOWN):][::-1]
        sections.append({"generator": name, "best": best, "worst": worst})
    rows.sort(key=lambda row: row.cells[board.by].sort or 0.0)
    shown = rows[:MOST_ROWS]
    first = [clip for s in sections for clip in (*s["best"], *s["worst"])]
    add_strips(shown, first=first, quiet=quiet)
    write_page(
        path, "leaderboard.html.j2", board=board, tables=tables(board), sections=sections,
        rows=shown, total=len(rows), scores=scores,
        ranking=figures.means(
            names, [_interval(board, i) for i in range(len(names))],
            [place.groups for place in board.places], label=f"mean of {board.by}",
            title=f"means of {board.by} with intervals",
        ),
        boxes={
            score: figures.boxes(
                {
                    name: {"predicted": found} for name in names
                    if len(found := _values(board, name, score))
                },
                low=low, high=high, title=f"{score} by generator",
            )
            for score in scores
        },
    )


def _values(board: Leaderboard, name: str, score: str) -> figures.Floats:
    return np.array([e.scores[score] for e in board.entries[name] if score in e.scores])


def _ends(board: Leaderboard) -> tuple[float, float]:
    """1 and 5, or the range of the scores where they go beyond."""
    values = [v for entries in board.entries.values() for e in entries for v in e.scores.values()]
    low, high = min(values), max(values)
    return (LOWEST, HIGHEST) if LOWEST <= low and high <= HIGHEST else (low, high)


def _interval(board: Leaderboard, index: int) -> tuple[float, float | None, float | None]:
    found = board.places[index].scores[board.by]
    assert found.value is not None  # a generator without the score has no place
    return found.value, found.low, found.high


def _clip(entry: Entry, low: float, high: float) -> ClipRow:
    cells = {
        name: ScoreCell(value=value, std=entry.stds.get(name), low=low, high=high, sort=value)
        for name, value in entry.scores.items()
    }
    return ClipRow(
        video=entry.video, path=entry.path, prompt=entry.prompt, generator=entry.generator,
        cells=cells,
    )

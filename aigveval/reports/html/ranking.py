"""The report of `aigveval leaderboard`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from prompts.rubric import MAX_SCORE, MIN_SCORE

from ...evaluation.leaderboard import Leaderboard
from ...evaluation.ratings import RatedClip
from ..tables import board_tables
from . import figures
from .page import MOST_ROWS, ClipRow, Progress, ScoreCell, add_strips, write_page

SHOWN = 3  # best and worst clips of each generator


def write_report(path: Path, board: Leaderboard, *, progress: Progress | None = None) -> None:
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
        scored = [clip for clip in board.ratings[name] if board.by in clip.scores]
        scored.sort(key=lambda clip: -clip.scores[board.by])
        clips = [_clip(clip, low, high) for clip in scored]
        rows += clips
        best = clips[: min(SHOWN, (len(clips) + 1) // 2)]
        worst = clips[max(len(best), len(clips) - SHOWN) :][::-1]
        sections.append({"generator": name, "best": best, "worst": worst})
    rows.sort(key=lambda row: row.cells[board.by].sort or 0.0)
    shown = rows[:MOST_ROWS]
    first = [clip for s in sections for clip in (*s["best"], *s["worst"])]
    add_strips(shown, first=first, progress=progress)
    write_page(
        path,
        "leaderboard.html.j2",
        board=board,
        tables=board_tables(board),
        sections=sections,
        rows=shown,
        total=len(rows),
        scores=scores,
        ranking=figures.means(
            names,
            [_interval(board, i) for i in range(len(names))],
            [place.groups for place in board.places],
            label=f"mean of {board.by}",
            title=f"means of {board.by} with intervals",
        ),
        boxes={
            score: figures.boxes(
                {
                    name: {"predicted": found}
                    for name in names
                    if len(found := _values(board, name, score))
                },
                low=low,
                high=high,
                title=f"{score} by generator",
            )
            for score in scores
        },
    )


def _values(board: Leaderboard, name: str, score: str) -> figures.Floats:
    return np.array([e.scores[score] for e in board.ratings[name] if score in e.scores])


def _ends(board: Leaderboard) -> tuple[float, float]:
    """1 and 5, or the range of the scores where they go beyond; around one that all have."""
    values = [v for clips in board.ratings.values() for e in clips for v in e.scores.values()]
    low, high = min(values), max(values)
    if MIN_SCORE <= low and high <= MAX_SCORE:
        return MIN_SCORE, MAX_SCORE
    return (low, high) if low < high else (low - 0.5, high + 0.5)


def _interval(board: Leaderboard, index: int) -> tuple[float, float | None, float | None]:
    found = board.places[index].scores[board.by]
    assert found.value is not None  # a generator without the score has no place
    return found.value, found.low, found.high


def _clip(clip: RatedClip, low: float, high: float) -> ClipRow:
    cells = {
        name: ScoreCell(value=value, std=clip.stds.get(name), low=low, high=high, sort=value)
        for name, value in clip.scores.items()
    }
    return ClipRow(
        video=clip.video,
        path=clip.path,
        prompt=clip.prompt,
        generator=clip.generator,
        cells=cells,
    )

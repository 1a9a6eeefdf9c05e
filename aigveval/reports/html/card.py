"""Rows inside another page: one as a card, several as a table; for notebooks and `aigveval app`.

Each is a piece of HTML in an element of the class `aigveval`, which `style` gives its looks.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from prompts import DIMENSIONS
from prompts.rubric import MAX_SCORE, MIN_SCORE

from ...assessment import SCORE_FIELDS, UNFAMILIAR, Assessment
from ..strips import ranges_of
from .page import MOST_ROWS, add_strips, cells_of, clip_of, make_strip, render

_FRAME_HEIGHT_PX = 120


def card(row: Assessment, *, file: Path | None = None, player: str | None = None) -> str:
    """One row: clip, scores, explanation, defects along the time, contributions, familiarity.

    Args:
        file: where its video is, for frames; None for none.
        player: address of the video, for a page that can play it.
    """
    strip = None
    if file is not None and row.error is None and (player is None or row.evidence):
        strip = make_strip(file, row.evidence or (), height_px=_FRAME_HEIGHT_PX)
    moved = row.contributions
    found = {} if moved is None else moved.to_dict()
    contributions = {name: value for name in DIMENSIONS if (value := found.get(name)) is not None}
    return render(
        "card.html.j2",
        row=row,
        player=player,
        strip=strip,
        cells=cells_of(row),
        names=[name for name in SCORE_FIELDS if getattr(row, name) is not None],
        ranges=ranges_of(row),
        contributions=contributions,
        widest=max([0.1, *map(abs, contributions.values())]),
        unfamiliar=UNFAMILIAR,
        ends=(MIN_SCORE, MAX_SCORE),
    )


def table(rows: Sequence[Assessment]) -> str:
    """Several rows, to be sorted by a click on a column's head; those that failed come below."""
    good = [row for row in rows if row.error is None]
    clips = [clip_of(row) for row in good[:MOST_ROWS]]
    add_strips(clips)
    return render(
        "cards_table.html.j2",
        rows=clips,
        total=len(good),
        failed=[row for row in rows if row.error is not None],
        scores=[name for name in SCORE_FIELDS if any(getattr(row, name) for row in good)],
    )


def style() -> str:
    """The style sheet of what this module makes."""
    return render("card.css.j2")


def in_notebook(row: Assessment) -> str:
    """A row as a notebook shows it."""
    return f"<style>{style()}</style>{card(row, file=Path(row.video))}"


def table_in_notebook(rows: Sequence[Assessment]) -> str:
    """Rows as a notebook shows them."""
    return f"<style>{style()}</style>{table(rows)}<script>{render('sort.js')}</script>"

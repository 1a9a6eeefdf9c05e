"""Plots of scores: along a video, with its CSV file."""

from __future__ import annotations

import csv
import io
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from prompts import render_defects

from ..assessment import HIGHEST, LOWEST, SCORE_FIELDS, Score, Timeline
from ..files import write_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Okabe and Ito's colours, which the colour-blind can distinguish.
_COLOURS = {
    "overall": "#000000", "technical": "#0072b2", "motion": "#d55e00", "semantic": "#009e73",
}


def write_timeline(timeline: Timeline, path: str | os.PathLike[str]) -> None:
    """Writes a row per window: times, scores with spreads, and the defects seen in it.

    Where the model does not explain, there is no column of defects.

    Raises:
        InputError: when the file cannot be written.
    """
    explained = timeline.clip.defects is not None
    scores = [column for name in SCORE_FIELDS for column in (name, f"{name}_std")]
    buffer = io.StringIO(newline="")
    writer = csv.writer(buffer)
    writer.writerow(["start_seconds", "end_seconds", *scores, *["defects"] * explained])
    for window in timeline.windows:
        start, end = window.start_seconds, window.end_seconds
        cells: list[Any] = [round(start, 3), round(end, 3)]
        for name in SCORE_FIELDS:
            score: Score | None = window.scores[name]
            cells += [score.score, score.std] if score else ["", ""]
        if explained:
            cells.append(render_defects(timeline.defects_within(start, end)))
        writer.writerow(cells)
    write_text(path, buffer.getvalue())


def plot_timeline(timeline: Timeline, path: str | os.PathLike[str]) -> None:
    """Draws the scores over time, and below them when each defect is seen; by suffix PNG, SVG, PDF.

    Raises:
        OSError: when the file cannot be written.
    """
    import matplotlib
    from matplotlib.figure import Figure

    defects = timeline.clip.defects or ()
    # the same file every time
    style: dict[Any, Any] = {"svg.hashsalt": "aigveval", "text.parse_math": False}
    with matplotlib.rc_context(style):
        below = 0.35 + 0.24 * len(defects) if defects else 0.0
        figure = Figure(figsize=(9.0, 3.4 + below), layout="constrained")
        heights = {"height_ratios": [3.4, below]} if defects else {}
        parts = figure.subplots(
            1 + bool(defects), 1, sharex=True, squeeze=False, gridspec_kw=heights
        )
        top = parts[0, 0]
        _draw_scores(top, timeline)
        top.set_title(Path(timeline.clip.video).name, fontsize=11)
        if defects:
            _draw_defects(top, parts[1, 0], timeline)
        parts[-1, 0].set_xlabel("seconds")
        parts[-1, 0].set_xlim(0, timeline.duration_seconds)
        metadata = {"Date": None} if Path(path).suffix.lower() == ".svg" else None
        figure.savefig(path, dpi=150, metadata=metadata)


def _draw_scores(axes: Axes, timeline: Timeline) -> None:
    for name in SCORE_FIELDS:
        known = [window for window in timeline.windows if window.scores[name]]
        if not known:
            continue
        times = [(window.start_seconds + window.end_seconds) / 2 for window in known]
        values = np.array([window.scores[name].score for window in known])
        colour, main = _COLOURS[name], name == "overall"
        if len(known) == 1:  # a point would be hard to see
            times, values = [known[0].start_seconds, known[0].end_seconds], values.repeat(2)
        axes.plot(
            times, values, color=colour, label=name, marker="o", markersize=3,
            linewidth=2.2 if main else 1.2, zorder=4 if main else 3,
        )
    axes.set_ylim(LOWEST - 0.1, HIGHEST + 0.1)
    axes.set_ylabel("score, 1 to 5")
    axes.grid(color="#e2e8f0")
    axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False)


def _draw_defects(top: Axes, axes: Axes, timeline: Timeline) -> None:
    defects, length = timeline.clip.defects or (), timeline.duration_seconds
    for row, defect in enumerate(defects):
        start, end = defect.span(length)
        width = max(end - start, 0.004 * length)  # a moment can still be seen
        colour = _COLOURS[defect.dimension]
        axes.broken_barh([(start, width)], (row - 0.35, 0.7), color=colour, alpha=0.75)
        if defect.start_seconds is not None:
            top.axvspan(start, start + width, color=colour, alpha=0.12, linewidth=0)
    axes.set_yticks(
        range(len(defects)), [f"{d.name.replace('_', ' ')} {d.severity}" for d in defects]
    )
    axes.set_ylim(len(defects) - 0.5, -0.5)
    axes.grid(axis="x", color="#e2e8f0")
    axes.set_axisbelow(True)

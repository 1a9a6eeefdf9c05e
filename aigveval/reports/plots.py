"""Plots: scores along a video, with their CSV file; and what `aigveval data check` finds."""

from __future__ import annotations

import csv
import io
import logging
import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from prompts import render_defects
from prompts.rubric import MAX_SCORE, MIN_SCORE

from ..assessment import SCORE_FIELDS, Score, Timeline
from ..data.check import BINS, Report, bin_edges
from ..errors import one_line
from ..files import replaced, write_text, writing
from .strips import Range, boxes_at, colour_of, label_of, ranges_of, read_strip

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's colours, which the colour-blind can distinguish.
_COLOURS = {
    "overall": "#000000",
    "technical": "#0072b2",
    "motion": "#d55e00",
    "semantic": "#009e73",
}
_WIDTH, _PANEL_HEIGHT = 10.0, 2.8  # inches
_DPI = 110
_SHOWN_PARTS, _SHOWN_GENERATORS = 6, 20
_BEST, _TIE, _OTHER = "#2f6f9f", "#b9b9b9", "#d98c3f"


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

    Where the clip's assessment has evidence, its frames stand above, with boxes around what the
    facts speak of, and more ranges below.

    Raises:
        InputError: when the file cannot be written.
    """
    import matplotlib
    from matplotlib.figure import Figure

    ranges = _ranges(timeline)
    frames = _frames(timeline)
    # the same file every time
    style: dict[Any, Any] = {"svg.hashsalt": "aigveval", "text.parse_math": False}
    with matplotlib.rc_context(style):
        above = 0.0 if frames is None else _strip_height(frames[0])
        below = 0.35 + 0.24 * len(ranges) if ranges else 0.0
        heights = [height for height in (above, 3.4, below) if height]
        figure = Figure(figsize=(9.0, sum(heights)), layout="constrained")
        parts = figure.subplots(
            len(heights), 1, sharex=True, squeeze=False, gridspec_kw={"height_ratios": heights}
        )
        top = parts[int(bool(above)), 0]
        _draw_scores(top, timeline)
        parts[0, 0].set_title(Path(timeline.clip.video).name, fontsize=11)
        if frames is not None:
            _draw_frames(parts[0, 0], timeline, *frames)
        if ranges:
            _draw_ranges(top, parts[-1, 0], timeline, ranges)
        parts[-1, 0].set_xlabel("seconds")
        parts[-1, 0].set_xlim(0, timeline.duration_seconds)
        metadata = {"Date": None} if Path(path).suffix.lower() == ".svg" else None
        _save(figure, path, dpi=150, metadata=metadata)


def _save(figure: Figure, path: str | os.PathLike[str], **options: Any) -> None:
    logging.getLogger("matplotlib").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of glyphs that the font lacks, such as Chinese names
        with writing(path), replaced(path) as temporary:
            figure.savefig(temporary, **options)


_PLOT_WIDTH = 6.7  # inches that the axes take of a figure's 9, about


def _frames(timeline: Timeline) -> tuple[np.ndarray, np.ndarray] | None:
    """The frames in which things were looked for, and their times; None without evidence."""
    if not timeline.clip.evidence:
        return None
    from encoders.video import VideoError

    try:
        return read_strip(Path(timeline.clip.video), 8, 144)
    except VideoError:  # it has gone since
        return None


def _strip_height(frames: np.ndarray) -> float:
    """Inches of a row of frames that fill the width of the plot."""
    height, width = frames.shape[1:3]
    return 0.2 + min(2.5, _PLOT_WIDTH / len(frames) * height / width)


def _draw_frames(axes: Axes, timeline: Timeline, frames: np.ndarray, times: np.ndarray) -> None:
    from matplotlib.patches import Rectangle

    step = timeline.duration_seconds / len(frames)
    for number, (frame, time) in enumerate(zip(frames, times)):
        left = number * step
        axes.imshow(frame, extent=(left, left + 0.97 * step, 0, 1), aspect="auto")
        for fact in boxes_at(float(time), timeline.clip.evidence or ()):
            assert fact.box is not None
            x0, y0, x1, y1 = fact.box
            corner = (left + 0.97 * step * x0, 1 - y1)
            size = (0.97 * step * (x1 - x0), y1 - y0)
            colour = colour_of(fact)
            axes.add_patch(Rectangle(corner, *size, fill=False, edgecolor=colour, linewidth=1.3))
            right = x0 > 0.5  # its label ends where the box does, rather than over the next frame
            note = axes.text(
                corner[0] + size[0] * right,
                1.02 - y0,
                label_of(fact),
                fontsize=5,
                ha="right" if right else "left",
                va="top",
                color="white",
            )
            note.set_bbox({"facecolor": colour, "linewidth": 0, "pad": 0.8, "alpha": 0.85})
    axes.set_ylim(0, 1)
    axes.set_axis_off()


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
            times,
            values,
            color=colour,
            label=name,
            marker="o",
            markersize=3,
            linewidth=2.2 if main else 1.2,
            zorder=3 if main else 4,  # the thick line below, where others lie on it
        )
    axes.set_ylim(MIN_SCORE - 0.1, MAX_SCORE + 0.1)
    axes.set_ylabel("score, 1 to 5")
    axes.grid(color="#e2e8f0")
    axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False)


def _ranges(timeline: Timeline) -> list[Range]:
    """The defects and when they are seen, and with evidence what else is known of the time."""
    length, found = timeline.duration_seconds, []
    for defect in timeline.clip.defects or ():
        start, end = defect.span(length)
        name = defect.name.replace("_", " ")
        found.append(
            Range(
                label=f"{name} {defect.severity}",
                start=start / length,
                end=max(end / length, start / length + 0.004),  # a moment can still be seen
                colour=_COLOURS[defect.dimension],
                length_seconds=length,
            )
        )
    return found + ranges_of(timeline.clip)[len(found) :]  # which begin with the defects


def _draw_ranges(top: Axes, axes: Axes, timeline: Timeline, ranges: Sequence[Range]) -> None:
    length, defects = timeline.duration_seconds, timeline.clip.defects or ()
    for row, one in enumerate(ranges):
        start, width = one.start * length, (one.end - one.start) * length
        bar = [(start, width)]
        axes.broken_barh(bar, (row - 0.35, 0.7), color=one.colour, alpha=0.75)
        if row < len(defects) and defects[row].start_seconds is not None:
            top.axvspan(start, start + width, color=one.colour, alpha=0.12, linewidth=0)
    axes.set_yticks(range(len(ranges)), [one.label for one in ranges])
    axes.set_ylim(len(ranges) - 0.5, -0.5)
    axes.grid(axis="x", color="#e2e8f0")
    axes.set_axisbelow(True)


# ---- what `aigveval data check` finds -----------------------------------------------------------


def plot_check(report: Report, path: str | os.PathLike[str]) -> None:
    """Draws a report to a PNG file.

    Raises:
        InputError: when the file cannot be written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    panels = [(_draw_histogram, name) for name in report.scores]
    panels += [(_draw_preferences, "")] if report.preferences else []
    panels += [(_draw_generators, "")] if report.generators else []
    panels += [(_draw_parts, "")] if len(report.parts) > 1 or not panels else []
    rows = -(-len(panels) // 2)
    figure = Figure(figsize=(_WIDTH, _PANEL_HEIGHT * rows + 0.6), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(rows, 2, squeeze=False).ravel()
    for axis, (draw_panel, name) in zip(axes, panels):
        draw_panel(axis, report, name)
        axis.spines[["top", "right"]].set_visible(False)
    for axis in axes[len(panels) :]:
        axis.set_axis_off()
    names = one_line(", ".join(os.path.basename(name) for name in report.sources), limit=90)
    things = "pairs" if report.pairs else "rows"
    figure.suptitle(
        _plain(
            f"{names}: {report.rows:,} {things}, {report.videos:,} videos, "
            f"{report.prompts:,} prompts"
        ),
        fontsize=11,
    )
    _save(figure, path, dpi=_DPI, format="png")


def _plain(text: str) -> str:
    """Keeps the library from reading mathematics into names."""
    return text.replace("$", r"\$")


def _draw_histogram(axis: Any, report: Report, name: str) -> None:
    scores = report.scores[name]
    edges = bin_edges(report.scale)
    below = np.zeros(BINS)
    parts = sorted(scores.histogram, key=lambda part: -sum(scores.histogram[part]))
    shown = parts if len(parts) <= _SHOWN_PARTS else parts[: _SHOWN_PARTS - 1]
    stacks = [(part, np.array(scores.histogram[part])) for part in shown]
    if len(shown) < len(parts):
        rest = [scores.histogram[part] for part in parts[len(shown) :]]
        stacks.append((f"{len(rest)} others", np.sum(rest, axis=0)))
    for part, counts in stacks:
        axis.bar(
            edges[:-1],
            counts,
            np.diff(edges),
            below,
            align="edge",
            label=_plain(part),
            edgecolor="white",
            linewidth=0.5,
        )
        below += counts
    axis.axvline(scores.mean, color="black", linewidth=1, linestyle="--")
    axis.set_title(
        f"{name}: {scores.count:,} scores, {scores.distinct:,} distinct, mean {scores.mean:.3g}",
        fontsize=9,
    )
    axis.set_xlim(edges[0], edges[-1])
    axis.set_ylabel("rows", fontsize=8)
    axis.tick_params(labelsize=8)
    if len(stacks) > 1:
        axis.legend(fontsize=7, frameon=False)


def _draw_preferences(axis: Any, report: Report, name: str) -> None:
    below = np.zeros(len(report.preferences))
    for answer, colour in (("A", _BEST), ("same", _TIE), ("B", _OTHER)):
        counts = [asked.get(answer, 0) for asked in report.preferences.values()]
        axis.bar(list(report.preferences), counts, bottom=below, color=colour, label=answer)
        below += counts
    axis.set_title("preferences", fontsize=9)
    axis.set_ylabel("pairs", fontsize=8)
    axis.tick_params(labelsize=8)
    axis.legend(fontsize=7, frameon=False)


def _draw_generators(axis: Any, report: Report, name: str) -> None:
    counts = sorted(report.generators.items(), key=lambda item: -item[1])[:_SHOWN_GENERATORS]
    more = len(report.generators) - len(counts)
    score = next((s for s in ("overall", *report.scores) if s in report.scores), None)
    if score is not None:
        rated = [
            (report.generator_means[generator][score], f"{generator} ({count:,})")
            for generator, count in counts
            if score in report.generator_means.get(generator, {})
        ]
        _draw_bars(axis, [(label, mean) for mean, label in sorted(rated, reverse=True)])
        axis.set_xlim(report.scale.low, report.scale.high)
        title = f"mean {score} of the generators (rows)"
    else:
        _draw_bars(axis, counts)
        title = "rows by generator"
    axis.set_title(title + f"; {more} more" * bool(more > 0), fontsize=9)


def _draw_parts(axis: Any, report: Report, name: str) -> None:
    shared = {
        o.part: o for o in sorted(report.overlaps, key=lambda o: o.shared) if o.what == "prompts"
    }
    parts = sorted(report.parts.items(), key=lambda item: -item[1])[:_SHOWN_GENERATORS]
    bars = []
    for part, count in parts:
        leak = shared.get(part)
        note = ""
        if leak is not None:
            note = f"\n{leak.shared:,} of {leak.distinct:,} prompts\nalso in {leak.other}"
        bars.append((part + note, count))
    _draw_bars(axis, bars)
    axis.set_title("rows by part", fontsize=9)


def _draw_bars(axis: Any, bars: Sequence[tuple[str, float]]) -> None:
    axis.barh(range(len(bars)), [length for _, length in bars], color=_BEST)
    labels = [
        _plain("\n".join(one_line(line, limit=36) for line in label.split("\n")))
        for label, _ in bars
    ]
    axis.set_yticks(range(len(bars)), labels, fontsize=7)
    axis.invert_yaxis()
    axis.tick_params(axis="x", labelsize=8)

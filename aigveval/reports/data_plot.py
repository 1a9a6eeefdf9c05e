"""The findings of `check` as a picture: how scores are spread, and who made the videos."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import one_line
from ..data.check import BINS, Report, bin_edges
from ..errors import InputError, as_text

_WIDTH, _PANEL_HEIGHT = 10.0, 2.8  # inches
_DPI = 110
_SHOWN_PARTS, _SHOWN_GENERATORS = 6, 20
_BEST, _TIE, _OTHER = "#2f6f9f", "#b9b9b9", "#d98c3f"


def draw(report: Report, path: str | os.PathLike[str]) -> None:
    """Draws a report to a PNG file.

    Raises:
        InputError: when the file cannot be written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    panels = [(_draw_scores, name) for name in report.scores]
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
    for axis in axes[len(panels):]:
        axis.set_axis_off()
    names = one_line(", ".join(os.path.basename(name) for name in report.sources), limit=90)
    things = "pairs" if report.pairs else "rows"
    figure.suptitle(
        _plain(f"{names}: {report.rows:,} {things}, {report.videos:,} videos, "
               f"{report.prompts:,} prompts"), fontsize=11,
    )
    logging.getLogger("matplotlib").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of glyphs that the font lacks, such as Chinese names
        try:
            Path(path).parent.mkdir(parents=True, exist_ok=True)
            figure.savefig(path, dpi=_DPI, format="png")
        except OSError as error:
            reason = error.strerror or error
            raise InputError(f"{as_text(path)}: cannot be written: {reason}") from None


def _plain(text: str) -> str:
    """Keeps the library from reading mathematics into names."""
    return text.replace("$", r"\$")


def _draw_scores(axis: Any, report: Report, name: str) -> None:
    scores = report.scores[name]
    edges = bin_edges(report.scale)
    below = np.zeros(BINS)
    parts = sorted(scores.histogram, key=lambda part: -sum(scores.histogram[part]))
    shown = parts if len(parts) <= _SHOWN_PARTS else parts[: _SHOWN_PARTS - 1]
    stacks = [(part, np.array(scores.histogram[part])) for part in shown]
    if len(shown) < len(parts):
        rest = [scores.histogram[part] for part in parts[len(shown):]]
        stacks.append((f"{len(rest)} others", np.sum(rest, axis=0)))
    for part, counts in stacks:
        axis.bar(edges[:-1], counts, np.diff(edges), below, align="edge", label=_plain(part),
                 edgecolor="white", linewidth=0.5)
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
            for generator, count in counts if score in report.generator_means.get(generator, {})
        ]
        _draw_bars(axis, [(label, mean) for mean, label in sorted(rated, reverse=True)])
        axis.set_xlim(report.scale.low, report.scale.high)
        title = f"mean {score} of the generators (rows)"
    else:
        _draw_bars(axis, counts)
        title = "rows by generator"
    axis.set_title(title + f"; {more} more" * bool(more > 0), fontsize=9)


def _draw_parts(axis: Any, report: Report, name: str) -> None:
    shared = {o.part: o for o in sorted(report.overlaps, key=lambda o: o.shared)
              if o.what == "prompts"}
    parts = sorted(report.parts.items(), key=lambda item: -item[1])[:_SHOWN_GENERATORS]
    bars = []
    for part, count in parts:
        leak = shared.get(part)
        told = ""
        if leak is not None:
            told = f"\n{leak.shared:,} of {leak.distinct:,} prompts\nalso in {leak.other}"
        bars.append((part + told, count))
    _draw_bars(axis, bars)
    axis.set_title("rows by part", fontsize=9)


def _draw_bars(axis: Any, bars: Sequence[tuple[str, float]]) -> None:
    axis.barh(range(len(bars)), [length for _, length in bars], color=_BEST)
    labels = [_plain("\n".join(one_line(line, limit=36) for line in label.split("\n")))
              for label, _ in bars]
    axis.set_yticks(range(len(bars)), labels, fontsize=7)
    axis.invert_yaxis()
    axis.tick_params(axis="x", labelsize=8)

"""Plots as SVG text, drawn by matplotlib, to be put into a page as they are.

SVG stays sharp at any width, needs no script, and a plot is 10 to 50 kB; plotly would add 4 MB of
JavaScript to every report. Text stays text, in the reader's own fonts, so that names in any script
are shown. Large clouds of points are embedded as pictures.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ...errors import one_line
from ...metrics import Logistic4

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Floats = NDArray[np.float64]

WIDTH_IN = 4.2  # 300 points, a phone's width; on a wide page two stand side by side
HUMAN, PREDICTED, CURVE = "#64748b", "#2563eb", "#dc2626"
# Okabe and Ito's colours, which the colour-blind can distinguish, and a grey for the rest.
GROUP_COLOURS = (
    "#0072b2",
    "#e69f00",
    "#009e73",
    "#cc79a7",
    "#d55e00",
    "#56b4e9",
    "#8a7a00",
    "#000000",
)
_OTHER = "#94a3b8"
_MOST_GROUPS = len(GROUP_COLOURS)
_MOST_VECTOR_POINTS = 2000
_MOST_BOXES = 30
_NAME_CHARS = 20
_STYLE: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "aigveval",
    "font.size": 10,
    "font.family": "sans-serif",
    "text.parse_math": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#94a3b8",
    "axes.labelcolor": "#334155",
    "xtick.color": "#475569",
    "ytick.color": "#475569",
    "text.color": "#0f172a",
    "axes.grid": True,
    "grid.color": "#e2e8f0",
    "axes.axisbelow": True,
    "figure.dpi": 100,
    "legend.frameon": False,
}


def scatter(
    predictions: Floats,
    ratings: Floats,
    *,
    groups: Sequence[str | None],
    low: float,
    high: float,
    logistic: Logistic4 | None,
    same_scale: bool,
    title: str,
) -> str:
    """Human scores over predictions, with the fitted logistic and the line of equality.

    Args:
        predictions, ratings: (n,).
        groups: generator of each, for the colours.
        low, high: ends of the human scale.
        logistic: the curve; None draws none.
        same_scale: whether predictions are on the human scale; draws the line of equality.
        title: for those who cannot see it.
    """
    names = [name for name in dict.fromkeys(groups) if name is not None]
    with _figure(height_in=4.0) as figure:
        axes = figure.subplots()
        raster = len(predictions) > _MOST_VECTOR_POINTS
        size = 26 if len(predictions) <= 300 else 8
        colour = dict(zip(names, GROUP_COLOURS)) | {None: PREDICTED}
        colours = [colour.get(name, _OTHER) for name in groups]
        axes.scatter(
            predictions,
            ratings,
            c=colours,
            s=size,
            alpha=0.75,
            linewidths=0.4,
            edgecolors="white",
            rasterized=raster,
            zorder=3,
        )
        pad = 0.04 * (high - low)
        start, end = float(predictions.min()), float(predictions.max())
        margin = 0.06 * (end - start)
        if same_scale:
            axes.plot([low, high], [low, high], color="#cbd5e1", linewidth=1, zorder=1)
        if logistic is not None:
            x = np.linspace(start - margin, end + margin, 200)
            axes.plot(x, logistic(x), color=CURVE, linewidth=1.8, zorder=4, label="logistic")
        axes.set_xlim(start - margin, end + margin)
        axes.set_ylim(low - pad, high + pad)
        axes.set_xlabel("prediction")
        axes.set_ylabel("human score")
        _legend(figure, axes, names)
        return _svg(figure, title)


def boxes(
    groups: Mapping[str, Mapping[str, Floats]], *, low: float, high: float, title: str
) -> str:
    """Box plots side by side: one row per group, one box per kind of score.

    Boxes span the quartiles, with the median; whiskers reach to the furthest point within 1.5 box
    lengths. A dot is the mean.

    Args:
        groups: name -> kind (`human`, `predicted`) -> values.
        low, high: ends of the scale.
        title: for those who cannot see it.
    """
    shown = list(groups)[:_MOST_BOXES]
    kinds = list(dict.fromkeys(kind for name in shown for kind in groups[name]))
    colours = {"human": HUMAN, "predicted": PREDICTED}
    with _figure(height_in=0.9 + (0.26 * len(kinds) + 0.2) * len(shown)) as figure:
        axes = figure.subplots()
        width = 0.72 / len(kinds)
        for index, kind in enumerate(kinds):
            here = [(row, groups[n][kind]) for row, n in enumerate(shown) if kind in groups[n]]
            colour = colours.get(kind, PREDICTED)
            axes.boxplot(
                [values for _, values in here],
                orientation="horizontal",
                positions=[row + (index - (len(kinds) - 1) / 2) * width for row, _ in here],
                widths=width * 0.8,
                patch_artist=True,
                showmeans=True,
                manage_ticks=False,
                boxprops={"facecolor": colour + "33", "edgecolor": colour},
                medianprops={"color": colour, "linewidth": 1.8},
                whiskerprops={"color": colour},
                capprops={"color": colour},
                meanprops={
                    "marker": "o",
                    "markerfacecolor": colour,
                    "markeredgecolor": "white",
                    "markersize": 4,
                },
                flierprops={"marker": ".", "markeredgecolor": colour, "markersize": 3},
            )
            if len(kinds) > 1:
                axes.scatter([], [], marker="s", color=colour, label=kind)
        axes.set_yticks(range(len(shown)), [_short(name) for name in shown])
        axes.set_ylim(len(shown) - 0.5, -0.5)
        axes.grid(axis="y", visible=False)
        pad = 0.03 * (high - low)
        axes.set_xlim(low - pad, high + pad)
        if len(groups) > len(shown):
            axes.set_xlabel(f"{len(shown)} of {len(groups)} are shown")
        _legend(figure, axes, [])
        return _svg(figure, title)


def means(
    names: Sequence[str],
    values: Sequence[tuple[float, float | None, float | None]],
    letters: Sequence[str],
    *,
    label: str,
    title: str,
) -> str:
    """Means with their intervals, one row per name, and the letters of their groups.

    Args:
        names: from the top down.
        values: (mean, low, high); None without interval.
        letters: of the significance groups.
        label: of the axis.
        title: for those who cannot see it.
    """
    with _figure(height_in=0.9 + 0.34 * len(names)) as figure:
        axes = figure.subplots()
        ends = [end for value in values for end in value if end is not None]
        span = (max(ends) - min(ends)) or 1.0
        for row, ((mean, low, high), letter) in enumerate(zip(values, letters)):
            if low is not None and high is not None:
                axes.plot([low, high], [row, row], color=PREDICTED, linewidth=2.2, alpha=0.5)
            axes.plot(mean, row, marker="o", color=PREDICTED, markersize=6)
            axes.text(max(ends) + 0.06 * span, row, letter, va="center", color="#475569")
        axes.set_yticks(range(len(names)), [_short(name) for name in names])
        axes.set_ylim(len(names) - 0.5, -0.5)
        axes.set_xlim(min(ends) - 0.06 * span, max(ends) + 0.16 * span)
        axes.grid(axis="y", visible=False)
        axes.set_xlabel(label)
        return _svg(figure, title)


def histogram(values: Floats, *, low: float, high: float, title: str) -> str:
    """How often scores occur, with their mean."""
    from matplotlib.ticker import MaxNLocator

    with _figure(height_in=2.2) as figure:
        axes = figure.subplots()
        edges = list(np.linspace(low, high, 17))
        axes.hist(values, bins=edges, color=PREDICTED, alpha=0.75, rwidth=0.92)
        axes.axvline(float(values.mean()), color=CURVE, linewidth=1.6)
        axes.set_xlim(low, high)
        axes.set_ylabel("clips")
        axes.yaxis.set_major_locator(MaxNLocator(integer=True, nbins=5))
        return _svg(figure, title)


@contextmanager
def _figure(*, height_in: float) -> Iterator[Figure]:
    """A figure in our style, without pyplot, which would keep it."""
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(_STYLE):
        yield Figure(figsize=(WIDTH_IN, height_in), layout="constrained")


def _legend(figure: Figure, axes: Axes, names: Sequence[str]) -> None:
    for index, name in enumerate(names[:_MOST_GROUPS]):
        # text that begins with _ would be left out
        axes.scatter([], [], color=GROUP_COLOURS[index], s=26, label=_short(name).lstrip("_"))
    if len(names) > _MOST_GROUPS:
        axes.scatter([], [], color=_OTHER, s=26, label=f"{len(names) - _MOST_GROUPS} others")
    handles, labels = axes.get_legend_handles_labels()
    if handles:
        figure.legend(
            handles,
            labels,
            loc="outside lower center",
            ncols=min(2, len(handles)),
            fontsize=9,
            handletextpad=0.3,
            columnspacing=1.2,
        )


def _short(name: str) -> str:
    return one_line(name, limit=_NAME_CHARS)


def _svg(figure: Figure, title: str) -> str:
    buffer = io.StringIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a font without some glyph: the reader's browser has it
        metadata = {"Date": None, "Creator": None, "Title": title}
        figure.savefig(buffer, format="svg", metadata=metadata)
    text = buffer.getvalue()
    return text[text.index("<svg") :]

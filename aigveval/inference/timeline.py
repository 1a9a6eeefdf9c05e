"""Scores along a video: a window slides over it, and each stretch is scored as a clip of its own.

    timeline = make_timeline(aigveval.load("lite"), "clip.mp4", window_seconds=2, step_seconds=0.5)
    write_csv(timeline, "clip.csv")
    write_plot(timeline, "clip.png")

A model judges a stretch as it judges whole clips, and one much shorter than the clips it was
trained on gets less certain scores. Where the model explains, the defects are those of the whole
clip.
"""

from __future__ import annotations

import csv
import io
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from encoders.container import inspect
from encoders.video import FrameRequest, VideoError, VideoInfo, read_frames
from prompts import Defect, render_defects

from .assessor import Assessor, ModelEngine, Scores, Views
from .batching import run_batches
from ..reports.writing import write_whole
from .explain import ExplainingEngine
from ..assessment import HIGHEST, LOWEST, SCORE_FIELDS, Assessment, Score

if TYPE_CHECKING:
    from matplotlib.axes import Axes

WINDOW_SECONDS = 2.0
STEP_SECONDS = 0.5
_BATCH = 8  # windows decoded and scored together, at most
_BATCH_BYTES = 2**28  # of the frames of those windows
# Okabe and Ito's colours, which the colour-blind can tell apart.
_COLOURS = {
    "overall": "#000000", "technical": "#0072b2", "motion": "#d55e00", "semantic": "#009e73",
}


@dataclass(frozen=True, kw_only=True)
class Window:
    """A stretch of a video and its scores, by name; None for one that there is not."""

    start_seconds: float
    end_seconds: float
    scores: Scores


@dataclass(frozen=True, kw_only=True)
class Timeline:
    """What `make_timeline` found: the windows in order, and the assessment of the whole clip."""

    duration_seconds: float
    windows: list[Window]
    clip: Assessment

    def defects_within(self, start_seconds: float, end_seconds: float) -> list[Defect]:
        """The defects that a stretch has a part in."""
        spans = ((d, d.span(self.duration_seconds)) for d in self.clip.defects or ())
        return [d for d, (start, end) in spans if start < end_seconds and end >= start_seconds]


def window_spans(
    duration_seconds: float, *, window_seconds: float, step_seconds: float
) -> list[tuple[float, float]]:
    """Start and end in seconds of each window.

    The last one ends with the clip, and so may overlap the one before it more than others do. A
    clip shorter than a window is one window.

    Raises:
        ValueError: when `window_seconds` is not above 0, or `step_seconds` not in 0..window.
    """
    if not 0 < window_seconds < math.inf:
        raise ValueError(f"window_seconds must be above 0, got {window_seconds:g}")
    if not 0 < step_seconds <= window_seconds:
        raise ValueError(
            f"step_seconds must be above 0 and at most window_seconds ({window_seconds:g}), as "
            f"nothing would look at what lies between, got {step_seconds:g}"
        )
    if duration_seconds <= window_seconds:
        return [(0.0, duration_seconds)]
    last = duration_seconds - window_seconds
    starts = [step * step_seconds for step in range(math.floor(last / step_seconds + 1e-6) + 1)]
    if last - starts[-1] > 0.1 * step_seconds:
        starts.append(last)
    return [(start, min(start + window_seconds, duration_seconds)) for start in starts]


def make_timeline(
    assessor: Assessor,
    video: str | os.PathLike[str],
    *,
    prompt: str | None = None,
    window_seconds: float = WINDOW_SECONDS,
    step_seconds: float = STEP_SECONDS,
    on_window: Callable[[int, int], None] | None = None,
) -> Timeline:
    """Scores a video as a whole and in windows.

    Args:
        assessor: as `aigveval.load` gives it. If its model explains, the whole clip is explained.
        video: path of the file.
        prompt: text it was generated from.
        window_seconds: length of a window.
        step_seconds: from the start of a window to that of the next.
        on_window: called with how many of how many windows are done, for a progress bar.

    Raises:
        VideoError: when the file cannot be assessed.
        ValueError: when window or step are out of range.
    """
    engine = assessor.engine
    plain = engine.plain if isinstance(engine, ExplainingEngine) else engine
    if not isinstance(plain, ModelEngine):
        raise TypeError(f"{type(plain).__name__} scores no parts of a video")
    if plain is engine and plain.model.config.explains:
        assessor = Assessor(ExplainingEngine(plain, text=True), name=assessor.name)
    path = Path(video)
    info, times = _times(path)
    spans = window_spans(
        info.duration_seconds, window_seconds=window_seconds, step_seconds=step_seconds
    )
    windows: list[Window] = []
    for window in _score(plain, path, prompt, spans, info, times):
        windows.append(window)
        if on_window is not None:
            on_window(len(windows), len(spans))
    clip = assessor.score(path, prompt)
    return Timeline(duration_seconds=info.duration_seconds, windows=windows, clip=clip)


def _times(path: Path) -> tuple[VideoInfo, np.ndarray]:
    """What is known of the video, and the time of each frame in seconds."""
    first = FrameRequest(indices=lambda count, fps: np.zeros(1, np.int64), stream="fast")
    info, _ = read_frames(path, {"first": first})
    return info, inspect(os.fspath(path)).times[:info.num_frames]


def _score(
    engine: ModelEngine,
    path: Path,
    prompt: str | None,
    spans: Sequence[tuple[float, float]],
    info: VideoInfo,
    times: np.ndarray,
) -> Iterator[Window]:
    """Scores windows by the batch; the next batch is decoded meanwhile."""
    size = _batch_size(engine.requests, info)
    batches = [spans[start:start + size] for start in range(0, len(spans), size)]
    outcomes = run_batches(
        batches,
        prepare=lambda batch: _views(path, engine, batch, times),
        compute=lambda work: [
            engine.score_views(views, [prompt] * len(views)) for _, views in work
        ],
        batch_size=1, workers=1,
    )
    for outcome in outcomes:
        if outcome.result is None:
            assert outcome.error is not None
            raise outcome.error
        for (start, end), scores in zip(outcome.item, outcome.result):
            if isinstance(scores, Exception):
                raise VideoError(os.fspath(path), f"{start:g} to {end:g} s: {scores}")
            known = dict(scores) | ({} if prompt else {"semantic": None})
            yield Window(start_seconds=start, end_seconds=end, scores=known)


def _batch_size(requests: Mapping[str, FrameRequest], info: VideoInfo) -> int:
    """How many windows' frames may be in memory at once; slow frames are as large as the video."""
    counts = [
        len(request.indices(info.num_frames, info.fps)) for request in requests.values()
        if request.stream == "slow"
    ]
    bytes_each = max(1, sum(counts)) * info.width * info.height * 3
    return max(1, min(_BATCH, _BATCH_BYTES // bytes_each))


def _frames(times: np.ndarray, start: float, end: float) -> tuple[int, int]:
    """The first frame of a stretch, and the one after its last; at least one frame."""
    # the frame that is on the screen when the stretch starts, and those that appear within it
    first = max(0, int(np.searchsorted(times, start + 1e-6, "right")) - 1)
    return first, max(first + 1, int(np.searchsorted(times, end - 1e-6)))


def _views(
    path: Path, engine: ModelEngine, spans: Sequence[tuple[float, float]], times: np.ndarray
) -> list[Views]:
    """What the model sees of each stretch, out of one decoding pass."""
    def within(wanted: FrameRequest, first: int, stop: int) -> FrameRequest:
        def indices(count: int, fps: float) -> np.ndarray:
            # `count` can be less than was thought: some files only tell when they are decoded.
            start = min(first, count - 1)
            return wanted.indices(max(1, min(stop, count) - start), fps) + start

        return FrameRequest(indices=indices, stream=wanted.stream)

    requests = engine.requests
    wanted = {
        f"{number} {name}": within(request, *_frames(times, *span))
        for number, span in enumerate(spans) for name, request in requests.items()
    }
    _, found = read_frames(path, wanted, **engine.sizes)
    return [
        engine.view({name: found[f"{number} {name}"] for name in requests}, path, start)
        for number, (start, _) in enumerate(spans)
    ]


def write_csv(timeline: Timeline, path: str | os.PathLike[str]) -> None:
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
    write_whole(Path(path), buffer.getvalue())


def write_plot(timeline: Timeline, path: str | os.PathLike[str]) -> None:
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

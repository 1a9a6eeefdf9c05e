"""Scores along a video: a window slides over it, and each stretch is scored as a clip of its own.

    timeline = make_timeline(aigveval.load("lite"), "clip.mp4", window_seconds=2, step_seconds=0.5)

A model judges a stretch as it judges whole clips, and one much shorter than the clips it was
trained on gets less certain scores. Where the model explains, the defects are those of the whole
clip. `aigveval.reports.plots` draws a timeline.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from encoders.base import undisturbed
from encoders.container import VideoIndex
from encoders.video import FrameRequest, FrameSequence, VideoInfo, index_of, read_frames

from ..assessment import Scores, Timeline, Window
from ..batching import run_batches
from ..errors import is_about_the_video, our_fault
from .assessor import Assessor, device_of, one_clip, source_of_clip
from .engine import Engine, Views

WINDOW_SECONDS = 2.0
STEP_SECONDS = 0.5
_BATCH = 8  # windows decoded and scored together, at most
_BATCH_BYTES = 2**28  # of the frames of those windows


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
    video: Any,
    *,
    prompt: str | None = None,
    fps: float | None = None,
    window_seconds: float = WINDOW_SECONDS,
    step_seconds: float | None = None,
    on_window: Callable[[int, int], None] | None = None,
) -> Timeline:
    """Scores a video as a whole and in windows.

    Args:
        assessor: as `aigveval.load` gives it. If its model explains, the whole clip is explained,
            unless the assessor was loaded for contributions alone.
        video, fps: as of `Assessor.score`.
        prompt: text it was generated from.
        window_seconds: length of a window.
        step_seconds: from the start of a window to that of the next; by default 0.5, or the length
            of a shorter window.
        on_window: called with how many of how many windows are done, for a progress bar.

    Raises:
        VideoError: when the file cannot be assessed.
        AssessmentError: when something else failed, see `Assessor.score`.
        ValueError: when window or step are out of range.
    """
    step_seconds = min(STEP_SECONDS, window_seconds) if step_seconds is None else step_seconds
    engine = assessor.engine
    if engine.explains and not (assessor.explain or assessor.contributions):
        assessor = Assessor(engine, name=assessor.name, explain=True)
    asked = one_clip(video, prompt, fps=fps)
    path = source_of_clip(asked)
    info, index = _looked_through(path)
    spans = window_spans(
        info.duration_seconds, window_seconds=window_seconds, step_seconds=step_seconds
    )
    windows: list[Window] = []
    for window in _score(engine, path, asked.prompt, spans, info, index):
        windows.append(window)
        if on_window is not None:
            on_window(len(windows), len(spans))
    clip = assessor.score(video, prompt, fps=fps)
    return Timeline(duration_seconds=info.duration_seconds, windows=windows, clip=clip)


def _looked_through(path: Path | FrameSequence) -> tuple[VideoInfo, VideoIndex]:
    """What is known of the video, and its index, for which all of a file is read."""
    index = index_of(path)
    first = FrameRequest(indices=lambda count, fps: np.zeros(1, np.int64), stream="fast")
    info, _ = read_frames(path, {"first": first}, index=index)
    return info, index


def _score(
    engine: Engine,
    path: Path | FrameSequence,
    prompt: str | None,
    spans: Sequence[tuple[float, float]],
    info: VideoInfo,
    index: VideoIndex,
) -> Iterator[Window]:
    """Scores windows by the batch; the next batch is decoded meanwhile."""

    def compute(work: Sequence[tuple[Any, list[Views]]]) -> list[Sequence[Scores | Exception]]:
        with undisturbed(device_of(engine)):  # as an assessor does
            return [engine.score_views(views, [prompt] * len(views)) for _, views in work]

    size = _batch_size(engine.requests, info)
    batches = [spans[start : start + size] for start in range(0, len(spans), size)]
    for outcome in run_batches(  # not kept, so that an error ends it
        batches,
        prepare=lambda batch: _views(path, engine, batch, index),
        compute=compute,
        batch_size=1,
        workers=1,
    ):
        if outcome.result is None:
            assert outcome.error is not None
            if is_about_the_video(outcome.error):
                raise outcome.error
            what = f"{path} could not be assessed"
            raise our_fault(outcome.error, what) from outcome.error
        for (start, end), scores in zip(outcome.item, outcome.result):
            if isinstance(scores, Exception):
                what = f"{path} could not be assessed from {start:g} to {end:g} s"
                raise our_fault(scores, what) from scores
            known = dict(scores) | ({} if prompt else {"semantic": None})
            yield Window(start_seconds=start, end_seconds=end, scores=known)


def _batch_size(requests: Mapping[str, FrameRequest], info: VideoInfo) -> int:
    """How many windows' frames may be in memory at once; slow frames are as large as the video."""
    counts = [
        len(request.indices(info.num_frames, info.fps))
        for request in requests.values()
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
    path: Path | FrameSequence,
    engine: Engine,
    spans: Sequence[tuple[float, float]],
    index: VideoIndex,
) -> list[Views]:
    """Each stretch as a clip of its own, out of one decoding pass."""
    _, times = index.steady()

    def within(wanted: FrameRequest, first: int, stop: int) -> FrameRequest:
        def indices(count: int, fps: float) -> np.ndarray:
            # `count` can be less than was thought: some files only show it when they are decoded.
            start = min(first, count - 1)
            return wanted.indices(max(1, min(stop, count) - start), fps) + start

        return FrameRequest(indices=indices, stream=wanted.stream)

    requests = engine.requests
    wanted = {
        f"{number} {name}": within(request, *_frames(times, *span))
        for number, span in enumerate(spans)
        for name, request in requests.items()
    }
    _, found = read_frames(path, wanted, index=index, **engine.sizes)
    return [
        engine.view({name: found[f"{number} {name}"] for name in requests}, path, start)
        for number, (start, _) in enumerate(spans)
    ]

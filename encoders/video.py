"""A video file in, RGB frames with their times out; `VideoError` for everything else.

Frames in memory and folders of numbered pictures come in too: see `encoders.frame_sequence`.

The file is looked at once with PyAV, without decoding: that gives every frame's time, the
keyframes, and whether a decoder may leave frames out. Then one pass decodes the union of the wanted
frames with PyAV. It jumps between keyframes where that saves most of the decoding, and leaves out
frames that nobody wants and no other frame refers to. Pillow reads animated WebP, and GIF
without times, which FFmpeg can't.

decord, which `backend="decord"` insists on, gives the same pixels bit for bit, but decodes all
frames. It counts frames instead of looking at their times, loops for ever where packets give fewer
frames than announced (dmlc/decord issues 269, 373, 375), seeks by the wrong clock, and hides
damage behind repairs that differ from run to run; it knows nothing of edit lists, fields, pixel
shapes and HDR. So it gets upright, progressive, uncut 8-bit 4:2:0 H.264 of BT.709 with square
pixels and at least 32 x 32 of them in MP4, MOV or Matroska, whose packets are all well formed; it
reads them from the start; and when its decoder reports an error, its frames are thrown away.

What is decided for odd files:
  - Times start at 0 with the first frame and come from the stream. A stream without times (raw
    H.264) gets its nominal frame rate.
  - At a variable frame rate a frame that is shown for longer than usual, as where encoders leave
    out what equals it, counts as often as others would have fitted in: frames are in even steps
    of time for everyone who asks for some, and a freeze is one.
  - Rotation and mirroring stored in the file are applied. Frames whose size changes on the way
    are brought to the size of the first.
  - What a player shows is the video: what an edit list hides (a clip cut without encoding it
    anew) doesn't count. A stream that begins inside a GOP starts with the first frame that can
    be decoded. Where recordings were joined, so that the clock jumps, time goes on without a gap.
  - Transparent pictures are shown on white, interlaced frames deinterlaced, non-square pixels
    stretched, and HDR (PQ, HLG) as SDR: see `encoders.display`.
  - Titles and other metadata may be in any encoding.
  - Two fields in packets of their own are one frame (H.264 of broadcasts), at the first one's time;
    in HEVC, whose decoder doesn't say which field it gives, each is a frame of full height.
  - A file whose index announces frames that are not there is an error as soon as more than a
    tenth is missing; below that, and where there is no index (WebM, MPEG-TS, fragmented MP4),
    the frames that exist are the video.
  - A frame that can't be decoded is replaced by the one before it, as a player does, and it is
    an error when that hits more than a tenth of the wanted frames.
  - A still image (PNG, JPEG, a GIF of one frame) is an error; a video of one frame is not.

Sizes: the slow stream is native up to a longest side, the fast stream is brought down to a
shortest side, both by area averaging. Nothing is ever enlarged but pixels that aren't square.
"""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

import av
import numpy as np
import torch
from torch import Tensor

from .base import Encoder, Stream
from .container import ReaderFault, VideoError, VideoIndex, inspect, why_refused
from .decoding import Backend, Recount, Sink, decode
from .frame_sequence import FrameSequence, is_frames
from .resizing import each_size_once
from .sampling import uniform

__all__ = [
    "Backend",
    "FrameRequest",
    "FrameSequence",
    "Frames",
    "VideoClip",
    "VideoError",
    "VideoInfo",
    "read_frames",
    "read_video",
    "read_views",
    "index_of",
    "requests_of",
    "views_of",
]

Source = str | os.PathLike[str] | FrameSequence
_WRONG_CALLS = (TypeError, AttributeError, ImportError, NameError)


@dataclass(frozen=True, kw_only=True)
class VideoInfo:
    """What is known of a video.

    Attributes:
        path: The file, as it was asked for; the name of frames in memory.
        num_frames: Displayed frames, at least 1; one that is shown for longer than usual counts
            several times.
        fps: Mean rate of these in frames per second, above 0.
        width: Displayed width in pixels, before any resizing.
        height: Displayed height in pixels.
        duration_seconds: From the first frame's start to the last one's end.
        backend: Which library decoded the frames; `memory` for those that needed none.
        warnings: What was done to show it, or what is wrong with it, such as `interlaced:
            deinterlaced`; short, of one line each.
    """

    path: str
    num_frames: int
    fps: float
    width: int
    height: int
    duration_seconds: float
    backend: Literal["decord", "av", "pillow", "memory"]
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class FrameRequest:
    """Frames that someone wants.

    Attributes:
        indices: (num_frames, fps) to int64 indices, ascending, unique, at least one.
        stream: `slow` (native resolution) or `fast` (small).

    Raises:
        TypeError: `indices` is no function.
        ValueError: The stream is neither.
    """

    indices: Callable[[int, float], np.ndarray]
    stream: Stream

    def __post_init__(self) -> None:
        if self.stream not in get_args(Stream):
            raise ValueError(f"stream must be one of {get_args(Stream)}, got {self.stream!r}")
        if not callable(self.indices):
            what = "a function of the number of frames and their rate"
            raise TypeError(f"indices must be {what}, got {self.indices!r}")


@dataclass(frozen=True, kw_only=True)
class Frames:
    """Decoded frames.

    Attributes:
        pixels: uint8 RGB (t, 3, h, w).
        indices: (t,) int64, positions among the displayed frames, from 0, as `VideoInfo` counts.
        timestamps_seconds: (t,) float64, start of each frame; the first frame of the video is 0.
    """

    pixels: Tensor
    indices: np.ndarray
    timestamps_seconds: np.ndarray


@dataclass(frozen=True, kw_only=True)
class VideoClip:
    """A video as its slow and its fast stream."""

    info: VideoInfo
    slow: Frames
    fast: Frames

    def stream(self, name: Stream) -> Frames:
        """The frames of a stream, such as `encoder.spec.stream`."""
        return {"slow": self.slow, "fast": self.fast}[name]


def read_video(
    path: Source,
    *,
    encoder: Encoder | None = None,
    num_slow: int = 8,
    num_fast: int = 32,
    slow_max_side_px: int = 1920,
    fast_short_side_px: int = 224,
    backend: Backend = "auto",
) -> VideoClip:
    """Read a slow stream (few frames, native) and a fast one (many, small) of the whole clip.

    A clip with fewer frames than asked for gives all that it has.

    Args:
        path: As of `read_frames`.
        encoder: Its stream holds the frames that it asks for, whatever the count below says.
        num_slow: Frames of the slow stream, evenly spread.
        num_fast: Frames of the fast stream, likewise.
        slow_max_side_px, fast_short_side_px, backend: See `read_frames`.

    Raises:
        VideoError: The file can't be read as a video, whatever the cause.
    """
    requests = {
        "slow": FrameRequest(indices=lambda n, fps: uniform(n, num_slow), stream="slow"),
        "fast": FrameRequest(indices=lambda n, fps: uniform(n, num_fast), stream="fast"),
    }
    if encoder is not None:
        stream = encoder.spec.stream
        requests[stream] = FrameRequest(indices=encoder.frame_indices, stream=stream)
    info, frames = read_frames(
        path,
        requests,
        slow_max_side_px=slow_max_side_px,
        fast_short_side_px=fast_short_side_px,
        backend=backend,
    )
    return VideoClip(info=info, slow=frames["slow"], fast=frames["fast"])


def read_frames(
    path: Source,
    requests: Mapping[str, FrameRequest],
    *,
    slow_max_side_px: int = 1920,
    fast_short_side_px: int = 224,
    quick: bool = False,
    backend: Backend = "auto",
    index: VideoIndex | None = None,
) -> tuple[VideoInfo, dict[str, Frames]]:
    """Read all frames that anyone wants in one decoding pass.

    Memory is bounded by the wanted frames, whatever the length of the video.

    Args:
        path: A local file; links are followed. Or a folder of numbered pictures, a pattern of them
            such as `frames/*.png`, or frames in memory as a `FrameSequence`.
        requests: Name to wanted frames, at least one. Equal requests share one tensor.
        slow_max_side_px: The longest side of slow frames is at most this.
        fast_short_side_px: The shortest side of fast frames is at most this.
        quick: Bring frames to their size in less time, as of `encoders.resizing.reduced`.
        backend: `auto` is PyAV, and Pillow for animated WebP and GIF without times. `decord` and
            `av` insist.
        index: As of `index_of` of the same file, so that it isn't looked through again.

    Returns:
        What is known of the video, and the frames under the names of their requests.

    Raises:
        VideoError: The file can't be read as a video, whatever the cause.
        ValueError: An option is out of range, or a request asks for frames that don't exist.
    """
    if backend not in ("auto", "decord", "av"):
        raise ValueError(f"backend must be one of 'auto', 'decord', 'av', got {backend!r}")
    for name, px in (
        ("slow_max_side_px", slow_max_side_px),
        ("fast_short_side_px", fast_short_side_px),
    ):
        if px < 1:
            raise ValueError(f"{name} must be at least 1, got {px}")
    if not requests:
        raise ValueError("requests must name at least one request")
    if not isinstance(path, FrameSequence):
        if is_frames(path):
            found = f"got {type(path).__name__}"
            raise TypeError(
                f"expected a path, or frames as FrameSequence(pictures=frames), {found}"
            )
        path = FrameSequence.open(path) or os.fsdecode(path)
    name, index = str(path), index_of(path) if index is None else index
    while True:
        places, times = index.steady()
        held = len(places) > len(index.times)
        fps = len(places) / (float(index.times[-1]) + index.last_seconds) if held else index.fps
        wanted = {key: _indices(key, one, len(places), fps) for key, one in requests.items()}
        sink = Sink(name, slow_max_side_px, fast_short_side_px, quick=quick)
        for key, request in requests.items():
            sink.want(request.stream, np.unique(places[wanted[key]]))
        try:
            if isinstance(path, FrameSequence):
                used = _guard(name, path.decode, sink)
            else:
                used = _guard(name, decode, name, index, sink, backend)
            break
        except Recount as recount:  # decoding showed that the packets were not all frames
            index = replace(index, times=index.times[: recount.num_frames])
    info = VideoInfo(
        path=name,
        num_frames=len(places),
        fps=fps,
        width=sink.width,
        height=sink.height,
        duration_seconds=round(float(index.times[-1]) + index.last_seconds, 9),
        backend=used,
        warnings=(*index.warnings, *sorted(sink.warnings)),
    )
    pixels = sink.pixels()
    frames = {}
    for key, request in requests.items():
        shown, rows = np.unique(places[wanted[key]], return_inverse=True)
        own = pixels[(request.stream, shown.tobytes())]
        frames[key] = Frames(
            pixels=own[torch.from_numpy(rows)] if len(rows) > len(shown) else own,
            indices=wanted[key],
            timestamps_seconds=times[wanted[key]],
        )
    return info, frames


def index_of(path: Source) -> VideoIndex:
    """The times of a video's frames, and what else decides how to read it.

    Raises:
        VideoError: The file can't be read as a video.
    """
    if isinstance(path, FrameSequence):
        return path.index
    name = os.fsdecode(path)
    return _guard(name, inspect, name)


def requests_of(encoders: Mapping[str, Encoder]) -> dict[str, FrameRequest]:
    """The frames that each encoder wants, for `read_frames`."""
    return {
        name: FrameRequest(indices=encoder.frame_indices, stream=encoder.spec.stream)
        for name, encoder in encoders.items()
    }


def read_views(
    path: Source, encoders: Mapping[str, Encoder], *, seed: int = 0
) -> dict[str, Tensor]:
    """Each encoder's view of a video, without batch axis, under the encoder's key.

    Args:
        path: As of `read_frames`.
        encoders: At least one.
        seed: Seed of random crops; the same seed gives the same views.

    Raises:
        VideoError: The file can't be read.
    """
    _, frames = read_frames(path, requests_of(encoders))
    return views_of(frames, encoders, seed=seed)


def views_of(
    frames: Mapping[str, Frames],
    encoders: Mapping[str, Encoder],
    *,
    seed: int = 0,
    quick: bool = False,
) -> dict[str, Tensor]:
    """Each encoder's view of frames, as of `requests_of`; see `read_views` and `read_frames`."""
    with each_size_once(quick=quick):
        return {
            name: encoder.preprocess(frames[name].pixels, seed=seed)
            for name, encoder in encoders.items()
        }


def _guard(path: str, function: Callable[..., Any], *args: Any) -> Any:
    """Whatever goes wrong with a file, libraries' own exceptions included, is a VideoError.

    One that a wrong call brings about, and not what is in the file, is a ReaderFault.
    """
    try:
        return function(*args)
    except (VideoError, Recount):
        raise
    except MemoryError as error:
        raise VideoError(path, "needs more memory than there is") from error
    except av.FFmpegError as error:
        reason = why_refused(path) or error.strerror or type(error).__name__
        raise VideoError(path, f"not a readable video ({reason})") from error
    except Exception as error:
        kind = ReaderFault if isinstance(error, _WRONG_CALLS) else VideoError
        raise kind(path, f"can't be read ({type(error).__name__}: {error})") from error


def _indices(name: str, request: FrameRequest, total: int, fps: float) -> np.ndarray:
    indices = np.asarray(request.indices(total, fps))
    if (
        indices.ndim != 1
        or not indices.size
        or indices.dtype.kind not in "iu"
        or indices[0] < 0
        or indices[-1] >= total
        or (np.diff(indices.astype(np.int64)) <= 0).any()
    ):
        raise ValueError(
            f"request {name!r}: indices must be integers, ascending and unique, at least one, in "
            f"0..{total - 1}, got {indices!r}"
        )
    return indices.astype(np.int64)

"""Cropping, resizing and repeating frames, shared by the encoders."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import av
import cv2
import numpy as np
import torch
from av.video.reformatter import Interpolation, VideoReformatter
from torch import Tensor

from .threads import by_stretches

_kept = threading.local()
_LARGE_PX = 300_000  # of a picture, from which on time can be saved
_AREA = Interpolation.AREA | Interpolation.ACCURATE_RND | Interpolation.BITEXACT
# A line of a bar, by the brightest value of each place: their mean and maximum, of 255. Black may
# be 16, and coding leaves some noise.
_BLACK_MEAN, _BLACK_MOST = 20.0, 40
_THINNEST, _UNLIKE = 0.01, 0.01  # of a side: a bar, and what two of a pair may differ by
_BLOCK_PX = 8  # a codec's block grid stays in phase


@contextmanager
def each_size_once(*, quick: bool = False) -> Iterator[None]:
    """Within it, frames that several encoders want in one size are resized once.

    The frames must stay as they are meanwhile.

    Args:
        quick: As of `reduced`.
    """
    before = getattr(_kept, "sizes", None), getattr(_kept, "quick", False)
    _kept.sizes, _kept.quick = {}, quick
    try:
        yield
    finally:
        _kept.sizes, _kept.quick = before


def reduced(picture: np.ndarray, width: int, height: int, *, quick: bool = False) -> np.ndarray:
    """Resize uint8 (h, w, 3) to (height, width, 3) by area averaging.

    Args:
        picture: Contiguous.
        width, height: In pixels.
        quick: Have FFmpeg do it where a large picture shrinks, in a quarter of OpenCV's time. One
            value in 200 is then another, by 1.
    """
    tall, wide = picture.shape[:2]
    by_whole = not (tall % height or wide % width)  # what OpenCV does at once
    if not quick or by_whole or tall * wide < _LARGE_PX or tall < height or wide < width:
        return np.asarray(cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA))
    if not hasattr(_kept, "scaler"):
        _kept.scaler = VideoReformatter()
    planes = []
    for plane in cv2.split(picture):  # as gray pictures: colours would be converted
        frame = av.VideoFrame.from_numpy_buffer(np.asarray(plane, np.uint8), "gray")
        small = _kept.scaler.reformat(frame, width, height, interpolation=_AREA, threads=1)
        planes.append(small.to_ndarray())
    return cv2.merge(planes)


def without_bars(frames: Tensor) -> Tensor:
    """The picture between the black bars of a letterbox or a pillarbox.

    Bars come in pairs of one width, black in all frames: a dark scene may have a black side too,
    which is a part of it. Their edges are moved inwards to multiples of 8 pixels.

    Args:
        frames: uint8 (t, 3, h, w).

    Returns:
        (t, 3, h', w'), the same tensor where there are no bars, or where little but them would be
        left: less than a fifth of a side.
    """
    sizes = getattr(_kept, "sizes", None)
    key = id(frames), 0, 0
    if sizes is not None and key in sizes:
        return sizes[key][1]
    top, bottom, left, right = between_bars(frames)
    whole = (bottom - top, right - left) == frames.shape[-2:]
    inner = frames if whole else frames[..., top:bottom, left:right].contiguous()
    if sizes is not None:
        sizes[key] = frames, inner
    return inner


def has_bars(frames: Tensor) -> bool:
    """Whether `without_bars` leaves something out; nothing is copied."""
    height, width = frames.shape[-2:]
    return between_bars(frames) != (0, height, 0, width)


def between_bars(frames: Tensor) -> tuple[int, int, int, int]:
    """Where the picture of `without_bars` lies: its top, bottom, left and right, in pixels.

    Bottom and right are exclusive; all of the frame where there are no bars.
    """
    pixels = frames.numpy()
    height, width = pixels.shape[-2:]
    edges = [pixels[..., 0, :], pixels[..., -1, :]], [pixels[..., 0], pixels[..., -1]]
    if not any(all(edge.max() <= _BLACK_MOST for edge in pair) for pair in edges):
        return 0, height, 0, width
    brightest = pixels.max((0, 1))
    return *_between_bars(brightest), *_between_bars(brightest.T)


def _between_bars(brightest: np.ndarray) -> tuple[int, int]:
    """First and last row, exclusive, of what lies between bars; of each place's brightest value."""
    dark = (brightest.max(1) <= _BLACK_MOST) & (brightest.mean(1) <= _BLACK_MEAN)
    (shown,), rows = np.nonzero(~dark), len(dark)
    if not len(shown):
        return 0, rows
    first, last = int(shown[0]), int(shown[-1]) + 1
    bars = first, rows - last
    if min(bars) < _THINNEST * rows or abs(bars[0] - bars[1]) > max(2, _UNLIKE * rows):
        return 0, rows
    first, last = -(-first // _BLOCK_PX) * _BLOCK_PX, last // _BLOCK_PX * _BLOCK_PX
    return (first, last) if 5 * (last - first) >= rows else (0, rows)


def resized(frames: Tensor, height: int, width: int) -> Tensor:
    """Resize uint8 (t, 3, h, w) to (t, 3, height, width): area when it shrinks, else bilinear."""
    sizes = getattr(_kept, "sizes", None)
    if sizes is None:
        return _resized(frames, height, width)
    key = id(frames), height, width
    if key not in sizes:
        sizes[key] = frames, _resized(frames, height, width)  # with the frames, so that they live
    return sizes[key][1].clone()


def _resized(frames: Tensor, height: int, width: int) -> Tensor:
    shrinks = frames.shape[-2] >= height and frames.shape[-1] >= width
    quick = getattr(_kept, "quick", False)  # here, as it is this thread's
    out = np.empty((*frames.shape[:2], height, width), np.uint8)

    def resize(start: int, stop: int) -> None:
        for planes, target in zip(frames[start:stop].numpy(), out[start:stop]):
            colours = cv2.merge(list(planes))  # together they take less time than one by one
            if shrinks:
                small = reduced(colours, width, height, quick=quick)
            else:
                small = cv2.resize(colours, (width, height), interpolation=cv2.INTER_LINEAR)
            cv2.split(small, list(target))

    by_stretches(resize, len(frames))
    return torch.from_numpy(out)


def with_short_side(frames: Tensor, side_px: int) -> Tensor:
    """Resize uint8 (t, 3, h, w) to a short side of `side_px`, keeping the aspect ratio.

    The long side is held to four short sides: a strip would otherwise grow without bound.
    """
    height, width = frames.shape[-2:]
    factor = side_px / min(height, width)
    longest = 4 * side_px
    return resized(
        frames, min(longest, round(height * factor)), min(longest, round(width * factor))
    )


def repeat_to(rows: Tensor, count: int) -> Tensor:
    """Spread (t, ...) over `count` rows by repeating the nearest; t at most `count`."""
    index = (torch.arange(count, device=rows.device) * 2 + 1) * len(rows) // (2 * count)
    return rows[index]

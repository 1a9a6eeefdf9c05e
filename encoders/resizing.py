"""Cropping, resizing and repeating frames, shared by the encoders."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import cv2
import numpy as np
import torch
from torch import Tensor

from .threads import by_stretches

_kept = threading.local()
# A line of a bar: its mean and its brightest value, of 255; coding leaves some noise.
_BLACK_MEAN, _BLACK_MOST = 4.0, 40
_THINNEST, _UNLIKE = 0.01, 0.01  # of a side: a bar, and what two of a pair may differ by
_BLOCK_PX = 8  # a codec's block grid stays in phase


@contextmanager
def each_size_once() -> Iterator[None]:
    """Within it, frames that several encoders want in one size are resized once.

    The frames must stay as they are meanwhile.
    """
    before = getattr(_kept, "sizes", None)
    _kept.sizes = {}
    try:
        yield
    finally:
        _kept.sizes = before


def without_bars(frames: Tensor) -> Tensor:
    """The picture between the black bars of a letterbox or a pillarbox.

    Bars come in pairs of one width, black in all frames: a dark scene may have a black side too,
    which is a part of it. Their edges are moved inwards to multiples of 8 pixels.

    Args:
        frames: uint8 (t, 3, h, w).

    Returns:
        (t, 3, h', w'), the same tensor where there are no bars, or where little but them would be
        left: less than a quarter of a side.
    """
    edges = [frames[..., 0, :], frames[..., -1, :], frames[..., 0], frames[..., -1]]
    if not any(int(edge.max()) <= _BLACK_MOST for edge in edges):
        return frames
    sizes = getattr(_kept, "sizes", None)
    key = id(frames), 0, 0
    if sizes is not None and key in sizes:
        return sizes[key][1]
    (top, bottom), (left, right) = _picture(frames, (0, 1, 3)), _picture(frames, (0, 1, 2))
    whole = (top, bottom, left, right) == (0, frames.shape[2], 0, frames.shape[3])
    inner = frames if whole else frames[..., top:bottom, left:right].contiguous()
    if sizes is not None:
        sizes[key] = frames, inner
    return inner


def _picture(frames: Tensor, others: tuple[int, ...]) -> tuple[int, int]:
    """First and last line, exclusive, of what lies between bars; `others` are the other axes."""
    brightest = frames.amax(others)
    lines = len(brightest)
    mean = frames.sum(others, dtype=torch.int64) / (frames.numel() // lines)
    dark = (brightest <= _BLACK_MOST) & (mean <= _BLACK_MEAN)
    shown = (~dark).nonzero()
    if not len(shown):
        return 0, lines
    first, last = int(shown[0]), int(shown[-1]) + 1
    bars = first, lines - last
    if min(bars) < _THINNEST * lines or abs(bars[0] - bars[1]) > max(2, _UNLIKE * lines):
        return 0, lines
    first, last = -(-first // _BLOCK_PX) * _BLOCK_PX, last // _BLOCK_PX * _BLOCK_PX
    return (first, last) if 4 * (last - first) >= lines else (0, lines)


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
    method = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    out = np.empty((*frames.shape[:2], height, width), np.uint8)

    def resize(start: int, stop: int) -> None:
        for planes, target in zip(frames[start:stop].numpy(), out[start:stop]):
            colours = cv2.merge(list(planes))  # together they take less time than one by one
            small = cv2.resize(colours, (width, height), interpolation=method)
            target[:] = small.transpose(2, 0, 1)

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
    index = (torch.arange(count) * 2 + 1) * len(rows) // (2 * count)
    return rows[index]

"""Resizing and repeating frames, shared by the encoders."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import cv2
import numpy as np
import torch
from torch import Tensor

from .threads import by_stretches

_kept = threading.local()


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

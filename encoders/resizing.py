"""Resizing and repeating frames, shared by the encoders."""

import cv2
import numpy as np
import torch
from torch import Tensor

from .threads import by_stretches


def resized(frames: Tensor, height: int, width: int) -> Tensor:
    """Resize uint8 (t, 3, h, w) to (t, 3, height, width): area when it shrinks, else bilinear."""
    shrinks = frames.shape[-2] >= height and frames.shape[-1] >= width
    method = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    out = np.empty((*frames.shape[:2], height, width), np.uint8)
    # Plane by plane, as they lie in memory: bringing the colours together takes longer.
    planes, targets = frames.flatten(0, 1).numpy(), out.reshape(-1, height, width)

    def resize(start: int, stop: int) -> None:
        for picture, target in zip(planes[start:stop], targets[start:stop]):
            cv2.resize(picture, (width, height), dst=target, interpolation=method)

    by_stretches(resize, len(planes))
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

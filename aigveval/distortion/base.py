"""What all kinds of damage to frames share.

Axis legend: t frames, h w pixels. Frames are uint8 RGB (t, h, w, 3).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np

from prompts.defects import DEFECTS
from prompts.rubric import Dimension

Rng = np.random.Generator
Result = tuple[np.ndarray, int, int]  # frames, first damaged frame, one past the last

MIN_MOTION_FRAMES = 8  # fewer frames can't carry five different degrees of a fault in time
_MIN_SIDE_PX = 128  # smaller frames are damaged as if their short side were this long


@dataclass(frozen=True, kw_only=True)
class Distortion:
    """One kind of damage to frames.

    Attributes:
        apply: (frames, strength, rng, fps) -> (frames, first damaged frame, one past the last). Its
            name is that of the defect in `prompts.defects.DEFECTS`.
        unit: What `strengths` measure.
        strengths: One for each severity from 1 to 5.
        min_frames: Shorter clips can't have it.
        needs_other: Whether `apply` takes the frames of another clip, as `other`.
        side_effects: Dimensions that it may spoil besides its own.

    Raises:
        ValueError: The strengths are not five rising numbers.
    """

    apply: Callable[..., Result]
    unit: str
    strengths: tuple[float, ...]
    min_frames: int = 1
    needs_other: bool = False
    side_effects: tuple[Dimension, ...] = ()

    def __post_init__(self) -> None:
        if len(self.strengths) != 5 or list(self.strengths) != sorted(set(self.strengths)):
            raise ValueError(f"strengths must be five rising numbers, got {self.strengths}")

    @property
    def name(self) -> str:
        """Name of the defect that it causes."""
        return self.apply.__name__

    @property
    def dimension(self) -> Dimension:
        """The dimension that it spoils."""
        return DEFECTS[self.name].dimension


def short_side(frames: np.ndarray) -> float:
    """What kernel sizes and displacements are fractions of, in pixels."""
    return float(max(min(frames.shape[1:3]), _MIN_SIDE_PX))


def apply_codes(frames: np.ndarray, table: np.ndarray) -> np.ndarray:
    """Apply a (256,) or (256, 3) table of code values to a whole clip at once."""
    codes = np.clip(np.rint(table), 0, 255).astype(np.uint8)
    flat = frames.reshape(-1, frames.shape[2], 3)
    return cv2.LUT(flat, codes.reshape(1, 256, -1)).reshape(frames.shape)

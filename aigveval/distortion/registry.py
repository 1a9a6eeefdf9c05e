"""Damage of known type and strength, done to decoded frames.

Every type has five severities, from visible but mild (1) to severe (5), in roughly geometric
steps. Kernel sizes and displacements are fractions of the frame's short side, so that a clip looks
equally damaged at any size; times are in seconds or shares of the clip. The strength depends on the
severity alone. Randomness picks details only (where, which direction), and a function draws the
same numbers at every severity: with the same seed, severity is the only thing that changes.

Axis legend: t frames, h w pixels. Frames are uint8 RGB (t, h, w, 3). A function never writes to its
input, but what it returns may share memory with it.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np

from . import motion as motion
from . import technical as technical
from .technical import Result, Rng

Dimension = Literal["technical", "motion", "semantic"]
SEVERITIES = (1, 2, 3, 4, 5)
MIN_MOTION_FRAMES = 8  # fewer frames can't carry five different degrees of a fault in time


def scene_cut(
    frames: np.ndarray, strength: float, rng: Rng, fps: float, *, other: np.ndarray
) -> Result:
    """A cut to another clip that lasts to the end; strength is the other clip's share of the time.

    Args:
        other: the other clip (t, h, w, 3) at the same frame rate; any size (scaled to cover the
            frame) and length (repeated if short).
    """
    count, height, width = frames.shape[:3]
    start = count - min(max(1, round(strength * count)), count - 1)
    scale = max(height / other.shape[1], width / other.shape[2])
    size = (max(width, round(other.shape[2] * scale)), max(height, round(other.shape[1] * scale)))
    left, top = (size[0] - width) // 2, (size[1] - height) // 2
    out = frames.copy()
    for i in range(start, count):
        wide = cv2.resize(other[i % len(other)], size,
                          interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC)
        out[i] = wide[top:top + height, left:left + width]
    return out, start, count


@dataclass(frozen=True, kw_only=True)
class Distortion:
    """One type of damage to frames.

    Attributes:
        apply: (frames, strength, rng, fps) -> (frames, first damaged frame, one past the last).
        dimension: the dimension that it spoils.
        unit: what `strengths` measure.
        strengths: one for each severity from 1 to 5.
        min_frames: shorter clips can't have it.
    """

    apply: Callable[..., Result]
    dimension: Dimension
    unit: str
    strengths: tuple[float, ...]
    min_frames: int = 1

    def __post_init__(self) -> None:
        if len(self.strengths) != 5 or list(self.strengths) != sorted(set(self.strengths)):
            raise ValueError(f"strengths must be five rising numbers, got {self.strengths}")


def _technical(apply: Callable[..., Result], unit: str, *strengths: float) -> Distortion:
    return Distortion(apply=apply, dimension="technical", unit=unit, strengths=strengths)


def _motion(apply: Callable[..., Result], unit: str, *strengths: float) -> Distortion:
    return Distortion(apply=apply, dimension="motion", unit=unit, strengths=strengths,
                      min_frames=MIN_MOTION_FRAMES)


DISTORTIONS: dict[str, Distortion] = {
    "blur": _technical(technical.blur, "sigma / short side", 0.0025, 0.0045, 0.008, 0.0145, 0.026),
    "noise": _technical(technical.noise, "sigma, code values", 5, 9, 16, 29, 52),
    "blocking": _technical(technical.blocking, "100 - JPEG quality", 65, 80, 89, 94, 98),
    "banding": _technical(technical.banding, "code value step", 10, 17, 29, 49, 83),
    "low_resolution": _technical(technical.low_resolution, "scale factor",
                                 1.5, 2.4, 3.8, 6, 10),
    "overexposure": _technical(technical.overexposure, "EV", 0.3, 0.55, 0.95, 1.6, 2.7),
    "underexposure": _technical(technical.underexposure, "EV", 0.5, 0.9, 1.6, 2.8, 4.8),
    "colour_cast": _technical(technical.colour_cast, "log gain", 0.08, 0.14, 0.25, 0.45, 0.8),
    "freeze": _motion(motion.freeze, "share of the clip", 0.14, 0.24, 0.4, 0.6, 0.9),
    "dropped_frames": _motion(motion.dropped_frames, "share of the frames",
                              0.2, 0.34, 0.5, 0.7, 0.9),
    "shuffled_frames": _motion(motion.shuffled_frames, "share of the clip",
                               0.22, 0.36, 0.52, 0.74, 1.0),
    "shake": _motion(motion.shake, "displacement / short side", 0.006, 0.011, 0.019, 0.035, 0.063),
    "flicker": _motion(motion.flicker, "log gain", 0.05, 0.09, 0.16, 0.28, 0.5),
    "ghosting": _motion(motion.ghosting, "share of the picture", 0.1, 0.17, 0.28, 0.44, 0.67),
    "warping": _motion(motion.warping, "displacement / short side",
                       0.004, 0.0075, 0.014, 0.026, 0.048),
    "near_static": _motion(motion.near_static, "slow-down factor", 2, 4, 8, 16, 32),
    "scene_cut": Distortion(apply=scene_cut, dimension="semantic", unit="share of the clip",
                            strengths=(0.14, 0.24, 0.4, 0.6, 0.86), min_frames=MIN_MOTION_FRAMES),
}


def damaged(
    frames: np.ndarray, type: str, severity: int, seed: int = 0, fps: float = 24.0, *,
    other: np.ndarray | None = None,
) -> tuple[np.ndarray, float, float]:
    """Damage a clip in memory.

    Args:
        frames: uint8 RGB (t, h, w, 3); not changed.
        type: a key of `DISTORTIONS`.
        severity: 1 (visible but mild) to 5 (severe).
        seed: picks the random details; give the five severities of one clip the same one.
        fps: frames per second, above 0.
        other: another clip (t, h, w, 3); required by "scene_cut", ignored by the rest.

    Returns:
        Frames of the same shape (they may share memory with the input), start and end of the damage
        in seconds.

    Raises:
        ValueError: unknown type, severity out of range, wrong frames, or too few for the type.
    """
    if type not in DISTORTIONS:
        raise ValueError(f"unknown distortion {type!r}; supported: {', '.join(DISTORTIONS)}")
    if severity not in SEVERITIES:
        raise ValueError(f"severity must be one of {SEVERITIES}, got {severity!r}")
    if frames.ndim != 4 or frames.shape[3] != 3 or frames.dtype != np.uint8 or not frames.size:
        raise ValueError(f"expected uint8 frames (t, h, w, 3), got {frames.dtype} {frames.shape}")
    if not 0 < fps < float("inf"):
        raise ValueError(f"fps must be above 0, got {fps}")
    spec = DISTORTIONS[type]
    if len(frames) < spec.min_frames:
        raise ValueError(f"{type} needs at least {spec.min_frames} frames, got {len(frames)}")
    rng = np.random.default_rng([seed, zlib.crc32(type.encode())])
    extra = {}
    if type == "scene_cut":
        if other is None or not len(other):
            raise ValueError("scene_cut needs `other`, the frames of another clip")
        extra["other"] = other
    strength = spec.strengths[severity - 1]
    out, start, end = spec.apply(np.ascontiguousarray(frames), strength, rng, fps, **extra)
    return out, start / fps, end / fps

"""Damage of known type and strength, done to decoded frames.

Every type has five severities, from visible but mild (1) to severe (5), in roughly geometric
steps. Kernel sizes and displacements are fractions of the frame's short side, so that a clip looks
equally damaged at any size; times are in seconds or shares of the clip. The strength depends on the
severity alone. Randomness picks details only (where, which direction), and a function draws the
same numbers at every severity: with the same seed, severity is the only thing that changes.

A function never writes to its input, but what it returns may share memory with it. To add a type,
add its record to `prompts.defects` and its function to `technical` or `motion`.
"""

from __future__ import annotations

import zlib

import numpy as np

from . import motion, technical
from .base import Distortion

SEVERITIES = (1, 2, 3, 4, 5)
DISTORTIONS: dict[str, Distortion] = {
    one.name: one for one in (*technical.DISTORTIONS, *motion.DISTORTIONS)
}


def damaged(
    frames: np.ndarray,
    type: str,
    severity: int,
    seed: int = 0,
    fps: float = 24.0,
    *,
    other: np.ndarray | None = None,
) -> tuple[np.ndarray, float, float]:
    """Damage a clip in memory.

    Args:
        frames: uint8 RGB (t, h, w, 3); not changed.
        type: A key of `DISTORTIONS`.
        severity: 1 (visible but mild) to 5 (severe).
        seed: Picks the random details; give the five severities of one clip the same one.
        fps: Frames per second, above 0.
        other: Another clip (t, h, w, 3); required where the type `needs_other`.

    Returns:
        Frames of the same shape (they may share memory with the input), start and end of the damage
        in seconds.

    Raises:
        ValueError: Unknown type, severity out of range, wrong frames, or too few for the type.
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
    if spec.needs_other:
        if other is None or not len(other):
            raise ValueError(f"{type} needs `other`, the frames of another clip")
        extra["other"] = other
    strength = spec.strengths[severity - 1]
    out, start, end = spec.apply(np.ascontiguousarray(frames), strength, rng, fps, **extra)
    return out, start / fps, end / fps

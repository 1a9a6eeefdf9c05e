"""Damage in time: to motion, or by footage of another clip. See `registry`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import cv2
import numpy as np

from .base import MIN_MOTION_FRAMES, Distortion, Result, Rng, apply_codes, short_side

_WINDOW_SHARE = 0.6  # share of the clip that shake and flicker act on


def _window(count: int, length: int, rng: Rng) -> tuple[int, int]:
    """A random place for `length` of `count` frames; one seed, one relative place."""
    start = int(rng.random() * (count - length + 1))
    return start, start + length


def freeze(frames: np.ndarray, strength: float, rng: Rng, fps: float) -> Result:
    """One stretch stands still, then the clip jumps ahead; strength is its share of the clip."""
    count = len(frames)
    held = min(max(1, round(strength * count)), count - 1)
    start, end = _window(count - 1, held, rng)
    order = np.arange(count)
    order[start + 1 : end + 1] = start
    return frames[order], start + 1, end + 1


def dropped_frames(frames: np.ndarray, strength: float, rng: Rng, fps: float) -> Result:
    """Random frames are missing, the one before is held; strength is the share of them."""
    count = len(frames)
    missing = 1 + rng.permutation(count - 1)[: max(1, round(strength * (count - 1)))]
    order = np.arange(count)
    order[missing] = 0
    return frames[np.maximum.accumulate(order)], int(missing.min()), int(missing.max()) + 1


def shuffled_frames(frames: np.ndarray, strength: float, rng: Rng, fps: float) -> Result:
    """Frames of one stretch are out of order; strength is the stretch's share of the clip.

    How far a frame strays grows along with it, up to a third of a second.
    """
    count = len(frames)
    length = min(max(2, round(strength * count)), count)
    start, end = _window(count, length, rng)
    stray = rng.uniform(-1, 1, size=count)
    reach = max(1.5, fps / 3 * strength)
    order = np.arange(count)
    part = start + np.argsort(np.arange(length) + reach * stray[start:end], kind="stable")
    if (part == order[start:end]).all():
        part[:2] = part[1::-1]
    order[start:end] = part
    return frames[order], start, end


def shake(frames: np.ndarray, strength: float, rng: Rng, fps: float) -> Result:
    """The camera jitters for a part of the clip.

    Strength is the displacement (root mean square) in short sides.
    """
    count, height, width = frames.shape[:3]
    start, end = _window(count, max(2, round(_WINDOW_SHARE * count)), rng)
    seconds = np.arange(end - start)[:, None, None] / fps
    waves = rng.uniform([2.5, 0.0], [7.0, 2 * np.pi], size=(4, 2, 2))  # frequency in Hz, phase
    path = np.sin(2 * np.pi * waves[..., 0] * seconds + waves[..., 1]).sum(axis=1)
    path *= max(strength * short_side(frames), 1.0) / np.sqrt((path**2).sum(axis=1).mean() + 1e-9)
    limit = np.array([height - 1, width - 1]) // 2
    # Whole pixels: interpolation would blur, and blur is a technical fault.
    shifts = np.clip(np.rint(path), -limit, limit).astype(int)
    out = frames.copy()
    top, left = np.abs(shifts).max(axis=0)
    for i, (y, x) in zip(range(start, end), shifts):
        wide = cv2.copyMakeBorder(frames[i], top, top, left, left, cv2.BORDER_REFLECT_101)
        out[i] = wide[top + y : top + y + height, left + x : left + x + width]
    return out, start, end


def flicker(frames: np.ndarray, strength: float, rng: Rng, fps: float) -> Result:
    """Brightness jumps, some 12 times a second, in a part of the clip; strength is a log gain."""
    count = len(frames)
    start, end = _window(count, max(2, round(_WINDOW_SHARE * count)), rng)
    hold = max(1, round(fps / 12))
    levels = rng.uniform(0.6, 1.0, size=count) * np.where(np.arange(count) % 2, 1, -1)
    out = frames.copy()
    for i in range(start, end):
        gain = np.exp(strength * levels[(i - start) // hold])
        out[i] = apply_codes(frames[i : i + 1], np.arange(256) * gain)[0]
    return out, start, end


def ghosting(frames: np.ndarray, strength: float, rng: Rng, fps: float) -> Result:
    """Faint copies follow what moves, a sixth and a third of a second late.

    Strength is their share of the picture. Copies rather than a smear, which would be blur, a
    technical fault.
    """
    late = max(1, round(fps / 6))
    out = np.empty_like(frames)
    for i, target in enumerate(out):
        echo = cv2.addWeighted(frames[max(i - late, 0)], 0.5, frames[max(i - 2 * late, 0)], 0.5, 0)
        cv2.addWeighted(frames[i], 1 - strength, echo, strength, 0, dst=target)
    return out, 0, len(frames)


def warping(frames: np.ndarray, strength: float, rng: Rng, fps: float) -> Result:
    """Shapes melt and bend as in a generator's morphing: a smooth displacement field that changes.

    Strength is the standard deviation of the field's nodes in short sides; the nodes are about
    a seventh of the short side apart, and the field is a new one every 0.4 s.
    """
    count, height, width = frames.shape[:3]
    side = min(height, width)
    nodes = (round(5 * height / side) + 2, round(5 * width / side) + 2)
    step = max(1.0, 0.4 * fps)
    keys = rng.standard_normal((int(count / step) + 2, *nodes, 2), dtype=np.float32)
    keys *= strength * short_side(frames)
    rows, columns = np.mgrid[0:height, 0:width].astype(np.float32)
    out = np.empty_like(frames)
    for i, (source, target) in enumerate(zip(frames, out)):
        key, part = int(i / step), i / step % 1
        part = part * part * (3 - 2 * part)
        field = cv2.resize(
            (1 - part) * keys[key] + part * keys[key + 1],
            (width, height),
            interpolation=cv2.INTER_CUBIC,
        )
        cv2.remap(
            source,
            columns + field[..., 0],
            rows + field[..., 1],
            cv2.INTER_CUBIC,
            dst=target,
            borderMode=cv2.BORDER_REFLECT_101,
        )
    return out, 0, count


def near_static(frames: np.ndarray, strength: float, rng: Rng, fps: float) -> Result:
    """Hardly anything moves; strength is the factor by which motion is slowed down.

    The frames between frames are interpolated along the optical flow, so that motion stays smooth.
    """
    count, height, width = frames.shape[:3]
    centre = rng.random() * (count - 1)
    out = np.empty_like(frames)
    flow, flow_of = np.zeros((height, width, 2), np.float32), -1
    rows, columns = np.mgrid[0:height, 0:width].astype(np.float32)
    for i, target in enumerate(out):
        place = centre + (i - centre) / strength
        before = min(int(place), count - 2)
        part = place - before
        first, second = frames[before], frames[before + 1]
        if before != flow_of:
            flow, flow_of = _flow(first, second), before
        x, y = flow[..., 0], flow[..., 1]
        early = cv2.remap(
            first,
            columns - part * x,
            rows - part * y,
            cv2.INTER_CUBIC,
            borderMode=cv2.BORDER_REPLICATE,
        )
        late = cv2.remap(
            second,
            columns + (1 - part) * x,
            rows + (1 - part) * y,
            cv2.INTER_CUBIC,
            borderMode=cv2.BORDER_REPLICATE,
        )
        cv2.addWeighted(early, 1 - part, late, part, 0, dst=target)
    return out, 0, count


def scene_cut(
    frames: np.ndarray, strength: float, rng: Rng, fps: float, *, other: np.ndarray
) -> Result:
    """A cut to another clip that lasts to the end; strength is the other clip's share of the time.

    Args:
        other: The other clip (t, h, w, 3) at the same frame rate; any size (scaled to cover the
            frame) and length (repeated if short).
    """
    count, height, width = frames.shape[:3]
    start = count - min(max(1, round(strength * count)), count - 1)
    scale = max(height / other.shape[1], width / other.shape[2])
    size = (max(width, round(other.shape[2] * scale)), max(height, round(other.shape[1] * scale)))
    left, top = (size[0] - width) // 2, (size[1] - height) // 2
    out = frames.copy()
    for i in range(start, count):
        wide = cv2.resize(
            other[i % len(other)],
            size,
            interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC,
        )
        out[i] = wide[top : top + height, left : left + width]
    return out, start, count


def _flow(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Optical flow (h, w, 2) in pixels, found at a small size; zero for frames too small for it."""
    height, width = first.shape[:2]
    if min(height, width) < 64:
        return np.zeros((height, width, 2), np.float32)
    scale = min(1.0, 160 / min(height, width))
    size = (round(width * scale), round(height * scale))
    small = [
        cv2.resize(cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY), size, interpolation=cv2.INTER_AREA)
        for frame in (first, second)
    ]
    method = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_FAST)
    start = np.zeros((size[1], size[0], 2), np.float32)
    flow = cv2.resize(method.calc(small[0], small[1], start), (width, height))
    return flow * np.array([width / size[0], height / size[1]], np.float32)


def _in_time(apply: Callable[..., Result], unit: str, *strengths: float, **more: Any) -> Distortion:
    return Distortion(
        apply=apply, unit=unit, strengths=strengths, min_frames=MIN_MOTION_FRAMES, **more
    )


DISTORTIONS = (
    _in_time(freeze, "share of the clip", 0.14, 0.24, 0.4, 0.6, 0.9),
    _in_time(dropped_frames, "share of the frames", 0.2, 0.34, 0.5, 0.7, 0.9),
    _in_time(shuffled_frames, "share of the clip", 0.22, 0.36, 0.52, 0.74, 1.0),
    _in_time(shake, "displacement / short side", 0.006, 0.011, 0.019, 0.035, 0.063),
    _in_time(flicker, "log gain", 0.05, 0.09, 0.16, 0.28, 0.5),
    _in_time(ghosting, "share of the picture", 0.1, 0.17, 0.28, 0.44, 0.67),
    _in_time(warping, "displacement / short side", 0.004, 0.0075, 0.014, 0.026, 0.048),
    _in_time(near_static, "slow-down factor", 2, 4, 8, 16, 32),
    _in_time(
        scene_cut,
        "share of the clip",
        0.14,
        0.24,
        0.4,
        0.6,
        0.86,
        needs_other=True,
        side_effects=("motion",),
    ),
)

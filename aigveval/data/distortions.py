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

Dimension = Literal["technical", "motion", "semantic"]
Rng = np.random.Generator
Result = tuple[np.ndarray, int, int]  # frames, first damaged frame, one past the last

SEVERITIES = (1, 2, 3, 4, 5)
MIN_MOTION_FRAMES = 8  # fewer frames can't carry five different degrees of a fault in time
_WINDOW_SHARE = 0.6  # share of the clip that shake and flicker act on
_MIN_SIDE_PX = 128  # smaller frames are damaged as if their short side were this long


def _side(frames: np.ndarray) -> float:
    return float(max(min(frames.shape[1:3]), _MIN_SIDE_PX))


def _window(count: int, length: int, rng: Rng) -> tuple[int, int]:
    """A random place for `length` of `count` frames; one seed, one relative place."""
    start = int(rng.random() * (count - length + 1))
    return start, start + length


def _lut(frames: np.ndarray, table: np.ndarray) -> np.ndarray:
    """Apply a (256,) or (256, 3) table of code values to a whole clip at once."""
    codes = np.clip(np.rint(table), 0, 255).astype(np.uint8)
    flat = frames.reshape(-1, frames.shape[2], 3)
    return cv2.LUT(flat, codes.reshape(1, 256, -1)).reshape(frames.shape)


# --- technical: every frame, the whole clip ------------------------------------------------------


def blur(frames: np.ndarray, strength: float, rng: Rng, fps: float) -> Result:
    """Gaussian blur; strength is the standard deviation as a fraction of the short side."""
    sigma = strength * _side(frames)
    out = np.empty_like(frames)
    for source, target in zip(frames, out):
        cv2.GaussianBlur(source, (0, 0), sigma, dst=target, borderType=cv2.BORDER_REFLECT_101)
    return out, 0, len(frames)


def noise(frames: np.ndarray, strength: float, rng: Rng, fps: float) -> Result:
    """White Gaussian noise, new in every frame; strength is its deviation in code values."""
    count, height, width = frames.shape[:3]
    margin = 64
    field = rng.standard_normal((height + margin, width + margin, 3), dtype=np.float32) * strength
    tile = np.rint(field).astype(np.int16)
    # A fresh crop of one big tile per frame looks like fresh noise and costs a tenth of drawing it.
    offsets = rng.integers(0, margin + 1, size=(count, 2))
    out = np.empty_like(frames)
    for source, target, (y, x) in zip(frames, out, offsets):
        cv2.add(source, tile[y:y + height, x:x + width], dst=target, dtype=cv2.CV_8U)
    return out, 0, count


def blocking(frames: np.ndarray, strength: float, rng: Rng, fps: float) -> Result:
    """Blocks of a codec at a low bit rate: JPEG with 8-px blocks; strength is 100 - quality."""
    options = [cv2.IMWRITE_JPEG_QUALITY, int(100 - strength)]
    out = np.empty_like(frames)
    for source, target in zip(frames, out):
        data = cv2.imencode(".jpg", cv2.cvtColor(source, cv2.COLOR_RGB2BGR), options)[1]
        target[:] = cv2.imdecode(data, cv2.IMREAD_COLOR)[..., ::-1]  # type: ignore[index]
    return out, 0, len(frames)


def banding(frames: np.ndarray, strength: float, rng: Rng, fps: float) -> Result:
    """Too few code values per channel; strength is the distance between neighbouring ones."""
    codes = np.arange(256)
    return _lut(frames, np.rint(codes / strength) * strength), 0, len(frames)


def low_resolution(frames: np.ndarray, strength: float, rng: Rng, fps: float) -> Result:
    """Shrunk and enlarged again; strength is the factor, for a short side of up to 540 px.

    Larger frames are shrunk to the size that a 540-px frame would get: the loss seen is the same.
    """
    height, width = frames.shape[1:3]
    factor = strength * max(1.0, min(height, width) / 540)
    small = (max(2, round(width / factor)), max(2, round(height / factor)))
    out = np.empty_like(frames)
    for source, target in zip(frames, out):
        shrunk = cv2.resize(source, small, interpolation=cv2.INTER_AREA)
        cv2.resize(shrunk, (width, height), dst=target, interpolation=cv2.INTER_CUBIC)
    return out, 0, len(frames)


def overexposure(frames: np.ndarray, strength: float, rng: Rng, fps: float) -> Result:
    """Highlights burnt out and shadows veiled; strength is in stops of light (EV)."""
    # The veil makes sure that a dark clip is not simply improved by more light.
    codes = np.arange(256) * 2 ** (strength / 2.2) + 15 * strength
    return _lut(frames, codes), 0, len(frames)


def underexposure(frames: np.ndarray, strength: float, rng: Rng, fps: float) -> Result:
    """Too dark, with shadows crushed; strength is in stops of light (EV)."""
    codes = np.arange(256) * 2 ** (-strength / 2.2) - 3 * strength
    return _lut(frames, codes), 0, len(frames)


def colour_cast(frames: np.ndarray, strength: float, rng: Rng, fps: float) -> Result:
    """A wrong white balance, of random hue; strength is the log gain of the strongest channel."""
    angle = rng.random() * 2 * np.pi
    hue = np.cos(angle + np.array([0.0, 2.0, 4.0]) * np.pi / 3)
    gains = np.exp(strength * hue / np.abs(hue).max())
    gains /= gains @ np.array([0.299, 0.587, 0.114])  # grey keeps its brightness
    return _lut(frames, np.arange(256)[:, None] * gains), 0, len(frames)


# --- motion --------------------------------------------------------------------------------------


def freeze(frames: np.ndarray, strength: float, rng: Rng, fps: float) -> Result:
    """One stretch stands still, then the clip jumps ahead; strength is its share of the clip."""
    count = len(frames)
    held = min(max(1, round(strength * count)), count - 1)
    start, end = _window(count - 1, held, rng)
    order = np.arange(count)
    order[start + 1:end + 1] = start
    return frames[order], start + 1, end + 1


def dropped_frames(frames: np.ndarray, strength: float, rng: Rng, fps: float) -> Result:
    """Random frames are missing, the one before is held; strength is the share of them."""
    count = len(frames)
    missing = 1 + rng.permutation(count - 1)[:max(1, round(strength * (count - 1)))]
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
    path *= max(strength * _side(frames), 1.0) / np.sqrt((path ** 2).sum(axis=1).mean() + 1e-9)
    limit = np.array([height - 1, width - 1]) // 2
    # Whole pixels: interpolation would blur, and blur is a technical fault.
    shifts = np.clip(np.rint(path), -limit, limit).astype(int)
    out = frames.copy()
    top, left = np.abs(shifts).max(axis=0)
    for i, (y, x) in zip(range(start, end), shifts):
        wide = cv2.copyMakeBorder(frames[i], top, top, left, left, cv2.BORDER_REFLECT_101)
        out[i] = wide[top + y:top + y + height, left + x:left + x + width]
    return out, start, end


def flicker(frames: np.ndarray, strength: float, rng: Rng, fps: float) -> Result:
    """Brightness jumps, up to 12 times a second, in a part of the clip; strength is a log gain."""
    count = len(frames)
    start, end = _window(count, max(2, round(_WINDOW_SHARE * count)), rng)
    hold = max(1, round(fps / 12))
    levels = rng.uniform(0.6, 1.0, size=count) * np.where(np.arange(count) % 2, 1, -1)
    out = frames.copy()
    for i in range(start, end):
        gain = np.exp(strength * levels[(i - start) // hold])
        out[i] = _lut(frames[i:i + 1], np.arange(256) * gain)[0]
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

    Strength is the standard deviation of the field's nodes in short sides; the nodes are a fifth of
    the short side apart, and the field is a new one every 0.4 s.
    """
    count, height, width = frames.shape[:3]
    side = min(height, width)
    nodes = (round(5 * height / side) + 2, round(5 * width / side) + 2)
    step = max(1.0, 0.4 * fps)
    keys = rng.standard_normal((int(count / step) + 2, *nodes, 2), dtype=np.float32)
    keys *= strength * _side(frames)
    rows, columns = np.mgrid[0:height, 0:width].astype(np.float32)
    out = np.empty_like(frames)
    for i, (source, target) in enumerate(zip(frames, out)):
        key, part = int(i / step), i / step % 1
        part = part * part * (3 - 2 * part)
        field = cv2.resize((1 - part) * keys[key] + part * keys[key + 1], (width, height),
                           interpolation=cv2.INTER_CUBIC)
        cv2.remap(source, columns + field[..., 0], rows + field[..., 1], cv2.INTER_CUBIC,
                  dst=target, borderMode=cv2.BORDER_REFLECT_101)
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
        early = cv2.remap(first, columns - part * x, rows - part * y, cv2.INTER_CUBIC,
                          borderMode=cv2.BORDER_REPLICATE)
        late = cv2.remap(second, columns + (1 - part) * x, rows + (1 - part) * y, cv2.INTER_CUBIC,
                         borderMode=cv2.BORDER_REPLICATE)
        cv2.addWeighted(early, 1 - part, late, part, 0, dst=target)
    return out, 0, count


def _flow(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Optical flow (h, w, 2) in pixels, found at a small size; zero for frames too small for it."""
    height, width = first.shape[:2]
    if min(height, width) < 64:
        return np.zeros((height, width, 2), np.float32)
    scale = min(1.0, 160 / min(height, width))
    size = (round(width * scale), round(height * scale))
    small = [cv2.resize(cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY), size, interpolation=cv2.INTER_AREA)
             for frame in (first, second)]
    method = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_FAST)
    start = np.zeros((size[1], size[0], 2), np.float32)
    flow = cv2.resize(method.calc(small[0], small[1], start), (width, height))
    return flow * np.array([width / size[0], height / size[1]], np.float32)


# --- semantic ------------------------------------------------------------------------------------


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
    "blur": _technical(blur, "sigma / short side", 0.0025, 0.0045, 0.008, 0.0145, 0.026),
    "noise": _technical(noise, "sigma, code values", 5, 9, 16, 29, 52),
    "blocking": _technical(blocking, "100 - JPEG quality", 65, 80, 89, 94, 98),
    "banding": _technical(banding, "code value step", 10, 17, 29, 49, 83),
    "low_resolution": _technical(low_resolution, "scale factor", 1.5, 2.4, 3.8, 6, 10),
    "overexposure": _technical(overexposure, "EV", 0.3, 0.55, 0.95, 1.6, 2.7),
    "underexposure": _technical(underexposure, "EV", 0.5, 0.9, 1.6, 2.8, 4.8),
    "colour_cast": _technical(colour_cast, "log gain", 0.08, 0.14, 0.25, 0.45, 0.8),
    "freeze": _motion(freeze, "share of the clip", 0.14, 0.24, 0.4, 0.6, 0.9),
    "dropped_frames": _motion(dropped_frames, "share of the frames", 0.2, 0.34, 0.5, 0.7, 0.9),
    "shuffled_frames": _motion(shuffled_frames, "share of the clip", 0.22, 0.36, 0.52, 0.74, 1.0),
    "shake": _motion(shake, "displacement / short side", 0.006, 0.011, 0.019, 0.035, 0.063),
    "flicker": _motion(flicker, "log gain", 0.05, 0.09, 0.16, 0.28, 0.5),
    "ghosting": _motion(ghosting, "share of the picture", 0.1, 0.17, 0.28, 0.44, 0.67),
    "warping": _motion(warping, "displacement / short side", 0.004, 0.0075, 0.014, 0.026, 0.048),
    "near_static": _motion(near_static, "slow-down factor", 2, 4, 8, 16, 32),
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

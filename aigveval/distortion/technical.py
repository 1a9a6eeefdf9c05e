"""Technical damage: every frame, the whole clip. See `distortions` for what all types share."""

from __future__ import annotations

import cv2
import numpy as np

Rng = np.random.Generator
Result = tuple[np.ndarray, int, int]  # frames, first damaged frame, one past the last

_MIN_SIDE_PX = 128  # smaller frames are damaged as if their short side were this long


def short_side(frames: np.ndarray) -> float:
    """What kernel sizes and displacements are fractions of, in pixels."""
    return float(max(min(frames.shape[1:3]), _MIN_SIDE_PX))


def apply_codes(frames: np.ndarray, table: np.ndarray) -> np.ndarray:
    """Apply a (256,) or (256, 3) table of code values to a whole clip at once."""
    codes = np.clip(np.rint(table), 0, 255).astype(np.uint8)
    flat = frames.reshape(-1, frames.shape[2], 3)
    return cv2.LUT(flat, codes.reshape(1, 256, -1)).reshape(frames.shape)


def blur(frames: np.ndarray, strength: float, rng: Rng, fps: float) -> Result:
    """Gaussian blur; strength is the standard deviation as a fraction of the short side."""
    sigma = strength * short_side(frames)
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
    return apply_codes(frames, np.rint(codes / strength) * strength), 0, len(frames)


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
    return apply_codes(frames, codes), 0, len(frames)


def underexposure(frames: np.ndarray, strength: float, rng: Rng, fps: float) -> Result:
    """Too dark, with shadows crushed; strength is in stops of light (EV)."""
    codes = np.arange(256) * 2 ** (-strength / 2.2) - 3 * strength
    return apply_codes(frames, codes), 0, len(frames)


def colour_cast(frames: np.ndarray, strength: float, rng: Rng, fps: float) -> Result:
    """A wrong white balance, of random hue; strength is the log gain of the strongest channel."""
    angle = rng.random() * 2 * np.pi
    hue = np.cos(angle + np.array([0.0, 2.0, 4.0]) * np.pi / 3)
    gains = np.exp(strength * hue / np.abs(hue).max())
    gains /= gains @ np.array([0.299, 0.587, 0.114])  # grey keeps its brightness
    return apply_codes(frames, np.arange(256)[:, None] * gains), 0, len(frames)

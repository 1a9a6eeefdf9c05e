"""Technical damage: every frame, the whole clip. See `registry` for what all kinds share."""

from __future__ import annotations

import cv2
import numpy as np

from .base import Distortion, Result, Rng, apply_codes, short_side


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
        cv2.add(source, tile[y : y + height, x : x + width], dst=target, dtype=cv2.CV_8U)
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


DISTORTIONS = (
    Distortion(
        apply=blur, unit="sigma / short side", strengths=(0.0025, 0.0045, 0.008, 0.0145, 0.026)
    ),
    Distortion(apply=noise, unit="sigma, code values", strengths=(5, 9, 16, 29, 52)),
    Distortion(apply=blocking, unit="100 - JPEG quality", strengths=(65, 80, 89, 94, 98)),
    Distortion(apply=banding, unit="code value step", strengths=(10, 17, 29, 49, 83)),
    Distortion(apply=low_resolution, unit="scale factor", strengths=(1.5, 2.4, 3.8, 6, 10)),
    Distortion(apply=overexposure, unit="EV", strengths=(0.3, 0.55, 0.95, 1.6, 2.7)),
    Distortion(apply=underexposure, unit="EV", strengths=(0.5, 0.9, 1.6, 2.8, 4.8)),
    Distortion(apply=colour_cast, unit="log gain", strengths=(0.08, 0.14, 0.25, 0.45, 0.8)),
)

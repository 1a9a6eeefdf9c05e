"""Made-up pictures with detail at every scale, and damage of one kind each."""

import cv2
import numpy as np

SIDE = 224


def texture(seed=0, height=SIDE, width=SIDE):
    """A picture with detail at every scale, as photographs have it: (h, w, 3) uint8 RGB."""
    rng = np.random.default_rng(seed)
    out = np.zeros((height, width, 3), dtype=np.float32)
    for cells, weight in ((4, 1.0), (12, 0.6), (36, 0.35), (110, 0.2)):
        grid = rng.standard_normal((cells, cells, 3)).astype(np.float32)
        out += weight * cv2.resize(grid, (width, height), interpolation=cv2.INTER_CUBIC)
    return np.clip(128 + 32 * out, 0, 255).astype(np.uint8)


def blurred(picture, sigma):
    return cv2.GaussianBlur(picture, (0, 0), sigma)


def noisy(picture, sigma):
    noise = np.random.default_rng(1).normal(0, sigma, picture.shape)
    return np.clip(picture + noise, 0, 255).astype(np.uint8)


def compressed(picture, quality):
    _, code = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, quality])
    return cv2.imdecode(code, cv2.IMREAD_COLOR)


def upscaled(picture, factor):
    small = cv2.resize(picture, None, fx=1 / factor, fy=1 / factor, interpolation=cv2.INTER_AREA)
    return cv2.resize(small, picture.shape[1::-1], interpolation=cv2.INTER_LINEAR)


def banded(picture, levels):
    step = 256 / levels
    return (np.floor(picture / step) * step + step / 2).astype(np.uint8)


def scaled(picture, factor):
    return np.clip(picture.astype(np.float32) * factor, 0, 255).astype(np.uint8)


def tinted(picture, channel):
    out = picture.astype(np.int16)
    out[..., channel] += 60
    return np.clip(out, 0, 255).astype(np.uint8)


def gray(picture):
    return np.repeat(cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)[..., None], 3, axis=2)

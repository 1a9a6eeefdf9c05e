"""What two frames of a clip say about its motion: optical flow, what it fails to explain, change.

Lengths are in short sides of the frame and gray levels in 0-255, most of them as logarithms, so
that one linear map can read them.

What several statistics read of a frame or a flow is computed once (`Picture`, `Field`). A
statistic keeps its operations, order and precision: the shipped checkpoint was trained on them.
"""

from functools import cached_property, lru_cache
from typing import Any

import cv2
import numpy as np

NUM_PAIR = 37
NUM_GAP = 14
_SCALES = (0, 2, 8)  # standard deviation in pixels of the blur before differences are taken
NUM_CHANGE = 2 * len(_SCALES)


def new_flow() -> "cv2.DISOpticalFlow":
    """A DIS flow estimator (Kroeger et al., ECCV 2016); one per thread, since it keeps buffers."""
    return cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_FAST)


class Picture:
    """A frame of the clip.

    Args:
        rgb: uint8 (h, w, 3).
        gray: The same as uint8 (h, w).
    """

    def __init__(self, rgb: np.ndarray, gray: np.ndarray) -> None:
        self.gray = gray
        self.brightness = _level(gray)
        self.colour = np.array(cv2.mean(rgb)[:3])
        counts = cv2.calcHist([gray], [0], None, [16], [0, 256])
        self.histogram = counts.ravel().astype(np.float64) / gray.size
        self.detail = cv2.Laplacian(gray, cv2.CV_32F).var() + 1

    # Only the frame that a flow starts from needs the rest.

    @cached_property
    def pixels(self) -> np.ndarray:
        return self.gray.astype(np.float32)

    @cached_property
    def texture(self) -> float:
        """Mean gradient."""
        # Rounded once, as by np.hypot of float32, in half the time.
        return _length(*_gradient(self.pixels, cv2.CV_64F)).astype(np.float32).mean()

    @cached_property
    def coarse(self) -> np.ndarray:
        return cv2.GaussianBlur(self.pixels, (0, 0), 4)

    @cached_property
    def mean(self) -> np.ndarray:
        return _local_mean(self.pixels)

    @cached_property
    def variance(self) -> np.ndarray:
        return _local_mean(self.pixels * self.pixels) - self.mean**2


class Field:
    """The flow between two frames.

    Args:
        flow: float32 (h, w, 2), pixels to the right and down.
    """

    def __init__(self, flow: np.ndarray) -> None:
        self.flow = flow
        self.u, self.v = cv2.split(flow)
        self.speed = _length(self.u, self.v)
        self.drift = np.array(cv2.mean(flow)[:2])

    def gradients(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """du/dx, du/dy, dv/dx, dv/dy."""
        return (*_gradient(self.u, cv2.CV_32F), *_gradient(self.v, cv2.CV_32F))


def _log(value: float) -> float:
    return float(np.log(np.float64(value) + 1e-3))


def _length(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Euclidean. The last bit of cv2.magnitude depends on where in memory the arrays lie."""
    squares = x * x
    squares += y * y
    return np.sqrt(squares, out=squares)


def _gradient(image: np.ndarray, depth: int) -> tuple[np.ndarray, np.ndarray]:
    """d/dx and d/dy per pixel."""
    return tuple(  # type: ignore[return-value]
        cv2.Sobel(image, depth, *axis, scale=0.125) for axis in ((1, 0), (0, 1))
    )


def _level(gray: np.ndarray) -> float:
    """Mean of a uint8 image; integers add up exactly."""
    return cv2.sumElems(gray)[0] / gray.size


def _at(values: np.ndarray, *shares: float) -> list[float]:
    """Quantiles over every third pixel along each axis."""
    flat = np.sort(values[::3, ::3], axis=None)
    return [float(flat[int(share * (flat.size - 1))]) for share in shares]


def _local_mean(image: np.ndarray) -> np.ndarray:
    """Under the window of SSIM."""
    return cv2.GaussianBlur(image, (11, 11), 1.5)


@lru_cache(maxsize=4)
def _grid(height: int, width: int) -> np.ndarray:
    """x and y of each pixel, float32 (h, w, 2)."""
    axes = np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32)
    return np.stack(np.meshgrid(*axes), axis=2)


@lru_cache(maxsize=4)
def _affine(height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Design matrix (n, 3) of an affine motion of every fourth pixel, and its Gram matrix."""
    y, x = np.mgrid[0:height:4, 0:width:4]
    design = np.stack([np.ones(x.size), x.ravel() / width - 0.5, y.ravel() / height - 0.5], axis=1)
    return design, design.T @ design + 1e-6 * np.eye(3)


def _camera(flow: np.ndarray, scale: float) -> tuple[np.ndarray, np.ndarray]:
    """Least-squares affine motion (3, 2) of the whole frame and each sample's distance from it."""
    sample = (flow[::4, ::4] * scale).reshape(-1, 2).astype(np.float64)
    design, gram = _affine(*flow.shape[:2])
    motion = np.linalg.solve(gram, design.T @ sample)
    return motion, np.hypot(*(sample - design @ motion).T)


def _structure(a: Picture, b: np.ndarray) -> np.ndarray:
    """The contrast-structure map of SSIM (Wang et al. 2004) of a picture and a float32 image."""
    mean_b = _local_mean(b)
    variances = a.variance + _local_mean(b * b) - mean_b**2
    return (2 * (_local_mean(a.pixels * b) - a.mean * mean_b) + 58.5) / (variances + 58.5)


def _unexplained(first: Picture, second: np.ndarray, flow: np.ndarray) -> list[float]:
    """What is left after moving the second frame, uint8 gray, back along the flow."""
    moved = cv2.remap(
        second,
        _grid(*second.shape) + flow,
        None,
        cv2.INTER_LINEAR,  # type: ignore[call-overload]
        borderMode=cv2.BORDER_REPLICATE,
    ).astype(np.float32)
    error = cv2.absdiff(moved, first.pixels)
    left, texture = error.mean(), first.texture
    structure = _structure(first, moved)
    coarse = cv2.absdiff(cv2.GaussianBlur(moved, (0, 0), 4), first.coarse)
    return [
        np.log(left + 0.1),
        np.log(_at(error, 0.95)[0] + 0.1),
        np.log((left + 0.1) / (texture + 0.1)),
        float(structure.mean()),
        _at(structure, 0.1)[0],
        np.log(coarse.mean() + 0.05),
        np.log(texture + 0.1),
    ]


def pair_statistics(
    first: Picture, second: Picture, field: Field, before: Field | None
) -> list[float]:
    """Statistics of neighbouring frames.

    Args:
        first, second: The frames.
        field: The flow from the first frame to the second.
        before: The flow into the first frame, if there was one.

    Returns:
        NUM_PAIR finite numbers.
    """
    scale = 1 / min(first.gray.shape)
    length = field.speed * scale
    speed = length.mean()
    drift = float(np.hypot(*field.drift)) * scale
    dudx, dudy, dvdx, dvdy = field.gradients()
    rough = np.sqrt(dudx**2 + dudy**2 + dvdx**2 + dvdy**2)
    motion, residual = _camera(field.flow, scale)
    difference = cv2.absdiff(first.gray, second.gray).astype(np.float32)
    brightness = second.brightness - first.brightness
    middle, fast = _at(length, 0.5, 0.95)
    return [
        _log(speed),
        _log(middle),
        _log(fast),
        _log(length.std()),
        _log(drift),
        drift / (float(speed) + 1e-3),
        _log(rough.mean()),
        _log(_at(rough, 0.95)[0]),
        _log(np.abs(dudx + dvdy).mean()),
        _log(np.abs(dvdx - dudy).mean()),
        _log(np.hypot(*motion[0])),
        _log(np.abs(motion[1:]).sum()),
        _log(residual.mean()),
        _log(residual.mean() / (speed + 1e-3)),
        *_unexplained(first, second.gray, field.flow),
        np.log(difference.mean() + 0.1),
        np.log(_at(difference, 0.95)[0] + 0.1),
        abs(brightness) / 10,
        brightness / 10,
        float(difference.mean() < 0.25),
        float(np.abs(second.histogram - first.histogram).sum()),
        float(np.abs(second.colour - first.colour).max()) / 10,
        np.count_nonzero(length > 0.02) / length.size,
        np.count_nonzero(length < 0.001) / length.size,
        abs(float(np.log(second.detail / first.detail))),
        *_jerk(field, before, scale, float(speed)),
        float(np.arctan2(drift, 0.005)),
        float(np.log(second.detail)) / 10,
    ]


def _jerk(field: Field, before: Field | None, scale: float, speed: float) -> list[float]:
    """How much the motion itself changed since the step before."""
    if before is None:
        return [_log(0.0), 1.0, _log(0.0), 1.0]
    change = _length(field.u - before.u, field.v - before.v).mean() * scale
    dot = field.u * before.u + field.v * before.v
    lengths = field.speed * before.speed + 1e-3
    now, then = field.drift, before.drift
    turn = now @ then / (np.linalg.norm(now) * np.linalg.norm(then) + 1e-2)
    return [_log(change), float((dot / lengths).mean()), _log(change / (speed + 1e-3)), float(turn)]


def gap_statistics(first: Picture, second: np.ndarray, field: Field) -> list[float]:
    """Statistics of two frames several steps apart: NUM_GAP finite numbers.

    Args:
        first: The earlier frame.
        second: The later one, uint8 gray (h, w).
        field: The flow from the first to the second.
    """
    scale = 1 / min(second.shape)
    length = field.speed * scale
    dudx, dudy, dvdx, dvdy = field.gradients()
    rough = np.sqrt(dudx**2 + dudy**2 + dvdx**2 + dvdy**2).mean()
    speed = length.mean()
    return [
        _log(speed),
        _log(length.std()),
        _log(_at(length, 0.95)[0]),
        _log(np.hypot(*field.drift) * scale),
        *_unexplained(first, second, field.flow),
        _log(rough),
        _log(rough / (speed / scale + 0.05)),
        np.log(_level(cv2.absdiff(first.gray, second)) + 0.1),
    ]


def change_statistics(grays: list[np.ndarray]) -> np.ndarray:
    """First and second differences in time at three scales of blur.

    Flicker and shake change direction from frame to frame, motion goes on: the second difference
    over the first tells them apart.

    Args:
        grays: t uint8 images of one size, at least two.

    Returns:
        float64 (t - 1, NUM_CHANGE).
    """
    columns = []
    for sigma in _SCALES:
        first, second = [], []
        image: Any = None
        step: Any = None
        for gray in grays:  # frame by frame: all of a clip's are more than a processor's cache
            past, past_step = image, step
            image = gray.astype(np.float32)
            if sigma:
                image = cv2.GaussianBlur(image, (0, 0), sigma)
            if past is None:
                continue
            step = cv2.subtract(image, past)
            first.append(np.abs(step).mean())
            if past_step is not None:
                second.append(cv2.absdiff(step, past_step).mean())
        firsts, seconds = np.array(first), np.array([*second[:1], *second] or [0.0])
        columns += [np.log(firsts + 0.05), np.log((seconds + 0.05) / (firsts + 0.05))]
    return np.stack(columns, axis=1)

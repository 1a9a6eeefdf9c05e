"""The referee of `encoders.flow_statistics`: every statistic by its plain formula, nothing shared.

The shipped checkpoint was trained on what these give.
"""

import cv2
import numpy as np

_SCALES = (0, 2, 8)


def _log(value: float) -> float:
    return float(np.log(np.float64(value) + 1e-3))


def _at(values: np.ndarray, *shares: float) -> list[float]:
    """Quantiles over every third pixel along each axis."""
    flat = np.sort(values[::3, ::3], axis=None)
    return [float(flat[int(share * (flat.size - 1))]) for share in shares]


def _warped(image: np.ndarray, flow: np.ndarray) -> np.ndarray:
    height, width = image.shape
    x, y = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32))
    return cv2.remap(
        image,
        x + flow[..., 0],
        y + flow[..., 1],
        cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_REPLICATE,
    )


def _camera(flow: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Least-squares affine motion (3, 2) of the whole frame and each sample's distance from it."""
    height, width = flow.shape[:2]
    sample = flow[::4, ::4].reshape(-1, 2).astype(np.float64)
    y, x = np.mgrid[0:height:4, 0:width:4]
    design = np.stack([np.ones(x.size), x.ravel() / width - 0.5, y.ravel() / height - 0.5], axis=1)
    motion = np.linalg.solve(design.T @ design + 1e-6 * np.eye(3), design.T @ sample)
    return motion, np.hypot(*(sample - design @ motion).T)


def _drift(flow: np.ndarray) -> np.ndarray:
    """Mean flow (2,)."""
    return np.array(cv2.mean(flow)[:2])


def _gradients(flow: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """du/dx, du/dy, dv/dx, dv/dy."""
    u, v = cv2.split(flow)
    return (
        cv2.Sobel(u, cv2.CV_32F, 1, 0, scale=0.125),
        cv2.Sobel(u, cv2.CV_32F, 0, 1, scale=0.125),
        cv2.Sobel(v, cv2.CV_32F, 1, 0, scale=0.125),
        cv2.Sobel(v, cv2.CV_32F, 0, 1, scale=0.125),
    )


def _structure(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The contrast-structure map of SSIM (Wang et al. 2004) of two float32 images."""

    def mean(image: np.ndarray) -> np.ndarray:
        return cv2.GaussianBlur(image, (11, 11), 1.5)

    mean_a, mean_b = mean(a), mean(b)
    variances = mean(a * a) - mean_a**2 + mean(b * b) - mean_b**2
    return (2 * (mean(a * b) - mean_a * mean_b) + 58.5) / (variances + 58.5)


def _unexplained(first: np.ndarray, second: np.ndarray, flow: np.ndarray) -> list[float]:
    """What is left after moving the second frame back along the flow."""
    moved, first = _warped(second, flow).astype(np.float32), first.astype(np.float32)
    error = np.abs(moved - first)
    texture = np.hypot(
        cv2.Sobel(first, cv2.CV_32F, 1, 0, scale=0.125),
        cv2.Sobel(first, cv2.CV_32F, 0, 1, scale=0.125),
    ).mean()
    structure = _structure(first, moved)
    coarse = np.abs(cv2.GaussianBlur(moved, (0, 0), 4) - cv2.GaussianBlur(first, (0, 0), 4))
    return [
        np.log(error.mean() + 0.1),
        np.log(_at(error, 0.95)[0] + 0.1),
        np.log((error.mean() + 0.1) / (texture + 0.1)),
        float(structure.mean()),
        _at(structure, 0.1)[0],
        np.log(coarse.mean() + 0.05),
        np.log(texture + 0.1),
    ]


def pair_statistics(
    first: np.ndarray, second: np.ndarray, flow: np.ndarray, before: np.ndarray | None
) -> list[float]:
    """Statistics of neighbouring frames.

    Args:
        first, second: uint8 RGB (h, w, 3).
        flow: float32 (h, w, 2), pixels, from the first frame to the second.
        before: The flow into the first frame, if there was one.

    Returns:
        NUM_PAIR finite numbers.
    """
    gray = [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in (first, second)]
    scale = 1 / min(gray[0].shape)
    length = cv2.magnitude(*cv2.split(flow)) * scale
    drift = float(np.hypot(*_drift(flow))) * scale
    dudx, dudy, dvdx, dvdy = _gradients(flow)
    rough = np.sqrt(dudx**2 + dudy**2 + dvdx**2 + dvdy**2)
    motion, residual = _camera(flow * scale)
    difference = cv2.absdiff(*gray).astype(np.float32)
    brightness = float(gray[1].mean()) - float(gray[0].mean())
    histograms = [np.bincount(g.ravel() // 16, minlength=16) / g.size for g in gray]
    colours = [np.array(cv2.mean(frame)[:3]) for frame in (first, second)]
    detail = [cv2.Laplacian(g, cv2.CV_32F).var() + 1 for g in gray]
    middle, fast = _at(length, 0.5, 0.95)
    return [
        _log(length.mean()),
        _log(middle),
        _log(fast),
        _log(length.std()),
        _log(drift),
        drift / (float(length.mean()) + 1e-3),
        _log(rough.mean()),
        _log(_at(rough, 0.95)[0]),
        _log(np.abs(dudx + dvdy).mean()),
        _log(np.abs(dvdx - dudy).mean()),
        _log(np.hypot(*motion[0])),
        _log(np.abs(motion[1:]).sum()),
        _log(residual.mean()),
        _log(residual.mean() / (length.mean() + 1e-3)),
        *_unexplained(gray[0], gray[1], flow),
        np.log(difference.mean() + 0.1),
        np.log(_at(difference, 0.95)[0] + 0.1),
        abs(brightness) / 10,
        brightness / 10,
        float(difference.mean() < 0.25),
        float(np.abs(histograms[1] - histograms[0]).sum()),
        float(np.abs(colours[1] - colours[0]).max()) / 10,
        float((length > 0.02).mean()),
        float((length < 0.001).mean()),
        abs(float(np.log(detail[1] / detail[0]))),
        *_jerk(flow, before, scale, float(length.mean())),
        float(np.arctan2(drift, 0.005)),
        float(np.log(detail[1])) / 10,
    ]


def _jerk(flow: np.ndarray, before: np.ndarray | None, scale: float, speed: float) -> list[float]:
    """How much the motion itself changed since the step before."""
    if before is None:
        return [_log(0.0), 1.0, _log(0.0), 1.0]
    change = cv2.magnitude(*cv2.split(flow - before)).mean() * scale
    (u, v), (u_before, v_before) = cv2.split(flow), cv2.split(before)
    dot = u * u_before + v * v_before
    lengths = cv2.magnitude(u, v) * cv2.magnitude(u_before, v_before) + 1e-3
    now, then = _drift(flow), _drift(before)
    turn = now @ then / (np.linalg.norm(now) * np.linalg.norm(then) + 1e-2)
    return [_log(change), float((dot / lengths).mean()), _log(change / (speed + 1e-3)), float(turn)]


def gap_statistics(first: np.ndarray, second: np.ndarray, flow: np.ndarray) -> list[float]:
    """Statistics of two uint8 gray frames several steps apart: NUM_GAP finite numbers."""
    scale = 1 / min(first.shape)
    length = cv2.magnitude(*cv2.split(flow)) * scale
    dudx, dudy, dvdx, dvdy = _gradients(flow)
    rough = np.sqrt(dudx**2 + dudy**2 + dvdx**2 + dvdy**2).mean()
    return [
        _log(length.mean()),
        _log(length.std()),
        _log(_at(length, 0.95)[0]),
        _log(np.hypot(*_drift(flow)) * scale),
        *_unexplained(first, second, flow),
        _log(rough),
        _log(rough / (length.mean() / scale + 0.05)),
        np.log(cv2.absdiff(first, second).mean() + 0.1),
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
        images = [
            g.astype(np.float32)
            if sigma == 0
            else cv2.GaussianBlur(g.astype(np.float32), (0, 0), sigma)
            for g in grays
        ]
        steps = [b - a for a, b in zip(images, images[1:])]
        first = np.array([np.abs(step).mean() for step in steps])
        second = np.array([np.abs(b - a).mean() for a, b in zip(steps, steps[1:])] or [0.0])
        second = np.concatenate([second[:1], second]) if len(steps) > 1 else second
        columns += [np.log(first + 0.05), np.log((second + 0.05) / (first + 0.05))]
    return np.stack(columns, axis=1)

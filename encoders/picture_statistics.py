"""Hand-made statistics of single pictures that compression, noise and exposure show in.

ImageNet features are trained to ignore these; they answer the question that the network does not.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

NUM_STATISTICS = 29

_LAPLACIAN = ((0.0, 1.0, 0.0), (1.0, -4.0, 1.0), (0.0, 1.0, 0.0))
_SOBEL = ((-1.0, 0.0, 1.0), (-2.0, 0.0, 2.0), (-1.0, 0.0, 1.0))
# Answers to noise and not to edges: Immerkaer, "Fast noise variance estimation", 1996.
_NOISE = ((1.0, -2.0, 1.0), (-2.0, 4.0, -2.0), (1.0, -2.0, 1.0))
_BLOCK = 8
_CHUNK = 8  # pictures at a time
# Of the local mean. In float32: the contrast of flat pictures is nothing but its rounding.
_BELL = torch.exp(
    -0.5 * (torch.arange(-3.0, 4.0, dtype=torch.float32, device="cpu") / (7 / 6)) ** 2
)
_WINDOW = tuple((_BELL / _BELL.sum()).tolist())


def picture_statistics(pixels: Tensor) -> Tensor:
    """Sharpness, noise, blocking, exposure, banding, colour and natural-scene statistics.

    Args:
        pixels: RGB (n, 3, h, w), 0-255, any dtype; h and w at least 16.

    Returns:
        float32 (n, NUM_STATISTICS); every value finite.
    """
    # More at a time don't fit a processor's cache and take half as long again.
    parts = pixels.tensor_split(max(1, math.ceil(len(pixels) / _CHUNK)))
    return torch.cat([_statistics(part.float()) for part in parts])


def _statistics(rgb: Tensor) -> Tensor:
    weights = rgb.new_tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)
    gray = (rgb * weights).sum(1, keepdim=True)
    columns = [
        *_sharpness(gray),
        *_noise(gray),
        *_blocking(gray),
        *_exposure(gray),
        *_banding(gray),
        *_colour(rgb),
        *_lost_by_halving(gray),
        *_natural_scene(gray),
    ]
    return torch.stack(columns, dim=1)


def _filtered(gray: Tensor, kernel: tuple[tuple[float, ...], ...]) -> Tensor:
    """Correlation with a kernel; sums of shifted pictures are faster than `conv2d` by far."""
    edge = len(kernel) // 2
    padded = F.pad(gray, (len(kernel[0]) // 2,) * 2 + (edge,) * 2, mode="replicate")
    height, width = gray.shape[-2:]
    out = torch.zeros_like(gray)
    for i, row in enumerate(kernel):
        for j, weight in enumerate(row):
            if weight:
                out.add_(padded[..., i : i + height, j : j + width], alpha=weight)
    return out


def _variance(flat: Tensor) -> Tensor:
    """Of each row, as `Tensor.var`, which on a CPU takes ten times as long."""
    return (flat - flat.mean(1, keepdim=True)).square().sum(1) / (flat.shape[1] - 1)


def _root(values: Tensor) -> Tensor:
    """Square root; its gradient at 0, as of a flat picture, is 0 and not infinite."""
    if not values.requires_grad:
        return values.sqrt()
    nothing = values == 0
    return values.masked_fill(nothing, 1).sqrt().masked_fill(nothing, 0)


def _length(x: Tensor, y: Tensor) -> Tensor:
    """`torch.hypot`; its gradient at (0, 0) is 0 and not NaN."""
    if not x.requires_grad:
        return torch.hypot(x, y)
    nothing = (x == 0) & (y == 0)
    return torch.hypot(x.masked_fill(nothing, 1), y).masked_fill(nothing, 0)


def _quantile(values: Tensor, q: float) -> Tensor:
    """Of every third pixel along each axis: near enough, and nine times cheaper."""
    flat = values[..., ::3, ::3].flatten(1)
    return flat.kthvalue(max(1, math.ceil(q * flat.shape[1])), dim=1).values


def _sharpness(gray: Tensor) -> list[Tensor]:
    gradient = _length(_filtered(gray, _SOBEL), _filtered(gray, tuple(zip(*_SOBEL))))
    laplacian = _filtered(gray, _LAPLACIAN)
    return [
        torch.log(_variance(laplacian.flatten(1)) + 1),
        torch.log(gradient.mean((1, 2, 3)) + 1),
        torch.log(_quantile(gradient, 0.95) + 1),
        torch.log(_quantile(gradient, 0.5) + 1),
    ]


def _noise(gray: Tensor) -> list[Tensor]:
    residual = _filtered(gray, _NOISE).abs()
    return [
        torch.log(residual.mean((1, 2, 3)) * math.sqrt(math.pi / 2) / 6 + 0.05),
        torch.log(_quantile(residual, 0.25) + 0.05),
    ]


def _blocking(gray: Tensor) -> list[Tensor]:
    """How far steps between neighbours stand out at one phase of the 8 px grid, per axis."""
    out = []
    for axis in (2, 3):
        steps = gray.diff(dim=axis).abs().mean((1, 5 - axis))
        whole = steps.shape[1] // _BLOCK * _BLOCK
        phases = steps[:, :whole].view(len(steps), -1, _BLOCK).mean(1)
        # The lower middle one. PyTorch calls its `median` on GPUs not deterministic.
        median = phases.sort(1).values[:, (_BLOCK - 1) // 2]
        out.append(torch.log((phases.amax(1) + 0.1) / (median + 0.1)))
    return out


def _exposure(gray: Tensor) -> list[Tensor]:
    flat = gray.flatten(1)
    return [
        flat.mean(1) / 255,
        _root(_variance(flat)) / 255,
        (flat < 8).float().mean(1),
        (flat > 247).float().mean(1),
    ]


def _banding(gray: Tensor) -> list[Tensor]:
    """Entropy of the gray levels, levels in use, and how much of the picture is exactly flat."""
    flat = gray.flatten(1)
    levels = flat.round().long().clamp(0, 255)
    counts = flat.new_zeros(len(flat), 256).scatter_add_(1, levels, torch.ones_like(flat))
    share = counts / flat.shape[1]
    flatness = [(gray.diff(dim=axis).abs() < 0.5).float().mean((1, 2, 3)) for axis in (2, 3)]
    return [
        -(share * torch.log(share + 1e-9)).sum(1),
        (share > 1e-4).float().mean(1),
        *flatness,
    ]


def _colour(rgb: Tensor) -> list[Tensor]:
    """Cast (channel means against their mean) and colourfulness (Hasler and Suesstrunk 2003)."""
    means = rgb.mean((2, 3)) / 255
    cast = means - means.mean(1, keepdim=True)
    red, green, blue = rgb.flatten(2).unbind(1)
    opponents = (red - green, 0.5 * (red + green) - blue)
    spread = _root(_variance(opponents[0]) + _variance(opponents[1]))
    centre = _length(opponents[0].mean(1), opponents[1].mean(1))
    return [*cast.unbind(1), torch.log(spread + 1), torch.log(centre + 1)]


def _lost_by_halving(gray: Tensor) -> list[Tensor]:
    """Detail that a reduction by 2 and by 4 takes away: little in an upscaled picture."""
    out = []
    for factor in (2, 4):
        small = F.avg_pool2d(gray, factor)
        back = F.interpolate(small, size=gray.shape[-2:], mode="bilinear", align_corners=False)
        out.append(torch.log((gray - back).abs().mean((1, 2, 3)) + 0.05))
    return out


def _natural_scene(gray: Tensor) -> list[Tensor]:
    """Moments of locally normalised luminance (BRISQUE: Mittal et al. 2012)."""
    mean = _local_mean(gray)
    spread = _root(torch.clamp(_local_mean(gray * gray) - mean * mean, min=0))
    normal = (gray - mean) / (spread + 1)
    deviation = _root(_variance(normal.flatten(1)))
    absolute = normal.abs().mean((1, 2, 3))
    return [
        deviation,
        absolute / (deviation + 1e-3),
        normal.square().square().mean((1, 2, 3)) / (deviation**4 + 1e-3) / 10,
        (normal[..., 1:] * normal[..., :-1]).mean((1, 2, 3)),
        (normal[..., 1:, :] * normal[..., :-1, :]).mean((1, 2, 3)),
        torch.log(spread.mean((1, 2, 3)) + 0.1),
    ]


def _local_mean(gray: Tensor) -> Tensor:
    return _filtered(_filtered(gray, (_WINDOW,)), tuple((weight,) for weight in _WINDOW))

"""Damage of one kind moves the statistics that were made for it, the right way."""

import math

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from encoders.picture_statistics import NUM_STATISTICS, picture_statistics

from .pictures import (
    SIDE,
    banded,
    blurred,
    compressed,
    gray,
    noisy,
    scaled,
    texture,
    tinted,
    upscaled,
)

# Columns of `picture_statistics`, in the order of its functions.
LAPLACIAN, GRADIENT, GRADIENT_HIGH, GRADIENT_MIDDLE, NOISE, NOISE_LOW = range(6)
BLOCKS_DOWN, BLOCKS_ACROSS, MEAN, CONTRAST, DARK, BRIGHT = range(6, 12)
ENTROPY, LEVELS, FLAT_DOWN, FLAT_ACROSS, RED, GREEN, BLUE, COLOURS, CAST = range(12, 21)
HALVED, QUARTERED = 21, 22
NEIGHBOURS_ACROSS, NEIGHBOURS_DOWN, LOCAL_CONTRAST = 26, 27, 28


def tensor(*pictures):
    return torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2)


def statistics(picture):
    return picture_statistics(tensor(picture))[0]


@pytest.mark.parametrize(
    "damage, steps, up, down",
    [
        (
            blurred,
            (0.7, 1.5, 4),
            [],
            [
                LAPLACIAN,
                GRADIENT,
                GRADIENT_HIGH,
                GRADIENT_MIDDLE,
                HALVED,
                QUARTERED,
                LOCAL_CONTRAST,
            ],
        ),
        (noisy, (3, 10, 30), [NOISE, NOISE_LOW, LAPLACIAN], [NEIGHBOURS_ACROSS, NEIGHBOURS_DOWN]),
        (compressed, (40, 15, 4), [BLOCKS_DOWN, BLOCKS_ACROSS], []),
        (upscaled, (2, 4, 8), [], [LAPLACIAN, HALVED, QUARTERED]),
        (banded, (20, 10, 5), [FLAT_DOWN, FLAT_ACROSS], [ENTROPY]),
        (scaled, (1.5, 2, 3), [MEAN, BRIGHT], []),
        (scaled, (0.15, 0.08, 0.05), [DARK], [MEAN, CONTRAST]),
    ],
)
@pytest.mark.parametrize("seed", [0, 1])
def test_more_damage_moves_its_statistics_further(damage, steps, up, down, seed):
    clean = texture(seed)
    values = torch.stack([statistics(p) for p in (clean, *(damage(clean, s) for s in steps))])
    for column in up:
        assert (values[:, column].diff() > 0).all(), (column, values[:, column])
    for column in down:
        assert (values[:, column].diff() < 0).all(), (column, values[:, column])


@pytest.mark.parametrize("other", [blurred, noisy])
def test_blocking_answers_to_blocks_not_to_other_damage(other):
    clean = texture()
    blocks = statistics(compressed(clean, 8)) - statistics(clean)
    others = statistics(other(clean, 5)) - statistics(clean)
    for column in (BLOCKS_DOWN, BLOCKS_ACROSS):
        assert blocks[column] > 0.3 and blocks[column] > 3 * abs(others[column])


def test_blocks_are_seen_at_any_phase_and_along_their_own_axis():
    stripes = texture().astype(np.int16)
    stripes[:, 3::16] += 40
    stripes[:, 11::16] -= 40
    out = statistics(np.clip(stripes, 0, 255).astype(np.uint8)) - statistics(texture())
    assert out[BLOCKS_ACROSS] > 0.5 and abs(out[BLOCKS_DOWN]) < 0.2


def test_noise_is_measured_on_its_own_scale():
    """Immerkaer's estimate on a flat picture is the noise's own standard deviation."""
    flat = np.full((SIDE, SIDE, 3), 128, dtype=np.uint8)
    luma = math.sqrt(0.299**2 + 0.587**2 + 0.114**2)  # three independent channels average out
    for sigma in (4.0, 12.0):
        measured = math.exp(statistics(noisy(flat, sigma))[NOISE]) - 0.05
        assert measured == pytest.approx(sigma * luma, rel=0.07)


@pytest.mark.parametrize("channel", [RED, GREEN, BLUE])
def test_a_cast_shows_in_its_channel(channel):
    change = statistics(tinted(texture(), channel - RED)) - statistics(texture())
    assert change[channel] > 0.1 and change[channel] == change[RED : BLUE + 1].max()
    assert change[CAST] > 0.3
    assert statistics(gray(texture()))[COLOURS] < 0.1 < statistics(texture())[COLOURS]


def test_exposure_is_exact():
    half = np.zeros((SIDE, SIDE, 3), dtype=np.uint8)
    half[:, SIDE // 2 :] = 255
    out = statistics(half)
    assert out[MEAN] == pytest.approx(0.5, abs=1e-4)
    assert out[CONTRAST] == pytest.approx(0.5, abs=1e-3)
    assert out[DARK] == out[BRIGHT] == 0.5
    assert out[ENTROPY] == pytest.approx(math.log(2), abs=1e-4)


EXTREMES = {
    "black": np.zeros((SIDE, SIDE, 3), np.uint8),
    "white": np.full((SIDE, SIDE, 3), 255, np.uint8),
    "red": np.full((SIDE, SIDE, 3), (255, 0, 0), np.uint8),
    "noise": np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8),
    "checkerboard": np.repeat(255 * (np.indices((SIDE, SIDE)).sum(0) % 2)[..., None], 3, 2).astype(
        np.uint8
    ),
    "one dot": np.pad(np.full((1, 1, 3), 255, np.uint8), ((99, 124), (99, 124), (0, 0))),
    "smallest": texture(height=16, width=16),
    "odd": texture(height=17, width=33),
}


@pytest.mark.parametrize("name", EXTREMES)
def test_picture_statistics_are_finite_and_small(name):
    out = picture_statistics(tensor(EXTREMES[name]))
    assert out.shape == (1, NUM_STATISTICS) and out.dtype == torch.float32
    assert torch.isfinite(out).all() and out.abs().max() < 100


def test_pictures_do_not_influence_each_other():
    pictures = [picture for picture in EXTREMES.values() if picture.shape[0] == SIDE]
    together = picture_statistics(tensor(*pictures))
    alone = torch.cat([picture_statistics(tensor(picture)) for picture in pictures])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-4)


def test_the_type_of_the_pixels_does_not_matter():
    pixels = tensor(texture())
    assert torch.equal(picture_statistics(pixels), picture_statistics(pixels.float()))


class NoMedian(TorchDispatchMode):
    """A GPU under `torch.use_deterministic_algorithms(True)`, which refuses this operator."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        assert "median" not in str(func)
        return func(*args, **(kwargs or {}))


def test_no_operator_is_called_not_deterministic_on_gpus():
    pictures = tensor(texture())
    with NoMedian():
        assert picture_statistics(pictures).isfinite().all()


def test_gradients_are_finite_where_pictures_are_flat_and_change_no_value():
    half = texture()
    half[: SIDE // 2] = 90
    pictures = tensor(texture(), half, np.full_like(half, 128), np.zeros_like(half)).float()
    expected = picture_statistics(pictures)
    found = picture_statistics(pictures.requires_grad_())
    assert torch.equal(found, expected)
    (gradient,) = torch.autograd.grad(found.sum(), pictures)
    assert torch.isfinite(gradient).all() and gradient[:2].any()

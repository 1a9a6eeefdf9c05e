"""Where a fade ends, and an encoder that judges motion without it."""

import numpy as np
import pytest
import torch

from encoders import create_encoder
from encoders.fades import between_fades


def clip(count: int = 40) -> torch.Tensor:
    """A texture that moves by a pixel a frame, uint8 (count, 3, 64, 96)."""
    rng = np.random.default_rng(0)
    texture = np.repeat(np.repeat(rng.integers(60, 240, (16, 48)), 4, 0), 4, 1)
    frames = np.stack([texture[:, n : n + 96] for n in range(count)])
    return torch.from_numpy(frames.astype(np.uint8))[:, None].repeat(1, 3, 1, 1)


def lit(frames: torch.Tensor, weights: dict[int, float]) -> torch.Tensor:
    """Frames that are as dark as that, by number."""
    frames = frames.clone()
    for number, weight in weights.items():
        frames[number] = (frames[number] * weight).round().byte()
    return frames


CASES = {
    "none": ({}, (0, 40)),
    "from black": ({0: 0, 1: 0.25, 2: 0.5, 3: 0.75}, (4, 40)),
    "of which the first frames aren't looked at": ({0: 0.3, 1: 0.7}, (2, 40)),
    "black, then the scene": ({0: 0, 1: 0, 2: 0.02}, (3, 40)),
    "to black": ({36: 0.8, 37: 0.6, 38: 0.3, 39: 0}, (0, 36)),
    "both": ({0: 0, 1: 0.5, 38: 0.5, 39: 0}, (2, 38)),
    "a dark flash": ({5: 0.1}, (0, 40)),
    "a flicker": ({n: 0.7 for n in range(0, 40, 2)}, (0, 40)),
    "a scene that brightens all along": ({n: n / 40 for n in range(40)}, (0, 40)),
    "all black": ({n: 0 for n in range(40)}, (0, 40)),
}


@pytest.mark.parametrize("name", CASES)
def test_it_ends_where_the_clip_has_its_own_brightness(name):
    weights, expected = CASES[name]
    assert between_fades(list(lit(clip(), weights)[:, 0].numpy())) == expected


@pytest.mark.parametrize("count", [1, 2, 3])
def test_few_frames(count):
    start, stop = between_fades(list(lit(clip(count), {0: 0})[:, 0].numpy()))
    assert 0 <= start < stop <= count


def test_an_encoder_judges_motion_without_it_where_it_is_told_to():
    plain, skipping = (create_encoder("motion_flow", skip_fades=on) for on in (False, True))
    frames = clip()
    faded = lit(frames, {0: 0, 1: 0.4, 2: 0.8, 39: 0})
    assert torch.equal(skipping.preprocess(frames), plain.preprocess(frames))
    assert torch.equal(skipping.preprocess(faded), plain.preprocess(frames[3:39]))
    assert not torch.equal(plain.preprocess(faded), plain.preprocess(frames))
    assert "skip_fades" not in plain.options()  # so that what was cached before is read
    assert plain.fingerprint() != skipping.fingerprint()


def test_three_frames_of_which_two_are_black_all_count():
    frames = lit(clip(3), {0: 0, 2: 0})
    assert between_fades(list(frames[:, 0].numpy())) == (0, 3)
    encoder = create_encoder("motion_flow", skip_fades=True)
    assert encoder(encoder.preprocess(frames)[None]).isfinite().all()

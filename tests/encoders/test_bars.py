"""What lies between black bars, and what only looks like a bar."""

import pytest
import torch
import torch.nn.functional as F

from encoders import create_encoder
from encoders.resizing import each_size_once, has_bars, resized, without_bars


def noise(height=48, width=64, count=3):
    generator = torch.Generator().manual_seed(0)
    shape = (count, 3, height, width)
    return torch.randint(60, 200, shape, generator=generator, dtype=torch.uint8)


def barred(frames, *, beside=0, above=0, below=None):
    return F.pad(frames, (beside, beside, above, above if below is None else below))


@pytest.mark.parametrize("beside, above", [(0, 16), (24, 0), (8, 8), (0, 64), (0, 96)])
def test_bars_of_whole_blocks_leave_the_picture_itself(beside, above):
    frames = noise()
    assert torch.equal(without_bars(barred(frames, beside=beside, above=above)), frames)


def test_edges_move_inwards_to_whole_blocks():
    frames = noise()
    left = without_bars(barred(frames, above=13))
    assert has_bars(barred(frames, above=13))
    assert torch.equal(left, frames[..., 3:43, :])  # rows 16 to 56 of 74


@pytest.mark.parametrize("black", [0, 16])
def test_noise_of_coding_does_not_hide_a_bar(black):
    frames = noise()
    coded = F.pad(frames, (0, 0, 16, 16), value=black)
    coded[:, :, :16, ::9] = 30
    assert torch.equal(without_bars(coded), frames)


@pytest.mark.parametrize(
    "frames",
    [
        pytest.param(noise(), id="none"),
        pytest.param(barred(noise(), above=16, below=0), id="one black side of a dark scene"),
        pytest.param(barred(noise(), above=24, below=8), id="two unlike ones"),
        pytest.param(barred(noise(), above=104), id="little is left"),
        pytest.param(torch.zeros(3, 3, 48, 64, dtype=torch.uint8), id="all black"),
        pytest.param(
            torch.cat([noise(), barred(noise(32), above=8)]), id="in some of the frames only"
        ),
    ],
)
def test_what_is_no_bar_stays(frames):
    assert without_bars(frames) is frames and not has_bars(frames)


def test_within_a_block_frames_are_looked_at_and_resized_once():
    frames = barred(noise(), above=16)
    with each_size_once():
        first = without_bars(frames)
        assert without_bars(frames) is first
        assert torch.equal(resized(first, 8, 8), resized(noise(), 8, 8))


@pytest.mark.parametrize("name", ["semantic_lite", "motion_flow", "technical_lite"])
def test_an_encoder_looks_between_them_where_it_is_told_to(name):
    plain, cropping = create_encoder(name), create_encoder(name, crop_bars=True)
    frames = noise(160, 240, 8)
    letterbox = barred(frames, above=24)
    assert torch.equal(cropping.preprocess(letterbox), plain.preprocess(frames))
    assert not torch.equal(plain.preprocess(letterbox), plain.preprocess(frames))
    assert "crop_bars" not in plain.options()  # so that what was cached before is read
    assert plain.fingerprint() != cropping.fingerprint()

"""PictureInput and what the encoders of single frames share."""

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image
from torchvision import transforms
from torchvision.transforms import InterpolationMode

from encoders import create_encoder
from encoders.checkpoints import RANDOM
from encoders.frame_encoder import PictureInput

HALF = (127.5, 127.5, 127.5)


def frames(height, width, t=1, *, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (t, 3, height, width), generator=generator, dtype=torch.uint8)


def picture(frame):
    return Image.fromarray(frame.permute(1, 2, 0).numpy())


@pytest.mark.parametrize(
    "height, width",
    [
        (90, 160),
        (160, 91),
        (64, 64),
        (31, 40),
        (200, 201),
        (16, 100),
        (1, 1),
    ],
)
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_the_centre_square_is_torchvisions(height, width, interpolation):
    given = PictureInput(size=48, mean=HALF, std=HALF, interpolation=interpolation, crop=True)
    upstream = transforms.Compose(
        [
            transforms.Resize(48, interpolation=InterpolationMode(interpolation)),
            transforms.CenterCrop(48),
        ]
    )
    (frame,) = frames(height, width)
    expected = np.asarray(upstream(picture(frame)))
    assert np.array_equal(given.resized(frame[None])[0].permute(1, 2, 0), expected)


def test_a_frame_goes_through_as_through_open_clips_own_transform():
    mean, std = open_clip.OPENAI_DATASET_MEAN, open_clip.OPENAI_DATASET_STD
    given = PictureInput(
        size=56, mean=tuple(255 * v for v in mean), std=tuple(255 * v for v in std), crop=True
    )
    upstream = open_clip.image_transform(56, is_train=False, mean=mean, std=std)
    (frame,) = frames(270, 480)
    found = given.normalised(given.resized(frame[None]))[0]
    assert torch.allclose(found, upstream(picture(frame)), atol=1e-5)


def test_a_whole_frame_is_squeezed():
    given = PictureInput(size=32, mean=HALF, std=HALF)
    (frame,) = frames(45, 99)
    expected = np.asarray(picture(frame).resize((32, 32), Image.Resampling.BICUBIC))
    assert np.array_equal(given.resized(frame[None])[0].permute(1, 2, 0), expected)
    ends = given.normalised(
        torch.tensor([0, 255], dtype=torch.uint8).view(2, 1, 1, 1).expand(2, 3, 1, 1)
    )
    assert ends.flatten(1).unique(dim=1).tolist() == [[-1.0], [1.0]]


def test_the_long_side_of_a_strip_is_bounded():
    given = PictureInput(size=32, mean=HALF, std=HALF, crop=True)
    strip = frames(8, 20_000)
    middle = strip[..., 10_000 - 16 : 10_000 + 16]
    assert torch.equal(given.resized(strip), given.resized(middle))


def test_an_unknown_filter_is_refused():
    with pytest.raises(ValueError) as caught:
        PictureInput(size=8, mean=HALF, std=HALF, interpolation="lanczos3")
    assert str(caught.value) == (
        "interpolation must be one of ('nearest', 'bilinear', 'bicubic'), got 'lanczos3'"
    )


def test_a_frozen_encoder_stays_in_eval_mode_and_a_trainable_one_does_not():
    encoder = create_encoder("technical_timm", model="test_vit", weights=RANDOM, grid=5)
    assert not any(module.training for module in encoder.train().modules())
    encoder.network.requires_grad_(True)
    assert all(module.training for module in encoder.train().modules())
    assert not any(module.training for module in encoder.eval().modules())


@pytest.mark.parametrize(
    "name, options",
    [
        ("technical_timm", {"model": "test_vit", "weights": RANDOM}),
        ("semantic_blip", {"weights": RANDOM}),
        ("semantic_clip", {}),
    ],
)
def test_at_least_one_frame(name, options):
    with pytest.raises(ValueError) as caught:
        create_encoder(name, num_frames=0, **options)
    assert str(caught.value) == "num_frames must be at least 1, got 0"

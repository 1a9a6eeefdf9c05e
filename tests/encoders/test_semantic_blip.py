"""semantic_blip: BLIP's own checkpoints, transformers' folders, frames as AIGVEval takes them."""

import shutil

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from timm.models.vision_transformer import VisionTransformer

from encoders import WeightsError, create_encoder
from encoders.checkpoints import RANDOM
from encoders.sampling import clips, uniform
from encoders.testing import check_encoder

from tests.encoders import tiny_models

KINDS = (
    "BlipForImageTextRetrieval",
    "BlipForConditionalGeneration",
    "BlipForQuestionAnswering",
    "BlipModel",
    "BlipVisionModel",
)


def make(weights=RANDOM, **options):
    return create_encoder("semantic_blip", weights=weights, **{"num_frames": 4, **options})


@pytest.fixture(scope="module")
def frames():
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (4, 3, 90, 160), generator=generator, dtype=torch.uint8)


def tokens_of(encoder, frames):
    with torch.no_grad():
        return encoder(encoder.preprocess(frames)[None])[0]


# Checkpoints of BLIP ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def network():
    """timm's ViT, from which BLIP's is derived: an implementation that is neither of the two."""
    network = tiny_models.seeded(
        VisionTransformer,
        img_size=64,
        patch_size=16,
        embed_dim=128,
        depth=2,
        num_heads=2,
        num_classes=0,
        global_pool="token",
    )
    with torch.no_grad():
        for value in network.parameters():
            value.add_(0.1 * torch.randn(value.shape, generator=torch.Generator().manual_seed(1)))
    return network


@pytest.fixture
def checkpoint(network, tmp_path):
    """As BLIP publishes them: beside the ViT a momentum copy, text towers and queues."""
    state = {f"visual_encoder.{name}": value for name, value in network.state_dict().items()}
    state |= {f"visual_encoder_m.{name}": value * 2 for name, value in network.state_dict().items()}
    state |= {"text_encoder.embeddings.weight": torch.zeros(2), "temp": torch.tensor(0.07)}
    torch.save({"model": state, "epoch": 20}, tmp_path / "model_large.pth")
    return tmp_path / "model_large.pth"


def test_a_checkpoint_of_blip_gives_its_class_tokens(network, checkpoint, frames):
    encoder = make(checkpoint)
    assert (encoder.spec.dim, encoder.spec.size, encoder.spec.num_tokens) == (128, 64, 4)
    with torch.no_grad():
        pixels = encoder.picture.normalised(encoder.preprocess(frames))
        expected = network.forward_features(pixels)[:, 0]
    assert torch.allclose(tokens_of(encoder, frames), expected, atol=1e-4)
    assert expected.std(0).mean() > 1e-2


def test_it_is_found_in_the_cache_folder(checkpoint, tmp_path, monkeypatch):
    monkeypatch.setenv("AIGVEVAL_HOME", str(tmp_path / "home"))
    with pytest.raises(WeightsError) as caught:
        make(None)
    place = tmp_path / "home" / "checkpoints"
    assert str(caught.value) == (
        f"{place / 'model_large.pth'}: no such checkpoint; download model_large.pth "
        "(BSD-3-Clause) from https://storage.googleapis.com/sfr-vision-language-research/BLIP/"
        f"models/model_large.pth and put it into {place}, or give its path as the option weights"
    )
    place.mkdir(parents=True)
    shutil.copy(checkpoint, place)
    assert make(None).fingerprint() == make(checkpoint).fingerprint()


def test_every_tensor_of_a_checkpoint_is_accounted_for(checkpoint, tmp_path):
    state = torch.load(checkpoint, weights_only=True)["model"]
    torch.save({k: v for k, v in state.items() if "blocks.1.norm2.bias" not in k}, checkpoint)
    with pytest.raises(WeightsError) as caught:
        make(checkpoint)
    assert str(caught.value) == (
        f"{checkpoint}: not the weights of BlipVisionModel: missing "
        "encoder.layers.1.layer_norm2.bias"
    )
    torch.save({"weight": torch.zeros(2)}, checkpoint)
    with pytest.raises(WeightsError) as caught:
        make(checkpoint)
    assert str(caught.value) == (
        f"{checkpoint}: no checkpoint of BLIP, whose names begin visual_encoder."
    )


# Folders of transformers -----------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_the_vision_part_of_any_blip_is_taken(kind, frames):
    import transformers

    folder = tiny_models.blip_folder(kind)
    encoder = make(folder)
    model = getattr(transformers, kind).from_pretrained(folder).eval()
    with torch.no_grad():
        pixels = encoder.picture.normalised(encoder.preprocess(frames))
        expected = getattr(model, "vision_model", model)(pixel_values=pixels).last_hidden_state
    assert torch.allclose(tokens_of(encoder, frames), expected[:, 0], atol=1e-5)
    assert expected[:, 0].std(0).max() > 0


def test_shards_and_old_files_are_read_too(tmp_path, frames):
    from transformers import AutoImageProcessor, BlipVisionModel

    source = tiny_models.blip_folder("BlipVisionModel")
    expected = make(source)
    model = BlipVisionModel.from_pretrained(source)
    model.save_pretrained(tmp_path / "sharded", max_shard_size="300kB")
    assert len(list((tmp_path / "sharded").glob("model-*.safetensors"))) > 1
    model.config.save_pretrained(tmp_path / "old")
    torch.save(model.state_dict(), tmp_path / "old" / "pytorch_model.bin")
    for name in ("sharded", "old"):
        AutoImageProcessor.from_pretrained(source).save_pretrained(tmp_path / name)
        assert make(tmp_path / name).fingerprint() == expected.fingerprint()


@pytest.mark.parametrize(
    "weights, error, message",
    [
        (
            "no-such-org/no-such-model",
            WeightsError,
            "no-such-org/no-such-model: can't be loaded (LocalEntryNotFoundError",
        ),
        (
            "/gone/blip.pth",
            WeightsError,
            "/gone/blip.pth: no such checkpoint; download model_large",
        ),
        (tiny_models.clip_folder, ValueError, "{}: 'clip' is no BLIP"),
    ],
)
def test_wrong_weights_are_answered_in_one_line(weights, error, message):
    weights = weights if isinstance(weights, str) else weights()
    with pytest.raises(error) as caught:
        make(weights)
    assert str(caught.value).startswith(message.format(weights))
    assert "\n" not in str(caught.value)


def test_a_folder_that_lacks_a_part_is_refused(tmp_path):
    from safetensors.torch import load_file, save_file

    folder = tmp_path / "blip"
    shutil.copytree(tiny_models.blip_folder(), folder)
    state = load_file(folder / "model.safetensors")
    save_file(
        {k: v for k, v in state.items() if "vision_model.post" not in k},
        folder / "model.safetensors",
    )
    with pytest.raises(
        WeightsError,
        match=f"^{folder}: not the weights of BlipVisionModel: missi"
        "ng post_layernorm.weight, missing post_layernorm.bias",
    ):
        make(folder)


# Frames ----------------------------------------------------------------------------------------


def test_frames_spread_over_the_clip_or_follow_one_another_as_upstream(frames):
    assert np.array_equal(make().frame_indices(100, 24.0), uniform(100, 4))
    strict = make(strict_upstream=True)
    assert np.array_equal(strict.frame_indices(100, 24.0), clips(100, 4, 2, 1)[0])
    assert strict.frame_indices(100, 24.0).tolist() == [46, 48, 50, 52]
    assert len(strict.frame_indices(3, 24.0)) == 3


@pytest.mark.parametrize("height, width", [(90, 160), (64, 64), (37, 20), (300, 511)])
def test_pixels_are_upstreams(height, width):
    """AIGVEval: `interpolate` to a square by nearest neighbour, then ImageNet's mean and std."""
    generator = torch.Generator().manual_seed(height)
    frames = torch.randint(0, 256, (4, 3, height, width), generator=generator, dtype=torch.uint8)
    encoder = make(strict_upstream=True)
    found = encoder.pixels(encoder.preprocess(frames)[None])
    mean, std = torch.tensor([123.675, 116.28, 103.53]), torch.tensor([58.395, 57.12, 57.375])
    resized = F.interpolate(frames.float(), size=(64, 64)).permute(0, 2, 3, 1)
    assert torch.allclose(found, ((resized - mean) / std).permute(0, 3, 1, 2), atol=1e-5)


def test_blips_own_pixels_by_default(frames):
    from transformers import AutoImageProcessor

    processor = AutoImageProcessor.from_pretrained(tiny_models.blip_folder())
    encoder = make(tiny_models.blip_folder())
    found = encoder.pixels(encoder.preprocess(frames)[None])
    expected = processor(list(frames), return_tensors="pt")["pixel_values"]
    # It resizes with torchvision, we with Pillow: a pixel may differ by a level or two.
    assert (found - expected).abs().max() < 2.5 / 65 and (found - expected).abs().mean() < 0.1 / 65


def test_it_keeps_every_promise():
    check_encoder(make(num_frames=2))
    assert make(strict_upstream=True).fingerprint() != make().fingerprint()

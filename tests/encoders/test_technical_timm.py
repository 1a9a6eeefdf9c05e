"""technical_timm: backbones and checkpoints of timm, whole frames and fragments."""

import pytest
import timm
import torch

from encoders import WeightsError, create_encoder
from encoders.checkpoints import RANDOM
from encoders.fragments import sample_fragments
from encoders.testing import check_encoder

# Older versions of timm don't say it.
LICENCE = timm.get_pretrained_cfg("test_vit.r160_in1k").license or "unknown"


def make(model="test_vit", **options):
    return create_encoder(
        "technical_timm",
        model=model,
        **{
            "weights": RANDOM,
            "grid": 5,
            "num_frames": 2,
            **options,
        },
    )


@pytest.fixture(scope="module")
def frames():
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (2, 3, 180, 320), generator=generator, dtype=torch.uint8)


def tokens_of(encoder, frames):
    with torch.no_grad():
        return encoder(encoder.preprocess(frames)[None])[0]


@pytest.mark.parametrize("model", ["test_vit", "test_resnet", "test_convnext", "test_mambaout"])
def test_tokens_are_timms_pooled_features(model, frames):
    encoder = make(model)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = timm.create_model(model, num_classes=0).eval()
    view = encoder.preprocess(frames, seed=3)
    config = timm.data.resolve_model_data_config(network)
    mean, std = (torch.tensor(config[name]).view(3, 1, 1) for name in ("mean", "std"))
    tokens = tokens_of(encoder, frames)
    assert tokens.shape == (encoder.spec.num_tokens, encoder.spec.dim)
    with torch.no_grad():
        parts = [network((view[:, n] / 255 - mean) / std) for n in range(2)]
        found = encoder.encode(view[None])[0]
    assert torch.allclose(found, torch.cat(parts, dim=1), atol=1e-4)
    assert all(part.std() > 0 for part in parts)


def test_the_view_is_the_whole_frame_and_its_fragments(frames):
    encoder = make(grid=4)
    view = encoder.preprocess(frames, seed=3)
    assert view.shape == (2, 2, 3, 160, 160) and view.dtype == torch.uint8
    assert torch.equal(view[:, 0], encoder.picture.resized(frames))
    expected = sample_fragments(frames, grid=4, size=40, aligned=2, seed=3, snap=8)
    assert torch.equal(view[:, 1], expected)
    assert not torch.equal(encoder.preprocess(frames, seed=4)[:, 1], expected)


def test_swin_is_the_default_with_fast_vqas_fragments(frames, monkeypatch):
    made = []
    create = timm.create_model

    def untrained(model, *, pretrained, **options):
        made.append((model, pretrained))
        return create(model, **options)

    monkeypatch.setattr("timm.create_model", untrained)
    monkeypatch.setattr("encoders.technical_timm.ask_hub", made.append)
    encoder = create_encoder("technical_timm", num_frames=1)
    name = "swin_tiny_patch4_window7_224.ms_in1k"
    assert made == [f"timm/{name}", (name, True)]
    assert (encoder.spec.size, encoder.spec.dim, encoder.grid) == (224, 2 * 768, 7)
    assert tokens_of(encoder, frames[:1]).shape == (1, 1536)
    assert encoder.weights_id.startswith("swin_tiny_patch4_window7_224 ")


# Weights ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("model, head", [("test_vit", "head"), ("test_convnext", "head.fc")])
def test_a_checkpoint_is_loaded_without_its_classifier(model, head, tmp_path, frames):
    torch.manual_seed(5)
    network = timm.create_model(model, num_classes=7).eval()
    path = tmp_path / "trained.pth"
    torch.save({"epoch": 1, "state_dict": network.state_dict()}, path)
    encoder = make(model, weights=path)
    with torch.no_grad():
        features = network.forward_features(encoder.pixels(encoder.preprocess(frames)))
        expected = network.forward_head(features, pre_logits=True)
    assert torch.allclose(tokens_of(encoder, frames).view(4, -1), expected, atol=1e-5)
    moved = path.rename(tmp_path / "moved.pth")
    assert make(model, weights=moved).fingerprint() == encoder.fingerprint()
    state = network.state_dict()
    state.pop(next(name for name in state if not name.startswith(head)))
    torch.save(state, path)
    with pytest.raises(WeightsError, match=f"^{path}: not the weights of .*: missing "):
        make(model, weights=path)


def test_real_weights_by_path_give_their_networks_features(make_encoder, tmp_path, frames):
    """EfficientNet-Lite0, the one ImageNet network that a package index has."""
    lite = make_encoder("technical_lite", num_frames=2).backbone
    torch.save(lite.network.state_dict(), tmp_path / "lite0.pth")
    encoder = make("tf_efficientnet_lite0", weights=tmp_path / "lite0.pth", grid=7)
    pixels = (frames[:, :, :180, :180].float() - 127) / 128
    with torch.no_grad():
        expected = lite(frames[:, :, :180, :180])[1]
        assert torch.allclose(encoder.network(pixels), expected, atol=1e-4)
    assert expected.abs().mean() > 1e-2 and encoder.spec.dim == 2560


@pytest.mark.parametrize(
    "options, error, message",
    [
        ({"model": "swin_tny"}, ValueError, "timm has no model 'swin_tny'; did you mean "),
        (
            {"model": "test_mambaout", "weights": None},
            WeightsError,
            "timm has no weights for test_mambaout; give a checkpoint's path as weights",
        ),
        (
            {"weights": "/gone.pth"},
            WeightsError,
            f"/gone.pth: no such checkpoint; download model.safetensors ({LICENCE}) from "
            "https://huggingface.co/timm/test_vit.r160_in1k and give the path where you keep it",
        ),
        (
            {"model": "hf-hub:no-such-org/none", "weights": None},
            WeightsError,
            "hf-hub:no-such-org/none: can't be loaded (LocalEntryNotFoundError",
        ),
        (
            {"grid": 7},
            ValueError,
            "grid must divide the 160 px of test_vit, as [4, 5, 8, 10, 16] do, got 7",
        ),
        ({"grid": 0}, ValueError, "grid must divide the 160 px of test_vit"),
    ],
)
def test_wrong_options_are_answered_in_one_line(options, error, message):
    with pytest.raises(error) as caught:
        make(**options)
    assert str(caught.value).startswith(message) and "\n" not in str(caught.value)


def test_a_hub_that_cannot_be_reached_is_told_in_one_line(monkeypatch):
    import huggingface_hub

    def unreachable(*args, **options):
        raise ConnectionError("Name or service not known")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", unreachable)
    with pytest.raises(WeightsError) as caught:
        create_encoder("technical_timm")
    assert str(caught.value) == (
        "swin_tiny_patch4_window7_224.ms_in1k: can't be loaded (ConnectionError: Name or service "
        "not known); where a model hub is reached, download the file and give its path as weights"
    )


# Training --------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", ["test_vit", "test_efficientnet"])
def test_it_keeps_every_promise(model):
    check_encoder(make(model))


def test_the_backbone_trains(frames):
    encoder = make().requires_grad_(True).train()
    view = encoder.preprocess(frames)[None]
    optimizer = torch.optim.AdamW(encoder.parameters(), lr=1e-3)
    losses = []
    for _ in range(4):
        loss = (encoder(view) - 1).square().mean()
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert losses == sorted(losses, reverse=True) and losses[-1] < losses[0] - 5e-3

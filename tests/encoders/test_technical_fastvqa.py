"""technical_fastvqa: tokens from the metric's own network, checkpoints, frames, training."""

import hashlib

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from encoders import FASTVQA, WeightsError, create_encoder
from encoders.checkpoints import RANDOM
from encoders.fastvqa_variants import VARIANTS
from encoders.sampling import clips
from encoders.swin3d import relative_index
from encoders.testing import check_encoder

from tests.encoders import golden
from tests.encoders.test_fastvqa import published

TINY = {"embed_dim": 6, "num_frames": 8}


def make(**options):
    return create_encoder("technical_fastvqa", **{"weights": RANDOM, **TINY, **options})


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoints")
    for variant in VARIANTS:
        torch.save({"state_dict": published(variant)}, folder / f"{variant}.pth")
    return folder


@pytest.fixture(scope="module")
def frames():
    """80 frames of a texture, some of it moving."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(1, 3, 80, 15, 16, generator=generator)
    smooth = F.interpolate(coarse, size=(80, 240, 256), mode="trilinear")
    return (255 * smooth[0]).to(torch.uint8).transpose(0, 1)


# Checkpoints -----------------------------------------------------------------------------------


@pytest.mark.parametrize("variant", VARIANTS)
def test_tokens_are_the_features_that_the_metric_scores(files, frames, variant):
    path = files / f"{variant}.pth"
    encoder = make(variant=variant, weights=path)
    view = encoder.preprocess(frames[:8])[None]
    with torch.no_grad():
        tokens = encoder(view)
        assert tokens.shape == (1, 4, 48)
        if VARIANTS[variant].scale:
            metric = FASTVQA(path, variant=variant, embed_dim=6)
            head = metric.network.vqa_head
            maps = make(variant=variant, weights=path, spatial_map=True)(view)
            linear = head.fc_last(F.gelu(head.fc_hid(maps[0].T[None, :, :, None, None])))
            assert linear.mean().item() == pytest.approx(metric(view).item(), abs=1e-6)
    assert encoder.weights_id == hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_public_checkpoint_gives_upstreams_features(data_dir, tmp_path):
    index = relative_index((8, 7, 7), (8, 7, 7))
    for name, variant in (("videoswin_t", "kinetics"), ("fastvqa_b", "fast-vqa-b")):
        constants = dict.fromkeys(golden.integer_keys(data_dir, name), index)
        more = {"cls_head.fc_cls.bias": torch.zeros(400)} if variant == "kinetics" else {}
        state = {**golden.weights(data_dir, name), **constants, **more}
        torch.save({"state_dict": state, "meta": {"epoch": 30}}, tmp_path / "net.pth")
        encoder = create_encoder(
            "technical_fastvqa",
            variant=variant,
            weights=tmp_path / "net.pth",
            num_frames=8,
        )
        with torch.no_grad():
            maps = encoder.backbone(golden.noise(8))
        expected = golden.expected(data_dir, name)["feature_mean_t8"]
        assert (maps.mean((0, 2, 3, 4)) - expected).abs().max() < 1e-5


def test_the_kinetics_network_may_start_a_gated_one(files, frames):
    """The second bias table is a copy of the first: until it is trained, the gate is open."""
    path = files / "kinetics.pth"
    plain, gated = (make(variant=variant, weights=path) for variant in ("kinetics", "fast-vqa-b"))
    view = plain.preprocess(frames[:8])[None]
    with torch.no_grad():
        assert torch.equal(plain(view), gated(view))
    assert sum("fragment" in name for name, _ in gated.named_parameters()) == 10
    assert plain.fingerprint() != gated.fingerprint()


def test_without_a_checkpoint_it_says_what_to_download(tmp_path, monkeypatch):
    monkeypatch.setenv("AIGVEVAL_HOME", str(tmp_path))
    for variant, entry in VARIANTS.items():
        with pytest.raises(WeightsError) as caught:
            create_encoder("technical_fastvqa", variant=variant)
        assert str(caught.value) == (
            f"{tmp_path}/checkpoints/{entry.filename}: no such checkpoint; download "
            f"{entry.filename} ({entry.licence}) from {entry.source_url} and put it into "
            f"{tmp_path}/checkpoints, or give its path as the option weights"
        )
        assert entry.source_url.endswith("/" + entry.filename)


def test_another_variants_checkpoint_is_refused(files):
    with pytest.raises(WeightsError, match="missing backbone.layers.0.blocks.0.attn.fragment_pos"):
        make(weights=files / "fast-vqa-m.pth")
    with pytest.raises(WeightsError, match="unknown backbone.layers.0.blocks.0.attn.fragment_pos"):
        make(variant="kinetics", weights=files / "fast-vqa-b.pth")
    torch.save({**published("dover"), "aesthetic_x": torch.ones(1)}, files / "odd.pth")
    with pytest.raises(WeightsError, match="unknown aesthetic_x$"):
        make(variant="dover", weights=files / "odd.pth")


def test_the_fingerprint_tells_checkpoints_and_random_weights_apart(files, tmp_path):
    torch.save({"state_dict": published("fast-vqa-b", seed=1)}, tmp_path / "other.pth")
    encoders = [
        make(weights=weights)
        for weights in (RANDOM, files / "fast-vqa-b.pth", tmp_path / "other.pth")
    ]
    assert len({encoder.fingerprint() for encoder in encoders}) == 3
    assert make(weights=str(files / "fast-vqa-b.pth")).fingerprint() == encoders[1].fingerprint()
    assert [encoder.options().get("weights") for encoder in encoders] == [RANDOM, None, None]


# Frames and views ------------------------------------------------------------------------------


def test_frames_of_a_long_video_are_upstreams():
    encoder = make(num_clips=3)
    indices = encoder.frame_indices(300, 24.0)
    assert np.array_equal(indices, clips(300, 8, 2, 3).flatten())
    faster = make(variant="fastervqa", num_frames=32)
    assert np.array_equal(
        faster.frame_indices(300, 24.0), VARIANTS["fastervqa"].sampling.rows(300).flatten()
    )


@pytest.mark.parametrize("num_frames", [1, 5, 23, 24, 40])
def test_frames_of_a_short_video_are_spread_in_order(num_frames):
    """Where upstream's clips would overlap or begin again."""
    indices = make(num_clips=3).frame_indices(num_frames, 24.0)
    assert len(indices) == min(24, num_frames)
    assert (np.diff(indices) > 0).all()
    assert indices[0] <= num_frames / 24 and indices[-1] >= num_frames - 1 - num_frames / 24


def test_as_many_segments_as_frames_spread_them_evenly():
    indices = make(segments=8).frame_indices(80, 24.0)
    assert (np.diff(indices) == 10).all() and 0 < indices[0] < 10


def test_clips_have_fragments_at_places_of_their_own():
    column = torch.arange(448).expand(24, 3, 448, 448).to(torch.uint8)
    view = make(num_clips=3).preprocess(column)
    assert view.shape == (3, 8, 3, 224, 224)
    assert (view == view[:, :1]).all()  # eight frames in a row share their places
    assert not torch.equal(view[0], view[1])
    faster = make(variant="fastervqa", num_frames=32).preprocess(column)
    assert [torch.equal(faster[0, 0], faster[0, n]) for n in (7, 8, 31)] == [True, False, False]


# Tokens ----------------------------------------------------------------------------------------


def test_tokens_are_means_over_time_and_place(frames):
    options = {"num_clips": 2, "variant": "fast-vqa-m"}
    everything = make(**options, spatial_map=True)
    view = everything.preprocess(frames[:16])[None]
    with torch.no_grad():
        full = everything(view).view(1, 8, 16, 48)
        assert everything.spec.num_tokens == everything.spec.time_steps == 128
        for time_steps in (8, 4, 2, 1):
            expected = full.view(1, time_steps, -1, 16, 48).mean(2)
            places = make(**options, time_steps=time_steps, spatial_map=True)
            assert torch.allclose(places(view), expected.flatten(1, 2), atol=1e-6)
            means = make(**options, time_steps=time_steps)
            assert torch.allclose(means(view), expected.mean(2), atol=1e-6)
            assert means.spec.num_tokens == time_steps
            # One token for all of the clip is of no time.
            assert means.spec.time_steps == (time_steps if time_steps > 1 else 0)


def test_clips_are_seen_alone(frames):
    encoder = make(num_clips=2)
    view = encoder.preprocess(frames[:16])[None]
    with torch.no_grad():
        tokens = encoder(view)[0]
        swapped = encoder(view.flip(1))[0]
    assert torch.allclose(tokens[:4], swapped[4:], atol=1e-6)
    assert torch.allclose(tokens[4:], swapped[:4], atol=1e-6)


def test_the_papers_shapes():
    """FAST-VQA-B's 16 steps, the 4 x 7 x 7 map, AIGVEval's single vector."""
    for options, tokens in (
        ({}, 16),
        ({"time_steps": 4, "spatial_map": True}, 196),
        ({"time_steps": 1}, 1),
    ):
        spec = make(num_frames=32, **options).spec
        assert (spec.num_tokens, spec.dim, spec.size) == (tokens, 48, 224)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"time_steps": 3}, "time_steps must divide the 4 of the clips, got 3"),
        ({"time_steps": 0}, "time_steps must divide the 4 of the clips, got 0"),
        ({"num_frames": 9}, "num_frames must be even, got 9"),
        ({"embed_dim": 8}, "embed_dim must be a multiple of 3, got 8"),
        ({"drop_path": 1.5}, "drop_path must lie in 0..1 without 1, got 1.5"),
        (
            {"variant": "swin"},
            "variant must be one of fast-vqa-b, fastervqa, fast-vqa-m, dover, kinetics, got 'swin'",
        ),
    ],
)
def test_options_out_of_range_are_named(options, message):
    with pytest.raises(ValueError) as caught:
        make(**options)
    assert str(caught.value) == message


# As a module -----------------------------------------------------------------------------------


@pytest.mark.slow
def test_clips_maps_and_stochastic_depth_keep_every_promise_of_an_encoder():
    options = {"num_clips": 2, "spatial_map": True, "drop_path": 0.2}
    check_encoder(make(variant="fast-vqa-m", **options))


def test_stochastic_depth_is_for_what_learns(frames):
    encoder = make(variant="fast-vqa-m", drop_path=0.5)
    view = encoder.preprocess(frames[:8])[None]
    with torch.no_grad():
        tokens = encoder(view)
        assert torch.equal(encoder.train()(view), tokens)
        encoder.requires_grad_(True)
        torch.manual_seed(0)
        assert not torch.equal(encoder.train()(view), tokens)
        assert torch.equal(encoder.eval()(view), tokens)


def test_it_runs_in_half_precision_as_a_whole(frames):
    encoder = make(variant="fastervqa", spatial_map=True)
    view = encoder.preprocess(frames[:8])[None]
    with torch.no_grad():
        tokens = encoder(view)
        half = encoder.to(torch.bfloat16)(view)
    assert half.dtype == torch.float32
    assert (half - tokens).abs().mean() < 0.05 * tokens.abs().mean()

"""FAST-VQA alone: loading the published files, frames and fragments as upstream's, the score."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from encoders import FASTVQA, VideoError, WeightsError, read_frames
from encoders.base import seeded
from encoders.checkpoints import RANDOM
from encoders.fastvqa_network import FastVQANetwork
from encoders.fastvqa_variants import VARIANTS, Sampling, find_variant
from encoders.fragments import sample_fragments
from encoders.swin3d import relative_index
from encoders.video import FrameRequest

from tests.encoders import golden
from tests.media import write_video

TINY = {"embed_dim": 6}
EVERY = FrameRequest(indices=lambda n, fps: np.arange(n), stream="slow")


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    """Long enough for several clips; shorter than one clip; smaller than the grid."""
    folder = tmp_path_factory.mktemp("videos")
    return {
        "long": write_video(folder / "long.mp4", num_frames=150, width=256, height=240),
        "short": write_video(folder / "short.mp4", num_frames=21, width=256, height=240),
        "small": write_video(folder / "small.mp4", num_frames=70, width=96, height=64),
    }


def network(variant="fast-vqa-b", seed=0):
    with seeded(seed):
        made = FastVQANetwork(VARIANTS[variant], **TINY)
        for name, value in made.named_parameters():
            if name.endswith("bias_table"):  # a gate between equal tables would not show
                value.data.normal_()
    return made


def published(variant, prefixes=("backbone.", "vqa_head."), seed=0):
    """The tensors as its authors' code saves them, with the constants that ours computes."""
    window = VARIANTS[variant].window
    tensors = {}
    for name, value in network(variant, seed).state_dict().items():
        part, _, rest = name.partition(".")
        prefix = prefixes[0] if part == "backbone" else prefixes[1]
        tensors[prefix + rest] = value
        if name.endswith("relative_position_bias_table"):
            constant = (prefix + rest).replace("bias_table", "index")
            tensors[constant] = relative_index(window, window)
    return tensors


FILES = {
    "fast-vqa-b": ("FAST_VQA_B_1_4.pth", ("fragments_backbone.", "vqa_head."), {}),
    "fastervqa": ("FAST_VQA_3D_1_1.pth", ("fragments_backbone.", "vqa_head."), {}),
    "fast-vqa-m": ("FAST_VQA_M_1_4.pth", ("fragments_backbone.", "vqa_head."), {}),
    "dover": (
        "DOVER.pth",
        ("technical_backbone.", "technical_head."),
        {"aesthetic_backbone.norm.bias": torch.ones(2), "aesthetic_head.fc.bias": torch.ones(1)},
    ),
}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Files of the published layouts, with small networks."""
    folder, paths = tmp_path_factory.mktemp("checkpoints"), {}
    for variant, (name, prefixes, more) in FILES.items():
        paths[variant] = folder / name
        state = {**published(variant, prefixes), **more}
        torch.save(state if variant == "dover" else {"state_dict": state}, paths[variant])
    return paths


def save(tmp_path, tensors, name="net.pth"):
    torch.save({"state_dict": tensors}, tmp_path / name)
    return tmp_path / name


# Parity ----------------------------------------------------------------------------------------


def golden_checkpoint(data_dir, tmp_path, name):
    """All names of the public file, the constants under theirs too."""
    constant = relative_index((8, 7, 7), (8, 7, 7))
    constants = golden.integer_keys(data_dir, name)
    assert all(shape == constant.shape for shape in constants.values()) and len(constants) == 12
    return save(tmp_path, {**golden.weights(data_dir, name), **dict.fromkeys(constants, constant)})


@pytest.mark.parametrize("num_frames", [8, pytest.param(32, marks=pytest.mark.slow)])
def test_a_public_checkpoint_scores_as_upstream(data_dir, tmp_path, num_frames):
    metric = FASTVQA(golden_checkpoint(data_dir, tmp_path, "fastvqa_b"))
    with torch.no_grad():
        raw = metric.network.vqa_head(metric.network.backbone(golden.noise(num_frames))).mean()
    expected = golden.expected(data_dir, "fastvqa_b")[f"score_t{num_frames}"]
    assert abs(raw - expected.item()) < 1e-5


# Loading ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("variant", FILES)
def test_each_published_file_is_told_apart_and_loads_whole(files, variant):
    metric = FASTVQA(files[variant], **TINY)
    assert metric.variant == VARIANTS[variant] and not metric.training
    expected = network(variant).state_dict()
    assert metric.network.state_dict().keys() == expected.keys()
    for name, value in metric.network.state_dict().items():
        assert torch.equal(value, expected[name])


def test_a_variant_can_be_named_where_the_file_does_not_tell(files):
    metric = FASTVQA(files["fast-vqa-b"], variant="fastervqa", **TINY)
    assert metric.variant == VARIANTS["fastervqa"]
    assert FASTVQA(files["dover"], num_clips=1, **TINY).sampling == Sampling(apart=True)


def test_a_checkpoint_in_its_fixed_place_is_found(files, tmp_path, monkeypatch):
    monkeypatch.setenv("AIGVEVAL_HOME", str(tmp_path))
    with pytest.raises(WeightsError, match="no such checkpoint; download FAST_VQA_3D_1_1.pth"):
        FASTVQA(variant="fastervqa", **TINY)
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / files["fastervqa"].name).symlink_to(files["fastervqa"])
    assert FASTVQA(variant="fastervqa", **TINY).variant == VARIANTS["fastervqa"]


def fault(caught, path):
    return str(caught.value).removeprefix(f"{path}: ")


TABLE = "backbone.layers.0.blocks.1.attn.fragment_position_bias_table"
INDEX = "backbone.layers.3.blocks.0.attn.relative_position_index"


@pytest.mark.parametrize(
    "change, message",
    [
        ({TABLE: None}, f"not the weights of FastVQANetwork: missing {TABLE}"),
        (
            {"vqa_head.fc_last.bias": None},
            "not the weights of FastVQANetwork: missing vqa_head.fc_last.bias",
        ),
        (
            {"backbone.norm.extra": torch.ones(1)},
            "not the weights of FastVQANetwork: unknown backbone.norm.extra",
        ),
        (
            {"cls_head.fc_cls.bias": torch.ones(400)},
            "not the weights of FastVQANetwork: unknown cls_head.fc_cls.bias",
        ),
        (
            {"backbone.layers.9.attn.relative_position_index": torch.zeros(1)},
            "not the weights of FastVQANetwork: unknown backbone.layers.9.attn.relative_position_index",
        ),
        (
            {"backbone.norm.bias": torch.ones(47)},
            "not the weights of FastVQANetwork: backbone.norm.bias is (47,) and should be (48,)",
        ),
        (
            {INDEX: torch.zeros(392, 392, dtype=torch.int64)},
            f"{INDEX} is not that of windows (8, 7, 7)",
        ),
        (
            {"fragments_backbone.norm.bias": torch.ones(48)},
            "backbone.norm.bias is there twice, under two names",
        ),
    ],
)
def test_every_tensor_is_accounted_for(tmp_path, change, message):
    tensors = {**published("fast-vqa-b"), **change}
    path = save(tmp_path, {name: v for name, v in tensors.items() if v is not None})
    with pytest.raises(WeightsError) as caught:
        FASTVQA(path, **TINY)
    assert fault(caught, path) == message


def test_constants_may_be_left_out_of_a_file(tmp_path):
    tensors = published("fast-vqa-b")
    path = save(tmp_path, {n: v for n, v in tensors.items() if not n.endswith("position_index")})
    assert FASTVQA(path, **TINY).variant == VARIANTS["fast-vqa-b"]


def test_another_width_is_refused(files):
    with pytest.raises(WeightsError, match=r"patch_embed.proj.weight is \(6, 3, 2, 4, 4\) and"):
        FASTVQA(files["fast-vqa-b"])


def test_what_has_no_quality_head_scores_nothing(tmp_path):
    path = save(tmp_path, published("kinetics"))
    for variant in (None, "fast-vqa-b", "kinetics"):
        with pytest.raises(WeightsError) as caught:
            FASTVQA(path, variant=variant, **TINY)
        assert fault(caught, path) == "has no quality head, so it can't score videos"


def test_a_wrong_variant_is_answered_with_the_right_ones():
    with pytest.raises(ValueError) as caught:
        find_variant("fastvqa")
    assert str(caught.value) == (
        "variant must be one of fast-vqa-b, fastervqa, fast-vqa-m, dover, kinetics, got 'fastvqa'"
    )


# Frames ----------------------------------------------------------------------------------------


def test_frames_are_those_of_the_papers():
    rows = VARIANTS["fast-vqa-b"].sampling.rows(300)
    assert rows.shape == (4, 32) and (np.diff(rows, axis=1) == 2).all()
    assert rows[:, 0].tolist() == [29, 88, 148, 207]  # int((i + 0.5) * (300 - 64 + 1) / 4)
    rows = VARIANTS["fastervqa"].sampling.rows(240).reshape(8, 4)
    assert rows[:, 0].tolist() == [11 + 30 * n for n in range(8)]
    assert VARIANTS["fast-vqa-m"].sampling.rows(300).shape == (4, 16)
    assert Sampling(num_frames=8, num_clips=2, segments=4).rows(80).tolist() == [
        [3, 5, 13, 15, 23, 25, 33, 35],
        [43, 45, 53, 55, 63, 65, 73, 75],
    ]


def test_dovers_clips_lie_in_a_third_of_the_video_each():
    """Where its sampler can put them: it draws a start that lets a clip end in its own third."""
    for num_frames in (200, 301, 1000):
        rows = VARIANTS["dover"].sampling.rows(num_frames)
        assert rows.shape == (3, 32) and (np.diff(rows, axis=1) == 2).all()
        for third, clip in enumerate(rows):
            begin, end = third * num_frames / 3, (third + 1) * num_frames / 3
            before, after = clip[0] - begin, end - clip[-1]
            assert before >= -1 and after > 0 and abs(before - after) <= 5
    # In a shorter one each begins with its third, and the last goes on at the video's beginning.
    rows = VARIANTS["dover"].sampling.rows(90)
    assert rows[:, 0].tolist() == [0, 30, 60] and rows[2, -1] == (60 + 62) % 90


@pytest.mark.parametrize(
    "options, message",
    [
        ({"num_frames": 0}, "num_frames must be at least 1, got 0"),
        ({"num_clips": 0}, "num_clips must be at least 1, got 0"),
        ({"num_frames": 7}, "num_frames must be even, got 7"),
        ({"num_frames": 8, "segments": 3}, "segments must divide num_frames (8), got 3"),
    ],
)
def test_sampling_out_of_range_is_named(options, message):
    with pytest.raises(ValueError) as caught:
        Sampling(**options)
    assert str(caught.value) == message


@pytest.mark.parametrize("variant", FILES)
@pytest.mark.parametrize("video", ["long", "short"])
def test_a_view_holds_the_fragments_of_these_frames(files, videos, variant, video):
    """A short video goes on at its beginning, as upstream's."""
    metric = FASTVQA(files[variant], **TINY)
    info, frames = read_frames(videos[video], {"all": EVERY})
    rows = torch.from_numpy(metric.sampling.rows(info.num_frames))
    assert rows.max() < info.num_frames and (video == "long" or rows.unique().numel() <= 21)
    grid, aligned = VARIANTS[variant].grid, VARIANTS[variant].aligned
    expected = sample_fragments(
        frames["all"].pixels[rows.flatten()], grid=grid, aligned=aligned, seed=3
    )
    view = metric.view(videos[video], seed=3)
    assert view.shape == (*rows.shape, 3, 32 * grid, 32 * grid)
    assert torch.equal(view.flatten(0, 1), expected)


def test_upstreams_slips_are_reproduced_on_demand(files, videos):
    small = {
        strict: FASTVQA(files["fast-vqa-b"], num_clips=1, strict_upstream=strict, **TINY)
        for strict in (False, True)
    }
    info, frames = read_frames(videos["small"], {"all": EVERY})
    chosen = frames["all"].pixels[torch.from_numpy(small[True].sampling.rows(70)[0])]
    expected = sample_fragments(chosen, aligned=32, strict_upstream=True)
    assert torch.equal(small[True].view(videos["small"])[0], expected)
    assert not torch.equal(small[False].view(videos["small"])[0], expected)
    windows = [
        FASTVQA(files["fast-vqa-m"], strict_upstream=strict, **TINY).network.backbone.base
        for strict in (False, True)
    ]
    assert windows == [(16, 128, 128), (32, 224, 224)]


# Score -----------------------------------------------------------------------------------------


def with_constant_score(variant, raw):
    metric = FASTVQA(RANDOM, variant=variant, num_clips=1, **TINY)
    metric.sampling = replace(metric.sampling, num_frames=8)  # what it sees makes no difference
    torch.nn.init.zeros_(metric.network.vqa_head.fc_last.weight)
    torch.nn.init.constant_(metric.network.vqa_head.fc_last.bias, raw)
    return metric


@pytest.mark.parametrize(
    "variant, deviations, mean, std",
    [
        ("fast-vqa-b", 1, -0.110198185, 0.04178565),
        ("fastervqa", -1, 0.14759505, 0.03613452),
        ("fast-vqa-m", 0, 0.023889644, 0.030781006),
        ("fast-vqa-m", -3, 0.023889644, 0.030781006),
        ("dover", 2, 0.1107, 0.07355),
    ],
)
def test_scores_are_on_the_published_scale(videos, variant, deviations, mean, std):
    metric = with_constant_score(variant, mean + deviations * std)
    expected = 1 / (1 + math.exp(-deviations))
    assert metric.score(videos["short"]) == pytest.approx(expected, abs=1e-5)


def test_the_score_is_the_mean_over_clips_and_places(files, videos):
    metric = FASTVQA(files["fast-vqa-m"], num_clips=2, **TINY)
    view = metric.view(videos["long"])
    with torch.no_grad():
        maps = metric.quality_map(view[None])
        alone = [metric(clip[None, None]).item() for clip in view]
    assert maps.shape == (1, 2, 8, 4, 4) and maps.std() > 0
    assert alone[0] != alone[1]
    mean, std = metric.scale
    expected = 1 / (1 + math.exp((mean - sum(alone) / 2) / std))
    assert metric.score(videos["long"]) == pytest.approx(expected, abs=1e-5)


def test_the_same_video_has_the_same_score_and_a_seed_moves_the_fragments(files, videos):
    metric = FASTVQA(files["fast-vqa-m"], **TINY)
    score, state = metric.score(videos["long"]), torch.get_rng_state()
    torch.rand(5)  # the global generator has no say in it
    assert metric.score(videos["long"]) == score
    torch.set_rng_state(state)
    assert FASTVQA(files["fast-vqa-m"], **TINY).score(videos["long"]) == score
    assert metric.score(videos["long"], seed=1) != score
    assert torch.equal(torch.get_rng_state(), state)


def test_a_batch_gives_what_its_videos_give(files, videos):
    metric = FASTVQA(files["fast-vqa-m"], **TINY)
    views = torch.stack([metric.view(videos["long"]), metric.view(videos["short"])])
    with torch.no_grad():
        together = metric(views)
        alone = torch.cat([metric(view[None]) for view in views])
    assert torch.allclose(together, alone, atol=1e-6) and together[0] != together[1]


def test_a_file_that_is_no_video_is_named(tmp_path):
    (tmp_path / "x.mp4").write_text("no video")
    with pytest.raises(VideoError, match="x.mp4: "):
        FASTVQA(RANDOM, **TINY).score(tmp_path / "x.mp4")


def test_on_a_gpu_it_computes_in_full_float32(held, monkeypatch):
    inside = held("encoders.fastvqa.full_float32")

    def forward(view):
        assert inside == [torch.device("cpu")]
        return torch.zeros(1)

    metric = FASTVQA(RANDOM, variant="fast-vqa-b", **TINY)
    monkeypatch.setattr(metric, "view", lambda video, seed: torch.zeros(1))
    monkeypatch.setattr(metric, "forward", forward)
    assert 0 < metric.score("clip.mp4") < 1 and inside == []

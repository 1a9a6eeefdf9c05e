"""Motion from optical flow: the shipped fingerprint, and RAFT in the place of DIS."""

import copy
import json
import pickle
import urllib.error
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torchvision.models import optical_flow

import aigveval
from encoders import WeightsError, create_encoder
from encoders.base import seeded
from encoders.checkpoints import RANDOM
from encoders.raft import Raft

SHIPPED = Path(aigveval.__file__).parent / "checkpoints" / "lite" / "config.json"
SMALL_FILE = "raft_small_C_T_V2-01064c6d.pth"


def scene(t=6, height=130, width=150):
    """A texture that drifts by 2 px a frame: uint8 (t, h, w, 3)."""
    grid = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    world = cv2.resize(grid, (width + 2 * t, height), interpolation=cv2.INTER_CUBIC)
    return np.stack([world[:, 2 * n : 2 * n + width] for n in range(t)])


def frames(*args):
    return torch.from_numpy(scene(*args)).permute(0, 3, 1, 2)


@pytest.fixture(scope="module")
def raft():
    return Raft("small", weights=RANDOM)


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """Empty cache folders, ours and torch's, and no network."""

    def refuse(url, *args, **kwargs):
        raise urllib.error.URLError("no route to host")

    monkeypatch.setenv("AIGVEVAL_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr(torch.hub, "download_url_to_file", refuse)
    return tmp_path


# Fingerprint -----------------------------------------------------------------------------------


def test_the_shipped_checkpoint_was_trained_with_this_encoder():
    entries = {entry["name"]: entry for entry in json.loads(SHIPPED.read_text())["encoders"]}
    encoder = create_encoder("motion_flow", **entries["motion_flow"]["options"])
    assert encoder.fingerprint() == entries["motion_flow"]["fingerprint"]
    same = create_encoder("motion_flow", size=112, crop_bars=True, skip_fades=True)
    assert same.fingerprint() == encoder.fingerprint()


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"num_tokens": 8},
        {"num_frames": 32},
        {"size": 96},
        {"flow": "raft_small"},
        {"num_tokens": 4, "num_frames": 8, "size": 128, "flow": "raft_large"},
    ],
)
def test_its_options_make_it_again(options):
    weights = {"weights": RANDOM} if "flow" in options else {}
    encoder = create_encoder("motion_flow", **options, **weights)
    again = create_encoder("motion_flow", **encoder.options())
    assert again.spec == encoder.spec and again.fingerprint() == encoder.fingerprint()


def test_each_flow_has_a_fingerprint_of_its_own():
    made = [create_encoder("motion_flow")]
    made += [
        create_encoder("motion_flow", flow=f"raft_{s}", weights=RANDOM) for s in ("small", "large")
    ]
    assert len({encoder.fingerprint() for encoder in made}) == 3


@pytest.mark.parametrize(
    "options, message",
    [
        (
            {"flow": "farneback"},
            "flow must be one of ('dis', 'raft_small', 'raft_large'), got 'farneback'",
        ),
        ({"size": 31}, "size must be at least 32 for dis, got 31"),
        (
            {"num_tokens": 1, "num_frames": 1},
            "num_frames must be at least 2, as a lone frame has no motion, got 1",
        ),
        ({"flow": "raft_large", "size": 120}, "size must be at least 128 for raft_large, got 120"),
        (
            {"weights": "raft.pth"},
            "weights are RAFT's: they need flow='raft_small' or 'raft_large'",
        ),
    ],
)
def test_options_that_do_not_go_together_are_refused(options, message):
    with pytest.raises(ValueError) as caught:
        create_encoder("motion_flow", **options)
    assert str(caught.value) == message


# RAFT ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("t", [1, 2, 3, 6, 13, 48])
def test_the_number_of_threads_does_not_matter(t):
    encoder, clip = create_encoder("motion_flow"), frames(t)
    before, views = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3, 4):
            torch.set_num_threads(threads)
            views += [encoder.preprocess(clip), encoder.preprocess(clip)]
    finally:
        torch.set_num_threads(before)
    assert views[0].isfinite().all() and all(torch.equal(view, views[0]) for view in views)


@pytest.mark.parametrize("size", ["small", "large"])
def test_flow_is_what_torchvision_gives_for_each_pair(size):
    with seeded():
        reference = getattr(optical_flow, f"raft_{size}")(weights=None).eval()
    prepare = getattr(optical_flow, f"Raft_{size.capitalize()}_Weights").C_T_V2.transforms()
    pictures, pairs = scene(3, 128, 136), [(0, 1), (1, 2), (2, 0)]
    found = list(Raft(size, weights=RANDOM).flows(pictures, pairs))
    pixels = torch.from_numpy(pictures).permute(0, 3, 1, 2)
    for (first, second), flow in zip(pairs, found, strict=True):
        with torch.no_grad():
            expected = reference(*prepare(pixels[[first]], pixels[[second]]))[-1][0]
        assert flow.shape == (128, 136, 2) and flow.dtype == np.float32 and expected.std() > 0.01
        np.testing.assert_allclose(flow, expected.permute(1, 2, 0), rtol=1e-3, atol=1e-3)


def test_sides_that_do_not_divide_by_8_are_padded_at_the_right_and_below(raft):
    pictures = scene(2, 130, 141)
    (flow,) = raft.flows(pictures, [(0, 1)])
    (padded,) = raft.flows(np.pad(pictures, ((0, 0), (0, 6), (0, 3), (0, 0)), "edge"), [(0, 1)])
    assert flow.shape == (130, 141, 2)
    np.testing.assert_allclose(flow, padded[:130, :141], rtol=1e-4, atol=1e-4)


def test_more_pairs_than_a_batch_keep_their_order(raft):
    pictures, pairs = scene(4, 128, 128), [(n % 4, (n + 1 + n // 4) % 4) for n in range(10)]
    together = list(raft.flows(pictures, pairs))
    for n in (0, 7, 8, 9):
        (alone,) = raft.flows(pictures, [pairs[n]])
        np.testing.assert_allclose(together[n], alone, rtol=1e-3, atol=1e-3)


def test_the_flow_takes_the_place_of_dis_in_every_pair(monkeypatch):
    """Statistics of a flow that is known: RAFT's network is replaced, all else is as it is."""
    encoder = create_encoder("motion_flow", flow="raft_small", weights=RANDOM, size=128)
    seen = []

    def network(first, second):
        seen.append((first, second))
        return [torch.full_like(first[:, :2], 3.0)]

    monkeypatch.setattr(encoder.raft.network, "forward", network)
    view = encoder.preprocess(frames(6, 128, 152))
    ((first, second),) = seen
    assert first.shape == second.shape == (6, 3, 128, 152)
    assert first.min() >= -1 and second.max() <= 1
    pixels = frames(6, 128, 152) / 127.5 - 1
    assert torch.equal(first, pixels[[0, 0, 1, 2, 3, 4]])
    assert torch.equal(second, pixels[[1, 4, 2, 3, 4, 5]])  # five steps, one jump of four frames
    length = torch.log(torch.tensor(3 * 2**0.5 / 128 + 1e-3))
    torch.testing.assert_close(view[:, 0], length.expand(48), rtol=1e-4, atol=0)  # neighbours
    torch.testing.assert_close(view[:, 37], length.expand(48), rtol=1e-4, atol=0)  # jumps


def test_raft_gives_tokens_like_those_of_dis():
    clip = frames()
    dis = create_encoder("motion_flow", size=128)
    learned = create_encoder("motion_flow", size=128, flow="raft_small", weights=RANDOM)
    view, other = learned.preprocess(clip), dis.preprocess(clip)
    assert view.shape == other.shape and view.dtype == other.dtype
    tokens = learned(view[None])
    assert tokens.shape == (1, 16, 513) and torch.isfinite(tokens).all()
    change = slice(37 + 14, None)  # frame differences know no flow
    assert torch.equal(view[:, change], other[:, change]) and not torch.equal(view, other)


def test_raft_measures_and_does_not_learn(raft):
    encoder = create_encoder("motion_flow", flow="raft_small", weights=RANDOM, size=128)
    encoder.requires_grad_(True).train()
    assert not list(encoder.parameters()) and not encoder.raft.training
    assert not encoder(encoder.preprocess(frames(3))[None]).requires_grad
    # Its weights are buffers: they move and are copied with the encoder.
    assert sum(b.numel() for b in encoder.buffers() if b.is_floating_point()) >= 990_162
    assert encoder.double().raft.network.context_encoder.conv.weight.dtype == torch.float64


@pytest.mark.parametrize(
    "copied",
    [copy.deepcopy, lambda one: pickle.loads(pickle.dumps(one))],
    ids=["deepcopy", "pickle"],
)
def test_a_copy_sees_the_same_flow(raft, copied):
    pictures = scene(2)
    (flow,) = raft.flows(pictures, [(0, 1)])
    (other,) = copied(raft).flows(pictures, [(0, 1)])
    assert np.array_equal(flow, other)
    assert len(pickle.dumps(raft)) < 5e6  # nothing of a clip stays on it


# RAFT's weights --------------------------------------------------------------------------------


def save_small(path):
    with seeded(1):
        torch.save(optical_flow.raft_small(weights=None).state_dict(), path)
    return path


def test_weights_are_found_by_path_in_the_cache_folder_and_in_torch_s_own(cache):
    folders = [cache / "home" / "checkpoints", cache / "torch" / "hub" / "checkpoints"]
    given = Raft("small", weights=save_small(cache / "mine.pth"))
    assert len(given.weights_id) == 64 != len(RANDOM)
    for folder in folders:
        folder.mkdir(parents=True)
        path = (cache / "mine.pth").rename(folder / SMALL_FILE)
        found = Raft("small")
        assert found.weights_id == given.weights_id
        assert torch.equal(
            found.network.context_encoder.conv.weight, given.network.context_encoder.conv.weight
        )
        path.rename(cache / "mine.pth")
    with pytest.raises(WeightsError):  # both folders are empty again
        Raft("small")


def test_without_network_one_line_says_what_to_do(cache):
    with pytest.raises(WeightsError) as caught:
        create_encoder("motion_flow", flow="raft_small")
    message, folder = str(caught.value), cache / "home" / "checkpoints"
    assert "\n" not in message
    assert message.startswith(f"{folder / SMALL_FILE}: no such checkpoint; download {SMALL_FILE}")
    assert f"https://download.pytorch.org/models/{SMALL_FILE} and put it into {folder}" in message
    assert message.endswith("download failed (URLError: <urlopen error no route to host>)")


def test_a_path_that_is_given_is_not_replaced_by_a_download(cache):
    with pytest.raises(WeightsError) as caught:
        Raft("large", weights=cache / "none.pth")
    assert str(caught.value).startswith(f"{cache / 'none.pth'}: no such checkpoint")
    assert "URLError" not in str(caught.value)


def test_weights_of_the_other_size_are_refused(cache):
    path = save_small(cache / "small.pth")
    with pytest.raises(WeightsError, match="not the weights of RAFT: missing"):
        Raft("large", weights=path)


@pytest.mark.parametrize("options", [{"size": 32}, {"num_tokens": 1, "num_frames": 2}])
def test_the_least_there_is(options):
    encoder = create_encoder("motion_flow", **options)
    for height, width in ((1, 1), (1, 40), (40, 30)):
        view = encoder.preprocess(torch.zeros(2, 3, height, width, dtype=torch.uint8))
        assert torch.isfinite(encoder(view[None])).all()


def test_on_a_gpu_raft_computes_in_full_float32_whatever_other_threads_do(raft, held, monkeypatch):
    inside = held("encoders.raft.full_float32")

    def network(first, second):
        assert inside == [torch.device("cpu")]
        return [torch.zeros(len(first), 2, *first.shape[2:])]

    monkeypatch.setattr(raft.network, "forward", network)
    assert len(list(raft.flows(scene(), [(0, 1), (1, 2)]))) == 2
    assert inside == []

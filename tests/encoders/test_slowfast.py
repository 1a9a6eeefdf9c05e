"""SlowFast: parity with PyTorchVideo, strict loading, and training."""

import copy

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from encoders import WeightsError, create_encoder
from encoders.base import seeded
from encoders.checkpoints import RANDOM, load_strict
from encoders.slowfast import FrozenBatchNorm3d, SlowFastR50, slow_indices
from encoders.weights import load_torch_file

from . import golden


@pytest.fixture(scope="module")
def tensors():
    """All tensors of the network, with statistics that aren't those of a fresh one."""
    with seeded(1):
        values = SlowFastR50().state_dict()
        for name, value in values.items():
            if name.endswith("running_mean"):
                value.normal_(std=0.1)
            elif name.endswith("running_var") or "norm" in name and name.endswith("weight"):
                value.uniform_(0.8, 1.2)
    return values


@pytest.fixture(scope="module")
def checkpoint(tensors, tmp_path_factory):
    """As PyTorchVideo publishes it: the tensors lie under `model_state`."""
    path = tmp_path_factory.mktemp("slowfast") / "SLOWFAST_8x8_R50.pyth"
    torch.save({"model_state": tensors, "epoch": 1}, path)
    return path


@pytest.fixture(scope="module")
def fast(checkpoint):
    return create_encoder("motion_slowfast", weights=checkpoint, size=64)


@pytest.fixture(scope="module")
def both(checkpoint):
    return create_encoder("motion_slowfast", weights=checkpoint, size=64, pathways="both")


@pytest.fixture(scope="module")
def view():
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (1, 32, 3, 64, 64), generator=generator, dtype=torch.uint8)


# Parity ----------------------------------------------------------------------------------------


def test_both_pathways_and_logits_are_those_of_pytorchvideo(data_dir):
    weights = golden.weights(data_dir, "slowfast_r50")
    counters = golden.integer_keys(data_dir, "slowfast_r50")
    weights |= {name: torch.zeros(shape, dtype=torch.long) for name, shape in counters.items()}
    network = SlowFastR50().eval()
    load_strict(network, weights, file="golden")
    with torch.no_grad():
        maps = network.features(golden.noise(32))
        logits = network.blocks["6"](*maps)
    assert maps.slow.shape == (1, 2048, 8, 7, 7) and maps.fast.shape == (1, 256, 32, 7, 7)
    expected = golden.expected(data_dir, "slowfast_r50")
    for name, found in (
        ("slow_pooled", maps.slow.mean((3, 4))),
        ("fast_pooled", maps.fast.mean((3, 4))),
        ("logits", logits),
    ):
        torch.testing.assert_close(found[0], expected[name], rtol=0, atol=1e-4)


def test_the_slow_pathway_sees_the_frames_that_upstream_gives_it():
    assert slow_indices(32) == [0, 4, 8, 13, 17, 22, 26, 31]
    for count in range(4, 260, 4):
        exact = torch.linspace(0, count - 1, count // 4, dtype=torch.float64) + 1e-9
        assert slow_indices(count) == exact.long().tolist()


# Tokens ----------------------------------------------------------------------------------------


def test_tokens_are_the_spatial_means_of_the_normalised_frames(both, tensors, view):
    network = SlowFastR50().eval()
    load_strict(network, tensors, file="test")
    with torch.no_grad():
        pixels = (view.float() / 255 - 0.45) / 0.225  # as PyTorchVideo's recipe has it
        maps = network.features(pixels.transpose(1, 2))
        tokens = both.encode(view)
    assert tokens.shape == (1, 32, 256 + 2048) and tokens.mean() > 0.1
    close = {"rtol": 1e-4, "atol": 1e-4}
    for frame in (0, 5, 31):
        of_fast, of_slow = maps.fast[0, :, frame], maps.slow[0, :, frame // 4]
        torch.testing.assert_close(tokens[0, frame, :256], of_fast.mean((1, 2)), **close)
        torch.testing.assert_close(tokens[0, frame, 256:], of_slow.mean((1, 2)), **close)


def test_the_fast_pathway_alone_gives_the_same_tokens(fast, both, view):
    with torch.no_grad():
        assert torch.equal(fast.encode(view), both.encode(view)[..., :256])
    assert fast.fingerprint() != both.fingerprint()
    # What no token depends on is not kept, so that training has nothing idle.
    count = {e: sum(p.numel() for p in e.network.parameters()) for e in (fast, both)}
    assert count == {fast: 514_152, both: 33_644_488}


def test_frames_are_squeezed_to_a_square_and_repeated(fast):
    ramp = torch.arange(12, dtype=torch.uint8).view(12, 1, 1, 1).expand(12, 3, 90, 160)
    assert fast.frame_indices(12, 24.0).tolist() == list(range(12))
    out = fast.preprocess(ramp)
    assert out.shape == (32, 3, 64, 64) and out.dtype == torch.uint8
    assert out[:, 0, 0, 0].unique().tolist() == list(range(12))
    assert (out[:, 0, 0, 0].int().diff() >= 0).all()


def test_a_learned_position_is_added_to_each_token(fast, view):
    twin = copy.deepcopy(fast)
    with torch.no_grad():
        before = twin.encode(view)
        twin.position[3] += 2
        change = twin.encode(view) - before
    assert torch.allclose(change[0, 3], torch.tensor(2.0))
    assert change[0, :3].abs().max() == change[0, 4:].abs().max() == 0


def test_it_is_sensitive_to_the_order_of_frames(fast, view):
    with torch.no_grad():
        backwards = fast.encode(view.flip(1)).flip(1)
        assert (backwards - fast.encode(view)).abs().mean() > 1e-3


# Weights ---------------------------------------------------------------------------------------


def test_safetensors_and_torch_files_give_the_same_tokens(fast, tensors, tmp_path, view):
    path = tmp_path / "slowfast.safetensors"
    save_file(tensors, path)
    other = create_encoder("motion_slowfast", weights=path, size=64)
    with torch.no_grad():
        assert torch.equal(other.encode(view), fast.encode(view))
    assert other.weights_id != fast.weights_id and len(fast.weights_id) == 64
    assert "weights" not in fast.options()  # the same file elsewhere is the same encoder


def test_the_file_in_the_cache_folder_is_found(checkpoint, fast, tmp_path, monkeypatch):
    monkeypatch.setenv("AIGVEVAL_HOME", str(tmp_path))
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / checkpoint.name).symlink_to(checkpoint)
    assert create_encoder("motion_slowfast", size=64).fingerprint() == fast.fingerprint()


def test_without_a_checkpoint_one_line_says_where_it_is_and_goes(tmp_path, monkeypatch):
    monkeypatch.setenv("AIGVEVAL_HOME", str(tmp_path))
    with pytest.raises(WeightsError) as caught:
        create_encoder("motion_slowfast")
    message = str(caught.value)
    assert "\n" not in message and str(tmp_path / "checkpoints") in message
    assert "SLOWFAST_8x8_R50.pyth (Apache-2.0) from https://dl.fbaipublicfiles.com/" in message


STEM = "blocks.0.multipathway_blocks.0.conv.weight"  # of the slow pathway, which `fast` drops
HEAD = "blocks.6.proj.bias"


@pytest.mark.parametrize(
    "change, fault",
    [
        (lambda t: t.pop(STEM), f"missing {STEM}"),
        (lambda t: t.update({HEAD: torch.zeros(7)}), f"{HEAD} is (7,) and should be (400,)"),
        (lambda t: t.update({"blocks.7.extra": torch.zeros(1)}), "unknown blocks.7.extra"),
    ],
)
def test_every_tensor_is_accounted_for_even_those_that_are_dropped(
    tensors, tmp_path, change, fault
):
    path = tmp_path / "wrong.safetensors"
    wrong = dict(tensors)
    change(wrong)
    save_file(wrong, path)
    with pytest.raises(WeightsError) as caught:
        create_encoder("motion_slowfast", weights=path)
    assert str(caught.value) == f"{path}: not the weights of SlowFastR50: {fault}"


def test_random_weights_come_only_when_asked_for_and_are_the_same_each_time(fast):
    one, two = (create_encoder("motion_slowfast", weights=RANDOM, size=64) for _ in range(2))
    assert one.fingerprint() == two.fingerprint() != fast.fingerprint()
    assert one.options()["weights"] == RANDOM
    for a, b in zip(one.parameters(), two.parameters(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"pathways": "slow"}, "pathways must be one of ('fast', 'both'), got 'slow'"),
        ({"num_frames": 30}, "num_frames must be a positive multiple of 4, got 30"),
        ({"num_frames": 0}, "num_frames must be a positive multiple of 4, got 0"),
        ({"size": 0}, "size must be at least 1, got 0"),
    ],
)
def test_options_out_of_range_are_refused_before_any_file_is_looked_for(options, message):
    with pytest.raises(ValueError) as caught:
        create_encoder("motion_slowfast", **options)
    assert str(caught.value) == message


# As a module -----------------------------------------------------------------------------------


@pytest.mark.parametrize("pathways", ["fast", "both"])
def test_gradients_reach_every_parameter_and_no_statistics(pathways, checkpoint, view):
    encoder = create_encoder("motion_slowfast", weights=checkpoint, size=64, pathways=pathways)
    encoder.requires_grad_(True).train()
    statistics = {n: b.clone() for n, b in encoder.named_buffers()}
    encoder(view).square().mean().backward()
    for name, parameter in encoder.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().max() > 0, name
    for name, buffer in encoder.named_buffers():
        assert torch.equal(buffer, statistics[name]), name
    norms = [m for m in encoder.modules() if isinstance(m, nn.BatchNorm3d)]
    assert norms and all(isinstance(m, FrozenBatchNorm3d) and not m.training for m in norms)


def test_it_learns(view):
    """A few steps bring two clips' mean tokens to where they should be."""
    encoder = create_encoder("motion_slowfast", weights=RANDOM, num_frames=4, size=32)
    encoder.requires_grad_(True).train()
    clips = torch.stack([view[0, :4, :, :32, :32], view[0, 4:8, :, 32:, 32:]])
    optimizer = torch.optim.AdamW(encoder.parameters(), lr=1e-4)
    losses = []
    for _ in range(5):
        loss = (encoder(clips).mean((1, 2)) - torch.tensor([1.0, 5.0])).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.7 * losses[0] and losses == sorted(losses, reverse=True)


@pytest.mark.parametrize("pathways", ["fast", pytest.param("both", marks=pytest.mark.slow)])
def test_it_compiles_into_one_graph(pathways, checkpoint, view):
    encoder = create_encoder("motion_slowfast", weights=checkpoint, size=64, pathways=pathways)
    compiled = torch.compile(encoder, backend="eager", fullgraph=True)
    with torch.no_grad():
        torch.testing.assert_close(compiled(view), encoder(view))


def test_it_runs_in_bfloat16(both, view):
    with torch.no_grad():
        exact = both(view)
        with torch.autocast("cpu", torch.bfloat16):
            mixed = both(view)
        half = copy.deepcopy(both).bfloat16()(view)
    assert mixed.dtype == half.dtype == torch.float32
    for rough in (mixed, half):
        assert (rough - exact).abs().mean() < 0.05 * exact.abs().mean()


def test_a_checkpoint_that_asks_to_run_code_is_refused(tmp_path):
    path = tmp_path / "pickled.pyth"
    torch.save(SlowFastR50, path)
    with pytest.raises(WeightsError, match="which is refused"):
        load_torch_file(path)
    with pytest.raises(WeightsError, match="which is refused"):
        create_encoder("motion_slowfast", weights=path)

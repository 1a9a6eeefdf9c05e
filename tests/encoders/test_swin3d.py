"""Video-Swin: parity with the public code, and each part against its definition."""

import itertools
import math

import pytest
import torch

from encoders.base import seeded
from encoders.checkpoints import load_strict
from encoders.swin3d import Layout, VideoSwin, WindowAttention, relative_index

from tests.encoders import golden

CPU = torch.device("cpu")
TABLE_WINDOW = (2, 3, 3)  # that the bias tables of a small attention are made for

# Parity ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name, gated_stages, num_frames",
    [
        ("videoswin_t", 0, 8),
        ("fastvqa_b", 3, 8),
        pytest.param("fastvqa_b", 3, 32, marks=pytest.mark.slow),
    ],
)
def test_features_are_those_of_upstream(data_dir, name, gated_stages, num_frames):
    network = VideoSwin(gated_stages=gated_stages).eval()
    tensors = {
        key.removeprefix("backbone."): value
        for key, value in golden.weights(data_dir, name).items()
        if key.startswith("backbone.")
    }
    load_strict(network, tensors, file="golden")
    with torch.no_grad():
        maps = network(golden.noise(num_frames))[0]
    expected = golden.expected(data_dir, name)
    assert maps.shape == (768, num_frames // 2, 7, 7)
    mean, part = (expected[f"feature_{kind}_t{num_frames}"] for kind in ("mean", "map_slice"))
    assert (maps.mean((1, 2, 3)) - mean).abs().max() < 1e-5
    assert (maps[: len(part)] - part).abs().max() < 1e-5


# Attention, pair by pair -----------------------------------------------------------------------


def attention_by_definition(attention, x, window, shift):
    """Each position attends to those of its window that were neighbours before the shift.

    The bias of a pair is distance * relative table + (1 - distance) * fragment table, where the
    distance counts rows and columns of fragments; x is (t, h, w, d), multiples of the window.
    """
    size, heads = x.shape[:3], attention.heads
    places = list(itertools.product(*(range(n) for n in size)))
    q, k, v = attention.qkv(x).view(*size, 3, heads, -1).unbind(3)
    out = torch.zeros_like(x)
    for place in places:
        moved = [(p - s) % n for p, s, n in zip(place, shift, size)]
        logits, values = [], []
        for other in places:
            other_moved = [(p - s) % n for p, s, n in zip(other, shift, size)]
            same_window = all(a // w == b // w for a, b, w in zip(moved, other_moved, window))
            adjacent = all(a - b == c - d for a, b, c, d in zip(place, other, moved, other_moved))
            if not (same_window and adjacent):
                continue
            row = 0
            for a, b, w in zip(place, other, TABLE_WINDOW):
                row = row * (2 * w - 1) + a - b + w - 1
            bias = attention.relative_position_bias_table[row]
            if attention.fragment_position_bias_table is not None:
                distance = sum(
                    abs(a * w // n - b * w // n)
                    for a, b, w, n in zip(place[1:], other[1:], window[1:], size[1:])
                )
                within = attention.fragment_position_bias_table[row]
                bias = distance * bias + (1 - distance) * within
            scale = 1 / math.sqrt(q.shape[-1])
            logits.append((q[place] * k[other]).sum(-1) * scale + bias)
            values.append(v[other])
        share = torch.stack(logits).softmax(0)
        out[place] = (share[..., None] * torch.stack(values)).sum(0).flatten()
    return attention.proj(out)


@pytest.mark.parametrize("gated", [False, True])
@pytest.mark.parametrize(
    "size, window, shift",
    [
        ((2, 6, 6), (2, 3, 3), (0, 0, 0)),
        ((4, 6, 6), (2, 3, 3), (1, 1, 1)),
        ((2, 6, 3), (2, 3, 3), (0, 1, 0)),
        ((4, 4, 6), (1, 2, 3), (1, 1, 1)),  # smaller than the tables' window
    ],
)
@torch.no_grad()
def test_attention_follows_its_definition(gated, size, window, shift):
    with seeded():
        attention = WindowAttention(12, heads=3, window=TABLE_WINDOW, gated=gated)
        for value in attention.parameters():
            value.normal_(std=0.5)
        x = torch.randn(2, *size, 12)
    layout = Layout(size, window, shift, gated=gated, device=CPU)
    index = relative_index(window, TABLE_WINDOW)
    found = layout.join(attention(layout.split(x), layout, index))
    for n in range(2):
        expected = attention_by_definition(attention, x[n], window, shift)
        assert torch.allclose(found[n], expected, atol=1e-5)


def test_a_fresh_gate_changes_nothing_as_both_tables_are_the_same():
    with seeded():
        attention = WindowAttention(12, heads=3, window=(2, 3, 3), gated=True)
    layout = Layout((2, 6, 6), (2, 3, 3), (0, 1, 1), gated=True, device=CPU)
    assert layout.distance.max() == 4  # two rows and two columns of fragments apart
    index, x = relative_index((2, 3, 3), (2, 3, 3)), torch.randn(1, 4, 18, 12)
    gated = attention(x, layout, index)
    attention.fragment_position_bias_table = None
    assert torch.equal(gated, attention(x, layout, index))


# Windows ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(4, 6, 6), (3, 5, 7), (1, 1, 1)])
@pytest.mark.parametrize("shift", [(0, 0, 0), (1, 1, 1)])
def test_joining_undoes_splitting(size, shift):
    layout = Layout(size, (2, 3, 3), shift, gated=True, device=CPU)
    x = torch.randn(2, *size, 5)
    windows = layout.split(x)
    assert windows.shape[2:] == (18, 5) and windows[..., 0].numel() % (2 * 18) == 0
    assert torch.equal(layout.join(windows), x)


def test_the_index_of_a_smaller_window_is_part_of_the_full_one():
    full = relative_index((8, 7, 7), (8, 7, 7))
    assert full.shape == (392, 392) and full.min() == 0 and full.max() == 15 * 13 * 13 - 1
    assert (full.diagonal() == full[0, 0]).all() and (full + full.T == 2 * full[0, 0]).all()
    part = full.view(8, 7, 7, 8, 7, 7)[:2, :5, :4, :2, :5, :4].reshape(40, 40)
    assert torch.equal(relative_index((2, 5, 4), (8, 7, 7)), part)


def test_no_window_sees_beyond_its_stretch_of_time_up_to_16_frames():
    """Windows of 8 frames hold 2 of 4 time steps and are never shifted across the middle."""
    with seeded():
        network = VideoSwin(embed_dim=6, gated_stages=3).eval()
        first = torch.randn(1, 3, 8, 224, 224)
    second = first.clone()
    second[:, :, 4:] = 0
    with torch.no_grad():
        a, b = network(first), network(second)
    assert torch.allclose(a[:, :, :2], b[:, :, :2], atol=1e-6)
    assert not torch.allclose(a[:, :, 2:], b[:, :, 2:], atol=1e-2)


# The network -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "t, h, w, shape",
    [
        (32, 64, 64, (16, 2, 2)),
        (7, 50, 33, (4, 2, 2)),
        (1, 32, 32, (1, 1, 1)),
        (48, 96, 64, (24, 3, 2)),
    ],
)
def test_any_input_size_gives_a_map(t, h, w, shape):
    network = VideoSwin(embed_dim=3, gated_stages=3).eval()
    with torch.no_grad():
        maps = network(torch.randn(2, 3, t, h, w))
    assert maps.shape == (2, 24, *shape) and torch.isfinite(maps).all()


def test_stochastic_depth_drops_in_training_only():
    with seeded():
        network = VideoSwin(embed_dim=6, drop_path=0.9)
        x = torch.randn(1, 3, 4, 64, 64)
        with torch.no_grad():
            assert not torch.equal(network(x), network(x))
            network.eval()
            assert torch.equal(network(x), network(x))


@pytest.mark.parametrize(
    "options, message",
    [
        ({"embed_dim": 0}, "embed_dim must be a multiple of 3, got 0"),
        ({"embed_dim": 10}, "embed_dim must be a multiple of 3, got 10"),
        ({"drop_path": 1.0}, "drop_path must lie in 0..1 without 1, got 1.0"),
        ({"drop_path": -0.1}, "drop_path must lie in 0..1 without 1, got -0.1"),
    ],
)
def test_options_out_of_range_are_named(options, message):
    with pytest.raises(ValueError) as caught:
        VideoSwin(**options)
    assert str(caught.value) == message

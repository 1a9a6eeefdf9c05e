"""Layers by oneDNN: the same numbers, parameters and gradients."""

import copy

import pytest
import torch
from torch import nn

from encoders import onednn
from encoders.onednn import (
    FrozenOneDnnLinear,
    OneDnnLinear,
    PackedConvolution,
    bfloat16_is_quick,
    use_bfloat16,
    use_onednn,
)

needs_onednn = pytest.mark.skipif(
    not onednn.has_onednn(), reason="this PyTorch has no oneDNN, or other operators of it"
)


def made(*, dtype=torch.float32):
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(64, 96), nn.GELU(), nn.Linear(96, 32, bias=False), nn.LayerNorm(32)
    ).to(dtype)


@needs_onednn
@pytest.mark.parametrize("shape", [(64,), (5, 64), (2, 7, 64), (0, 64), (2, 3, 5, 64)])
def test_the_same_numbers(shape, monkeypatch):
    plain, fast = made(), made()
    use_onednn(fast)
    assert [type(layer) is OneDnnLinear for layer in fast] == [True, False, True, False]
    x = torch.randn(shape)
    calls = []
    real = onednn.onednn_linear
    monkeypatch.setattr(onednn, "onednn_linear", lambda *args: calls.append(1) or real(*args))
    with torch.inference_mode():
        torch.testing.assert_close(fast(x), plain(x))
        assert torch.equal(fast(x), fast(x))
    assert len(calls) == (6 if x.numel() > 64 else 0)  # not for a single row
    assert not any(fast.state_dict()[name].isnan().any() for name in fast.state_dict())


@needs_onednn
def test_an_input_that_lies_otherwise_in_memory():
    plain, fast = made(), made()
    use_onednn(fast)
    x = torch.randn(3, 64, 9).transpose(1, 2)
    with torch.no_grad():
        torch.testing.assert_close(fast(x), plain(x))
        torch.testing.assert_close(fast(x[:, ::2]), plain(x[:, ::2]))


@needs_onednn
def test_state_and_gradients_stay():
    plain, fast = made(), made()
    use_onednn(fast)
    use_onednn(fast)  # again: nothing more to do
    for (name, value), (other, found) in zip(
        plain.state_dict().items(), fast.state_dict().items(), strict=True
    ):
        assert name == other and torch.equal(value, found)
    x = torch.randn(5, 64)
    for network in (plain, fast):
        network(x).square().sum().backward()
    for expected, found in zip(plain.parameters(), fast.parameters(), strict=True):
        torch.testing.assert_close(found.grad, expected.grad)
    plain.load_state_dict(copy.deepcopy(fast).state_dict())
    fast.load_state_dict({name: 2 * value for name, value in plain.state_dict().items()})
    assert torch.equal(fast[0].weight, 2 * plain[0].weight)


@needs_onednn
def test_gradients_go_through_frozen_layers(monkeypatch):
    """As in training a LoRA; those that are trained, or have a trained bias, stay PyTorch's."""
    calls = []
    real = onednn.onednn_linear
    monkeypatch.setattr(onednn, "onednn_linear", lambda *args: calls.append(1) or real(*args))
    plain, fast = made(), made()
    fast.requires_grad_(False)
    use_onednn(fast, training=True)
    values = torch.randn(2, 7, 64)
    for trained, expected_calls in (((), 4), (("2.weight",), 2), (("0.bias",), 2)):
        inputs, gradients = [], []
        for network in (plain, fast):
            for name, parameter in network.named_parameters():
                parameter.requires_grad_(name in trained)
                parameter.grad = None
            calls.clear()
            inputs.append(values.clone().requires_grad_())
            network(inputs[-1]).square().sum().backward()
            gradients.append([p.grad for p in network.parameters() if p.requires_grad])
        assert len(calls) == expected_calls  # forwards and backwards
        torch.testing.assert_close(inputs[1].grad, inputs[0].grad)
        assert len(gradients[1]) == len(trained)
        torch.testing.assert_close(gradients[1], gradients[0])
    fast.requires_grad_(False)
    assert not fast(values).requires_grad
    x = values.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(fast(x).sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.sum().backward()


@needs_onednn
def test_layers_that_are_trained_stay_as_they_are():
    network = made()
    network[0].requires_grad_(False)
    use_onednn(network, training=True)
    assert isinstance(network[0], FrozenOneDnnLinear) and type(network[2]) is nn.Linear
    assert network[2].weight.is_contiguous()


@needs_onednn
def test_a_frozen_network_that_scores_has_gradients_of_all_kinds():
    plain, fast = made().requires_grad_(False), made().requires_grad_(False)
    use_onednn(fast)
    x, v = torch.randn(3, 64), torch.randn(3, 64)

    def of(network):
        def loss(x):
            return torch.nn.functional.gelu(network(x)).square().sum()

        second = torch.autograd.functional.vhp(loss, x, v)[1]
        return second, torch.func.grad(loss)(x), torch.func.jvp(loss, (x,), (v,))[1]

    torch.testing.assert_close(of(fast), of(plain))


@needs_onednn
def test_left_alone_where_it_is_not_float32():
    fast = made(dtype=torch.bfloat16)
    use_onednn(fast)
    assert type(fast[0]) is nn.Linear
    fast = made()
    use_onednn(fast)
    x = torch.randn(2, 64)
    with torch.no_grad():
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert fast[0](x).dtype == torch.bfloat16
        assert fast.double()(x.double()).dtype == torch.float64


def test_where_there_is_no_onednn(monkeypatch):
    monkeypatch.setattr(onednn, "has_onednn", lambda: False)
    plain = made()
    use_onednn(plain)
    assert all(type(layer) is not OneDnnLinear for layer in plain)


@pytest.mark.parametrize("broken", [AttributeError, RuntimeError, TypeError, None])
def test_an_operator_that_changed(broken, monkeypatch):
    def product(input, weight, bias):
        if broken:
            raise broken("no such operator")
        return torch.zeros(1, 2, 4)  # it is there, but gives something else

    monkeypatch.setattr(onednn, "onednn_linear", product)
    onednn.has_onednn.cache_clear()
    try:
        assert not onednn.has_onednn()
    finally:
        onednn.has_onednn.cache_clear()


@needs_onednn
@pytest.mark.parametrize("relu6", [True, False])
@pytest.mark.parametrize(
    "options",
    [
        {"kernel_size": 1},
        {"kernel_size": 3, "padding": 1, "groups": 8},
        {"kernel_size": 3, "stride": 2, "bias": False},
        {"kernel_size": 3, "dilation": 2},
    ],
)
def test_packed_convolutions(options, relu6):
    torch.manual_seed(0)
    plain = nn.Conv2d(8, 16, **options).requires_grad_(False)
    packed = PackedConvolution(plain, relu6=relu6, batch=4)
    x = 20 * torch.randn(6, 8, 20, 24).contiguous(memory_format=torch.channels_last)
    expected = plain(x).clamp(0, 6) if relu6 else plain(x)
    torch.testing.assert_close(packed(x[:1]), expected[:1])
    torch.testing.assert_close(packed(x), expected)
    assert not relu6 or {0.0, 6.0} <= set(expected.flatten().tolist())


@needs_onednn
def test_the_first_pictures_do_not_matter():
    """The layout is chosen at the first call, and another one could round in another way."""
    torch.manual_seed(0)
    plain = nn.Conv2d(32, 64, 3).requires_grad_(False)
    x = torch.randn(4, 32, 30, 30)
    first, second = (PackedConvolution(plain, relu6=False, batch=4) for _ in range(2))
    first(x[:1])
    assert torch.equal(first(x), second(x))


def test_products_in_bfloat16_take_and_give_float32():
    plain, quick = made(), made()
    use_bfloat16(quick)
    use_onednn(quick)  # leaves them alone
    assert [layer.weight.dtype for layer in quick[::2]] == [torch.bfloat16] * 2
    assert quick[3].weight.dtype == torch.float32
    x = torch.randn(5, 64)
    with torch.inference_mode():
        found, expected = quick(x), plain(x)
    assert found.dtype == torch.float32
    assert 0 < (found - expected).abs().max() < 0.1


@needs_onednn
def test_whether_bfloat16_is_quick_is_measured_once_and_kept(monkeypatch, tmp_path):
    monkeypatch.setenv("AIGVEVAL_HOME", str(tmp_path))
    shares = [0.5, 0.9]
    monkeypatch.setattr(onednn, "_time_of_bfloat16", lambda: shares.pop(0))
    assert bfloat16_is_quick() and bfloat16_is_quick()
    assert shares == [0.9]
    monkeypatch.setattr(onednn, "cpu_model", lambda: "another")
    assert not bfloat16_is_quick()


@needs_onednn
def test_without_a_place_to_keep_it_bfloat16_is_measured_once_for_the_process(
    monkeypatch, tmp_path
):
    (tmp_path / "file").touch()
    monkeypatch.setenv("AIGVEVAL_HOME", str(tmp_path / "file"))
    shares = [0.5, 0.9]
    monkeypatch.setattr(onednn, "_time_of_bfloat16", lambda: shares.pop(0))
    onednn._share_here.cache_clear()
    try:
        assert bfloat16_is_quick() and bfloat16_is_quick()
    finally:
        onednn._share_here.cache_clear()
    assert shares == [0.9]


def test_measuring_takes_no_random_numbers():
    torch.manual_seed(0)
    before = torch.get_rng_state()
    assert onednn._time_of_bfloat16() > 0
    assert torch.equal(torch.get_rng_state(), before)

"""Linear layers by oneDNN: the same numbers, parameters and gradients."""

import copy

import pytest
import torch
from torch import nn

from aigveval import onednn
from aigveval.onednn import OneDnnLinear, use_onednn

from .tiny_llm import make_batch, make_config, make_model

needs_onednn = pytest.mark.skipif(
    not onednn._works(), reason="this PyTorch has no oneDNN, or calls its linear layer otherwise"
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
    real = onednn._product
    monkeypatch.setattr(onednn, "_product", lambda *args: calls.append(1) or real(*args))
    with torch.inference_mode():
        torch.testing.assert_close(fast(x), plain(x))
        assert torch.equal(fast(x), fast(x))
    assert len(calls) == (6 if x.numel() else 0)
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
    monkeypatch.setattr(onednn, "_works", lambda: False)
    plain = made()
    use_onednn(plain)
    assert all(type(layer) is not OneDnnLinear for layer in plain)


@pytest.mark.parametrize("broken", [AttributeError, RuntimeError, TypeError, None])
def test_an_operator_that_changed(broken, monkeypatch):
    def product(input, weight, bias):
        if broken:
            raise broken("no such operator")
        return torch.zeros(1, 2, 4)  # it is there, but gives something else

    monkeypatch.setattr(onednn, "_product", product)
    onednn._works.cache_clear()
    try:
        assert not onednn._works()
    finally:
        onednn._works.cache_clear()


@needs_onednn
def test_a_model_is_saved_as_before(tmp_path):
    model, processor = make_model()
    batch = make_batch(processor, make_config(), ["a dog", None])
    plain = model.score(**batch)
    model.save_pretrained(tmp_path / "before")
    use_onednn(model.model.language_model)
    found = model.score(**batch)
    torch.testing.assert_close(found.level_logits, plain.level_logits, atol=2e-5, rtol=2e-5)
    model.save_pretrained(tmp_path / "after")
    before, after = (
        (tmp_path / name / "model.safetensors").read_bytes() for name in ("before", "after")
    )
    assert before == after

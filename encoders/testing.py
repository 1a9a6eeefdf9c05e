"""What every encoder promises, as one check for the tests of an encoder, ours or another package's.

from encoders.testing import check_encoder

def test_my_encoder():
    check_encoder(MotionMine())
"""

import copy
import json
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .base import Encoder, EncoderSpec
from .registry import dimension_of

_PROMPTS = ["a cat sleeps on a sofa", "a red car drives through the rain"]


def check_encoder(encoder: Encoder, *, tolerance: float = 1e-4) -> None:
    """Try every promise of `Encoder` on two small made-up clips.

    Args:
        encoder: As its constructor or `create_encoder` makes it; it is tried in eval mode, in which
            `create_encoder` gives it. It is left as it was.
        tolerance: How much tokens may differ between a batch and its rows, or with
            `torch.compile`, as a share of their mean magnitude.

    Raises:
        AssertionError: A promise is broken; the message says which and how.
    """
    in_training = [module for module in encoder.modules() if module.training]
    encoder.eval()
    try:
        _check_all(encoder, tolerance)
    finally:
        for module in in_training:
            module.training = True


def _check_all(encoder: Encoder, tolerance: float) -> None:
    _check_frames(encoder)
    clips = (_clip(48, 90, 120), _clip(3, 33, 17))
    views = torch.stack([encoder.preprocess(_frames(encoder, clip)) for clip in clips])
    with torch.no_grad():
        tokens = torch.cat([encoder.encode(view[None]) for view in views])
        _check_tokens(encoder, views, tokens, tolerance=tolerance)
        for case in (_check_spec, _check_copies, _check_autocast):
            case(encoder, views, tokens)
        _check_compile(encoder, views, tokens, tolerance=tolerance)
    _check_training(encoder, views, tokens)


def _clip(num_frames: int, height: int, width: int) -> Tensor:
    """A texture that moves by two pixels a frame: uint8 (t, 3, h, w)."""
    rng = np.random.default_rng(num_frames)
    world = rng.integers(0, 256, (3, height, width + 2 * num_frames), dtype=np.uint8)
    return torch.from_numpy(
        np.stack([world[..., 2 * n : 2 * n + width] for n in range(num_frames)])
    )


def _frames(encoder: Encoder, clip: Tensor) -> Tensor:
    return clip[torch.from_numpy(encoder.frame_indices(len(clip), 24.0))]


def _check_frames(encoder: Encoder) -> None:
    for num_frames in (1, 2, 33, 18000):
        for fps in (1.0, 23.976, 240.0):
            indices = encoder.frame_indices(num_frames, fps)
            case = f"frame_indices({num_frames}, {fps}) gave {indices!r}"
            assert indices.dtype == np.int64 and indices.ndim == 1 and len(indices), case
            assert indices[0] >= 0 and indices[-1] < num_frames, case
            assert (np.diff(indices) > 0).all(), f"{case}, which do not ascend"
    try:
        encoder.preprocess(_frames(encoder, _clip(24, 48, 64)) / 255)
        taken = True
    except ValueError:
        taken = False
    assert not taken, "preprocess takes frames of floats; begin with encoders.base.check_frames"
    frames, state = _frames(encoder, _clip(24, 48, 64)), torch.get_rng_state()
    before, view = frames.clone(), encoder.preprocess(frames)
    assert torch.equal(state, torch.get_rng_state()), "preprocess draws from torch's own generator"
    assert torch.equal(frames, before), "preprocess changes the frames"
    assert torch.equal(view, encoder.preprocess(frames)), "a seed gives different views"
    view.zero_()
    assert torch.equal(frames, before), "a view shares memory with the frames"
    for num_frames, height, width in ((1, 1, 1), (5, 16, 200), (30, 180, 100)):
        other = encoder.preprocess(_frames(encoder, _clip(num_frames, height, width)))
        assert (other.shape, other.dtype) == (view.shape, view.dtype), (
            f"a view of {num_frames} frames of {height} x {width} is {tuple(other.shape)} "
            f"{other.dtype}, another is {tuple(view.shape)} {view.dtype}"
        )


def _check_spec(encoder: Encoder, views: Tensor, tokens: Tensor) -> None:
    spec = encoder.spec
    assert EncoderSpec.from_dict(json.loads(json.dumps(spec.to_dict()))) == spec, (
        "the spec does not survive JSON"
    )
    assert dimension_of(spec.name) == spec.dimension, (
        f"the name {spec.name} does not begin with the dimension {spec.dimension}"
    )
    twin = type(encoder)(**encoder.plain_options()).eval()  # as from the config of a model
    assert twin.spec == spec, f"{type(encoder).__name__}(**options()) has another spec"
    assert twin.fingerprint() == encoder.fingerprint(), "the fingerprint is not always the same"


def _check_tokens(encoder: Encoder, views: Tensor, tokens: Tensor, *, tolerance: float) -> None:
    assert not any(module.training for module in encoder.modules()), "eval() leaves it in training"
    joined, spec = encoder.join(tokens, _PROMPTS), encoder.spec
    assert joined.shape == (2, spec.num_tokens, spec.dim), (
        f"tokens are {tuple(joined.shape)}, the spec says (b, {spec.num_tokens}, {spec.dim})"
    )
    assert torch.isfinite(joined).all() and torch.isfinite(tokens).all(), "tokens are not finite"
    _assert_near(encoder.encode(views), tokens, tolerance, "a batch of two and two of one differ")
    again = torch.cat([encoder.encode(view[None]) for view in views])
    assert torch.equal(again, tokens), "the same view does not always give the same tokens"
    out = encoder(views[:1], _PROMPTS[:1])
    assert out.dtype == torch.float32, f"forward gives {out.dtype}, not float32"
    assert torch.equal(out, encoder.join(tokens[:1], _PROMPTS[:1]).float()), (
        "forward is not join(encode(view), text)"
    )
    assert encoder(views).shape == joined.shape, "without a prompt the shape is another"


def _check_copies(encoder: Encoder, views: Tensor, tokens: Tensor) -> None:
    makers: dict[str, Callable[[Encoder], Any]] = {
        "copy.deepcopy": copy.deepcopy,
        "pickle": lambda one: pickle.loads(pickle.dumps(one)),
    }
    for name, copied in makers.items():
        twin = copied(encoder)
        assert twin.fingerprint() == encoder.fingerprint(), f"{name} changes the fingerprint"
        assert torch.equal(twin.encode(views[:1]), tokens[:1]), f"{name} changes the tokens"


def _check_autocast(encoder: Encoder, views: Tensor, tokens: Tensor) -> None:
    with torch.autocast("cpu", torch.bfloat16):
        out = encoder(views[:1], _PROMPTS[:1])
    assert out.dtype == torch.float32, f"under autocast forward gives {out.dtype}, not float32"
    expected = encoder.join(tokens[:1], _PROMPTS[:1])
    # bfloat16 has 8 bits; what is made of its activations is off by some percent
    _assert_near(out, expected, 0.1, "tokens under bfloat16 autocast differ", mean=True)
    assert torch.equal(encoder.encode(views[:1]), tokens[:1]), "autocast leaves a trace"


def _check_compile(encoder: Encoder, views: Tensor, tokens: Tensor, *, tolerance: float) -> None:
    # Traced as for any back end, but run as it is: inductor would take a minute per encoder. Shapes
    # are those of this clip: with symbols for them, Video-Swin's windows take minutes to simplify.
    compiled = torch.compile(encoder, backend="eager", dynamic=False)
    try:
        out = compiled(views[:1], _PROMPTS[:1])
    finally:
        torch.compiler.reset()
    expected = encoder.join(tokens[:1], _PROMPTS[:1])
    _assert_near(out, expected, tolerance, "tokens under torch.compile differ")


def _check_training(encoder: Encoder, views: Tensor, tokens: Tensor) -> None:
    twin = copy.deepcopy(encoder).train()
    twin.requires_grad_(False)
    out = twin(views[:1], _PROMPTS[:1])
    assert not out.requires_grad, "it is frozen, and its tokens still require a gradient"
    assert torch.equal(out, encoder.join(tokens[:1], _PROMPTS[:1])), (
        "in training mode a frozen encoder gives other tokens"
    )
    if not any(True for _ in twin.parameters()):
        return
    twin.requires_grad_(True)
    with torch.enable_grad():
        twin(views, _PROMPTS).square().mean().backward()
    trained = {name: value for name, value in twin.named_parameters() if value.requires_grad}
    idle = [name for name, value in trained.items() if value.grad is None]
    assert not idle, f"no gradient reaches {', '.join(idle[:3])} ({len(idle)} in all)"
    gradients = torch.cat([value.grad.flatten() for value in trained.values()])  # type: ignore
    assert torch.isfinite(gradients).all() and gradients.any(), "gradients are zero or not finite"
    twin.requires_grad_(False)
    with torch.no_grad():
        assert torch.equal(twin.eval().encode(views[:1]), tokens[:1]), (
            "training mode and a backward pass alone change the tokens"
        )


def _assert_near(
    found: Tensor, expected: Tensor, tolerance: float, message: str, *, mean: bool = False
) -> None:
    difference = (found - expected).abs()
    error = (difference.mean() if mean else difference.max()) / expected.abs().mean().clamp(1e-12)
    assert error <= tolerance, f"{message} by {error:.2g} of their mean, more than {tolerance:g}"

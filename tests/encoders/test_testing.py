"""`encoders.testing.check_encoder`: every registered encoder passes it, and broken ones don't."""

import warnings

import numpy as np
import pytest
import torch
from torch import nn

from encoders import Encoder, EncoderSpec, create_encoder
from encoders.base import check_frames
from encoders.registry import ENCODERS
from encoders.testing import check_encoder

from .elsewhere import wanted
from .test_contract import ALWAYS, CLIPS, INSTALLED

# Fewer frames than the contract test takes, as a check encodes a clip a dozen times.
SMALL = {
    "technical_lite": {"num_frames": 2},
    "technical_timm": {"num_frames": 2},
    "semantic_lite": {"num_frames": 2},
    "semantic_objects": {"num_frames": 2},
    "semantic_blip": {"num_frames": 2},
    "semantic_clip": {"num_frames": 2},
    "motion_slowfast": {"num_frames": 8},
    "motion_i3d": {"num_frames": 8, "size": 32},
}


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.parametrize("name", INSTALLED)
def test_every_encoder_keeps_its_promises(name, make_encoder):
    make_encoder(name, **ALWAYS.get(name, {}))  # skips the test where there are no weights
    check_encoder(create_encoder(name, **{**ALWAYS.get(name, {}), **SMALL.get(name, {})}))


@pytest.mark.parametrize("name", INSTALLED)
def test_gradients_by_the_view_are_finite(name, make_encoder):
    """As of who steers a generator by them; also of a clip that is black throughout."""
    if name in ("semantic_objects", "technical_pyiqa"):
        return  # OpenCV's and pyiqa's own code promises none
    make_encoder(name, **ALWAYS.get(name, {}))  # skips the test where there are no weights
    encoder = create_encoder(name, **{**ALWAYS.get(name, {}), **SMALL.get(name, {})})
    clips = (CLIPS["scene"], CLIPS["black"])
    views = torch.stack([encoder.preprocess(wanted(encoder, clip)) for clip in clips]).float()
    tokens = encoder(views.requires_grad_(), ["a dog", "a cat"])
    (gradient,) = torch.autograd.grad(tokens.square().mean(), views)
    assert torch.isfinite(gradient).all() and gradient[0].any()


class Sound(Encoder):
    """A small encoder that keeps every promise; `broken` names the one that it breaks."""

    def __init__(self, *, broken: str = "", dim: int = 6) -> None:
        super().__init__()
        self.broken, self.calls = broken, 0
        self.spec = EncoderSpec(
            name="sound" if broken == "name" else "motion_sound",
            dimension="motion",
            num_tokens=4,
            dim=dim + (broken == "spec"),
            stream="fast",
            size=8,
            mean=(0.0,),
            std=(1.0,),
            time_steps=4,
        )
        generator = torch.Generator().manual_seed(0)
        self.weight = nn.Parameter(torch.randn(3, dim, generator=generator))
        self.unused = nn.Parameter(torch.zeros(1)) if broken == "idle" else None
        self.drop = nn.Dropout(0.5) if broken == "training" else nn.Identity()
        self.requires_grad_(False)
        self.eval()

    def options(self):
        return {"broken": self.broken, "dim": 6}

    def frame_indices(self, num_frames, fps):
        indices = np.linspace(0, num_frames - 1, 4).astype(np.int64)
        return indices if self.broken == "frames" else np.unique(indices)

    def preprocess(self, frames, *, seed=0):
        if self.broken != "type":
            check_frames(frames)
        if self.broken == "shape":
            return frames.float().mean((2, 3)) / 255
        if self.broken == "noise":
            return torch.rand(4, 3)
        if self.broken == "in place":
            frames.zero_()
        if self.broken == "shared":
            return frames[torch.arange(4).clamp_max(len(frames) - 1)] if len(frames) < 4 else frames
        if self.broken == "seed":
            return torch.from_numpy(np.random.rand(4, 3))
        rows = torch.arange(4).clamp_max(len(frames) - 1)
        return frames.float().mean((2, 3))[rows] / 255

    def encode(self, view):
        self.calls += 1
        if self.broken == "dtype":
            view = view.double() @ self.weight.double()
            return view
        if self.broken == "batch":
            view = view - view.mean(0)
        if self.broken == "memory":
            view = view + self.calls
        if self.broken == "nan":
            view = view.log() * float("nan")
        if self.broken == "frozen":
            view = view + self.weight.detach().sum().requires_grad_(True)
        if self.broken == "detached":
            return self.drop(view @ self.weight.detach() + 0 * self.weight.sum())
        return self.drop(view @ self.weight)

    def forward(self, view, text=None):
        out = super().forward(view, text)
        if self.broken == "forward":
            return out + 1
        if self.broken == "autocast":
            return out.bfloat16() if torch.is_autocast_enabled("cpu") else out
        return out.double() if self.broken == "dtype" else out

    def __deepcopy__(self, memo):
        twin = Sound(broken=self.broken)
        if self.broken == "copy":
            twin.weight.data += 1
        return twin


def test_a_sound_encoder_passes_and_is_left_as_it_was():
    encoder = Sound()
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    check_encoder(encoder)
    assert not encoder.training and not encoder.weight.requires_grad
    assert all(torch.equal(value, before[name]) for name, value in encoder.state_dict().items())


def test_an_encoder_may_come_as_its_constructor_makes_it():
    """As in the module's docstring: a module of PyTorch is made in training mode."""
    check_encoder(Sound().train())
    encoder = Sound(broken="training")
    with pytest.raises(AssertionError, match="in training mode a frozen encoder gives other"):
        check_encoder(encoder.train())
    assert encoder.training and encoder.drop.training  # left as it was, even so


@pytest.mark.parametrize(
    "broken, message",
    [
        ("name", "an encoder's name begins with its dimension"),
        ("spec", r"tokens are \(2, 4, 6\), the spec says \(b, 4, 7\)"),
        ("frames", "do not ascend"),
        ("type", "preprocess takes frames of floats; begin with encoders.base.check_frames"),
        ("shape", "a view of 1 frames of 1 x 1 is"),
        ("noise", "preprocess draws from torch's own generator"),
        ("seed", "a seed gives different views"),
        ("shared", "a view shares memory with the frames"),
        ("in place", "preprocess changes the frames"),
        ("batch", "a batch of two and two of one differ"),
        ("memory", "a batch of two and two of one differ"),
        ("nan", "tokens are not finite"),
        ("forward", r"forward is not join\(encode\(view\), text\)"),
        ("dtype", "forward gives torch.float64, not float32"),
        ("autocast", "under autocast forward gives torch.bfloat16, not float32"),
        ("copy", "copy.deepcopy changes the tokens"),
        ("frozen", "it is frozen, and its tokens still require a gradient"),
        ("training", "in training mode a frozen encoder gives other tokens"),
        ("idle", r"no gradient reaches unused \(1 in all\)"),
        ("detached", "gradients are zero or not finite"),
    ],
)
def test_a_broken_promise_is_named(broken, message):
    with warnings.catch_warnings(), pytest.raises((AssertionError, ValueError), match=message):
        warnings.simplefilter("ignore")
        check_encoder(Sound(broken=broken))


def test_the_table_of_this_file_names_encoders_that_exist():
    assert set(SMALL) <= set(ENCODERS)


def test_training_one_lite_encoder_leaves_the_other_alone(make_encoder):
    make_encoder("technical_lite")  # skips the test where there are no weights
    trained, semantic = create_encoder("technical_lite"), create_encoder("semantic_lite")
    assert trained.backbone is semantic.backbone
    trained.requires_grad_(True)
    assert any(value.requires_grad for value in trained.parameters())
    assert not any(value.requires_grad for value in semantic.parameters())

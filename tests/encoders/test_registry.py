import subprocess
import sys
from dataclasses import replace
from importlib import import_module
from pathlib import Path

import pytest

import encoders
from encoders import Encoder, EncoderSpec, create_encoder, list_encoders
from encoders.registry import ENCODERS

SPEC = EncoderSpec(
    name="any", dimension="motion", num_tokens=4, dim=8, stream="fast", size=32,
    mean=(0.0,), std=(1.0,), time_steps=4,
)


def test_names_are_listed_in_order():
    assert list_encoders() == ["motion_flow", "semantic_lite", "technical_lite"]


@pytest.mark.parametrize("name", list_encoders())
def test_every_entry_names_an_encoder_class(name):
    module, _, attribute = ENCODERS[name].partition(":")
    assert issubclass(getattr(import_module(f"encoders.{module}"), attribute), Encoder)


def test_modules_are_imported_when_an_encoder_is_made_not_before():
    code = (
        "import sys, encoders; encoders.list_encoders()\n"
        "assert 'encoders.motion_flow' not in sys.modules\n"
        "encoders.create_encoder('motion_flow')\n"
        "assert 'encoders.motion_flow' in sys.modules\n"
        "assert 'encoders.technical_lite' not in sys.modules\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True,
        cwd=Path(encoders.__file__).parents[1],
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("wrong, message", [
    ("motionflow", "no encoder named 'motionflow'; did you mean motion_flow?"),
    ("technical", "no encoder named 'technical'; did you mean technical_lite or semantic_lite?"),
    ("xyz", "no encoder named 'xyz'; choose motion_flow, semantic_lite or technical_lite"),
    ("", "no encoder named ''; choose motion_flow, semantic_lite or technical_lite"),
])
def test_a_wrong_name_is_answered_with_the_nearest(wrong, message):
    with pytest.raises(ValueError) as caught:
        create_encoder(wrong)
    assert str(caught.value) == message


def test_a_mistyped_option_is_refused():
    with pytest.raises(TypeError, match="num_frame"):
        create_encoder("motion_flow", num_frame=24)


def test_options_reach_the_constructor():
    encoder = create_encoder("motion_flow", num_tokens=8, num_frames=24, size=96)
    assert (encoder.spec.num_tokens, encoder.num_frames, encoder.spec.size) == (8, 24, 96)
    assert not encoder.training


@pytest.mark.parametrize("options, message", [
    ({"num_frames": 50}, "num_frames must be a positive multiple of num_tokens (16), got 50"),
    ({"num_frames": 0}, "num_frames must be a positive multiple of num_tokens (16), got 0"),
    ({"num_tokens": 0}, "num_tokens must be at least 1, got 0"),
    ({"size": 0}, "size must be at least 1, got 0"),
])
def test_motion_flow_refuses_frames_that_tokens_cannot_share_evenly(options, message):
    with pytest.raises(ValueError) as caught:
        create_encoder("motion_flow", **options)
    assert str(caught.value) == message


@pytest.mark.parametrize("change, message", [
    ({"dimension": "audio"},
     "dimension must be one of ('technical', 'motion', 'semantic'), got 'audio'"),
    ({"stream": "medium"}, "stream must be one of ('slow', 'fast'), got 'medium'"),
    ({"num_tokens": 0, "time_steps": 0}, "num_tokens must be at least 1, got 0"),
    ({"dim": 0}, "dim must be at least 1, got 0"),
    ({"size": -1}, "size must be at least 1, got -1"),
    ({"time_steps": 5}, "time_steps must lie in 0..num_tokens (4), got 5"),
    ({"time_steps": -1}, "time_steps must lie in 0..num_tokens (4), got -1"),
    ({"std": (1.0, 0.0, 1.0)}, "std must be positive, got (1.0, 0.0, 1.0)"),
])
def test_a_spec_is_checked_when_it_is_made(change, message):
    with pytest.raises(ValueError) as caught:
        replace(SPEC, **change)
    assert str(caught.value) == message


class Doubling(Encoder):
    """The smallest encoder: what the base class adds by itself."""

    spec = SPEC
    factor = 2

    def encode(self, view):
        return view.double() * self.factor

    def options(self):
        return {"factor": self.factor}


def test_the_base_class_joins_nothing_and_gives_float32():
    import torch

    view = torch.rand(2, 4, 8)
    out = Doubling()(view, ["a prompt", "another"])
    assert out.dtype == torch.float32
    assert torch.equal(out, view * 2)


@pytest.mark.parametrize("change", [
    {"version": 2}, {"weights_id": "others"}, {"factor": 3}, {"spec": replace(SPEC, dim=9)},
])
def test_a_fingerprint_changes_with_everything_the_tokens_depend_on(change):
    encoder = Doubling()
    before = encoder.fingerprint()
    assert before == Doubling().fingerprint()
    assert len(before) == 16 and int(before, 16) >= 0
    for name, value in change.items():
        setattr(encoder, name, value)
    assert encoder.fingerprint() != before

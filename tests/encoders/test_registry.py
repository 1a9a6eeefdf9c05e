import json
from dataclasses import replace
from importlib import import_module
from importlib.metadata import EntryPoint
from pathlib import Path

import numpy as np
import pytest

from encoders import Encoder, EncoderSpec, create_encoder, list_encoders, register_encoder, registry
from encoders.registry import ENCODERS, EncoderError, resolve_name

SPEC = EncoderSpec(
    name="any",
    dimension="motion",
    num_tokens=4,
    dim=8,
    stream="fast",
    size=32,
    mean=(0.0,),
    std=(1.0,),
    time_steps=4,
)


@pytest.fixture
def table(monkeypatch):
    """The `lite` encoders alone, whatever else there is by now; returns the registered ones."""
    lite = {name: ENCODERS[name] for name in ("technical_lite", "motion_flow", "semantic_lite")}
    monkeypatch.setattr(registry, "ENCODERS", lite)
    monkeypatch.setattr(registry, "entry_points", entry_points())
    monkeypatch.setattr(registry, "_registered", {})
    return registry._registered


def entry_points(*values, name="motion_other"):
    """What `importlib.metadata.entry_points` would find if these were installed."""
    found = [EntryPoint(name, value, registry.ENTRY_POINTS) for value in values]

    def select(**wanted):
        return [p for p in found if all(getattr(p, key) == wanted[key] for key in wanted)]

    return select


def test_names_are_listed_in_order(table):
    assert list_encoders() == ["motion_flow", "semantic_lite", "technical_lite"]


@pytest.mark.parametrize("name", list_encoders())
def test_every_entry_names_an_encoder_class(name):
    module, _, attribute = ENCODERS[name].partition(":")
    assert issubclass(getattr(import_module(f"encoders.{module}"), attribute), Encoder)


@pytest.mark.parametrize(
    "wrong, message",
    [
        ("motionflow", "no encoder named 'motionflow'; did you mean motion_flow?"),
        (
            "technical",
            "no encoder named 'technical'; did you mean technical_lite or semantic_lite?",
        ),
        ("xyz", "no encoder named 'xyz'; choose motion_flow, semantic_lite or technical_lite"),
        ("", "no encoder named ''; choose motion_flow, semantic_lite or technical_lite"),
        ("lite", "'lite' can be technical_lite or semantic_lite; give the full name"),
    ],
)
def test_a_wrong_name_is_answered_with_the_nearest(table, wrong, message):
    with pytest.raises(EncoderError) as caught:
        create_encoder(wrong)
    assert str(caught.value) == message


def test_a_mistyped_option_is_refused():
    with pytest.raises(TypeError, match="num_frame"):
        create_encoder("motion_flow", num_frame=24)


def test_options_reach_the_constructor():
    encoder = create_encoder("motion_flow", num_tokens=8, num_frames=24, size=96)
    assert (encoder.spec.num_tokens, encoder.num_frames, encoder.spec.size) == (8, 24, 96)
    assert not encoder.training


@pytest.mark.parametrize(
    "options, message",
    [
        ({"num_frames": 50}, "num_frames must be a positive multiple of num_tokens (16), got 50"),
        ({"num_frames": 0}, "num_frames must be a positive multiple of num_tokens (16), got 0"),
        ({"num_tokens": 0}, "num_tokens must be at least 1, got 0"),
        ({"size": 0}, "size must be at least 1, got 0"),
    ],
)
def test_motion_flow_refuses_frames_that_tokens_cannot_share_evenly(options, message):
    with pytest.raises(ValueError) as caught:
        create_encoder("motion_flow", **options)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    "change, message",
    [
        (
            {"dimension": "audio"},
            "dimension must be one of ('technical', 'motion', 'semantic'), got 'audio'",
        ),
        ({"stream": "medium"}, "stream must be one of ('slow', 'fast'), got 'medium'"),
        ({"num_tokens": 0, "time_steps": 0}, "num_tokens must be at least 1, got 0"),
        ({"dim": 0}, "dim must be at least 1, got 0"),
        ({"size": -1}, "size must be at least 1, got -1"),
        ({"time_steps": 5}, "time_steps must lie in 0..num_tokens (4), got 5"),
        ({"time_steps": -1}, "time_steps must lie in 0..num_tokens (4), got -1"),
        ({"std": (1.0, 0.0, 1.0)}, "std must be positive, got (1.0, 0.0, 1.0)"),
    ],
)
def test_a_spec_is_checked_when_it_is_made(change, message):
    with pytest.raises(ValueError) as caught:
        replace(SPEC, **change)
    assert str(caught.value) == message


def test_a_spec_goes_through_json_and_back():
    spec = replace(SPEC, mean=(1.0, 2.0, 3.0), std=(4.0, 5.0, 6.0))
    assert json.loads(json.dumps(spec.to_dict())) == spec.to_dict()
    assert EncoderSpec.from_dict(json.loads(json.dumps(spec.to_dict()))) == spec
    with pytest.raises(TypeError, match="time_steps"):
        EncoderSpec.from_dict({k: v for k, v in spec.to_dict().items() if k != "time_steps"})
    with pytest.raises(ValueError, match="dim must be at least 1, got 0"):
        EncoderSpec.from_dict({**spec.to_dict(), "dim": 0})


# ---- names ----


@pytest.mark.parametrize(
    "name, dimension, full",
    [
        ("motion_flow", None, "motion_flow"),
        ("flow", None, "motion_flow"),
        ("flow", "motion", "motion_flow"),
        ("motion_flow", "motion", "motion_flow"),
        ("lite", "technical", "technical_lite"),
        ("lite", "semantic", "semantic_lite"),
    ],
)
def test_the_dimension_may_be_left_out_of_a_name(table, name, dimension, full):
    assert resolve_name(name, dimension=dimension) == full


@pytest.mark.parametrize(
    "name, dimension, message",
    [
        ("technical_lite", "motion", "technical_lite is an encoder of technical, not of motion"),
        ("motionflo", "motion", "no encoder named 'motionflo'; did you mean motion_flow?"),
        ("lite", "motion", "no encoder named 'lite'; choose motion_flow"),
        ("zzz", "motion", "no encoder named 'zzz'; choose motion_flow"),
        ("flow", "sound", "no dimension 'sound'; choose technical, motion or semantic"),
    ],
)
def test_a_name_must_be_of_its_dimension(table, name, dimension, message):
    with pytest.raises(EncoderError) as caught:
        resolve_name(name, dimension=dimension)
    assert str(caught.value) == message


# ---- encoders of others ----


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


def test_tokens_are_what_the_spec_says():
    import torch

    message = r"^encoder any gave tokens of shape \(8,\), its spec says \(4, 8\)$"
    with pytest.raises(ValueError, match=message):
        Doubling()(torch.rand(4, 8))  # a view without the axis of the batch


@pytest.mark.parametrize("kind", [tuple, np.array, iter])
def test_prompts_may_come_in_any_order_of_texts(kind):
    import torch

    class Counting(Doubling):
        def join(self, tokens, text=None):
            return tokens + torch.tensor([float(len(prompt)) for prompt in text])[:, None, None]

    out = Counting()(torch.zeros(2, 4, 8), kind(["a", "a dog"]))
    assert out[:, 0, 0].tolist() == [1, 5]


@pytest.mark.parametrize(
    "change",
    [
        {"version": 2},
        {"weights_id": "others"},
        {"factor": 3},
        {"spec": replace(SPEC, dim=9)},
    ],
)
def test_a_fingerprint_changes_with_everything_the_tokens_depend_on(change):
    encoder = Doubling()
    before = encoder.fingerprint()
    assert before == Doubling().fingerprint()
    assert len(before) == 16 and int(before, 16) >= 0
    for name, value in change.items():
        setattr(encoder, name, value)
    assert encoder.fingerprint() != before


class Other(Doubling):
    spec = replace(SPEC, name="motion_other")


class Chosen(Other):
    def __init__(self, *, value):
        super().__init__()
        self.value = value

    def options(self):
        return {"value": self.value}


@pytest.mark.parametrize(
    "value, plain",
    [(Path("a"), "a"), ((1, Path("b")), [1, "b"]), (np.float32(0.5), 0.5), (np.int64(3), 3)],
)
def test_options_are_kept_as_json_gives_them_back(table, value, plain):
    register_encoder("motion_other", Chosen)
    encoder = create_encoder("motion_other", value=value)
    assert repr(encoder.plain_options()) == repr({"value": plain})
    assert create_encoder("motion_other", value=plain).fingerprint() == encoder.fingerprint()


def test_an_option_that_cannot_be_kept_is_named(table):
    import torch

    register_encoder("motion_other", Chosen)
    with pytest.raises(EncoderError) as caught:
        create_encoder("motion_other", value=torch.float16)
    assert str(caught.value) == (
        "motion_other: the option value of options() can't be kept as JSON: torch.float16 is a "
        "dtype"
    )


def test_an_encoder_is_registered_and_replaced(table):
    register_encoder("motion_other", Doubling)
    register_encoder("motion_other", Other)
    assert "motion_other" in list_encoders()
    assert type(create_encoder("motion_other")) is type(create_encoder("other")) is Other


@pytest.mark.parametrize(
    "name, message",
    [
        ("motion_flow", "motion_flow is an encoder of this package; choose another name"),
        ("other", "an encoder's name begins with its dimension, as technical_mine, got 'other'"),
        (
            "motion_o-o",
            "an encoder's name begins with its dimension, as technical_mine, got 'motion_o-o'",
        ),
    ],
)
def test_a_name_has_to_be_free_and_to_tell_the_dimension(table, name, message):
    with pytest.raises(EncoderError) as caught:
        register_encoder(name, Other)
    assert str(caught.value) == message
    assert not table


@pytest.mark.parametrize(
    "make, message",
    [
        (
            Doubling,
            "Doubling is registered as motion_other, but its spec has name 'any' and "
            "dimension 'motion'",
        ),
        (dict, "motion_other makes a dict, which is no Encoder"),
        (Encoder, "motion_other makes a Encoder, which has no EncoderSpec"),
    ],
)
def test_what_is_registered_must_be_what_its_name_says(table, make, message):
    register_encoder("motion_other", make)
    with pytest.raises(EncoderError) as caught:
        create_encoder("motion_other")
    assert str(caught.value) == message


@pytest.mark.parametrize("make", [3, Other()])
def test_what_is_registered_makes_encoders(table, make):
    with pytest.raises(EncoderError, match="^motion_other needs a class, or a function that makes"):
        register_encoder("motion_other", make)
    assert not table


def test_an_installed_package_brings_an_encoder(table, monkeypatch):
    monkeypatch.setattr(registry, "entry_points", entry_points(f"{__name__}:Other"))
    assert list_encoders()[0:2] == ["motion_flow", "motion_other"]
    assert isinstance(create_encoder("other"), Other)


@pytest.mark.parametrize(
    "values, message",
    [
        (
            ["gone.module:Class"],
            "motion_other can't be imported from gone.module:Class "
            "(ModuleNotFoundError: No module named 'gone')",
        ),
        (
            [f"{__name__}:Gone"],
            f"motion_other can't be imported from {__name__}:Gone "
            f"(AttributeError: module '{__name__}' has no attribute 'Gone')",
        ),
        (["b:C", "a:C"], "motion_other comes with a:C and with b:C; uninstall one"),
    ],
)
def test_a_package_that_brings_a_broken_encoder_is_named(table, monkeypatch, values, message):
    monkeypatch.setattr(registry, "entry_points", entry_points(*values))
    assert "motion_other" in list_encoders()
    with pytest.raises(EncoderError) as caught:
        create_encoder("motion_other")
    assert str(caught.value) == message

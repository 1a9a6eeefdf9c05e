"""Encoders by name: a literal table, imported on creation, and what other packages add to it.

An encoder of another package needs no change here. Its package names it as an entry point, which
every process finds, workers and the command line included:

    [options.entry_points]
    aigveval.encoders =
        motion_mine = my_package.motion:MotionMine

or a script calls `register_encoder("motion_mine", MotionMine)` before it makes one.
"""

import ast
import difflib
from collections.abc import Callable, Iterable
from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, get_args

from .base import Dimension, Encoder, EncoderSpec

ENCODERS = {
    "technical_lite": "technical_lite:TechnicalLite",
    "technical_fastvqa": "technical_fastvqa:TechnicalFastVQA",
    "technical_timm": "technical_timm:TechnicalTimm",
    "technical_pyiqa": "technical_pyiqa:TechnicalPyiqa",
    "motion_flow": "motion_flow:MotionFlow",
    "motion_slowfast": "motion_slowfast:MotionSlowFast",
    "motion_i3d": "motion_i3d:MotionI3D",
    "semantic_lite": "semantic_lite:SemanticLite",
    "semantic_objects": "semantic_objects:SemanticObjects",
    "semantic_clip": "semantic_clip:SemanticClip",
    "semantic_blip": "semantic_blip:SemanticBlip",
}
ENTRY_POINTS = "aigveval.encoders"
DIMENSIONS: tuple[str, ...] = get_args(Dimension)
_registered: dict[str, Callable[..., Encoder]] = {}


class EncoderError(ValueError):
    """An encoder can't be found or isn't what its name says; the message is one line."""


def list_encoders() -> list[str]:
    """The names that `create_encoder` takes, sorted; those of other packages included."""
    others = (point.name for point in entry_points(group=ENTRY_POINTS))
    return sorted({*ENCODERS, *_registered, *others})


def describe_encoders() -> dict[str, str]:
    """What each encoder is, in a line: of ours the first of its module, without importing it."""
    lines = {}
    for point in entry_points(group=ENTRY_POINTS):
        lines[point.name] = f"of another package: {point.value}"
    for name, make in _registered.items():
        lines[name] = f"registered by this process: {make!r}"
    for name, place in ENCODERS.items():
        source = Path(__file__).with_name(f"{place.partition(':')[0]}.py")
        doc = ast.get_docstring(ast.parse(source.read_text(encoding="utf-8"))) or ""
        lines[name] = " ".join(doc.partition("\n\n")[0].split())
    return dict(sorted(lines.items()))


def register_encoder(name: str, make: Callable[..., Encoder]) -> None:
    """Add an encoder for this process; see the module's docstring for a lasting way.

    Args:
        name: Its dimension, `_`, and a word, such as `motion_mine`; its spec has this name too.
        make: The class, or whatever makes an encoder from keyword options. Registered again
            under the same name, it replaces the earlier one, as in a notebook cell that runs twice.

    Raises:
        EncoderError: The name is not such a one, or taken by an encoder of this package; or `make`
            makes none.
    """
    if name in ENCODERS:
        raise EncoderError(f"{name} is an encoder of this package; choose another name")
    dimension_of(name)
    if not callable(make) or isinstance(make, Encoder):  # which is called with a view
        raise EncoderError(
            f"{name} needs a class, or a function that makes an encoder, got {make!r}"
        )
    _registered[name] = make


def dimension_of(name: str) -> Dimension:
    """The dimension that an encoder's full name begins with.

    Raises:
        EncoderError: It begins with none, or is no identifier.
    """
    for dimension in DIMENSIONS:
        if name.startswith(f"{dimension}_") and name.isidentifier():
            return dimension  # type: ignore[return-value]
    raise EncoderError(
        f"an encoder's name begins with its dimension, as {DIMENSIONS[0]}_mine, got {name!r}"
    )


def check_dimension(name: str) -> None:
    """Raise `EncoderError` where a name is not that of a dimension."""
    if name not in DIMENSIONS:
        raise EncoderError(f"no dimension {name!r}; choose {_either(DIMENSIONS)}")


def resolve_name(name: str, *, dimension: str | None = None) -> str:
    """The full name that a name stands for: `slowfast` for `motion_slowfast`.

    Args:
        name: Full, or without the dimension where that leaves no doubt.
        dimension: The dimension that it has to be of.

    Raises:
        EncoderError: It stands for none or several, or for one of another dimension.
    """
    if dimension is not None:
        check_dimension(dimension)
    known = list_encoders()
    if name in known:
        found = dimension_of(name)
        if dimension not in (None, found):
            raise EncoderError(f"{name} is an encoder of {found}, not of {dimension}")
        return name
    wanted = DIMENSIONS if dimension is None else (dimension,)
    matches = [full for prefix in wanted if (full := f"{prefix}_{name}") in known]
    if len(matches) == 1:
        return matches[0]
    if matches:
        raise EncoderError(f"{name!r} can be {_either(matches)}; give the full name")
    if dimension is not None:
        known = [full for full in known if full.startswith(f"{dimension}_")]
    near = difflib.get_close_matches(name, known, n=2, cutoff=0.4)
    hint = f"did you mean {' or '.join(near)}?" if near else f"choose {_either(known)}"
    raise EncoderError(f"no encoder named {name!r}; {hint}")


def create_encoder(name: str, **options: Any) -> Encoder:
    """Make an encoder, in eval mode.

    Args:
        name: One of `list_encoders()`, or what `resolve_name` takes for one.
        **options: Passed to the encoder's constructor, which lists them.

    Raises:
        EncoderError: There is no encoder of that name (the message offers the nearest ones), it
            can't be imported, it calls itself something else, or it has options that can't be
            kept.
        WeightsError: Its weights could not be had.
    """
    name = resolve_name(name)
    encoder = _maker(name)(**options)
    if not isinstance(encoder, Encoder):
        raise EncoderError(f"{name} makes a {type(encoder).__name__}, which is no Encoder")
    if not isinstance(getattr(encoder, "spec", None), EncoderSpec):
        raise EncoderError(f"{name} makes a {type(encoder).__name__}, which has no EncoderSpec")
    # A saved model finds its encoders again by these.
    found, expected = (encoder.spec.name, encoder.spec.dimension), (name, dimension_of(name))
    if found != expected:
        raise EncoderError(
            f"{type(encoder).__name__} is registered as {name}, but its spec has name {found[0]!r} "
            f"and dimension {found[1]!r}"
        )
    try:
        encoder.plain_options()
    except TypeError as error:
        raise EncoderError(str(error)) from None
    return encoder.eval()


def _maker(name: str) -> Callable[..., Encoder]:
    if name in ENCODERS:
        module, _, attribute = ENCODERS[name].partition(":")
        return getattr(import_module(f".{module}", __package__), attribute)
    if name in _registered:
        return _registered[name]
    points = entry_points(group=ENTRY_POINTS, name=name)
    if len(points) > 1:
        owners = sorted(str(point.dist.name) if point.dist else point.value for point in points)
        raise EncoderError(f"{name} comes with {' and with '.join(owners)}; uninstall one")
    point = next(iter(points))
    try:
        return point.load()
    except Exception as error:  # a package that is not ours may raise anything
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise EncoderError(f"{name} can't be imported from {point.value} ({reason})") from error


def _either(names: Iterable[str]) -> str:
    *others, last = names
    return f"{', '.join(others)} or {last}" if others else last

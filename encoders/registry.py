"""Encoders by name: a literal table, imported on creation."""

import difflib
from importlib import import_module
from typing import Any

from .base import Encoder

ENCODERS = {
    "technical_lite": "technical_lite:TechnicalLite",
    "motion_flow": "motion_flow:MotionFlow",
    "semantic_lite": "semantic_lite:SemanticLite",
}


def list_encoders() -> list[str]:
    """The names that `create_encoder` takes, sorted."""
    return sorted(ENCODERS)


def _listed() -> str:
    *others, last = list_encoders()
    return f"{', '.join(others)} or {last}" if others else last


def create_encoder(name: str, **options: Any) -> Encoder:
    """Make an encoder, in eval mode.

    Args:
        name: One of `list_encoders()`.
        **options: Passed to the encoder's constructor, which lists them.

    Raises:
        ValueError: There is no encoder of that name; the message offers the nearest ones.
        WeightsError: Its weights could not be had.
    """
    if name not in ENCODERS:
        near = difflib.get_close_matches(name, ENCODERS, n=2, cutoff=0.4)
        hint = f"did you mean {' or '.join(near)}?" if near else f"choose {_listed()}"
        raise ValueError(f"no encoder named {name!r}; {hint}")
    module, _, attribute = ENCODERS[name].partition(":")
    return getattr(import_module(f".{module}", __package__), attribute)(**options).eval()

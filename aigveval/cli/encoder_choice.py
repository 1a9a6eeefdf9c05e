"""Encoders as the command line names them: `[DIMENSION=]NAME[:OPTION=VALUE,...]`.

slowfast
motion=slowfast
motion=slowfast:pathways=both,weights=/data/SLOWFAST_8x8_R50.pyth
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import yaml

from encoders.base import Encoder
from encoders.registry import (
    EncoderError,
    check_dimension,
    create_encoder,
    dimension_of,
    resolve_name,
)

NONE = "none"  # motion=none: no encoder of motion


@dataclass(frozen=True, kw_only=True)
class EncoderChoice:
    """One encoder that was asked for; `name` is its full one, or None for no encoder at all."""

    dimension: str
    name: str | None
    options: dict[str, Any] = field(default_factory=dict)

    def create(self) -> Encoder:
        """Make it.

        Raises:
            EncoderError: It can't be made with these options; the message is one line.
            WeightsError: Its weights could not be had.
        """
        if self.name is None:
            raise EncoderError(f"{self.dimension}={NONE} names no encoder")
        try:
            return create_encoder(self.name, **self.options)
        except EncoderError:
            raise
        except (TypeError, ValueError) as error:  # of the constructor: an option
            raise EncoderError(f"{self.name}: {error}") from error


def parse_choice(text: str) -> EncoderChoice:
    """Read one choice, in the form that the module's docstring shows.

    Raises:
        EncoderError: There is no such encoder, or the text is not of this form.
    """
    head, _, tail = text.partition(":")
    dimension, equals, name = head.rpartition("=")
    if equals and name == NONE:
        check_dimension(dimension)
        return EncoderChoice(dimension=dimension, name=None)
    name = resolve_name(name, dimension=dimension if equals else None)
    options = {}
    for option in tail.split(",") if tail else ():
        key, equals, value = option.partition("=")
        if not equals or not key.isidentifier():
            raise EncoderError(f"{text!r}: expected OPTION=VALUE after the colon, got {option!r}")
        options[key] = _value(value)
    return EncoderChoice(dimension=dimension_of(name), name=name, options=options)


def _value(text: str) -> Any:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        return text


def apply_choices(entries: Sequence[Any], choices: Sequence[EncoderChoice]) -> list[Any]:
    """The encoders of a config after what the command line says about some dimensions.

    Args:
        entries: Names, or mappings with `name`, as in `FitConfig.encoders`.
        choices: They replace all entries of the dimensions that they name.

    Raises:
        EncoderError: An entry names no encoder.
    """
    named = {choice.dimension for choice in choices}
    names = [entry if isinstance(entry, str) else entry["name"] for entry in entries]
    kept = [
        entry
        for entry, name in zip(entries, names)
        if dimension_of(resolve_name(name)) not in named
    ]
    return kept + [{"name": one.name, "options": one.options} for one in choices if one.name]

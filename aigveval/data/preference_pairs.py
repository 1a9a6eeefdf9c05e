"""Preference pairs: two videos, and for each score which one people preferred.

A manifest of pairs is a table in any format that `readers` reads, with the columns

    video_a, video_b   paths, relative to the manifest's folder, or absolute
    prompt             text that both were generated from; empty where unknown
    technical, motion, semantic, overall
                       `A`, `B`, or `same` where neither was preferred; empty where not asked
    generator_a, generator_b
                       names of the models that made them, optional
    group              label of pairs that belong together, optional
    split              train, test, ... where one manifest holds several, optional
    weight             in the training loss, above 0; by default 1

A pair must have at least one preference. A preference on `semantic` needs a prompt.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from prompts.rubric import SCORES

from ..errors import one_line
from .manifest import locate, read_label, read_prompt, read_video, read_weight
from .readers import RowFault, parse_rows, read_rows

Preference = Literal["A", "B", "same"]

PAIR_VIDEOS = ("video_a", "video_b")

_MEANINGS: Mapping[str, Preference] = {"a": "A", "b": "B", "same": "same"}


@dataclass(frozen=True, kw_only=True, slots=True)
class PreferencePair:
    """Two videos of one prompt and what people preferred: a row, see the module.

    Attributes:
        preferences: In the order of ``prompts.rubric.SCORES``: the better video, ``same`` for a
            tie, None where nobody was asked.
        weight: Weight in the loss, above 0.

    Raises:
        ValueError: No preference is known, or one is none of the three words.
    """

    video_a: str
    video_b: str
    prompt: str | None
    preferences: tuple[Preference | None, ...]
    generator_a: str | None = None
    generator_b: str | None = None
    group: str | None = None
    split: str | None = None
    weight: float = 1.0

    def __post_init__(self) -> None:
        if len(self.preferences) != len(SCORES):
            raise ValueError(f"expected {len(SCORES)} preferences, got {len(self.preferences)}")
        if not set(self.preferences) <= {"A", "B", "same", None}:
            raise ValueError(f"a preference is A, B, same or None, got {self.preferences}")
        if not any(self.preferences):
            raise ValueError(f"none of {', '.join(SCORES)} is known")


def read_pairs(source: str | os.PathLike[str]) -> list[PreferencePair]:
    """Read a manifest of pairs; see the module.

    Raises:
        ManifestError: It can't be read, or a row is not as described; names the row.
    """
    return [pair for _, _, pair in parse_rows(source, parse_pair, required=PAIR_VIDEOS)]


def is_pairs(source: str | os.PathLike[str]) -> bool:
    """Whether a table is of pairs, by the columns of its first row.

    Raises:
        ManifestError: It can't be read.
    """
    for _, row in read_rows(source, required=(), on_fault=lambda fault: None):
        return PAIR_VIDEOS[0] in row and "video" not in row
    return False


def parse_pair(number: int, values: Mapping[str, Any], folder: Path) -> PreferencePair:
    """Check one row of a manifest of pairs.

    Raises:
        RowFault: A value is not as the module says; names the row.
    """
    video_a, video_b = (read_video(number, values, name) for name in PAIR_VIDEOS)
    prompt = read_prompt(number, values)
    preferences = tuple(_preference(number, name, values.get(name)) for name in SCORES)
    if not any(preferences):
        raise RowFault(number, f"row {number}: none of {', '.join(SCORES)} is known")
    if prompt is None and preferences[SCORES.index("semantic")]:
        raise RowFault(number, f"row {number}: a semantic preference needs a prompt")
    labels = {
        name: read_label(values, name) for name in ("generator_a", "generator_b", "group", "split")
    }
    return PreferencePair(
        video_a=os.fspath(locate(video_a, folder)),
        video_b=os.fspath(locate(video_b, folder)),
        prompt=prompt,
        preferences=preferences,
        weight=read_weight(number, values),
        **labels,
    )


def _preference(number: int, name: str, value: Any) -> Preference | None:
    if value is None or (isinstance(value, str) and not value.strip()):
        return None
    meaning = _MEANINGS.get(value.strip().lower()) if isinstance(value, str) else None
    if meaning is None:
        got = one_line(repr(value), limit=60)
        raise RowFault(number, f"row {number}: {name} must be A, B, same or empty, got {got}")
    return meaning

"""Preference pairs as rows that a model scores one by one, and what it should say of the two."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from ..data.preference_pairs import Preference, PreferencePair
from prompts.rubric import SCORES

from .rows import TrainingRow

UNKNOWN = (math.nan,) * len(SCORES)

_SIGNS: Mapping[Preference | None, float] = {"A": 1.0, "same": 0.0, "B": -1.0, None: math.nan}


def signs(pair: PreferencePair) -> tuple[float, ...]:
    """By the order of `SCORES`: 1 where the first was preferred, -1 the second, 0 neither, NaN."""
    return tuple(_SIGNS[preference] for preference in pair.preferences)


def sides(pair: PreferencePair) -> tuple[TrainingRow, TrainingRow]:
    """The two videos of a pair, as rows without scores."""
    both = ((pair.video_a, pair.generator_a), (pair.video_b, pair.generator_b))
    first, second = (
        TrainingRow(
            video=video, prompt=pair.prompt, scores=UNKNOWN, generator=generator,
            weight=pair.weight,
        )
        for video, generator in both
    )
    return first, second


def distinct_sides(pairs: Sequence[PreferencePair]) -> list[TrainingRow]:
    """The rows of many pairs, each clip with its prompt once, however many pairs it is in."""
    rows = {key(side): side for pair in pairs for side in sides(pair)}
    return list(rows.values())


def key(row: TrainingRow) -> tuple[str, str | None]:
    """What tells rows of `distinct_sides` apart."""
    return row.video, row.prompt

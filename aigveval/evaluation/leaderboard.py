"""Ranks generators by the mean score of their clips, and tells which differences could be chance.

Where generators share prompts, whole prompts are drawn for the bootstrap, so that generators are
compared on the same prompts. A difference of means is tested by its bootstrap standard error and
Student's t, as the shares of a bootstrap of few prompts would find everything significant; with one
clip per prompt and generator this is the paired t-test. Holm's correction allows for the number of
pairs. Generators that share a letter do not differ (compact letter display; Piepho 2004, insert and
absorb).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import combinations
from pathlib import PurePath
from typing import Any

import numpy as np

from ..errors import InputError
from .bootstrap import (
    Estimate, Floats, Measures, Rows, Sampling, bootstrap, estimate, number,
)
from .ratings import Entry
from .evaluate import FEW_UNITS
from ..reports.tables import Cell, Table
from ..assessment import SCORE_FIELDS

ALPHA = 0.05
_LETTERS = "abcdefghijklmnopqrstuvwxyz"


@dataclass(frozen=True, kw_only=True)
class Place:
    """One generator on the leaderboard.

    Args:
        rank: 1 is best.
        generator: its name.
        clips: how many were scored.
        failed: how many could not be scored; they are in no mean.
        ranks: interval of the rank over the bootstrap samples.
        groups: letters; generators that share one do not differ significantly.
        scores: mean by score.
    """

    rank: int
    generator: str
    clips: int
    failed: int
    ranks: Estimate
    groups: str
    scores: dict[str, Estimate]


@dataclass(frozen=True, kw_only=True)
class Leaderboard:
    """Generators, the best first.

    Args:
        by: the score that ranks.
        places: one per generator.
        p_values: generators, first better, and the corrected p-value of their difference.
        settings: what the figures depend on, as plain values.
        notes: lines for the reader.
        entries: the clips by generator.
    """

    by: str
    places: list[Place]
    p_values: list[tuple[str, str, float]]
    settings: dict[str, Any]
    notes: list[str]
    entries: dict[str, list[Entry]] = field(repr=False)

    def to_dict(self) -> dict[str, Any]:
        """As plain values for JSON, without the single clips."""
        plain = asdict(replace(self, entries={}))
        plain.pop("entries")
        return plain


def generators_of_folders(entries: Sequence[Entry]) -> list[Entry]:
    """Gives entries without a generator the name of the topmost folder that tells them apart.

    Raises:
        InputError: all are in one folder.
    """
    parts = [PurePath(entry.video.replace("\\", "/")).parts[:-1] for entry in entries]
    depth = 0
    while all(len(p) > depth for p in parts) and len({p[depth] for p in parts}) == 1:
        depth += 1
    named = [
        entry if entry.generator else replace(entry, generator=p[depth] if len(p) > depth else None)
        for entry, p in zip(entries, parts)
    ]
    if any(entry.generator is None for entry in named):
        lost = next(entry for entry in named if entry.generator is None)
        raise InputError(
            f"{lost.video}: of which generator? There is neither a column 'generator' nor a folder "
            "per generator"
        )
    return named


def rank(
    entries: Sequence[Entry], *, by: str = "overall", sampling: Sampling = Sampling(draws=2000),
    progress: Callable[[int, int], None] | None = None,
) -> Leaderboard:
    """Ranks generators.

    Args:
        entries: clips, each with its generator; those without scores count as failed.
        by: the score that ranks.
        sampling: of the bootstrap; without samples there are no intervals and no groups.
        progress: called with how many of how many samples are done.

    Raises:
        InputError: fewer than two generators, or no such score.
    """
    numbers, names = number([entry.generator for entry in entries])
    if len(names) < 2:
        raise InputError(f"a leaderboard needs two generators, got {', '.join(names) or 'none'}")
    scores = [n for n in SCORE_FIELDS if any(n in entry.scores for entry in entries)]
    if by not in scores:
        raise InputError(f"no clip has the score {by!r}, there are {', '.join(scores) or 'none'}")
    values = np.array([[entry.scores.get(n, np.nan) for n in scores] for entry in entries])
    for index, name in enumerate(names):
        if not np.isfinite(values[numbers == index, scores.index(by)]).any():
            raise InputError(f"no clip of {name} has the score {by!r}")
    units, unit = _units(entries, numbers)
    done = 0

    def measure(rows: Rows) -> Measures:
        found = _means(values[rows], numbers[rows], len(names))
        return {f"{g}/{s}": v for (g, s), v in np.ndenumerate(found) if math.isfinite(v)}

    def advance() -> None:
        nonlocal done
        done += 1
        if progress is not None:
            progress(done, sampling.draws)

    point = measure(np.arange(len(entries)))
    keys = [f"{g}/{s}" for g in range(len(names)) for s in range(len(scores))]
    drawn = bootstrap(measure, units, sampling, keys, progress=advance)
    column = scores.index(by)
    order = sorted(range(len(names)), key=lambda g: -point[f"{g}/{column}"])
    means = np.stack([drawn[f"{g}/{column}"] for g in order], axis=1)  # (draws, generators)
    rated = np.isfinite(values[:, column])
    counts = [len(np.unique(units[rated & (numbers == g)])) for g in order]
    corrected, letters = {}, [""] * len(order)
    if sampling.draws:
        corrected = _corrected([point[f"{g}/{column}"] for g in order], means, counts)
        letters = _letters(len(order), {pair for pair, p in corrected.items() if p < ALPHA})
    places = []
    for position, g in enumerate(order):
        mine = [entry for entry in entries if entry.generator == names[g]]
        places.append(Place(
            rank=position + 1, generator=names[g], clips=sum(by in e.scores for e in mine),
            failed=sum(by not in e.scores for e in mine), groups=letters[position],
            ranks=estimate(position + 1.0, _ranks(means, position), sampling),
            scores={
                name: estimate(point.get(f"{g}/{s}"), drawn[f"{g}/{s}"], sampling)
                for s, name in enumerate(scores)
            },
        ))
    return Leaderboard(
        by=by, places=places, notes=_notes(entries, names) + _few(min(counts), unit),
        p_values=[
            (places[i].generator, places[j].generator, p) for (i, j), p in corrected.items()
        ],
        settings={"draws": sampling.draws, "seed": sampling.seed, "level": sampling.level,
                  "resampled": unit, "alpha": ALPHA},
        entries={name: [e for e in entries if e.generator == name] for name in names},
    )


def _units(entries: Sequence[Entry], numbers: Rows) -> tuple[Rows, str]:
    """Prompts where they repeat, else clips."""
    labels = [index if e.prompt is None else e.prompt for index, e in enumerate(entries)]
    units, names = number(labels)
    return (units, "prompts") if len(names) < len(entries) else (np.arange(len(entries)), "clips")


def _means(values: Floats, groups: Rows, count: int) -> Floats:
    """(g, s) means of (n, s) values by group, NaN left out; NaN where nothing is left."""
    columns = []
    for column in values.T:
        known = np.isfinite(column)
        total = np.bincount(groups[known], weights=column[known], minlength=count)
        times = np.bincount(groups[known], minlength=count)
        columns.append(np.where(times > 0, total / np.maximum(times, 1), np.nan))
    return np.stack(columns, axis=1)


def _ranks(means: Floats, position: int) -> Floats:
    better = (means > means[:, [position]]).sum(axis=1) + 1.0
    return np.where(np.isfinite(means).all(axis=1), better, np.nan)


def _corrected(
    point: Sequence[float], drawn: Floats, counts: Sequence[int]
) -> dict[tuple[int, int], float]:
    """Holm's p-values of all pairs of generators.

    Args:
        point: their means.
        drawn: (draws, generators) their means on the samples.
        counts: how many units each has.
    """
    plain = {
        (i, j): _t_test(point[i] - point[j], drawn[:, i] - drawn[:, j], min(counts[i], counts[j]))
        for i, j in combinations(range(len(point)), 2)
    }
    corrected, highest = {}, 0.0
    for place, pair in enumerate(sorted(plain, key=lambda pair: plain[pair])):
        highest = max(highest, min(1.0, plain[pair] * (len(plain) - place)))
        corrected[pair] = highest
    return {pair: corrected[pair] for pair in plain}


def _t_test(difference: float, drawn: Floats, units: int) -> float:
    from scipy.stats import t

    drawn = drawn[np.isfinite(drawn)]
    if units < 2 or len(drawn) < 2:
        return 1.0
    # a bootstrap divides by n where the standard error has n - 1
    error = float(drawn.std()) * math.sqrt(units / (units - 1))
    if error == 0.0:
        return float(difference == 0.0)
    return float(2.0 * t.sf(abs(difference) / error, units - 1))


def _few(units: int, unit: str) -> list[str]:
    if units >= FEW_UNITS:
        return []
    return [f"a generator has only {units} {unit}: the intervals of the means are too narrow"]


def _letters(count: int, differ: set[tuple[int, int]]) -> list[str]:
    """Letters for `count` places, such that two share one exactly when they do not differ."""
    groups: list[set[int]] = [set(range(count))]
    for i, j in sorted(differ):
        split: list[set[int]] = []
        for group in groups:
            split += [group - {i}, group - {j}] if i in group and j in group else [group]
        groups = []
        for group in sorted(split, key=len, reverse=True):
            if not any(group <= other for other in groups):
                groups.append(group)
    groups.sort(key=lambda group: sorted(group))
    return [
        "".join(_letter(k) for k, group in enumerate(groups) if place in group)
        for place in range(count)
    ]


def _letter(index: int) -> str:
    times, rest = divmod(index, len(_LETTERS))
    return _LETTERS[rest] + ("" if not times else str(times + 1))


def _notes(entries: Sequence[Entry], names: Sequence[str]) -> list[str]:
    notes = []
    prompts: dict[str, set[str]] = {name: set() for name in names}
    for entry in entries:
        if entry.prompt is not None and entry.generator is not None:
            prompts[entry.generator].add(entry.prompt)
    if any(prompts.values()) and len({frozenset(found) for found in prompts.values()}) > 1:
        common = len(set.intersection(*prompts.values()))
        notes.append(
            f"generators have different prompts ({common} in common): a higher mean may be due to "
            "easier prompts"
        )
    failed = sum(not entry.scores for entry in entries)
    if failed:
        notes.append(f"{failed} of {len(entries)} clips could not be scored and are in no mean")
    return notes


def tables(board: Leaderboard) -> list[Table]:
    """The leaderboard as a table, the ranking score first."""
    scores = [board.by, *(name for name in board.places[0].scores if name != board.by)]
    rows: list[list[Cell]] = [
        [
            place.generator, _rank(place), place.groups, place.clips,
            *(place.scores[name] for name in scores),
        ]
        for place in board.places
    ]
    settings = board.settings
    note = f"Ranked by the mean of {board.by}."
    if settings["draws"]:
        note += (
            f" Brackets: {settings['level']:.0%} bootstrap intervals, {settings['draws']} samples "
            f"of {settings['resampled']}. Generators that share a letter do not differ "
            f"significantly in {board.by} (t-test on the bootstrap's standard error, Holm, alpha "
            f"{settings['alpha']:g})."
        )
    header = ["generator", "rank", "group", "clips", *scores]
    return [Table(title="Leaderboard", header=header, rows=rows, note=note)]


def _rank(place: Place) -> str:
    low, high = place.ranks.low, place.ranks.high
    if low is None or high is None:
        return str(place.rank)
    return f"{place.rank} [{math.floor(low)}, {math.ceil(high)}]"

"""Ranks generators by the mean score of their clips, and tests which differences could be chance.

Where generators share prompts, whole prompts are drawn for the bootstrap, so that generators are
compared on the same prompts. A difference of means is tested by its bootstrap standard error and
Student's t, as the shares of a bootstrap of few prompts would find everything significant; with one
clip per prompt and generator this is the paired t-test. Holm's correction allows for the number of
pairs. Generators that share a letter do not differ (compact letter display; Piepho 2004, insert and
absorb).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import combinations
from pathlib import PurePath
from typing import Any

import numpy as np

from ..assessment import SCORE_FIELDS
from ..errors import InputError
from ..metrics import Estimate, number
from .evaluate import FEW_UNITS
from .figures import Floats, Measures, Rows, Sampling, estimate, measured
from .ratings import RatedClip

ALPHA = 0.05
MOST_NAMED = 5  # generators in a note
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
        ratings: the clips by generator.
    """

    by: str
    places: list[Place]
    p_values: list[tuple[str, str, float]]
    settings: dict[str, Any]
    notes: list[str]
    ratings: dict[str, list[RatedClip]] = field(repr=False)

    def to_dict(self) -> dict[str, Any]:
        """As plain values for JSON, without the single clips."""
        plain = asdict(replace(self, ratings={}))
        plain.pop("ratings")
        return plain


def generators_of_folders(clips: Sequence[RatedClip]) -> list[RatedClip]:
    """Gives clips without a generator the name of the topmost folder in which they differ.

    Raises:
        InputError: all are in one folder.
    """
    parts = [PurePath(clip.video.replace("\\", "/")).parts[:-1] for clip in clips]
    depth = 0
    while all(len(p) > depth for p in parts) and len({p[depth] for p in parts}) == 1:
        depth += 1
    named = [
        clip if clip.generator else replace(clip, generator=p[depth] if len(p) > depth else None)
        for clip, p in zip(clips, parts)
    ]
    if any(clip.generator is None for clip in named):
        lost = next(clip for clip in named if clip.generator is None)
        raise InputError(
            f"{lost.video}: of which generator? There is neither a column 'generator' nor a folder "
            "per generator"
        )
    return named


def check_generators(names: Iterable[str | None]) -> None:
    """Refuses what is no leaderboard.

    Raises:
        InputError: there are fewer than two generators.
    """
    found = list(dict.fromkeys(name or "(unknown)" for name in names))
    if len(found) < 2:
        raise InputError(f"a leaderboard needs two generators, got {', '.join(found) or 'none'}")


def rank(
    clips: Sequence[RatedClip],
    *,
    by: str = "overall",
    sampling: Sampling = Sampling(draws=2000),
    progress: Callable[[int, int], None] | None = None,
) -> Leaderboard:
    """Ranks generators.

    Args:
        clips: each with its generator; those without scores count as failed.
        by: the score that ranks.
        sampling: of the bootstrap; without samples there are no intervals and no groups.
        progress: called with how many of how many samples are done.

    Raises:
        InputError: fewer than two generators, no such score, or results of several runs for a clip.
    """
    numbers, names = number([clip.generator for clip in clips])
    check_generators(names)
    scores = [n for n in SCORE_FIELDS if any(n in clip.scores for clip in clips)]
    if by not in scores:
        why = "; it needs prompts" if by == "semantic" else ""
        found = ", ".join(scores) or "none"
        raise InputError(f"no clip has the score {by!r}, there are {found}{why}")
    _check_one_run(clips)
    values = np.array([[clip.scores.get(n, np.nan) for n in scores] for clip in clips])
    for index, name in enumerate(names):
        if not np.isfinite(values[numbers == index, scores.index(by)]).any():
            raise InputError(f"no clip of {name} has the score {by!r}")
    units, unit = _units(clips, numbers)
    known = np.isfinite(values)
    members = (numbers[:, None] == np.arange(len(names))).astype(np.float64)  # (n, generators)
    done = 0

    def measure(times: Floats) -> Measures:
        """Means by generator and score, NaN left out."""
        found: Measures = {}
        for s in range(len(scores)):
            counts = times @ (members * known[:, [s]])
            given = np.nan_to_num(values[:, [s]])
            with np.errstate(invalid="ignore"):
                means = times @ (members * given) / counts
            # equal means are to be ties, however their sums were rounded
            unit = np.abs(given).max() or 1.0
            means = np.round(means / unit, 12) * unit
            found |= {f"{g}/{s}": column for g, column in enumerate(means.T)}
        return found

    def advance(samples: int) -> None:
        nonlocal done
        done += samples
        if progress is not None:
            progress(done, sampling.draws)

    point, drawn = measured(measure, units, sampling, progress=advance)
    column = scores.index(by)
    order = sorted(range(len(names)), key=lambda g: -point[f"{g}/{column}"])
    best_first = [point[f"{g}/{column}"] for g in order]
    means = np.stack([drawn[f"{g}/{column}"] for g in order], axis=1)  # (draws, generators)
    # (generators, scores) how many units each mean is of; of one there is no interval
    counted = np.array(
        [
            [len(np.unique(units[(numbers == g) & known[:, s]])) for s in range(len(scores))]
            for g in range(len(names))
        ]
    )
    counts = [int(counted[g, column]) for g in order]

    def mean_of(g: int, s: int) -> Estimate:
        name = f"{g}/{s}"
        if counted[g, s] == 1 and sampling.draws:
            return Estimate(value=point.get(name), reason=f"is of one {unit.removesuffix('s')}")
        return estimate(point.get(name), drawn.get(name), sampling)

    def ranks_of(place: float, position: int) -> Estimate:
        if counts[position] == 1 and sampling.draws:
            return Estimate(value=place, reason="its mean has no interval")
        return estimate(place, _ranks(means, position), sampling)

    corrected, letters = {}, [""] * len(order)
    if sampling.draws:
        corrected = _corrected(best_first, means, counts)
        letters = _letters(len(order), {pair for pair, p in corrected.items() if p < ALPHA})
    ratings = {name: [clip for clip in clips if clip.generator == name] for name in names}
    places = []
    for position, g in enumerate(order):
        mine = ratings[names[g]]
        place = 1 + best_first.index(best_first[position])  # with equal means the first one's
        places.append(
            Place(
                rank=place,
                generator=names[g],
                clips=sum(by in e.scores for e in mine),
                failed=sum(by not in e.scores for e in mine),
                groups=letters[position],
                ranks=ranks_of(float(place), position),
                scores={name: mean_of(g, s) for s, name in enumerate(scores)},
            )
        )
    notes = _notes(clips, names, by)
    if sampling.draws and (fewest := min(counts)) < FEW_UNITS:
        few = (
            f"{fewest} {unit}: "
            if fewest > 1
            else f"one {unit.removesuffix('s')}, so no interval: "
        )
        notes.append(f"a generator has only {few}the intervals of the means are too narrow")
    return Leaderboard(
        by=by,
        places=places,
        notes=notes,
        p_values=[(places[i].generator, places[j].generator, p) for (i, j), p in corrected.items()],
        settings={
            "draws": sampling.draws,
            "seed": sampling.seed,
            "level": sampling.level,
            "resampled": unit,
            "alpha": ALPHA,
        },
        ratings=ratings,
    )


def _check_one_run(clips: Sequence[RatedClip]) -> None:
    """A file of results may hold rows of several models or versions, which are no further clips."""
    first: dict[tuple[str, str | None], RatedClip] = {}
    for clip in clips:
        if clip.model is None or not clip.scores:
            continue  # ratings, of which a clip may have several
        earlier = first.setdefault((clip.video, clip.prompt), clip)
        if earlier.scores != clip.scores:
            raise InputError(
                f"{clip.video} has different scores in rows {earlier.row} and {clip.row}; a "
                "leaderboard is of one model and version"
            )


def _units(clips: Sequence[RatedClip], numbers: Rows) -> tuple[Rows, str]:
    """Prompts where they repeat, else clips."""
    labels = [index if e.prompt is None else e.prompt for index, e in enumerate(clips)]
    units, names = number(labels)
    return (units, "prompts") if len(names) < len(clips) else (np.arange(len(clips)), "clips")


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


def _notes(clips: Sequence[RatedClip], names: Sequence[str], by: str) -> list[str]:
    notes = []
    prompts: dict[str, set[str]] = {name: set() for name in names}
    for clip in clips:
        if by in clip.scores and clip.prompt is not None and clip.generator is not None:
            prompts[clip.generator].add(clip.prompt)
    if any(prompts.values()) and len({frozenset(found) for found in prompts.values()}) > 1:
        common = len(set.intersection(*prompts.values()))
        notes.append(
            f"generators have different prompts ({common} in common): a higher mean may be due to "
            "easier prompts"
        )
    scored = Counter(clip.video for clip in clips if clip.model is not None and clip.scores)
    if several := [video for video, rows in scored.items() if rows > 1]:
        more = f" and {len(several) - 1} others" if len(several) > 1 else ""
        notes.append(
            f"{several[0]}{more} count as several clips, as there are rows of more prompts"
        )
    lacking = Counter(clip.generator for clip in clips if by not in clip.scores)
    if lacking:
        each = ", ".join(f"{count} of {name}" for name, count in lacking.most_common(MOST_NAMED))
        each += ", ..." if len(lacking) > MOST_NAMED else ""
        notes.append(
            f"{lacking.total()} of {len(clips)} clips have no {by} and are not in its mean: {each}"
        )
    return notes

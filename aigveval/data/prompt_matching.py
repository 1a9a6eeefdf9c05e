"""Prompts of a manifest for videos that were found on their own."""

from __future__ import annotations

import os
import unicodedata
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from itertools import takewhile
from pathlib import PurePath

from .manifest import Clip


def match_prompts(clips: Sequence[Clip], rows: Sequence[Clip]) -> tuple[list[Clip], list[Clip]]:
    """Gives each clip the prompts of its rows: by path, then by link target, then by name.

    Returns:
        The clips, as many times as rows name them, at least once; and the rows whose file is
        missing and that matched no clip.
    """
    by_path, by_target = defaultdict(list), defaultdict(list)
    for row in rows:
        by_path[os.path.abspath(row.path)].append(row)
        by_target[os.path.realpath(row.path)].append(row)
    matches: dict[str, list[Clip]] = {}
    for clip in clips:
        path = os.path.abspath(clip.path)
        matches[path] = by_path[path] or by_target[os.path.realpath(path)]
    used = {id(row) for found in matches.values() for row in found}
    strangers = {os.path.abspath(row.path) for row in rows if id(row) not in used}
    orphans = [path for path, found in matches.items() if not found]
    for path, stranger in _pair_by_name(orphans, sorted(strangers)):
        matches[path] = by_path[stranger]
        used.update(id(row) for row in by_path[stranger])
    matched: list[Clip] = []
    for clip in clips:
        found = [] if clip.prompt else matches[os.path.abspath(clip.path)]
        matched += [replace(clip, prompt=row.prompt) for row in found] or [clip]
    return matched, [row for row in rows if row.problem and id(row) not in used]


def _pair_by_name(lefts: Sequence[str], rights: Sequence[str]) -> list[tuple[str, str]]:
    """Pairs paths by the longest end they share, where neither side leaves a choice."""
    ends: dict[str, dict[str, int]] = defaultdict(dict)
    same_name: dict[str, list[str]] = defaultdict(list)
    for right in rights:
        same_name[_parts(right)[-1]].append(right)
    for left in lefts:
        for right in same_name[_parts(left)[-1]]:
            ends[left][right] = ends[right][left] = _common_end(left, right)
    pairs = ((left, _only_best(ends[left])) for left in lefts if left in ends)
    return [(left, right) for left, right in pairs if right and _only_best(ends[right]) == left]


def _only_best(lengths: dict[str, int]) -> str | None:
    best = [path for path in lengths if lengths[path] == max(lengths.values())]
    return best[0] if len(best) == 1 else None


def _common_end(left: str, right: str) -> int:
    pairs = zip(reversed(_parts(left)), reversed(_parts(right)))
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))


def _parts(path: str) -> tuple[str, ...]:
    # macOS stores accents apart from their letters, other systems together.
    return PurePath(unicodedata.normalize("NFC", path)).parts

"""Prompts for videos that were found on their own: of a manifest, a list, or the files' names.

A file may be named after its prompt, `{prompt}-{n}.mp4` where there are several of it, as VBench's
are.
"""

from __future__ import annotations

import os
import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import takewhile
from pathlib import PurePath

from .manifest import Clip


def prompt_of_name(path: str | os.PathLike[str]) -> str:
    """Gives the prompt that a file is named after: `a dog runs` of `videos/a dog runs-3.mp4`.

    Where a name has `_` and no space, `_` stands for one.
    """
    words = _unnumbered(PurePath(path).stem)
    return words if " " in words else words.replace("_", " ")


class NamedPrompts:
    """A list of prompts that files are named after.

    Args:
        prompts: each once.
    """

    def __init__(self, prompts: Iterable[str]) -> None:
        self._exact = {unicodedata.normalize("NFC", prompt): prompt for prompt in prompts}
        self._loose: dict[str, list[str]] = defaultdict(list)
        for prompt in prompts:
            self._loose[_words(prompt)].append(prompt)

    def of(self, path: str | os.PathLike[str]) -> str | None:
        """Gives the prompt that a file is named after; None where it is none of the list.

        Characters that are no letters or digits, which a file's name often can't have, and upper
        or lower case count only where prompts differ in nothing else.
        """
        stem = unicodedata.normalize("NFC", PurePath(path).stem)
        names = (stem, _unnumbered(stem))  # a prompt may itself end like `-3`
        for name in names:
            if name in self._exact:
                return self._exact[name]
        for name in names:
            if len(found := self._loose.get(_words(name), [])) == 1:
                return found[0]
        return None


def _unnumbered(stem: str) -> str:
    return re.sub(r"-\d+$", "", stem)


def _words(text: str) -> str:
    return " ".join(re.findall(r"[^\W_]+", unicodedata.normalize("NFC", text).casefold()))


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

"""What the parts of a data set share: prompts, generators, videos."""

from __future__ import annotations

import posixpath
import unicodedata
from array import array
from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import blake2b
from itertools import combinations

import numpy as np


@dataclass(frozen=True, kw_only=True)
class Overlap:
    """How much of one part occurs in another.

    Args:
        what: is shared, in the plural.
        part: the part with fewer rows.
        other: the part with more.
        shared: distinct things of `part` that `other` has too.
        distinct: distinct things of `part`.
    """

    what: str
    part: str
    other: str
    shared: int
    distinct: int

    def __str__(self) -> str:
        return (
            f"{self.shared:,} of {self.distinct:,} distinct {self.what} of {self.part} also occur "
            f"in {self.other}"
        )


def key_of(text: str) -> int:
    """64 bits of a hash, to compare texts without keeping them."""
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "little")


def prompt_key(prompt: str) -> int:
    """The key of a prompt, equal for prompts that differ in case or white space only."""
    return key_of(" ".join(unicodedata.normalize("NFC", prompt).casefold().split()))


def video_key(video: str) -> int:
    """The key of a path, equal for two ways of writing it that need no look at the disk."""
    path = posixpath.normpath(unicodedata.normalize("NFC", video).replace("\\", "/"))
    return key_of(f"video {path}")


def sorted_unique(values: np.ndarray) -> np.ndarray:
    """The different values, ascending.

    As `numpy.unique`, which keeps a hash table of some hundred bytes per value.
    """
    values = np.sort(values)
    new = np.ones(len(values), bool)
    np.not_equal(values[1:], values[:-1], out=new[1:])
    return values[new]


class Leaks:
    """Collects the keys of things by part; 8 bytes each."""

    def __init__(self, parts: Iterable[str] = ()) -> None:
        self.rows: dict[str, int] = dict.fromkeys(parts, 0)
        self._keys: dict[str, dict[str, array[int]]] = {}

    def count(self, part: str) -> None:
        """Counts a row of a part."""
        self.rows[part] = self.rows.get(part, 0) + 1

    def add(self, part: str, what: str, key: int) -> None:
        """Notes that a part has a thing."""
        self._keys.setdefault(what, {}).setdefault(part, array("Q")).append(key)

    def distinct(self, what: str) -> int:
        """How many different things there are over all parts."""
        keys = [np.frombuffer(part, np.uint64) for part in self._keys.get(what, {}).values()]
        return len(sorted_unique(np.concatenate(keys))) if keys else 0

    def overlaps(self, what: str) -> list[Overlap]:
        """What every two parts share, where they do, the smaller seen from the larger."""
        of_part = self._keys.get(what, {})
        unique = {
            part: sorted_unique(np.frombuffer(of_part[part], np.uint64))
            for part in self.rows if part in of_part
        }
        found = []
        for a, b in combinations(unique, 2):
            part, other = (a, b) if self.rows[a] < self.rows[b] else (b, a)
            shared = len(np.intersect1d(unique[part], unique[other], assume_unique=True))
            if shared:
                found.append(Overlap(what=what, part=part, other=other, shared=shared,
                                     distinct=len(unique[part])))
        return found

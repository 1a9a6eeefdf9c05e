"""Facts of clips that were measured for a file which isn't written yet: seconds of work for each.

They stand beside it in `NAME.partial.jsonl`, one line a clip, from the moment that they are known,
until the file is there. So a run that was killed goes on where it was, with other options, too.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from prompts.facts import Fact

from ..errors import as_text
from ..files import writing
from ..versions import __version__
from .manifest import ManifestRow

_Key = tuple[Any, ...]


class MeasuredFacts:
    """Keeps facts until the file that they go into is written.

    Args:
        out: That file.

    Attributes:
        path: Where they are kept; None where `out` is no file, such as `/dev/stdout`.
        earlier: Of how many clips an earlier run had kept some.

    Raises:
        InputError: They can't be kept; also raised later on.
    """

    def __init__(self, out: str | os.PathLike[str]) -> None:
        target = Path(os.path.realpath(out))
        no_file = os.path.exists(out) and not target.is_file()
        self.path = None if no_file else target.with_name(target.name + ".partial.jsonl")
        self._known: dict[_Key, tuple[Fact, ...]] = {}
        if self.path is not None and self.path.exists():
            with writing(self.path):
                lines = self.path.read_text(encoding="utf-8", errors="replace").split("\n")
            self._known = dict(filter(None, map(_read, lines)))
        self.earlier = len(self._known)

    def __len__(self) -> int:
        return len(self._known)

    def get(self, row: ManifestRow) -> Sequence[Fact] | None:
        """Those of a row; None where they aren't known, or its file has changed since."""
        return self._known.get(_key(row))

    def add(self, row: ManifestRow, facts: Sequence[Fact]) -> None:
        """Keeps those of a row."""
        key = _key(row)
        self._known[key] = tuple(facts)
        if self.path is None:
            return
        line = json.dumps([*key, [fact.to_dict() for fact in facts]], ensure_ascii=False)
        with writing(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with open(self.path, "a", encoding="utf-8") as file:
                file.write(f"\n{line}")  # so that none runs on what a kill cut short

    def remove(self) -> None:
        """To be called once they are in their file."""
        if self.path is not None:
            self.path.unlink(missing_ok=True)


def _key(row: ManifestRow) -> _Key:
    """What the facts of a row depend on."""
    try:
        about = os.stat(row.path)
        state = (about.st_size, about.st_mtime_ns)
    except OSError:  # a pattern of pictures, or a file that is missing
        state = (0, 0)
    return as_text(os.path.abspath(row.path)), row.prompt, __version__, *state


def _read(line: str) -> tuple[_Key, tuple[Fact, ...]] | None:
    """A line that `add` wrote; None for what a kill left of one."""
    try:
        *key, facts = json.loads(line)
        return tuple(key), tuple(map(Fact.from_dict, facts))
    except (TypeError, ValueError):
        return None

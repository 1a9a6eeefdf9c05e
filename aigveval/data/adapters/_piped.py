"""Text files with `name|prompt|mos` or `name|prompt` in a line, and prompts looked up by name."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from ...errors import ManifestError, as_text
from ..manifest import spelling
from ..readers import RowFault, read_lines, read_rows, with_point


def read_piped(path: Path) -> Iterator[tuple[int, str, str, str | None]]:
    """Yields line number, name, prompt and score (as text, None where there is none).

    A prompt may hold the separator itself: the name ends at the first, and the score is what
    follows the last, if that is a number or nothing. A separator at the end of a line ends it.

    Raises:
        ManifestError: When the file cannot be read.
        RowFault: When a line has no separator.
    """
    for number, line in read_lines(path):
        name, bar, rest = line.partition("|")
        if not bar or not name.strip():
            raise RowFault(number, f"row {number}: expected name|prompt or name|prompt|mos")
        rest = rest.strip().removesuffix("|")
        prompt, bar, score = rest.rpartition("|")
        score = with_point(score.strip())
        if bar and (_is_number(score) or not score):
            yield number, name.strip(), prompt.strip(), score or None
        else:
            yield number, name.strip(), rest.strip(), None


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


class Prompts:
    """Prompts by video: its path in the file, else its name, else its name without the suffix.

    A name that stands for several prompts there, such as `a/1.mp4` and `b/1.mp4`, has none.

    Args:
        path: A manifest with prompts, or a text file with `name|prompt` in a line; None for none.

    Raises:
        ManifestError: When the file cannot be read.
    """

    def __init__(self, path: Path | None) -> None:
        self._of_path: dict[str, str] = {}
        self._of_name: dict[str, str | None] = {}
        if path is None:
            return
        if path.suffix.lower() == ".txt":
            pairs = ((name, prompt) for _, name, prompt, _ in read_piped(path))
        else:
            pairs = (
                (row["video"], row["prompt"])
                for _, row in read_rows(path)
                if isinstance(row.get("video"), str) and isinstance(row.get("prompt"), str)
            )
        try:
            for video, prompt in pairs:
                place, *names = _keys(video)
                self._of_path.setdefault(place, prompt)
                for name in names:
                    if self._of_name.setdefault(name, prompt) != prompt:
                        self._of_name[name] = None
        except RowFault as fault:
            raise ManifestError(f"{as_text(path)}: {fault}") from None

    def of(self, video: str) -> str | None:
        """The prompt of a video; None when unknown."""
        place, *names = _keys(video)
        if place in self._of_path:
            return self._of_path[place]
        return next((self._of_name[name] for name in names if name in self._of_name), None)


def _keys(video: str | os.PathLike[str]) -> tuple[str, str, str]:
    path = PurePosixPath(spelling(os.fspath(video)))
    return path.as_posix(), path.name, path.stem

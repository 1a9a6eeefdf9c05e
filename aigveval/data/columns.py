"""Names of columns: ours, and those that other people's tables have in their place.

A table without a column `video` or `prompt` may call it by another name of `ALIASES`. Upper and
lower case, spaces, `-` and `_` make no difference: `Video Path` is `video_path`. Our own name goes
first: beside a column `video`, a column `path` is like any other. Of several other names nobody
knows which is meant, and they are an error.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from functools import lru_cache
from numbers import Real  # a number of NumPy, too
from typing import Any

from prompts.rubric import SCORES

from ..errors import one_line

ALIASES: Mapping[str, Sequence[str]] = {
    "video": (
        "path",
        "video_path",
        "file_path",
        "file",
        "filename",
        "video_name",
        "video_file",
    ),
    "prompt": ("caption", "text", "prompt_en", "text_prompt"),
}
_PAIR = "video_a"  # a table of pairs has no column `video`, whatever else it has
_VIDEOS = ("video", _PAIR, *ALIASES["video"])


def in_our_names(row: Mapping[str, Any]) -> dict[str, Any]:
    """Gives a row whose columns have our names, in the same order.

    Raises:
        ValueError: When several columns could be the one of a name.
    """
    names = _our_names(tuple(row))
    return {names.get(column, column): row[column] for column in row} if names else dict(row)


def is_row(found: Mapping[str, Any]) -> bool:
    """Whether an object of JSON is a row itself: a path and what else columns hold, by their names.

    Its keys could be paths, as in `{path: prompt}`, but nobody has files called video and prompt.
    """
    others = ("prompt", *ALIASES["prompt"], *SCORES)
    return any(isinstance(found.get(name), str) for name in _VIDEOS) and any(
        name in found for name in others
    )


def is_columns(found: Mapping[str, Any]) -> bool:
    """Whether an object of JSON holds columns by their names, as pandas writes a table unasked.

    A column is a list, or an object by the numbers of rows.
    """
    columns = (found.get(name) for name in _VIDEOS)
    return any(
        isinstance(values, list)
        or (isinstance(values, dict) and values and all(map(str.isdecimal, values)))
        for values in columns
    )


def check_columns(
    where: str, columns: Sequence[str], required: Collection[str], *, aliases: bool = True
) -> None:
    """Looks whether a table has the columns that it must have, each once.

    Args:
        where: What has the columns, to begin a message with.
        columns: Names, as the table has them.
        required: Our names.
        aliases: Whether a column may have another name.

    Raises:
        ValueError: When it has not.
    """
    try:
        names = _our_names(tuple(columns)) if aliases else {}
    except ValueError as error:
        raise ValueError(f"{where} has {error}") from None
    ours = {names.get(column, column) for column in columns}
    for name in required:
        if name not in ours:
            others = expected(name) if aliases else ""
            raise ValueError(f"{where} names no column {name!r}{others}, it has {listed(columns)}")
    twice = sorted({name for name in columns if name and columns.count(name) > 1})
    if twice:
        raise ValueError(f"{where} names the column {twice[0]!r} twice")


def expected(name: str) -> str:
    """Other names that a column may have, in brackets; empty where it has none."""
    return f" (or {', '.join(ALIASES[name])})" if name in ALIASES else ""


def is_missing(value: object) -> bool:
    """Whether a value is what a table of pandas or NumPy has where there is nothing."""
    nan = isinstance(value, Real) and value != value
    return value is None or nan or type(value).__name__ == "NAType"


def listed(columns: Collection[str]) -> str:
    """The names of columns as one line, for a message."""
    return one_line(", ".join(map(str, columns)) or "nothing", limit=120)


@lru_cache(maxsize=1024)
def _our_names(columns: tuple[str, ...]) -> Mapping[str, str]:
    """Gives our names of the columns that have another."""
    names: dict[str, str] = {}
    for name, others in ALIASES.items():
        if name in columns or (name == "video" and _PAIR in columns):
            continue
        for accepted in ({name}, set(map(_key, others))):
            found = list(dict.fromkeys(c for c in columns if _key(c) in accepted))
            if len(found) > 1:
                raise ValueError(
                    f"several columns that could be {name!r}: {listed(found)}; call one of them "
                    f"{name}"
                )
            if found:
                names[found[0]] = name
                break
    return names


def _key(column: str) -> str:
    return re.sub(r"[\s_-]+", "", str(column)).lower()

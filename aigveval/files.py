"""Files that are replaced at once: a kill leaves the old file or the new one, never half of one."""

from __future__ import annotations

import contextlib
import os
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path

from .errors import InputError, UsageError, as_text

_SHELL = ("/dev", "/dev/fd")  # where the shell has its files; in /dev/shm people have theirs


@contextlib.contextmanager
def replaced(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Gives a hidden name beside a file to write to; the file is replaced where that went well.

    Folders are made as needed, and a link is followed, so that what it points to is replaced. The
    name keeps the file's suffix, as some writers go by it. What is no file, such as `/dev/stdout`,
    is given itself.

        with replaced("results.csv") as temporary:
            temporary.write_text(text, encoding="utf-8")

    Raises:
        OSError: It can't be written. What was there before is still there.
    """
    target = Path(os.path.realpath(path))
    own = os.path.dirname(os.path.abspath(path)) in _SHELL  # which may lead to a file
    if own or (os.path.exists(path) and not target.is_file()):
        yield Path(path)
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.stem[:50]}.{uuid.uuid4().hex[:8]}{target.suffix}")
    try:
        yield temporary
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def writing(path: str | os.PathLike[str], *, kind: type[UsageError] = InputError) -> Iterator[None]:
    """Turns an `OSError` inside into one line that says what can't be written, and why.

    Raises:
        UsageError: Of this kind.
    """
    try:
        yield
    except OSError as error:
        raise kind(f"{as_text(path)}: cannot be written: {error.strerror or error}") from None


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Writes a whole text file in UTF-8, or none of it.

    Raises:
        InputError: It can't be written.
    """
    with writing(path), replaced(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def check_not_one_of(
    path: str | os.PathLike[str], sources: Sequence[str | os.PathLike[str]]
) -> None:
    """Raises `InputError` when a file is one of those that it would be made from."""
    for source in sources:
        if os.path.exists(path) and os.path.exists(source) and os.path.samefile(path, source):
            raise InputError(f"{as_text(path)}: would be written over itself; choose another place")

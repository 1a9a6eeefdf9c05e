"""The base errors, and how an error is said in one line.

A `UsageError` is somebody's to mend: a file, an option, a model that isn't there. The command line
prints its message and exits with 2. Folders have errors of their own below it where they have more
to say than `InputError` and `ModelError` do.
"""

from __future__ import annotations

import os


class UsageError(Exception):
    """What was asked for can't be carried out; the message is one line."""


class InputError(UsageError):
    """The inputs or the manifest cannot be used; the message is one line."""


class ManifestError(InputError, ValueError):
    """A manifest cannot be used; the one-line message names the file, the row and the reason."""


class ModelError(UsageError):
    """A model cannot be loaded; the message is one line."""


def one_line(text: object, *, limit: int = 300) -> str:
    """Folds white space and caps the length, for reasons that go into a row or onto a terminal."""
    folded = " ".join(str(text).split())
    return folded if len(folded) <= limit else folded[: limit - 3] + "..."


def reason_of(error: BaseException | None) -> str:
    """Gives one line that says what went wrong, for the field `error` of a row.

    Of an `encoders.VideoError`, whose file the row names anyway, the reason alone is said.
    """
    reason = getattr(error, "reason", None)
    if isinstance(reason, str) and type(error).__name__ == "VideoError":
        return one_line(reason) or "cannot be read"
    text = one_line(error or "")
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def as_text(text: str | os.PathLike[str]) -> str:
    """Gives a path or a text as valid Unicode."""
    # Names and arguments that are not UTF-8 arrive as lone surrogates, which no file takes.
    return os.fspath(text).encode("utf-8", "backslashreplace").decode("utf-8")

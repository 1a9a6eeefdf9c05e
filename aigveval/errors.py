"""The base errors, and how an error is said in one line.

A `UsageError` is somebody's to mend: a file, an option, a model that isn't there. The command line
prints its message and exits with 2. Folders have errors of their own below it where they have more
to say than `InputError` and `ModelError` do.
"""

from __future__ import annotations

import errno
import os
import platform
from collections.abc import Sequence
from itertools import takewhile

from .versions import __version__, installed_version

DOCTOR = "run `aigveval doctor`"
_NAMED = ("torch", "transformers")  # what most such faults hang on
_OUT_OF_MEMORY = (  # in the words of PyTorch for CPUs, CUDA, cuBLAS, cuDNN and Apple, and of OpenCV
    "can't allocate memory",
    "not enough memory",
    "CUDA error: out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
    "MPS backend out of memory",
    "Failed to allocate",
)

_DISK_FULL = (  # in the words of the system, and of torch.save, which says nothing of a disk
    os.strerror(errno.ENOSPC),
    "PytorchStreamWriter failed writing",
    "] . unexpected pos ",
)
_DEVICE_FAILURE = "CUDA error: "  # of cuBLAS and cuDNN; the others have a type of their own


class UsageError(Exception):
    """What was asked for can't be carried out; the message is one line."""


class InputError(UsageError):
    """The inputs or the manifest cannot be used; the message is one line."""


class ManifestError(InputError, ValueError):
    """A manifest cannot be used; the one-line message names the file, the row and the reason."""


class ModelError(UsageError):
    """A model cannot be loaded; the message is one line."""


class AssessmentError(UsageError):
    """No video gets through, and none is to blame; the message is one line."""


def one_line(text: object, *, limit: int = 300) -> str:
    """Folds white space and caps the length, for reasons that go into a row or onto a terminal."""
    folded = " ".join(str(text).split())
    return folded if len(folded) <= limit else folded[: limit - 3] + "..."


def as_text(text: str | os.PathLike[str]) -> str:
    """Gives a path or a text as valid Unicode."""
    # Names and arguments that are not UTF-8 arrive as lone surrogates, which no file takes.
    return os.fspath(text).encode("utf-8", "backslashreplace").decode("utf-8")


def common_start(texts: Sequence[str]) -> str:
    """Gives what all texts begin with, letter by letter."""
    pairs = zip(min(texts, default=""), max(texts, default=""))
    return "".join(one for one, _ in takewhile(lambda pair: pair[0] == pair[1], pairs))


def cause_of(error: BaseException, *, limit: int = 300) -> str:
    """Gives the kind of an error and its text, in one line."""
    text = one_line(error, limit=limit)
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def reason_of(error: BaseException) -> str:
    """Gives one line that says what went wrong, for the field `error` of a row.

    Of an `encoders.VideoError`, whose file the row names anyway, the reason alone is said.
    """
    reason = getattr(error, "reason", None)
    if "VideoError" in _kinds(error) and isinstance(reason, str):
        newer = "" if is_about_the_video(error) else newer_versions()
        return (one_line(reason) or "cannot be read") + newer
    if is_out_of_memory(error):
        return f"out of memory: {one_line(error, limit=200)}".rstrip(": ")
    return cause_of(error) + newer_versions()


def is_about_the_video(error: BaseException) -> bool:
    """Whether an error is about a video, and not about the software that was to read or judge it.

    What an `encoders.container.ReaderFault` says can be about either.
    """
    kinds = _kinds(error)
    return "VideoError" in kinds and "ReaderFault" not in kinds


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a device or the machine had no memory left, by whichever library tells it."""
    return bool(_kinds(error) & {"MemoryError", "OutOfMemoryError"}) or any(
        words in str(error) for words in _OUT_OF_MEMORY
    )


def is_disk_full(error: BaseException) -> bool:
    """Whether a disk had no room left for a file, by whichever library tells it."""
    return any(words in str(error) for words in _DISK_FULL)


def is_device_failure(error: BaseException) -> bool:
    """Whether a GPU failed, which it then goes on to do in this process, whatever it is given."""
    said = "AcceleratorError" in _kinds(error) or _DEVICE_FAILURE in str(error)
    return said and not is_out_of_memory(error)


def _kinds(error: BaseException) -> set[str]:
    """Names of the classes of an error, which are known here without importing them."""
    return {kind.__name__ for kind in type(error).__mro__}


def is_ours(error: BaseException) -> bool:
    """Whether the error is of a type of this project, whose messages are made for users."""
    return type(error).__module__.partition(".")[0] in ("aigveval", "encoders", "prompts")


def our_fault(error: BaseException, what: str) -> AssessmentError:
    """Gives the error that ends a run in which no video got through; `what` begins its message."""
    if is_out_of_memory(error):
        return AssessmentError(
            f"{what}: out of memory, even with one video at a time "
            f"({cause_of(error, limit=200)}); close other programs, or take another device or a "
            "smaller model"
        )
    return AssessmentError(
        f"{what}; something other than the video is at fault: {cause_of(error, limit=200)} "
        f"({versions_in_use()}{newer_versions()}); {DOCTOR}"
    )


def fatal(error: Exception, what: str) -> UsageError:
    """What a process that can't go on has its parent raise; `what` says what then failed."""
    if isinstance(error, UsageError):
        return error
    return UsageError(one_line(error, limit=700)) if is_ours(error) else our_fault(error, what)


def why_not_loaded(error: Exception) -> str:
    """Says what kept a model from being loaded: its files, mostly, or a library."""
    if isinstance(error, (OSError, ValueError, RuntimeError)):
        return one_line(error) + newer_versions()
    return f"{cause_of(error)} ({versions_in_use()}{newer_versions()}); {DOCTOR}"


def versions_in_use() -> str:
    """Gives the versions that most faults hang on, such as `aigveval 0.1.0, Python 3.11.9, ...`."""
    found = [f"aigveval {__version__}", f"Python {platform.python_version()}"]
    for name in _NAMED:
        version = installed_version(name)
        found.append(f"{name} {version}" if version else f"no {name}")
    return ", ".join(found)


def newer_versions() -> str:
    """Gives `; newer than tested: ...`, or nothing where no library is."""
    from .versions import newer_than_tested

    newer = newer_than_tested()
    return f"; newer than tested: {', '.join(newer)}" if newer else ""

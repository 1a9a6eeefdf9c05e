"""Deprecated calls of ours, also where `filterwarnings` doesn't see that they are ours.

A warning is filtered by the module that it's attributed to. A model of transformers is called by
torch's `Module.__call__`, so that a deprecated argument of ours seems to be torch's; and much of
what transformers deprecates it only logs, once per process. Here the stack tells who called.
"""

import logging
import sys
import warnings
from collections.abc import Callable
from importlib import metadata
from types import FrameType
from typing import Any

KINDS = (DeprecationWarning, FutureWarning, PendingDeprecationWarning)
OURS = ("aigveval", "encoders", "prompts", "tests")
# They call for others.
_BETWEEN = ("torch.nn.modules.module", "torch.utils._contextlib", "functools", "contextlib")


class Deprecations:
    """Notes deprecated calls of ours in `found`, from `watch` on."""

    def __init__(self) -> None:
        self.found: list[str] = []
        self._logs = False

    def watch(self) -> None:
        """May be called again: transformers' logger is watched once it's there."""
        if not isinstance(warnings.warn, _Watched):
            warnings.warn = _Watched(warnings.warn, self)
        if not self._logs and "transformers.utils.logging" in sys.modules:
            self._logs = True
            _watch_logger(self)

    def note(self, message: str, frame: FrameType | None, level: int) -> None:
        """Note a message if its call, `level` frames up, is ours."""
        warner = frame
        while frame is not None and level > 1:
            frame, level = frame.f_back, level - 1
        while frame is not None and (
            _module(frame) in _BETWEEN
            # A library that says nothing of its caller: whoever called its file is meant.
            or (frame.f_code.co_filename == warner.f_code.co_filename and not _is_ours(warner))
        ):
            frame = frame.f_back
        if frame is not None and _is_ours(frame):
            where = f"{_module(frame)}:{frame.f_lineno}"
            self.found.append(f"{where} ({_library(warner)}): {' '.join(message.split())}")


class _Watched:
    def __init__(self, warn: Callable[..., None], noted: Deprecations) -> None:
        self._warn, self._noted = warn, noted

    def __call__(
        self,
        message: Any,
        category: Any = None,
        stacklevel: int = 1,
        source: Any = None,
        **options: Any,
    ) -> None:
        kind = type(message) if isinstance(message, Warning) else category or UserWarning
        if issubclass(kind, KINDS):
            self._noted.note(str(message), sys._getframe(1), stacklevel)
        self._warn(message, category, stacklevel + 1, source, **options)


def _watch_logger(noted: Deprecations) -> None:
    real = logging.Logger.warning_once  # transformers puts it there

    def warning_once(self: logging.Logger, *args: Any, **options: Any) -> None:
        if args and "deprecated" in str(args[0]):
            noted.note(str(args[0]), sys._getframe(1), 1)
        real(self, *args, **options)

    logging.Logger.warning_once = warning_once


def _module(frame: FrameType) -> str:
    return str(frame.f_globals.get("__name__", ""))


def _is_ours(frame: FrameType) -> bool:
    return _module(frame).partition(".")[0] in OURS


def _library(frame: FrameType) -> str:
    name = _module(frame).partition(".")[0]
    for distribution in metadata.packages_distributions().get(name, []):
        return f"{distribution} {metadata.version(distribution)}"
    return name

"""Whether video files are there and can be read, and which of them have the same content."""

from __future__ import annotations

import os
from collections import defaultdict, deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

from ..errors import one_line
from .leaks import video_key
from .readers import why_missing

FileCheck = Literal["none", "open", "decode"]

_DECODED = 8  # frames, spread over the video


@dataclass(frozen=True, kw_only=True)
class BadFile:
    """A file that is not there or cannot be read.

    Args:
        where: row and path, as the manifest has them.
        reason: what is wrong with it, without its path.
        missing: whether there is no such file.
    """

    where: str
    reason: str
    missing: bool

    def __str__(self) -> str:
        return f"{self.where}: {self.reason}"


@dataclass(frozen=True, slots=True)
class NamedFile:
    """A file as it was named first.

    Args:
        path: from here.
        where: row and path, as the manifest has them.
        part: of the data set.
    """

    path: str
    where: str
    part: str


class FileChecker:
    """Reads files in threads as they are named, each path once; a context manager.

    Args:
        level: `none` reads none, `open` all packets and a frame, `decode` also frames spread over
            the video.
        workers: threads.
    """

    def __init__(self, level: FileCheck, *, workers: int) -> None:
        self.level, self._workers = level, workers
        self._read: Callable[[str], Any] = _reader(level)
        self._seen: set[int] = set()
        self._waiting: deque[tuple[NamedFile, Future[tuple[int, BadFile | None]]]] = deque()
        self._bad: list[BadFile] = []
        self._by_size: dict[int, list[NamedFile]] = defaultdict(list)

    def __enter__(self) -> FileChecker:
        self._pool = ThreadPoolExecutor(self._workers, thread_name_prefix="check")
        return self

    def __exit__(self, *exception: object) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)

    def add(self, path: str, *, where: str, part: str) -> None:
        """Names a file, unless it was named before."""
        key = video_key(os.path.abspath(path))
        if self.level == "none" or key in self._seen:
            return
        self._seen.add(key)
        file = NamedFile(path, where, part)
        self._waiting.append((file, self._pool.submit(self._look, file)))
        if len(self._waiting) > 4 * self._workers:
            self._take()

    def bad(self) -> list[BadFile]:
        """All files that are missing or cannot be read, in the order in which they were named."""
        while self._waiting:
            self._take()
        return self._bad

    def copies(self) -> list[list[NamedFile]]:
        """Groups of files with the same content."""
        same_size = [file for files in self._by_size.values() if len(files) > 1 for file in files]
        if not same_size:
            return []
        from encoders.wheels import sha256

        digests = self._pool.map(lambda file: _digest(sha256, file.path), same_size)
        groups: dict[str, list[NamedFile]] = defaultdict(list)
        for file, digest in zip(same_size, digests, strict=True):
            if digest:
                groups[digest].append(file)
        return [group for group in groups.values() if len(group) > 1]

    def _take(self) -> None:
        file, future = self._waiting.popleft()
        size, bad = future.result()
        if bad is not None:
            self._bad.append(bad)
        else:
            self._by_size[size].append(file)

    def _look(self, file: NamedFile) -> tuple[int, BadFile | None]:
        broken = partial(BadFile, where=file.where)
        try:
            size = os.stat(file.path).st_size
            self._read(file.path)
            return size, None
        except FileNotFoundError:
            link = os.path.islink(file.path)
            reason = "broken link" if link else why_missing(file.path)
            return 0, broken(reason=reason, missing=True)
        except OSError as error:
            return 0, broken(reason=one_line(error.strerror or error), missing=False)
        except Exception as error:  # a damaged file can raise anything, and must not end the check
            reason = getattr(error, "reason", None) or error
            return 0, broken(reason=one_line(reason), missing=False)


def _digest(sha256: Callable[[Path], str], path: str) -> str | None:
    try:
        return sha256(Path(path))
    except OSError:  # gone meanwhile
        return None


def _reader(level: FileCheck) -> Callable[[str], Any]:
    if level == "none":
        return lambda path: None
    from encoders.sampling import uniform
    from encoders.video import FrameRequest, read_frames

    wanted = 1 if level == "open" else _DECODED
    frames = FrameRequest(indices=lambda count, fps: uniform(count, wanted), stream="fast")
    return lambda path: read_frames(path, {"frames": frames})

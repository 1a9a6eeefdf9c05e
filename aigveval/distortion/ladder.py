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
    seed: what `distortions.damaged` makes the same frames from.
    other: for scene_cut and prompt_mismatch, the source that the foreign part comes from.
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict
from pathlib import Path
from typing import Any

import cv2

from encoders.cpu import available_cpus

from .registry import DISTORTIONS, SEVERITIES
from ..data.inputs import collect
from .worker import Job, Settings, render, write_atomic
from ..data.manifest import Clip, make_clip
from ..errors import InputError, UsageError
from .prompts import content_words, mismatch, wrong_object

PROMPT_TYPES = ("prompt_mismatch", "wrong_object")
TYPES = (*DISTORTIONS, *PROMPT_TYPES)
DROP_PER_SEVERITY = 0.75  # MOS points
_UNSURE = {"scene_cut": ("motion",)}  # dimensions of which a type's effect is not claimed
_OTHERS = 3  # how many other clips to try for a scene cut before giving up
State = dict[str, Any]  # what `render` knows of a source, see there
OnError = Callable[[str, str], None]


class LadderError(UsageError):
    """The ladder can't be made; the message is one line."""


def make_ladder(
    sources: Sequence[str | os.PathLike[str]], out_dir: str | os.PathLike[str], *,
    types: Sequence[str] | None = None, severities: Sequence[int] = SEVERITIES, seed: int = 0,
    workers: int | None = None, max_side_px: int = 640, max_seconds: float = 5.0, crf: int = 10,
    prompts: Mapping[str, str] | str | os.PathLike[str] | None = None, quiet: bool = False,
    on_error: OnError | None = None,
) -> Path:
    """Render the ladder of some clean clips.

    A killed run goes on where it stopped; a source that changed is rendered anew. Each file is
    written under a temporary name and renamed when complete. A bad source is reported and left out.

    Args:
        sources: files, folders (searched whole), patterns, manifests.
        out_dir: made if missing.
        types: some of `TYPES`; default all.
        severities: some of 1..5.
        seed: of the random details. The same seed gives the same bytes on one machine.
        workers: processes; default one per CPU that may be used; 1 renders in the calling process.
        max_side_px: larger frames are shrunk to this longer side, which bounds the time.
        max_seconds: longer clips are cut to this length around their middle.
        crf: quality of the H.264 files, lower is better; 10 can't be told from the frames.
        prompts: `{path or file name: prompt}`, or a manifest (see `data.inputs`). Without a
            prompt a source gets no rows of the wrong-prompt types.
        quiet: no progress bar.
        on_error: called with the path and the reason of each bad source; default a line on stderr.

    Returns:
        Path of the manifest, which holds the rows of these sources and types.

    Raises:
        LadderError: no usable source, a folder made with other settings or in use by another run.
        ValueError: wrong options.
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
    report = on_error or _print_error
    clips = _find_sources(sources, prompts, report)
    out = Path(out_dir)
    names = _folder_names(clips)
    jobs = [
        Job(path=str(clip.path), name=name, folder=str(out / name), settings=settings,
            others=_others(clip, clips), types=chosen, severities=levels)
        for clip, name in zip(clips, names)
    ]
    from filelock import FileLock, Timeout

    try:
        out.mkdir(parents=True, exist_ok=True)
        with FileLock(out / ".lock", timeout=0):
            _check_settings(out / "ladder.json", settings)
            rendered = _run(jobs, workers or available_cpus(), quiet, report)
            rows = [row for job, clip in zip(jobs, clips) if job.path in rendered
                    for row in _rows(job, clip, rendered[job.path], clips)]
            if not rows:
                raise LadderError("none of the sources could be used")
            lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
            write_atomic(out / "manifest.jsonl", lines)
    except Timeout:
        raise LadderError(f"{out}: another run is writing here") from None
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
    return [stem if stems.count(stem) == 1 else
            f"{stem}-{hashlib.sha256(os.path.abspath(clip.path).encode()).hexdigest()[:8]}"
            for stem, clip in zip(stems, clips)]


def _others(clip: Clip, clips: Sequence[Clip]) -> tuple[str, ...]:
    """Clips of another content, best first: few words in common, then in a fixed random order.

    The order depends on the two file names alone, so that one more source changes few choices.
    """
    own = set(content_words(clip.prompt or ""))

    def rank(other: Clip) -> tuple[int, str]:
        shared = len(own & set(content_words(other.prompt or "")))
        return shared, hashlib.sha256(f"{clip.path.name}\0{other.path.name}".encode()).hexdigest()

    differ = [other for other in clips if other is not clip
              and not (own and clip.prompt == other.prompt)]
    return tuple(str(other.path) for other in sorted(differ, key=rank)[:_OTHERS])


def _check_settings(path: Path, settings: Settings) -> None:
    mine = json.dumps(asdict(settings), sort_keys=True)
    theirs = path.read_text(encoding="utf-8").strip() if path.exists() else mine
    if theirs != mine:
        raise LadderError(
            f"{path.parent} was made with other settings, {theirs}, not {mine}; use another folder")
    write_atomic(path, mine + "\n")


def _print_error(path: str, reason: str) -> None:
    print(f"{path}: {reason}", file=sys.stderr)


# ---- rendering ----------------------------------------------------------------------------------


def _run(jobs: list[Job], workers: int, quiet: bool, report: OnError) -> dict[str, State]:
    """Render all jobs; path -> what `render` gives. Bad ones are reported and left out."""
    from rich.console import Console
    from rich.progress import (
        BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
    )

    done: dict[str, State] = {}
    # Largest first: the last worker to finish then waits for a small one.
    todo = sorted(jobs, key=lambda job: _size(job.path))
    look = (
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    )
    with Progress(*look, console=Console(stderr=True), disable=quiet) as progress:
        task = progress.add_task("ladder: sources", total=len(jobs))

        def finish(job: Job, future: Future[State]) -> None:
            try:
                result = future.result()
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
            finish(todo[-1], _inline(todo.pop()))
        while todo:
            running: dict[Future[State], Job] = {}
            try:
                with _pool(width) as pool:
                    while todo or running:
                        while todo and len(running) < width:
                            job = todo.pop()
                            running[pool.submit(render, job)] = job
                        for future in wait(running, return_when=FIRST_COMPLETED).done:
                            finish(running[future], future)
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


def _inline(job: Job) -> Future[State]:
    future: Future[State] = Future()
    try:
        future.set_result(render(job))
    except Exception as error:
        future.set_exception(error)
    return future


def _pool(workers: int) -> ProcessPoolExecutor:
    # Spawn: a forked copy of a process that has decoded or computed with threads may hang.
    context = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(
        workers, mp_context=context, initializer=cv2.setNumThreads, initargs=(1,))


# ---- manifest -----------------------------------------------------------------------------------


def _rows(job: Job, clip: Clip, state: State, clips: Sequence[Clip]) -> list[dict[str, Any]]:
    def row(
        kind: str, severity: int, strength: float, unit: str | None, **extra: Any
    ) -> dict[str, Any]:
        dimension = DISTORTIONS[kind].dimension if kind in DISTORTIONS else (
            "semantic" if kind in PROMPT_TYPES else None)
        drops = {f"{name}_drop": DROP_PER_SEVERITY * severity if name == dimension else
                 None if name in _UNSURE.get(kind, ()) else 0.0
                 for name in ("technical", "motion", "semantic")}
        video = f"{kind}_{severity}.mp4" if kind in DISTORTIONS else "clean.mp4"
        return {"video": f"{job.name}/{video}", "source": clip.video, "group": job.name,
                "prompt": clip.prompt, "source_prompt": clip.prompt, "type": kind,
                "dimension": dimension, "severity": severity, "strength": strength, "unit": unit,
                "start_seconds": None, "end_seconds": None, "seed": state["seed"], **drops,
                "other": None, **extra}

    rows = [row("clean", 0, 0.0, None)]
    for kind in job.types:
        for severity in job.severities:
            if kind in DISTORTIONS and str(severity) in state["damage"].get(kind, {}):
                spec = DISTORTIONS[kind]
                start, end = state["damage"][kind][str(severity)]
                rows.append(row(kind, severity, spec.strengths[severity - 1], spec.unit,
                                start_seconds=start, end_seconds=end,
                                other=state["other"] if kind == "scene_cut" else None))
            elif kind in PROMPT_TYPES and clip.prompt:
                wrong = _wrong_prompt(
                    kind, severity, clip.prompt, state["seed"], job.others, clips)
                if wrong:
                    text, strength, unit, other = wrong
                    rows.append(row(kind, severity, strength, unit, prompt=text, other=other))
    return rows


def _wrong_prompt(
    kind: str, severity: int, prompt: str, seed: int, others: Sequence[str], clips: Sequence[Clip]
) -> tuple[str, float, str, str | None] | None:
    if kind == "wrong_object":
        changed = wrong_object(prompt, severity, seed)
        return changed and (*changed, "wrongness of the content words", None)
    prompts = {str(clip.path): clip.prompt for clip in clips}
    for path in others:
        if other := prompts.get(path):
            mixed = mismatch(prompt, other, severity)
            return mixed and (*mixed, "share of words from the other prompt", path)
    return None

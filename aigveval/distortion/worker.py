"""Rendering one source of the distortion ladder: decode once, write the damaged versions.

Runs in worker processes; `ladder` plans, collects and writes the manifest.
"""

from __future__ import annotations

import json
import os
import zlib
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from .registry import DISTORTIONS, damaged

VERSION = 1  # goes up whenever the same settings give other frames


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What the frames depend on; an output folder keeps to one of these."""

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


def render(job: Job) -> dict[str, Any]:
    """Write the missing files of one source (in a worker).

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
    state: dict[str, Any] = old if old.get("sha256") == digest else {
        "sha256": digest, "seed": clip_seed(job.settings.seed, job.name), "damage": {}}
    if "scene_cut" in visual and state.get("other") not in (None, *job.others):
        state["damage"].pop("scene_cut", None)  # its other clip is not among the sources any more
    damage = state["damage"]
    frames: np.ndarray | None = None
    other: np.ndarray | None = None
    try:
        if "num_frames" not in state or not (folder / "clean.mp4").exists():
            folder.mkdir(parents=True, exist_ok=True)
            frames, state["fps"] = _read(job.path, job.settings)
            state["num_frames"] = len(frames)
            write_mp4(folder / "clean.mp4", frames, state["fps"], crf=job.settings.crf)
            write_atomic(note, json.dumps(state, sort_keys=True))
        for kind in visual:
            made = damage.setdefault(kind, {})
            missing = [s for s in job.severities
                       if str(s) not in made or not (folder / f"{kind}_{s}.mp4").exists()]
            if not missing or state["num_frames"] < DISTORTIONS[kind].min_frames:
                continue
            if frames is None:
                frames, _ = _read(job.path, job.settings)
            if kind == "scene_cut":
                other, state["other"] = _read_other(job, state["fps"])
                if other is None:
                    continue
            for severity in missing:
                bad, start, end = damaged(
                    frames, kind, severity, state["seed"], state["fps"], other=other)
                file = folder / f"{kind}_{severity}.mp4"
                write_mp4(file, bad, state["fps"], crf=job.settings.crf)
                made[str(severity)] = [round(start, 4), round(end, 4)]
            write_atomic(note, json.dumps(state, sort_keys=True))
    except VideoError as error:
        return {"error": error.reason}
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

    info, found = read_frames(path, {"all": FrameRequest(indices=middle, stream="slow")},
                              slow_max_side_px=settings.max_side_px)
    frames = found["all"].pixels.permute(0, 2, 3, 1).numpy()
    if 1 in frames.shape[1:3]:
        frames = frames.repeat(1 + (frames.shape[1] == 1), axis=1)
        frames = frames.repeat(1 + (frames.shape[2] == 1), axis=2)
    height, width = (side // 2 * 2 for side in frames.shape[1:3])
    return np.ascontiguousarray(frames[:, :height, :width]), float(info.fps)


def _read_other(job: Job, fps: float) -> tuple[np.ndarray | None, str | None]:
    """The first clip of another content that can be read, at `fps` frames per second."""
    from encoders.video import VideoError

    for path in job.others:
        try:
            frames, rate = _read(path, job.settings)
        except VideoError:
            continue
        return frames[(np.arange(max(1, round(len(frames) * fps / rate))) * rate / fps).astype(int)
                      .clip(max=len(frames) - 1)], path
    return None, None


def write_mp4(
    path: Path, frames: np.ndarray, fps: float, *, crf: int = 10, preset: str = "ultrafast"
) -> None:
    """Write H.264 in MP4, yuv420p, no audio; on one thread, so that the bytes are reproducible.

    Args:
        path: replaced once the file is complete.
        frames: uint8 RGB (t, h, w, 3) with even h and w.
        fps: frames per second, kept exactly for fractions up to /1001.
        crf, preset: of x264. The fastest preset costs size, not quality: `crf` sets that.
    """
    import av

    part = path.with_name(f".{path.stem}.part.mp4")
    rate = Fraction(fps).limit_denominator(1001) or Fraction(1, 1001)
    with av.open(str(part), "w") as container:
        options = {"crf": str(crf), "preset": preset, "threads": "1"}
        stream = container.add_stream("libx264", rate=rate, options=options)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv420p"
        for image in frames:
            # OpenCV's conversion takes a quarter of the time of FFmpeg's and rounds better.
            planes = cv2.cvtColor(image, cv2.COLOR_RGB2YUV_I420)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(planes, format="yuv420p")))
        container.mux(stream.encode())
    os.replace(part, path)


def write_atomic(path: Path, text: str) -> None:
    """Write a whole text file or none of it."""
    part = path.with_name(f".{path.name}.part")
    part.write_text(text, encoding="utf-8")
    os.replace(part, path)

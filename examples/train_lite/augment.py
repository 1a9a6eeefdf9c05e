"""Copies of clips at other sizes, frame rates and qualities, so that none of these is a cue.

    python examples/train_lite/augment.py DATA WORK/copies

Each generator has its own frame size and rate, and FETV's camera-made clips are 160 x 120 at 10
frames a second. Of each clip of `fetv_dev`, `chivileva_dev`, `modern` and `clips` there are then

    small   short side 120 px, 8 frames a second, the first 5 s
    up      the same, enlarged to 256 px
    aug     of rated and of camera-made clips: another crop, size, quality, maybe mirrored or at 8
            frames a second
"""

import json
import sys
from pathlib import Path

import av
import cv2
import manifests
import numpy as np

from encoders import FrameRequest, read_frames

SMALL_PX, UP_PX, RATE = 120, 256, 8
MOST_FRAMES, MOST_SECONDS = 240, 5


def main(data: Path, out: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    request = FrameRequest(indices=lambda n, fps: np.arange(min(n, MOST_FRAMES)), stream="slow")
    lines: list[dict[str, str]] = []
    for clip in manifests.read_originals(data):
        info, found = read_frames(clip.path, {"all": request})
        frames = found["all"].pixels.permute(0, 2, 3, 1).numpy()
        for kind in ("small", "up", "aug")[: 3 if clip.real or clip.rated else 2]:
            target = out / f"{clip.dataset}__{Path(clip.name).stem[:80]}__{kind}.mp4"
            if not target.exists():
                write(target, *changed(frames, info.fps, kind, seed=len(lines)))
            lines.append({"dataset": clip.dataset, "name": clip.name, "kind": kind})
            lines[-1]["video"] = target.name
    text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
    (out / "manifest.jsonl").write_text(text, encoding="utf-8")
    print(f"{len(lines)} copies -> {out}")


def changed(
    frames: np.ndarray, fps: float, kind: str, *, seed: int
) -> tuple[np.ndarray, float, int]:
    """Frames (t, h, w, 3), their rate and the quality (CRF) of a copy."""
    if kind != "aug":
        times = np.arange(0, min(len(frames) / fps, MOST_SECONDS), 1 / RATE)
        kept = np.unique(np.round(times * fps).astype(int).clip(0, len(frames) - 1))
        small = resized(frames[kept], SMALL_PX)
        return (small if kind == "small" else resized(small, UP_PX)), RATE, 16
    rng = np.random.default_rng(seed)
    height, width = frames.shape[1:3]
    share = rng.uniform(0.85, 1.0)
    h, w = int(height * share), int(width * share)
    top, left = int(rng.integers(height - h + 1)), int(rng.integers(width - w + 1))
    frames = frames[:150, top : top + h, left : left + w]
    if rng.random() < 0.5:
        frames = frames[:, :, ::-1]
    short = float(np.exp(rng.uniform(np.log(112), np.log(400))))
    if rng.random() < 0.5 and fps > 10:
        frames, fps = frames[:: max(1, round(fps / RATE))], RATE
    return resized(frames, short), fps, int(rng.integers(8, 25))


def resized(frames: np.ndarray, short_px: float) -> np.ndarray:
    height, width = frames.shape[1:3]
    scale = short_px / min(height, width)
    size = (max(2, round(width * scale / 2) * 2), max(2, round(height * scale / 2) * 2))
    method = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    return np.stack(
        [cv2.resize(np.ascontiguousarray(f), size, interpolation=method) for f in frames]
    )


def write(path: Path, frames: np.ndarray, fps: float, crf: int) -> None:
    part = path.with_suffix(".part.mp4")
    with av.open(str(part), "w") as container:
        stream = container.add_stream("libx264", rate=round(fps), options={"crf": str(crf)})
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv420p"
        for frame in frames:
            picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")
            container.mux(stream.encode(picture))
        container.mux(stream.encode())
    part.rename(path)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))

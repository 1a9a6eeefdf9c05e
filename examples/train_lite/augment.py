"""Copies of rated clips at other sizes, crops and qualities, with the same ratings.

    python examples/train_lite/augment.py DATA/fetv_dev WORK/augmented

Each generator of `fetv_dev` has its own frame size. The copies take that away, so that a model
can't tell generators apart by it. Real clips are left out (their watermark gives them away).
"""

import csv
import json
import sys
from pathlib import Path

import av
import cv2
import numpy as np

from encoders import FrameRequest, read_frames
from prompts.rubric import SCORES

COPIES = 2


def main(folder: Path, out: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    everything = FrameRequest(indices=lambda n, fps: np.arange(n), stream="slow")
    rows = []
    with open(folder / "manifest.csv", newline="", encoding="utf-8") as file:
        rated = [row for row in csv.DictReader(file) if row["real"] == "False"]
    for number, row in enumerate(rated):
        info, frames = read_frames(folder / row["video"], {"all": everything})
        pixels = frames["all"].pixels.permute(0, 2, 3, 1).numpy()
        for copy in range(COPIES):
            rng = np.random.default_rng((number, copy))
            target = out / f"{Path(row['video']).stem}_{copy}.mp4"
            if not target.exists():
                write(target, changed(pixels, rng), info.fps, int(rng.integers(8, 25)))
            record = {name: float(row[name]) for name in SCORES}
            rows.append(
                {
                    "video": target.name,
                    "prompt": row["prompt"],
                    "group": row["video"][:3],
                    "generator": row["generator"],
                    "original": row["video"],
                    **record,
                }
            )
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    (out / "manifest.jsonl").write_text(text, encoding="utf-8")
    print(f"{len(rows)} copies of {len(rated)} clips -> {out}")


def changed(frames: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Crop to 85-100 %, maybe mirror, and resize to a short side of 160 to 448 px."""
    height, width = frames.shape[1:3]
    share = rng.uniform(0.85, 1.0)
    h, w = int(height * share), int(width * share)
    top, left = int(rng.integers(height - h + 1)), int(rng.integers(width - w + 1))
    frames = frames[:, top : top + h, left : left + w]
    if rng.random() < 0.5:
        frames = frames[:, :, ::-1]
    scale = float(np.exp(rng.uniform(np.log(160), np.log(448)))) / min(h, w)
    size = (round(w * scale / 2) * 2, round(h * scale / 2) * 2)
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
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
    part.rename(path)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))

"""A few rated clips for the notebooks, small enough for two CPU cores.

With the environment variable `AIGVEVAL_DATA`, whose folder holds `fetv_dev`: generated clips with
the ratings of three people (FETV, CC BY 4.0). Without it, parts of the scene in `videos`, with
nominal scores: a clean part is worth 4.5 on each dimension, a damaged one less. Each part shows
something else and has a prompt of its own, so that whole prompts can be left out.
"""

import csv
import json
import os
import shutil
from pathlib import Path

import numpy as np

from aigveval.distortion.ladder import make_ladder, write_mp4
from encoders import read_video

VIDEOS = Path(__file__).resolve().parent / "videos"
SCORES = ("technical", "motion", "semantic", "overall")
FPS = 12.0
CLEAN = 4.5
TYPES = ("blur", "noise", "freeze", "flicker")
# name: prompt, first and last row, first and last column of 360 x 640, first of 24 frames, mirrored
PARTS = {
    "car": ("a red car drives along a road", 180, 340, 0, 320, 0, False),
    "ball": ("a blue ball bounces on a road", 180, 340, 320, 600, 0, False),
    "sunset": ("clouds drift past the sun at sunset", 0, 180, 320, 640, 4, False),
    "hills": ("mountains behind green hills with trees", 100, 260, 40, 320, 10, False),
    "passing": ("a car passes a bouncing ball", 160, 340, 160, 480, 12, False),
    "left": ("a red car drives to the left", 180, 340, 100, 420, 8, True),
    "sky": ("pink clouds in a blue sky", 0, 140, 0, 280, 0, True),
    "wide": ("a landscape at sunset with a road, a car and a ball", 0, 360, 0, 640, 6, True),
}


def has_human_scores() -> bool:
    """Whether the clips are rated by people, rather than nominally."""
    return _fetv() is not None


def sources(out: str | Path, *, count: int = 8) -> list[dict[str, str]]:
    """Up to 8 clips that nobody has damaged, one per prompt; what has to be made goes to `out`.

    Rows have `video`, `prompt`, `generator` and the scores `technical` ... `overall`, as text.
    """
    if has_human_scores():
        return [row for row in _rated() if row["generator"] == "ModelScopeT2V"][:count]
    Path(out).mkdir(parents=True, exist_ok=True)
    rows = []
    for name, (prompt, top, bottom, left, right, first, mirrored) in list(PARTS.items())[:count]:
        path = Path(out, f"{name}.mp4").resolve()
        if not path.exists():
            frames = read_video(VIDEOS / "scene_clean.mp4", num_slow=10**6).slow.pixels
            frames = frames[first::2, :, top:bottom, left:right][:24].permute(0, 2, 3, 1).numpy()
            if frames.shape[1] > 180:
                frames = frames[:, ::2, ::2]
            if mirrored:
                frames = frames[:, :, ::-1]
            write_mp4(path, np.ascontiguousarray(frames), FPS)
        rows.append(
            {
                "video": str(path),
                "prompt": prompt,
                "generator": "scene",
                **dict.fromkeys(SCORES, str(CLEAN)),
            }
        )
    return rows


def rated_clips(out: str | Path, *, prompts: int = 8) -> Path:
    """A manifest of rated clips of up to 8 prompts; of people's ratings with the raters' own.

    It goes to the folder `out`, and so do clips that have to be made.
    """
    if has_human_scores():
        chosen = list(dict.fromkeys(row["prompt"] for row in _rated()))[:prompts]
        rows = [row for row in _rated() if row["prompt"] in chosen]
    else:
        rows = _ladder_rows(Path(out), prompts)
    return write_manifest(Path(out, "ratings.csv"), rows)


def write_manifest(path: Path, rows: list[dict[str, str]]) -> Path:
    """Write rows as a CSV file; its columns are those of the first row."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def _ladder_rows(out: Path, prompts: int) -> list[dict[str, str]]:
    """Each source clean and with two kinds of damage, whose nominal drops are taken off."""
    rows = []
    for number, source in enumerate(sources(out / "clean", count=prompts)):
        kinds = (TYPES[number % 2], TYPES[2 + number % 2])
        name = Path(source["video"]).stem
        manifest = make_ladder(
            [source["video"]],
            out / "ladder" / name,
            types=kinds,
            severities=(2, 4),
            workers=1,
            quiet=True,
        )
        for text in manifest.read_text(encoding="utf-8").splitlines():
            line = json.loads(text)
            video = (out / f"{name}_{line['type']}_{line['severity']}.mp4").resolve()
            shutil.copyfile(manifest.parent / line["video"], video)
            scores = {n: CLEAN - line[f"{n}_drop"] for n in ("technical", "motion", "semantic")}
            scores["overall"] = sum(scores.values()) / 3
            rows.append(
                {
                    "video": str(video),
                    "prompt": source["prompt"],
                    "generator": line["type"],
                    **{name: f"{score:.3f}" for name, score in scores.items()},
                }
            )
    return rows


def _fetv() -> Path | None:
    folder = os.environ.get("AIGVEVAL_DATA")
    path = Path(folder, "fetv_dev", "manifest.csv") if folder else None
    return path if path and path.is_file() else None


def _rated() -> list[dict[str, str]]:
    """Generated clips of FETV; real ones have watermarks that give them away."""
    path = _fetv()
    assert path is not None
    with open(path, newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row.pop("real") == "False"]
    return [{**row, "video": str((path.parent / row["video"]).resolve())} for row in rows]

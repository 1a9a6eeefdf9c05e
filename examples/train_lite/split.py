"""Which clips the shipped checkpoint's ladder is made from, and which it is measured on.

One prompt rendered with 18 settings would count 18 times: three of those clips are kept. Of the
rest of `clips`, every fifth in order of name is left out of training: 11 clips. Of `modern` one
clip of each prompt is taken, every eighth left out, and every second of the rest trained on.
"""

import csv
from pathlib import Path

_SAME_PROMPT = ("guidance_scale_", "num_frames_", "num_inference_steps_")
_KEPT = ("guidance_scale_1250.mp4", "num_frames_040.mp4", "num_inference_steps_050.mp4")


def split_clips(folder: Path) -> tuple[list[str], list[str]]:
    """File names of `clips` to train on and file names left out, from `folder/manifest.csv`."""
    distinct = [name for name, _ in _records(folder) if not name.startswith(_SAME_PROMPT)]
    held_out = distinct[2::5]
    train = [name for name in distinct if name not in held_out]
    return train + list(_KEPT), held_out


def split_modern(folder: Path) -> tuple[list[str], list[str]]:
    """The same of `modern`."""
    first: dict[str, str] = {}
    for name, prompt in _records(folder):
        first.setdefault(prompt or name, name)
    distinct = sorted(first.values())
    held_out = distinct[2::8]
    return [name for name in distinct if name not in held_out][::2], held_out


def _records(folder: Path) -> list[tuple[str, str]]:
    with open(folder / "manifest.csv", newline="", encoding="utf-8") as file:
        return sorted((row["video"], row["prompt"]) for row in csv.DictReader(file))

"""Which clips the shipped checkpoint's ladder is made from, and which it is measured on.

One prompt rendered with 18 settings would count 18 times: three of those clips are kept. Of the
rest, every fifth in order of name is left out of training: 12 clips.
"""

import csv
from pathlib import Path

_SAME_PROMPT = ("guidance_scale_", "num_frames_", "num_inference_steps_")
_KEPT = ("guidance_scale_1250.mp4", "num_frames_040.mp4", "num_inference_steps_050.mp4")


def split_clips(folder: Path) -> tuple[list[str], list[str]]:
    """File names to train on and file names left out, from `folder/manifest.csv`."""
    with open(folder / "manifest.csv", newline="", encoding="utf-8") as file:
        names = sorted(row["video"] for row in csv.DictReader(file))
    distinct = [name for name in names if not name.startswith(_SAME_PROMPT)]
    held_out = distinct[2::5]
    train = [name for name in distinct if name not in held_out]
    return train + list(_KEPT), held_out

"""Make the clips that `aigveval doctor` scores, and the scores that it expects, for the package.

    python examples/make_self_test.py             clips and scores
    python examples/make_self_test.py --scores    the scores alone: after a training of `lite`

Both clips are cut out of the scene of `make_videos.py`, half as large: one as it is, with its
prompt; one that freezes, with a wrong prompt.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import cv2
import numpy as np
from make_videos import FPS, HEIGHT, PROMPT, WIDTH, WRONG_PROMPT, render_scene

import aigveval
from aigveval.data.distortions import damaged
from aigveval.data.ladder_worker import write_mp4
from aigveval.doctor_checks import MODEL, SELF_TEST, checkpoint_hashes
from aigveval.report import SCORE_FIELDS
from encoders.wheels import sha256

SECONDS = 2.0
PROMPTS = {"scene.mp4": PROMPT, "freeze.mp4": WRONG_PROMPT}


def make_clips(folder: Path) -> None:
    """Write the two clips."""
    half = (WIDTH // 2, HEIGHT // 2)
    frames = render_scene()[:round(FPS * SECONDS)]
    scene = np.stack([cv2.resize(f, half, interpolation=cv2.INTER_AREA) for f in frames])
    freeze, *_ = damaged(scene, "freeze", 4, seed=1, fps=FPS)
    for name, clip in (("scene.mp4", scene), ("freeze.mp4", freeze)):
        write_mp4(folder / name, clip, FPS, crf=23, preset="slow")


def write_expected(folder: Path) -> None:
    """Score the clips on the CPU and write what is expected of them."""
    assessor = aigveval.load(MODEL, device="cpu")
    clips = []
    for name, prompt in PROMPTS.items():
        row = assessor.score(folder / name, prompt=prompt)
        scores = {field: getattr(row, field).score for field in SCORE_FIELDS}
        clips.append({
            "video": name, "sha256": sha256(folder / name), "prompt": prompt, "scores": scores,
        })
        print(name, scores)
    expected = {"model": MODEL, "checkpoint": checkpoint_hashes(), "clips": clips}
    text = json.dumps(expected, indent=2) + "\n"
    (folder / "expected.json").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Makes the self-test of `aigveval doctor`.")
    parser.add_argument("--scores", action="store_true", help="keep the clips")
    if not parser.parse_args().scores:
        SELF_TEST.mkdir(exist_ok=True)
        make_clips(SELF_TEST)
    write_expected(SELF_TEST)

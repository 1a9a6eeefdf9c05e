"""Make the clips that `aigveval doctor` scores, and the scores that it expects, for the package.

    python examples/make_self_test.py             clips and scores
    python examples/make_self_test.py --scores    the scores alone: after a training of `lite`

The two clips that are scored are cut out of the scene of `make_videos.py`, half as large: one as it
is, with its prompt; one that freezes, with a wrong prompt. The others are two grey frames in each
codec.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import av
import cv2
import numpy as np
from make_videos import FPS, HEIGHT, PROMPT, WIDTH, WRONG_PROMPT, render_scene

import aigveval
from aigveval.assessment import SCORE_FIELDS
from aigveval.distortion.ladder import write_mp4
from aigveval.distortion.registry import damaged
from aigveval.doctor.checks import CODECS, GREYS, MODEL, SELF_TEST, checkpoint_hashes, decodes
from encoders.wheels import sha256

SECONDS = 2.0
PROMPTS = {"scene.mp4": PROMPT, "freeze.mp4": WRONG_PROMPT}


ENCODERS = {  # of each codec, with the pixel format
    "h264": ("libx264", "yuv420p"),
    "hevc": ("libx265", "yuv420p"),
    "vp8": ("libvpx", "yuv420p"),
    "vp9": ("libvpx-vp9", "yuv420p"),
    "av1": ("libsvtav1", "yuv420p"),
    "mpeg4": ("mpeg4", "yuv420p"),
    "prores": ("prores_ks", "yuv422p10le"),
    "mjpeg": ("mjpeg", "yuvj420p"),
    "gif": ("gif", "rgb8"),
}


def make_samples(folder: Path) -> None:
    """Write two grey frames in each codec.

    Now and then libx265 writes headers that FFmpeg's decoder refuses; then it tries again.
    """
    for codec, (encoder, pixels) in ENCODERS.items():
        for _ in range(100):
            path = folder / f"codec_{codec}.{CODECS[codec]}"
            with av.open(str(path), "w") as out:
                stream = out.add_stream(encoder, rate=8)
                stream.width, stream.height, stream.pix_fmt = 128, 96, pixels
                for grey in GREYS:
                    picture = np.full((96, 128, 3), grey, np.uint8)
                    frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
                    out.mux(stream.encode(frame.reformat(format=pixels)))
                out.mux(stream.encode())
            if decodes(codec):
                break
        else:
            raise SystemExit(f"no clip in {codec} that can be read")


def make_clips(folder: Path) -> None:
    """Write the two clips."""
    half = (WIDTH // 2, HEIGHT // 2)
    frames = render_scene()[: round(FPS * SECONDS)]
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
        clips.append(
            {
                "video": name,
                "sha256": sha256(folder / name),
                "prompt": prompt,
                "scores": scores,
            }
        )
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
        make_samples(SELF_TEST)
    write_expected(SELF_TEST)

"""Where the time goes: seconds per clip, split by stage, beside the time of decoding alone.

    python examples/benchmarks/pipeline.py [VIDEO ...] [--repeat 3] [--model lite] [--out FILE.json]

Without a video it makes one: 1280 x 720, 5 seconds, 24 frames per second, H.264.

    start-up     from the start of a fresh process until the model is loaded; warm cache
    first clip   the first call of `score` in that process, which loads the text encoder
    peak memory  of that process, after this call
    total        one call of `score` in a process that has loaded the model
    explanation  what one call of `score` takes longer with `explain=True`, contributions included,
                 of a model that can
    the stages   the same work done step by step: `decode` reads the frames that the encoders ask
                 for and does nothing else; `prompt` is what an encoder does with the text

Times are medians over the repeats. Every repeat has a prompt of its own, so that no text is taken
from a cache; files come out of the system's cache, as the warm-up has just read them.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

import aigveval

sys.path.insert(0, str(Path(__file__).parents[1]))  # for make_videos

PROMPT = "a red car drives along a road past green hills"

# A process of its own for each clip: imports and peak memory count from nothing.
FRESH = """
import json, resource, sys, time
import aigveval
assessor = aigveval.load(sys.argv[1], device=sys.argv[2])
loaded = time.time()
assessor.score(sys.argv[3], prompt=sys.argv[4])
first = time.time() - loaded
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
peak *= 1 if sys.platform == "darwin" else 1024  # Linux counts in kB
print(json.dumps([loaded, first, peak]))
"""


def make_clip(path: Path, *, width: int = 1280, height: int = 720, seconds: float = 5.0) -> None:
    """Write a clip with texture everywhere, camera motion, and a car that moves against it."""
    from make_videos import FPS, draw_car, texture, tint

    from aigveval.distortion.ladder import write_mp4

    wide, tall = width + height, height + height // 4
    land = tint(
        texture(tall, wide, seed=1, coarse=8, octaves=7, fade=1.3), (24, 60, 30), (214, 196, 150)
    ).astype(np.uint8)
    frames = np.empty((round(FPS * seconds), height, width, 3), np.uint8)
    for number, frame in enumerate(frames):
        share = number / len(frames)
        left = round(share * (wide - width))
        top = round((0.5 + 0.5 * np.sin(6 * share)) * (tall - height))
        frame[:] = land[top : top + height, left : left + width]
        draw_car(frame, (0.2 + 0.6 * share) * width, 0.85 * height, 0.4 * height, 30 * share)
    write_mp4(path, frames, FPS, crf=20, preset="veryfast")


def fresh_process(video: Path, model: str, device: str) -> dict[str, float]:
    """Start-up time, time of the first clip, and peak memory."""
    start = time.time()
    done = subprocess.run(
        [sys.executable, "-c", FRESH, model, device, str(video), PROMPT],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    loaded, first, peak = json.loads(done.stdout.splitlines()[-1])
    return {
        "startup_seconds": loaded - start,
        "first_clip_seconds": first,
        "peak_memory_mb": peak / 1e6,
    }


class Stages:
    """The parts of `Assessor.score` one after the other, each with its time."""

    def __init__(self, assessor: aigveval.Assessor) -> None:
        self.engine: Any = assessor.engine
        self.seconds: dict[str, float] = {}

    def run(self, video: Path, prompt: str) -> list[float]:
        """Scores technical, motion, semantic, overall; the times are in `seconds`."""
        import torch

        from encoders import read_frames
        from encoders.video import requests_of

        model, processor, device = self.engine.model, self.engine.processor, self.engine.device
        self.seconds = {}
        requests = requests_of(processor.encoders)
        self.start = time.perf_counter()
        _, frames = read_frames(video, requests)
        self.lap("decode")
        views, tokens = {}, {}
        for name, encoder in processor.encoders.items():
            views[name] = encoder.preprocess(frames[name].pixels)[None].to(device)
            self.lap(f"preprocess {name}")
        with torch.inference_mode():
            for name, encoder in model.encoders.items():
                tokens[name] = encoder.encode(views[name])
                self.lap(f"encode {name}")
            features = model.join(tokens, [prompt])
            self.lap("prompt")
            text = processor.encode_prompts([prompt]).to(device)
            scores = self.engine.run(features=features, **text).scores[0].tolist()
            self.lap("LLM")
        return scores

    def lap(self, stage: str) -> None:
        """Note the time since the last call."""
        if self.engine.device.type == "cuda":
            import torch

            torch.cuda.synchronize(self.engine.device)
        now = time.perf_counter()
        self.seconds[stage] = now - self.start
        self.start = now


def measure(
    assessor: aigveval.Assessor, explaining: aigveval.Assessor | None, video: Path, repeat: int
) -> dict[str, Any]:
    """Medians of total and stages, and what the clip is like."""
    from encoders import read_video

    info = read_video(video).info
    stages = Stages(assessor)
    # The warm-up, which also proves that the stages are what `score` does.
    apart, whole = stages.run(video, PROMPT), assessor.score(video, prompt=PROMPT)
    names = ("technical", "motion", "semantic", "overall")
    np.testing.assert_allclose(apart, [getattr(whole, name).score for name in names], atol=1e-4)
    runs: list[dict[str, float]] = []
    for number in range(repeat):
        start = time.perf_counter()
        assessor.score(video, prompt=f"{PROMPT}, take {number}")
        total = time.perf_counter() - start
        stages.run(video, f"{PROMPT}, cut {number}")
        runs.append({**stages.seconds, "total": total})
        if explaining is not None:
            start = time.perf_counter()
            explaining.score(video, prompt=f"{PROMPT}, act {number}")
            runs[-1]["explanation"] = time.perf_counter() - start - total
    seconds = {stage: median(run[stage] for run in runs) for stage in runs[0]}
    return {
        "video": video.name,
        "width": info.width,
        "height": info.height,
        "fps": info.fps,
        "frames": info.num_frames,
        "backend": info.backend,
        "seconds": seconds,
        "total_per_decode": seconds["total"] / seconds["decode"],
        "runs": runs,
    }


def show(clips: list[dict[str, Any]]) -> None:
    """A table: stages down, clips across."""
    from rich.table import Table

    from aigveval.cli.console import print_wide

    table = Table("seconds per clip", show_edge=False)
    for clip in clips:
        size = f"{clip['width']}x{clip['height']}, {clip['frames']} frames"
        table.add_column(f"{clip['video']}\n{size}", justify="right")
    for stage in clips[0]["seconds"]:
        if stage == "total":
            table.add_section()
        table.add_row(stage, *(f"{clip['seconds'][stage]:.3f}" for clip in clips))
    table.add_row("total / decode", *(f"{clip['total_per_decode']:.2f}" for clip in clips))
    table.add_section()
    table.add_row("start-up, s", *(f"{clip['startup_seconds']:.1f}" for clip in clips))
    table.add_row("first clip, s", *(f"{clip['first_clip_seconds']:.1f}" for clip in clips))
    table.add_row("peak memory, MB", *(f"{clip['peak_memory_mb']:.0f}" for clip in clips))
    print_wide(table)


def parser_of(description: str | None) -> argparse.ArgumentParser:
    """For the options of a script, whose docstring is shown as it stands."""
    layout = argparse.RawDescriptionHelpFormatter
    return argparse.ArgumentParser(description=description, formatter_class=layout)


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("videos", nargs="*", type=Path, metavar="VIDEO")
    parser.add_argument("--repeat", type=int, default=3, help="runs per clip (default 3)")
    parser.add_argument("--model", default="lite", help="lite, a folder or a Hub id")
    parser.add_argument("--device", default="cpu", help="cpu (default), cuda, ...")
    parser.add_argument("--out", type=Path, help="JSON file for the figures, single runs included")
    args = parser.parse_args()
    if args.repeat < 1:
        parser.error("--repeat must be at least 1")
    with tempfile.TemporaryDirectory() as folder:
        videos = args.videos
        if not videos:
            videos = [Path(folder) / "scene_720p.mp4"]
            make_clip(videos[0])
        # A first process fills the caches; the measured ones come before anything is loaded here,
        # because on Linux a process begins with the peak memory of the one that starts it.
        fresh_process(videos[0], args.model, args.device)
        fresh = [fresh_process(video, args.model, args.device) for video in videos]
        assessor = aigveval.load(args.model, device=args.device)
        explaining = None
        if assessor.engine.model.config.explains:  # type: ignore[attr-defined]
            explaining = aigveval.load(args.model, device=args.device, explain=True)
        clips = [measure(assessor, explaining, video, args.repeat) for video in videos]
    import torch

    clips = [{**clip, **figures} for clip, figures in zip(clips, fresh)]
    setup = {
        "model": args.model,
        "version": aigveval.__version__,
        "device": args.device,
        "cores": os.cpu_count(),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "repeat": args.repeat,
    }
    show(clips)
    print(", ".join(f"{name} {value}" for name, value in setup.items()))
    if args.out:
        args.out.write_text(json.dumps({**setup, "clips": clips}, indent=2) + "\n")


if __name__ == "__main__":
    main()

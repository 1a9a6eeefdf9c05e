"""What the encoders cost: milliseconds and GFLOPs per clip.

    python examples/benchmarks/encoder_cost.py [--only NAME ...] [--device cpu] [--dtype float32]
                                           [--batch 1] [--compile] [--repeat 3] [--out FILE.json]

A clip of 5 seconds, 1280 x 720, 24 frames per second, is made in memory, so decoding isn't counted.
`prepare` is what an encoder does with the frames on the CPU, `encode` its network, both in
milliseconds per clip, medians over the repeats after one to warm up. GFLOPs are counted by PyTorch
(a multiplication and an addition are two), and are those of networks alone. The networks of the
papers get random weights where their checkpoint isn't there: that changes no time.

Besides the defaults there are rows with the settings of the upstream code, where they differ.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch.utils.flop_counter import FlopCounterMode

from encoders import Encoder, create_encoder
from encoders.checkpoints import RANDOM

sys.path.insert(0, str(Path(__file__).parents[1]))  # for make_videos

FPS, FRAMES, HEIGHT, WIDTH = 24.0, 120, 720, 1280
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "technical_lite": ("technical_lite", {}),
    "technical_fastvqa": ("technical_fastvqa", {"weights": RANDOM}),
    "... 4 clips, as FAST-VQA-B is tested": (
        "technical_fastvqa",
        {"weights": RANDOM, "num_clips": 4},
    ),
    "... FasterVQA": ("technical_fastvqa", {"weights": RANDOM, "variant": "fastervqa"}),
    "... 8 frames, as in AIGVEval": (
        "technical_fastvqa",
        {"weights": RANDOM, "num_frames": 8, "time_steps": 1},
    ),
    "technical_timm": ("technical_timm", {"weights": RANDOM}),
    "motion_flow": ("motion_flow", {}),
    "motion_slowfast": ("motion_slowfast", {"weights": RANDOM}),
    "... both pathways, as SlowFast": ("motion_slowfast", {"weights": RANDOM, "pathways": "both"}),
    "semantic_lite": ("semantic_lite", {}),
    "semantic_clip, ViT-B-32": ("semantic_clip", {"model": "ViT-B-32", "weights": RANDOM}),
    "semantic_clip, ViT-L-14": ("semantic_clip", {"model": "ViT-L-14", "weights": RANDOM}),
}


def make_frames() -> torch.Tensor:
    """Texture that moves: uint8 (t, 3, h, w)."""
    from make_videos import texture

    wide = texture(HEIGHT, WIDTH + 4 * FRAMES, seed=1, coarse=8, octaves=7, fade=1.3)
    wide = np.uint8(255 * (wide - wide.min()) / np.ptp(wide))
    frames = np.stack([wide[:, 4 * n : 4 * n + WIDTH] for n in range(FRAMES)])
    return torch.from_numpy(frames)[:, None].expand(-1, 3, -1, -1)


def seconds(function: Callable[[], Any], repeat: int, device: torch.device) -> float:
    """Median over the repeats, after a call that doesn't count."""
    found = []
    for _ in range(repeat + 1):
        start = time.perf_counter()
        function()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        found.append(time.perf_counter() - start)
    return median(found[1:])


def measure(
    encoder: Encoder,
    clip: torch.Tensor,
    *,
    batch: int,
    device: torch.device,
    dtype: torch.dtype,
    compiled: bool,
    repeat: int,
) -> dict[str, float]:
    """One row of the table."""
    frames = clip[torch.from_numpy(encoder.frame_indices(FRAMES, FPS))].contiguous()
    prepare = seconds(lambda: encoder.preprocess(frames), repeat, torch.device("cpu"))
    view = encoder.preprocess(frames)
    encoder.eval().to(device)
    views = view[None].repeat(batch, *[1] * view.ndim).to(device)
    parameters = sum(part.numel() for part in encoder.parameters())
    with torch.inference_mode(), torch.autocast(device.type, dtype, dtype != torch.float32):
        encoder.requires_grad_(True)  # frozen, some compute by operators that aren't counted
        with FlopCounterMode(display=False) as counter:
            encoder.encode(views[:1])
        encoder.requires_grad_(False)
        encode = torch.compile(encoder.encode) if compiled else encoder.encode
        # Encoders may remember their last input: a new one each time.
        count = iter(range(10**6))

        def run() -> None:
            fresh = views.roll(next(count) % 7 + 1, dims=-1)
            encode(fresh)

        spent = seconds(run, repeat, device) / batch
    return {
        "tokens": encoder.spec.num_tokens,
        "dim": encoder.spec.dim,
        "million parameters": parameters / 1e6,
        "GFLOPs": counter.get_total_flops() / 1e9,
        "prepare ms": prepare * 1e3,
        "encode ms": spent * 1e3,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--only", nargs="*", help="encoders, by their names")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16", "float16"])
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    device, clip, console = torch.device(options.device), make_frames(), Console()
    table = Table("encoder", "tokens", "parameters, M", "GFLOPs", "prepare ms", "encode ms")
    rows = {}
    for label, (name, settings) in CASES.items():
        if options.only and name not in options.only:
            continue
        with console.status(label):
            row = rows[label] = measure(
                create_encoder(name, **settings),
                clip,
                batch=options.batch,
                device=device,
                dtype=getattr(torch, options.dtype),
                compiled=options.compile,
                repeat=options.repeat,
            )
        table.add_row(
            label,
            f"{row['tokens']:.0f} x {row['dim']:.0f}",
            f"{row['million parameters']:.1f}",
            f"{row['GFLOPs']:.1f}",
            f"{row['prepare ms']:.0f}",
            f"{row['encode ms']:.0f}",
        )
    console.print(table)
    where = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    console.print(
        f"{where}, {torch.get_num_threads()} threads, torch {torch.__version__}, "
        f"{options.dtype}, batch {options.batch}",
        highlight=False,
    )
    if options.out:
        options.out.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

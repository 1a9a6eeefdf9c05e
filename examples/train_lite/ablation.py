"""Slow and fast frames: what their numbers bring and cost, on the rated clips.

    python examples/train_lite/ablation.py DATA --cache WORK/cache --out WORK/ablation

The encoders of `lite` with 4, 8 or 16 slow frames (technical and semantic), with 16, 32 or 64 fast
frames (motion), and with both; their other options are those of recipe.py. For each an SVR on their
tokens predicts the three ratings in the folds of recipe.py, see baselines.py: the features are what
is compared, and training `lite` anew for each would take days. Cost is on one clip of 1280 x 720,
5 seconds: the processor's time, of all its cores together, to read the frames that these encoders
ask for and to encode them.

Prints a Markdown table, and writes it to OUT.md and all figures to OUT.json.
"""

import sys
import tempfile
import time
from itertools import product
from pathlib import Path
from statistics import median
from typing import Any

import manifests
import numpy as np
import torch
from agreement import figures_of, table_lines
from baselines import argument_parser, out_of_fold, pooled, publish
from recipe import ENCODERS
from rich.progress import track

from aigveval.features.cache import FeatureCache
from encoders import create_encoder, read_frames
from encoders.video import requests_of
from prompts.rubric import DIMENSIONS

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
from pipeline import make_clip  # noqa: E402

SLOW, FAST = (4, 8, 16), (16, 32, 64)
REPEATS = 3
Setting = tuple[int, int]  # slow and fast frames; 0 where there are none


def settings() -> list[Setting]:
    """Slow frames only, fast frames only, and both."""
    both = list(product(SLOW, FAST))
    return [*((slow, 0) for slow in SLOW), *((0, fast) for fast in FAST), *both]


def encoders_of(setting: Setting) -> list[tuple[str, int]]:
    """Names with their numbers of frames, in the order of the question."""
    slow, fast = setting
    chosen = [("semantic_lite", slow), ("motion_flow", fast), ("technical_lite", slow)]
    return [(name, count) for name, count in chosen if count]


def options_of(name: str, count: int) -> dict[str, Any]:
    """Options of an encoder of `lite` that looks at so many frames."""
    return {**ENCODERS[name], "num_frames": count}


def cost_of(setting: Setting, video: Path) -> dict[str, float]:
    """Seconds of processor time for a clip, and tokens of evidence that the LLM has to read."""
    encoders = {
        name: create_encoder(name, **options_of(name, count))
        for name, count in encoders_of(setting)
    }
    spent = []
    for _ in range(REPEATS + 1):  # the first warms up
        start = time.process_time()
        _, frames = read_frames(video, requests_of(encoders))
        with torch.inference_mode():
            for name, encoder in encoders.items():
                encoder.encode(encoder.preprocess(frames[name].pixels)[None])
        spent.append(time.process_time() - start)
    tokens = sum(encoder.spec.num_tokens for encoder in encoders.values())
    return {"cpu_seconds": median(spent[1:]), "tokens": tokens}


def as_markdown(found: dict[str, dict[str, Any]]) -> str:
    """SROCC pooled / within generators, and the cost."""
    rows = []
    for row in found.values():
        cells = []
        for dimension in DIMENSIONS:
            pair = (row[dimension][name] for name in ("SROCC", "SROCC within generators"))
            cells.append(" / ".join(f"{value[0]:.2f}" for value in pair))
        slow, fast = (str(count or "-") for count in row["frames"])
        rows.append([slow, fast, *cells, f"{row['cpu_seconds']:.2f}", str(row["tokens"])])
    header = ("slow", "fast", *DIMENSIONS, "CPU seconds", "tokens")
    return "\n".join(table_lines(header, rows)) + "\n"


def main(data: Path, *, cache: Path, out: Path, draws: int) -> None:
    rows, _ = manifests.read_rated(data)
    fold = manifests.fold_of(data, [row.group for row in rows])
    features = FeatureCache(cache)
    generators = np.array([row.generator for row in rows])
    prompts = np.array([row.group for row in rows])
    known = {
        one: pooled(rows, [one[0]], features, **options_of(*one))
        for setting in settings()
        for one in encoders_of(setting)
    }
    found: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as folder:
        video = Path(folder, "scene.mp4")
        make_clip(video)
        for setting in track(settings(), "Settings"):
            parts = [known[one] for one in encoders_of(setting)]
            X = np.hstack([part for part, _ in parts])
            widths = tuple(width for _, own in parts for width in own)
            row: dict[str, Any] = {"frames": list(setting), **cost_of(setting, video)}
            for column, dimension in enumerate(DIMENSIONS):
                y = np.array([one.scores[column] for one in rows])
                predicted = out_of_fold(X, widths, y, fold, prompts, regressor="SVR")
                row[dimension] = figures_of(predicted, y, generators, prompts, draws=draws)
            found[f"{setting[0]} slow, {setting[1]} fast"] = row
    publish(out, as_markdown(found), found)


if __name__ == "__main__":
    arguments = argument_parser(__doc__).parse_args()
    main(arguments.data.resolve(), cache=arguments.cache, out=arguments.out, draws=arguments.draws)

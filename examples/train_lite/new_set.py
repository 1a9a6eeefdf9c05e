"""How well `aigveval fit` learns some dozens of clips of a data set that `lite` has never seen.

    python examples/train_lite/new_set.py DATA WORK

From the models of recipe.py that were trained without a data set, by `ridge` alone, as
docs/training.md has it for some dozens of clips: on two thirds of the data set's prompts, measured
on the last third, for each third of some random splits. Prints means over these thirds, before and
after. Needs what recipe.py made; ten minutes on two cores, and nothing of it is kept.
"""

import csv
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import manifests
import numpy as np
from agreement import figures_of, table_lines
from manifests import Clip
from measure import CHECKED
from numpy.typing import NDArray
from rich.console import Console

from aigveval.features.cache import FeatureCache
from aigveval.train.config import FitConfig
from aigveval.train.fit import main as fit
from aigveval.train.predict import predict
from prompts.rubric import SCORES

SPLITS = 6
SHOWN = ("SROCC", "same-prompt pairs")


def main(data: Path, work: Path) -> None:
    cache, console = FeatureCache(work / "cache"), Console(stderr=True)
    originals = manifests.read_originals(data)
    lines = []
    for dataset, names in CHECKED.items():
        clips = [clip for clip in originals if clip.dataset == dataset and clip.judged]
        base = work / f"runs/without_{dataset}/model"
        before = predict(base, [clip.row() for clip in clips], cache)
        found: dict[str, list[list[float]]] = {}
        for number, left_out in enumerate(thirds([clip.group for clip in clips])):
            console.print(f"{dataset}: {number + 1} of {3 * SPLITS}")
            known = [clip for clip, out in zip(clips, left_out) if not out]
            rest = [clip for clip, out in zip(clips, left_out) if out]
            after = predicted(base, known, rest, cache)
            for name in names:
                column = SCORES.index(name)
                figures = [
                    value
                    for scores in (before[left_out], after)
                    for value in agreement(rest, scores[:, column], column)
                ]
                found.setdefault(name, []).append(figures)
        for name, rows in found.items():
            cells = [f"{value:.2f}" for value in np.mean(rows, 0)]
            lines.append([dataset, name, *cells])
    head = [f"{figure}, {when}" for when in ("before", "after") for figure in SHOWN]
    print("\n".join(table_lines(["data set", "score", *head], lines)))


def thirds(groups: Sequence[str | None]) -> list[NDArray[np.bool_]]:
    """Which clips are left out, (n,), for each third of each split of their groups."""
    names = sorted({str(group) for group in groups})
    found = []
    for split in range(SPLITS):
        order = np.random.default_rng(split).permutation(names)
        found += [np.isin(groups, order[third::3]) for third in range(3)]
    return found


def predicted(
    base: Path, known: Sequence[Clip], rest: Sequence[Clip], cache: FeatureCache
) -> NDArray[np.float64]:
    """Scores (n, 4) of the rest, by the base model after it has learnt what is known."""
    with tempfile.TemporaryDirectory() as folder:
        manifest = Path(folder, "known.csv")
        with open(manifest, "w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(["video", "prompt", *SCORES])
            for clip in known:
                scores = ["" if np.isnan(score) else score for score in clip.scores]
                writer.writerow([clip.path, clip.prompt, *scores])
        result = fit(
            FitConfig(
                train=[str(manifest)],
                output_dir=str(Path(folder, "run")),
                cache_dir=str(cache.folder),
                base=str(base),
                ridge=True,
                epochs=0,
            )
        )
        return predict(result.model, [clip.row() for clip in rest], cache)


def agreement(clips: Sequence[Clip], scores: NDArray[np.float64], column: int) -> list[float]:
    targets = np.array([clip.scores[column] for clip in clips])
    generators = np.array([clip.generator for clip in clips])
    prompts = np.array([clip.group for clip in clips])
    found = figures_of(scores, targets, generators, prompts, draws=1)
    return [value[0] if (value := found[name]) else np.nan for name in SHOWN]


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve(), Path(sys.argv[2]).resolve())

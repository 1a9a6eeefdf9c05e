"""Make the shipped checkpoint `lite`, and measure it.

    python examples/train_lite/recipe.py DATA WORK

DATA holds `clips` (generated clips with prompts, for the ladder) and `fetv_dev` (rated clips).
Every step leaves its result in WORK and is skipped when that is there; a killed training goes on
where it stopped. The steps:

1. ladder: damaged versions of the clips; the sources left out of training at all severities.
2. augment: copies of the rated clips at other sizes and qualities.
3. base: projectors and LoRA learn the ladder, without any rating.
4. final: all ratings, with ladder rows labelled by a ridge regression that saw the same ratings.
   This is what ships.
5. folds: the same five times with the ratings of four fifths of the prompts, for measuring.
6. measure: figures.json. See measure.py.
"""

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import manifests
import numpy as np
import ridge
from augment import main as augment
from measure import measure
from split import split_clips

from aigveval.data.cache import FeatureCache, extract
from aigveval.data.ladder import make_ladder
from aigveval.train.data import TrainingRow
from aigveval.train.fit import main as fit
from aigveval.train.fit_config import FitConfig
from encoders import Encoder, create_encoder
from prompts.rubric import DIMENSIONS

ENCODERS = ["semantic_lite", "motion_flow", "technical_lite"]
SEVERITIES_TRAINED = (1, 3, 5)
LADDER_ROWS = 100  # of the ladder, beside the ratings, in the second stage
COPY_WEIGHT = 0.5
COMMON: dict[str, Any] = {
    "batch_size": 16, "group_batches": True, "rank_min_difference": 0.2, "weight_decay": 0.05,
    "feature_noise": 0.1, "threads": 2, "save_steps": 20,
}
BASE: dict[str, Any] = {
    "encoders": ENCODERS, "projector_hidden": 256, "epochs": 2, "group_size": 8,
    "learning_rate": 1e-3, "lora_learning_rate": 4e-4, "mismatch_probability": 0.2,
    "prompt_dropout": 0.05, "loss": {"level": 1.0, "plcc": 0.5, "rank": 0.3, "group_rank": 1.0},
}
RATED: dict[str, Any] = {
    "epochs": 2, "group_size": 4, "learning_rate": 3e-4, "lora_learning_rate": 3e-4,
    "mismatch_probability": 0.15, "prompt_dropout": 0.05,
    "loss": {"level": 1.0, "plcc": 1.0, "rank": 0.3, "group_rank": 0.5},
}


def main(data: Path, work: Path) -> None:
    cache = FeatureCache(work / "cache")
    encoders = [create_encoder(name) for name in ENCODERS]
    render(data / "clips", work)
    if not (work / "augmented/manifest.jsonl").exists():
        augment(data / "fetv_dev", work / "augmented")

    ladder, _ = manifests.read_ladder(work / "ladder/train")
    records = manifests.read_jsonl(work / "ladder/train/manifest.jsonl")
    base_rows = [row for row, record in zip(ladder, records) if manifests.kept(record)]
    manifests.write_manifest(work / "base.jsonl", base_rows)
    base = trained(work, "base", [work / "base.jsonl"], {**BASE, **COMMON})

    rated, names = manifests.read_rated(data / "fetv_dev")
    extract([row.video for row in rated], encoders, cache, workers=2)
    fold = manifests.fold_of(rated)
    for number in [None, *range(manifests.FOLDS)]:
        name = "final" if number is None else f"fold{number}"
        keep = np.ones(len(rated), dtype=bool) if number is None else fold != number
        human = [row for row, chosen in zip(rated, keep) if chosen]
        originals = {n for n, chosen in zip(names, keep) if chosen}
        human += manifests.read_copies(work / "augmented", originals, COPY_WEIGHT)
        clean = pseudo_labels(rated, keep, records, work, encoders, cache)
        labelled, _ = manifests.read_ladder(work / "ladder/train", clean)
        usable = [row for row, record in zip(labelled, records) if manifests.kept(record)]
        rows = human + manifests.sampled(usable, LADDER_ROWS, 1.0, seed=number or 0)
        manifests.write_manifest(work / f"{name}.jsonl", rows)
        trained(work, name, [work / f"{name}.jsonl"], {**RATED, **COMMON, "base": str(base)})
    measure(data, work)


def render(clips: Path, work: Path) -> None:
    """The two ladders, where they aren't there yet."""
    parts = zip(("train", "heldout"), split_clips(clips), (SEVERITIES_TRAINED, range(1, 6)))
    for part, sources, severities in parts:
        if not (work / "ladder" / part / "manifest.jsonl").exists():
            make_ladder(
                [clips / name for name in sources], work / "ladder" / part,
                prompts=clips / "manifest.csv", severities=tuple(severities),
                max_side_px=512, max_seconds=4,
            )


def trained(work: Path, name: str, train: Sequence[Path], options: dict[str, Any]) -> Path:
    """The model of a run, trained unless it's there."""
    output = work / "runs" / name
    if not (output / "model/config.json").exists():
        fit(FitConfig(
            train=[str(path) for path in train], output_dir=str(output),
            cache_dir=str(work / "cache"), **options,
        ))
    return output / "model"


def pseudo_labels(
    rated: Sequence[TrainingRow], keep: np.ndarray, records: Sequence[dict[str, Any]],
    work: Path, encoders: Sequence[Encoder], cache: FeatureCache,
) -> dict[str, list[float]]:
    """Scores of the ladder's clean clips by ridge regression on the ratings of `keep`."""
    clean = {r["group"]: r for r in records if r["type"] == "clean"}
    rows = [
        replace(rated[0], video=str(work / "ladder/train" / r["video"]), prompt=r["prompt"])
        for r in clean.values()
    ]
    known, wanted = (ridge.pooled(part, encoders, cache) for part in (rated, rows))
    known = ridge.subset(known, keep)
    columns = []
    for number, name in enumerate(DIMENSIONS):
        targets = np.array([row.scores[number] for row in rated])[keep]
        columns.append(ridge.fitted(known, targets, ridge.USED[name])(wanted))
    scores = np.clip(np.stack(columns, axis=1), 1.5, 5.0)
    return {group: row.tolist() for group, row in zip(clean, scores)}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("work", type=Path)
    arguments = parser.parse_args()
    main(arguments.data.resolve(), arguments.work.resolve())

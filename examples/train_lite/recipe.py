"""Make the shipped checkpoint `lite`, and measure it.

    python examples/train_lite/recipe.py DATA WORK

DATA holds `clips` (generated clips with prompts, for the ladder) and `fetv_dev` (rated clips).
Every step leaves its result in WORK and is skipped when that is there; a killed training goes on
where it stopped. The steps:

1. ladder: damaged versions of the clips; the sources left out of training at all severities.
2. augment: copies of the rated clips at other sizes and qualities.
3. base: projectors and LoRA learn the ladder, without any rating.
4. final: all ratings. The projectors start from a ridge regression on them and are aligned on
   ratings and ladder together (the ladder's clean clips labelled by the same regression); then
   projectors and LoRA are trained through the LLM. This is what ships.
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
from numpy.typing import NDArray
from rich.console import Console
from split import split_clips

from aigveval.config import AIGVEvalConfig
from aigveval.data.cache import FeatureCache, extract
from aigveval.data.ladder import make_ladder
from aigveval.fusion import pack_features
from aigveval.modeling import AIGVEvalModel
from aigveval.processing import AIGVEvalProcessor
from aigveval.train.align import align
from aigveval.train.data import TrainingRow
from aigveval.train.dataset import Collator, QualityDataset
from aigveval.train.fit import main as fit
from aigveval.train.fit_config import FitConfig
from encoders import create_encoder
from prompts.rubric import DIMENSIONS

ENCODERS = ["semantic_lite", "motion_flow", "technical_lite"]
SEVERITIES_TRAINED = (1, 3, 5)
LADDER_ROWS = 100  # of the ladder, beside the ratings, in the second stage
COPY_WEIGHT = 0.5
COMMON: dict[str, Any] = {
    "batch_size": 16, "group_batches": True, "rank_min_difference": 0.2, "weight_decay": 0.05,
    "feature_noise": 0.2, "threads": 2, "save_steps": 20,
}
BASE: dict[str, Any] = {
    "encoders": ENCODERS, "projector_hidden": 256, "align_epochs": 15, "epochs": 3, "group_size": 8,
    "learning_rate": 3e-4, "lora_learning_rate": 5e-4, "mismatch_probability": 0.25,
    "prompt_dropout": 0.05, "loss": {"level": 1.0, "plcc": 0.5, "rank": 0.3, "group_rank": 1.0},
}
RATED: dict[str, Any] = {
    "epochs": 2, "group_size": 4, "learning_rate": 1e-4, "lora_learning_rate": 2e-4,
    "mismatch_probability": 0.2, "prompt_dropout": 0.05,
    "loss": {"level": 1.0, "plcc": 1.0, "rank": 0.3, "group_rank": 0.5},
}
ALIGNED: dict[str, Any] = {"align_epochs": 12, "mismatch_probability": 0.25}
RATED_WEIGHT = 3.0  # of a rated clip beside a ladder row, while the projectors are aligned


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
        human = human_rows(rated, names, work, fold != number)
        start, labelled = started(name, base, human, ladder, records, work, cache)
        rows = human + manifests.sampled(labelled, LADDER_ROWS, 1.0, seed=number or 0)
        manifests.write_manifest(work / f"{name}.jsonl", rows)
        trained(work, name, [work / f"{name}.jsonl"], {**RATED, **COMMON, "base": str(start)})
    measure(data, work)


def human_rows(
    rated: Sequence[TrainingRow], names: Sequence[str], work: Path, keep: NDArray[np.bool_]
) -> list[TrainingRow]:
    """The rated clips where `keep` is true, and their copies."""
    originals = {name for name, chosen in zip(names, keep) if chosen}
    human = [row for row, chosen in zip(rated, keep) if chosen]
    return human + manifests.read_copies(work / "augmented", originals, COPY_WEIGHT)


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


def started(
    name: str, base: Path, human: Sequence[TrainingRow], ladder: Sequence[TrainingRow],
    records: Sequence[dict[str, Any]], work: Path, cache: FeatureCache,
) -> tuple[Path, list[TrainingRow]]:
    """The base model with its projectors started from ridge and aligned on ratings and ladder.

    Returns:
        Its folder, and the ladder's rows that are trained on, labelled by ridge.
    """
    output = work / "runs" / name / "start"
    processor = AIGVEvalProcessor.from_pretrained(base)
    model = AIGVEvalModel.from_pretrained(base, config=AIGVEvalConfig.from_pretrained(
        base, feature_noise=COMMON["feature_noise"]
    ))
    encoders = list(processor.encoders.values())
    tokens = ridge.mean_tokens(human, model.model, encoders, cache)
    targets = np.array([row.scores[: len(DIMENSIONS)] for row in human])
    linear = ridge.fitted(tokens, targets, np.array([row.weight for row in human]))

    clean = {record["group"]: row for record, row in zip(records, ladder)
             if record["type"] == "clean"}
    scores = linear(ridge.mean_tokens(list(clean.values()), model.model, encoders, cache))
    labels = dict(zip(clean, np.clip(scores, 1.5, 5.0).tolist()))
    labelled, _ = manifests.read_ladder(work / "ladder/train", labels)
    labelled = [row for row, record in zip(labelled, records) if manifests.kept(record)]
    if (output / "config.json").exists():
        return output, labelled

    weights, bias = linear.with_overall()
    for encoder, projector in model.model.projectors.items():
        # Takes the place of CLEAN_SCORE, which the base tells of any undamaged clip.
        share = (bias - manifests.CLEAN_SCORE) / len(weights)
        projector.set_probe(weights[encoder], share)
    config = FitConfig(train=["-"], output_dir="-", cache_dir="-", **{**COMMON, **ALIGNED})
    heavy = [replace(row, weight=row.weight * RATED_WEIGHT) for row in human]
    rows = heavy + labelled
    digests = {row.video: cache.digest(row.video) for row in rows}
    dataset = QualityDataset(
        [rows], digests, encoders, cache, mismatch_probability=config.mismatch_probability
    )
    collate = Collator(encode_prompts=processor.encode_prompts, pack_features=pack_features)
    align(model.model, dataset, collate, config, Console(stderr=True))
    model.eval().save_pretrained(output)
    return output, labelled


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("work", type=Path)
    arguments = parser.parse_args()
    main(arguments.data.resolve(), arguments.work.resolve())

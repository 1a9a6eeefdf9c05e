"""Make the shipped checkpoint `lite`, and measure it.

    python examples/train_lite/recipe.py DATA WORK

DATA holds `clips` (generated clips with prompts, for the ladder) and `fetv_dev` (rated clips).
Every step leaves its result in WORK and is skipped when that is there; a killed training goes on
where it stopped. The steps:

1. ladder: damaged versions of the clips; the sources left out of training at all severities. And of
   the rated clips, at one severity: more undamaged clips for the detector.
2. augment: copies of the rated clips at other sizes and qualities.
3. base: the projectors learn the ladder, without any rating, and the LLM's LoRA to read them.
4. stages: the LoRA learns to explain in three stages, SFT, GRPO and SFT again, on the ladder,
   still without any rating. It goes on distilling the score hints; the projectors stay as they are.
5. shipped: the projectors begin anew from a ridge regression on all ratings and are aligned on
   ratings and ladder together (the ladder's clean clips labelled by the same regression). The LoRA
   stays as it is. This is what ships.
6. folds: step 5 five times with the ratings of four fifths of the prompts, for measuring.
7. measure: figures.json. See measure.py; attribution.py measures what is said.
"""

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import manifests
import numpy as np
import ridge
import torch
from augment import main as augment
from measure import measure
from numpy.typing import NDArray
from rich.console import Console
from split import split_clips

from aigveval.distortion.ladder import make_ladder
from aigveval.features.cache import FeatureCache, extract
from aigveval.model.config import AIGVEvalConfig
from aigveval.model.modeling import AIGVEvalModel
from aigveval.model.processing import AIGVEvalProcessor
from aigveval.model.projector import MIDDLE, pack_features
from aigveval.train.config import FitConfig
from aigveval.train.dataset import Collator, QualityDataset
from aigveval.train.fit import main as fit
from aigveval.train.projector_pretraining import pretrain_projectors
from aigveval.train.rows import TrainingRow
from encoders import create_encoder
from prompts.rubric import DIMENSIONS

ENCODERS: dict[str, dict[str, Any]] = {
    "semantic_lite": {},
    "motion_flow": {"size": 112},
    "technical_lite": {},
}
SEVERITIES_TRAINED = (1, 3, 5)
SEVERITIES_RATED = (4,)
ANSWER_WEIGHTS = {"train": 1.0, "rated": 0.1}  # of a row of each ladder
COPY_WEIGHT = 0.5
RATED_WEIGHT = 30.0  # of a rated clip beside a ladder row
COMMON: dict[str, Any] = {
    "group_batches": True,
    "rank_min_difference": 0.2,
    "weight_decay": 0.05,
    "feature_noise": 0.2,
    "mismatch_probability": 0.25,
    "prompt_dropout": 0.05,
}
BASE: dict[str, Any] = {
    "encoders": [{"name": name, "options": options} for name, options in ENCODERS.items()],
    "lora": {"target_modules": ["q_proj", "v_proj", "o_proj", "down_proj"]},
    "projector_hidden": 256,
    "align_epochs": 10,
    "learn": "distill",
    "max_steps": 90,
    "batch_size": 16,
    "lora_learning_rate": 5e-4,
    "loss": {"level": 1.0, "plcc": 0.5, "rank": 0.3},
    "threads": 2,
    "save_steps": 20,
}
RATED: dict[str, Any] = {"align_epochs": 2}
STAGES: dict[str, dict[str, Any]] = {
    "sft": {"detector": True, "max_steps": 800, "lora_learning_rate": 1e-3},
    "grpo": {"max_steps": 6, "grad_accum": 4, "lora_learning_rate": 5e-5},
    "sft2": {"epochs": 1, "best_mix": 0.0, "lora_learning_rate": 1e-4},
}
EXPLAINING: dict[str, Any] = {
    "learn": "distill",
    "answer_variants": 1,
    "batch_size": 8,
    "feature_noise": 0.2,
    "mismatch_probability": 0.0,
    "prompt_dropout": 0.05,
    "loss": BASE["loss"],
    "threads": 2,
    "save_steps": 10,
}


def main(data: Path, work: Path) -> None:
    cache = FeatureCache(work / "cache")
    encoders = [create_encoder(name, **options) for name, options in ENCODERS.items()]
    render(data, work)
    if not (work / "augmented/manifest.jsonl").exists():
        augment(data / "fetv_dev", work / "augmented")

    ladder, _ = manifests.read_ladder(work / "ladder/train")
    manifests.write_manifest(work / "base.jsonl", ladder)
    base = base_model(work)
    rated, names = manifests.read_rated(data / "fetv_dev")
    extract([row.video for row in rated], encoders, cache, workers=2)
    fold = manifests.fold_of(rated)
    explaining = explaining_model(base, work, cache)
    for number in [None, *range(manifests.FOLDS)]:
        name = "shipped" if number is None else f"fold{number}"
        human = human_rows(rated, names, work, fold != number)
        rated_model(work / "runs" / name / "model", explaining, human, work / "ladder/train", cache)
    measure(data, work)


def explaining_model(base: Path, work: Path, cache: FeatureCache) -> Path:
    """The model after the last of the three stages; each is skipped if it's there."""
    if not (work / "answers.jsonl").exists():
        lines = []
        for part, weight in ANSWER_WEIGHTS.items():
            rows, records = manifests.read_ladder(work / "ladder" / part)
            scores = predicted_scores(base, rows, cache)
            lines += manifests.answer_lines(work / "ladder" / part, records, scores, weight=weight)
        (work / "answers.jsonl").write_text("".join(lines), encoding="utf-8")
    for number, (stage, options) in enumerate(STAGES.items(), 1):
        output = work / f"runs/{number}-{stage}"
        if not (output / "model/config.json").exists():
            if stage == "sft2":
                options = {**options, "completions": [str(work / "runs/2-grpo/completions.jsonl")]}
            fit(
                FitConfig(
                    stage=stage,  # type: ignore[arg-type]
                    base=str(base),
                    train=[str(work / "answers.jsonl")],
                    output_dir=str(output),
                    cache_dir=str(work / "cache"),
                    **{**EXPLAINING, **options},
                )
            )
        base = output / "model"
    return base


@torch.inference_mode()
def predicted_scores(
    folder: Path, rows: Sequence[TrainingRow], cache: FeatureCache
) -> NDArray[np.float32]:
    """Scores (n, 4) as the score heads of a model's projectors predict them."""
    processor = AIGVEvalProcessor.from_pretrained(folder)
    model = AIGVEvalModel.from_pretrained(folder)
    encoders = list(processor.encoders.values())
    digests = extract(sorted({row.video for row in rows}), encoders, cache, workers=2).digests
    dataset = QualityDataset([rows], digests, encoders, cache)
    collate = Collator(encode_prompts=processor.encode_prompts, pack_features=pack_features)
    found = []
    for start in range(0, len(rows), 64):
        items = [dataset[n] for n in range(start, min(start + 64, len(rows)))]
        found.append(model.model.score_hints(collate.features(items)[0]))
    return torch.cat(found).numpy()


def human_rows(
    rated: Sequence[TrainingRow], names: Sequence[str], work: Path, keep: NDArray[np.bool_]
) -> list[TrainingRow]:
    """The rated clips where `keep` is true, and their copies."""
    originals = {name for name, chosen in zip(names, keep) if chosen}
    human = [row for row, chosen in zip(rated, keep) if chosen]
    return human + manifests.read_copies(work / "augmented", originals, COPY_WEIGHT)


def render(data: Path, work: Path) -> None:
    """The three ladders, where they aren't there yet."""
    clips, rated = data / "clips", data / "fetv_dev"
    train, held_out = split_clips(clips)
    for part, folder, names, severities in (
        ("train", clips, train, SEVERITIES_TRAINED),
        ("heldout", clips, held_out, range(1, 6)),
        ("rated", rated, sorted(path.name for path in rated.glob("*.mp4")), SEVERITIES_RATED),
    ):
        if not (work / "ladder" / part / "manifest.jsonl").exists():
            make_ladder(
                [folder / name for name in names],
                work / "ladder" / part,
                prompts=folder / "manifest.csv",
                severities=tuple(severities),
                max_side_px=512,
                max_seconds=4,
            )


def base_model(work: Path) -> Path:
    """The model that knows the ladder alone, trained unless it's there."""
    output = work / "runs/base"
    if not (output / "model/config.json").exists():
        fit(
            FitConfig(
                train=[str(work / "base.jsonl")],
                output_dir=str(output),
                cache_dir=str(work / "cache"),
                **BASE,
                **COMMON,
            )
        )
    return output / "model"


def rated_model(
    output: Path, base: Path, human: Sequence[TrainingRow], folder: Path, cache: FeatureCache
) -> None:
    """The base model with new projectors, aligned on ratings and the ladder in `folder`."""
    if (output / "config.json").exists():
        return
    config = FitConfig(train=["-"], output_dir="-", cache_dir="-", **RATED, **COMMON)
    processor = AIGVEvalProcessor.from_pretrained(base)
    model = AIGVEvalModel.from_pretrained(
        base, config=AIGVEvalConfig.from_pretrained(base, feature_noise=config.feature_noise)
    )
    encoders = list(processor.encoders.values())
    tokens = ridge.mean_tokens(human, model.model, encoders, cache)
    targets = np.array([row.scores[: len(DIMENSIONS)] for row in human])
    ladder, records = manifests.read_ladder(folder)
    damage = ridge.mean_tokens(ladder, model.model, encoders, cache)
    linear = ridge.fitted(
        tokens, targets, np.array([row.weight for row in human]), ridge.falls(damage, records)
    )
    weights, bias = linear.with_overall()
    torch.manual_seed(config.seed)
    for name, projector in model.model.projectors.items():
        projector.reset_parameters()
        projector.set_probe(weights[name], (bias - MIDDLE) / len(weights))

    clean = manifests.clean_numbers(records)
    scores = linear(ridge.subset(damage, np.array(list(clean.values()))))
    labels = dict(zip(clean, np.clip(scores, 1.5, 5.0).tolist()))
    labelled, _ = manifests.read_ladder(folder, labels)
    rows = [replace(row, weight=row.weight * RATED_WEIGHT) for row in human]
    rows += labelled
    dataset = QualityDataset(
        [rows],
        {row.video: cache.digest(row.video) for row in rows},
        encoders,
        cache,
        mismatch_probability=config.mismatch_probability,
        prompt_dropout=config.prompt_dropout,
    )
    collate = Collator(encode_prompts=processor.encode_prompts, pack_features=pack_features)
    pretrain_projectors(model.model, dataset, collate, config, Console(stderr=True))
    model.eval().save_pretrained(output)
    processor.save_pretrained(output)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("work", type=Path)
    arguments = parser.parse_args()
    main(arguments.data.resolve(), arguments.work.resolve())

"""Make the shipped checkpoint `lite`, and measure it.

    python examples/train_lite/recipe.py DATA WORK [--explaining MODEL]

DATA holds `fetv_dev` and `chivileva_dev` (rated clips), `modern` and `clips` (others). Every step
leaves its result in WORK and is skipped when that is there; a killed training goes on where it
stopped. The steps:

1. ladder: damaged versions of `clips` and `modern`, some sources of each left out of all training.
   And of FETV's clips, at one severity: more undamaged clips for the detector.
2. copies: of all clips, at other sizes, frame rates and qualities.
3. base: the projectors learn the ladder, without any rating, and the LLM's LoRA to read them.
4. stages: the LoRA learns to explain in three stages, SFT, GRPO and SFT again, on the ladder,
   still without any rating. It goes on distilling the score hints; the projectors stay as they are.
5. shipped: the projectors begin anew, as the linear maps of a ridge regression (ridge.py) on all
   ratings, on what damage takes off and on what a wrong prompt does. Then their score heads learn
   what grave damage and wrong prompts take off besides, from the ladder and from clips without
   any; ratings come in by the regression alone. The LoRA stays as it is. This is what ships.
6. left out: step 5 without the ratings of a fifth of the prompts, five times, and without a whole
   data set, two times; and without `modern`.
7. calibration: intervals and familiarity, from the errors of step 6. And what the LLM makes of
   score hints, for `--precision fast` (hints.py).
8. measure: figures.json. See measure.py; attribution.py measures what is said.

`--explaining` takes the result of steps 3 and 4, which is two hours' work, from another model, such
as the checkpoint that is there already: step 5 changes neither its LoRA nor its detector.
"""

import argparse
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, ClassVar

import manifests
import numpy as np
import ridge
import torch
from augment import main as augment
from hints import let_hints_stand
from manifests import Clip
from measure import left_out_errors, measure, predicted_scores
from numpy.typing import NDArray
from rich.console import Console
from split import split_clips, split_modern
from torch import Tensor
from torch.utils.hooks import RemovableHandle

from aigveval.distortion.ladder import make_ladder
from aigveval.features.cache import FeatureCache, extract
from aigveval.model.calibration import half_widths
from aigveval.model.config import AIGVEvalConfig
from aigveval.model.modeling import AIGVEvalModel
from aigveval.model.processing import AIGVEvalProcessor
from aigveval.model.projector import MIDDLE, AIGVEvalBackbone
from aigveval.train.config import FitConfig
from aigveval.train.dataset import QualityDataset
from aigveval.train.fit import main as fit
from aigveval.train.projector_pretraining import pretrain_projectors
from aigveval.train.rows import TrainingRow
from encoders import create_encoder
from prompts.rubric import SCORES

Array = NDArray[np.float64]

ENCODERS: dict[str, dict[str, Any]] = {
    "semantic_lite": {"crop_bars": True},
    "motion_flow": {"size": 112, "crop_bars": True, "skip_fades": True},
    "technical_lite": {"crop_bars": True, "distinctness": "clip"},
}
SEVERITIES_TRAINED = (1, 3, 5)
SEVERITIES_HELD_OUT = (1, 2, 3, 4, 5)
SEVERITIES_RATED = (4,)
ANSWER_WEIGHTS = {"train": 1.0, "rated": 0.1}  # of a row of each ladder
LADDERS = ("train", "modern")  # of clips, and of modern, that are trained on
LEFT_OUT = ("fetv_dev", "chivileva_dev", "modern")
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
    "group_batches": True,
    "rank_min_difference": 0.2,
    "weight_decay": 0.05,
    "feature_noise": 0.2,
    "mismatch_probability": 0.25,
    "prompt_dropout": 0.05,
}
# Of the score heads: they see no rating.
HEADS: dict[str, Any] = {
    "align_epochs": 8,
    "feature_noise": 0.3,
    "rank_min_difference": 0.2,
    "weight_decay": 0.05,
}
CLIP_WEIGHT = 3.0  # of a clip or a copy beside a ladder row
# Points that the heads forgive: what they find in clips of generators that they haven't seen is
# small and mostly wrong. Chosen, as COLUMNS and SPOKEN, by what they take off clips of `modern`
# whose sources were left out, and by the ladder.
MARGIN = {"technical": 0.5, "motion": 0.5, "semantic": 0.2, "overall": 0.5}
# What the score heads read: of the encoder of meaning how well picture and prompt agree, and how
# steadily; of the technical one the first layers and the statistics of the picture. The rest says
# what is shown, and with so few clips that would be learnt by heart.
COLUMNS = {
    "semantic_lite": [slice(3 * 384, None)],
    "technical_lite": [slice(1280, 1821), slice(3101, 3642)],
}
# And what they speak of.
SPOKEN = {
    "semantic_lite": ("semantic", "overall"),
    "motion_flow": ("motion", "overall"),
    "technical_lite": ("technical", "motion", "overall"),
}
# Of what the heads take off the semantic score for a wrong prompt, off the overall score: FETV's is
# the mean of the three.
PROMPT_SHARE = 1 / 3
WRONG_SCORES = tuple(1.25 if name == "semantic" else math.nan for name in SCORES)
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


def main(data: Path, work: Path, explaining: Path | None) -> None:
    cache = FeatureCache(work / "cache")
    encoders = [create_encoder(name, **options) for name, options in ENCODERS.items()]
    render(data, work, stages=explaining is None)
    if not (work / "copies/manifest.jsonl").exists():
        augment(data, work / "copies")
    clips = manifests.read_clips(data, work / "copies")
    ladders = [manifests.read_ladder(work / "ladder" / part)[0] for part in LADDERS]
    files = {str(clip.path) for clip in clips} | {row.video for rows in ladders for row in rows}
    extract(sorted(files), encoders, cache, workers=2)
    if explaining is None:
        manifests.write_manifest(work / "base.jsonl", ladders[LADDERS.index("train")])
        explaining = explaining_model(base_model(work), work, cache)
    evidence = read_evidence(explaining, clips, work, cache)
    for name, keep in runs(data, clips).items():
        output = work / "runs" / name / "model"
        rated_model(output, explaining, clips, keep, evidence, cache)
    calibrate(work, data, clips, cache)
    let_hints_stand(manifests.read_originals(data), work / "runs/shipped/model", cache, save=True)
    measure(data, work)


def runs(data: Path, clips: Sequence[Clip]) -> dict[str, NDArray[np.bool_]]:
    """Name to which clips are trained on, (n,): never a source that the ladder is measured on."""
    fold = manifests.fold_of(data, [clip.group for clip in clips])
    datasets = np.array([clip.dataset for clip in clips])
    shipped = ~manifests.held_out(data, clips)
    found = {"shipped": shipped}
    found |= {f"fold{number}": shipped & (fold != number) for number in range(manifests.FOLDS)}
    return found | {f"without_{name}": shipped & (datasets != name) for name in LEFT_OUT}


def calibrate(work: Path, data: Path, clips: Sequence[Clip], cache: FeatureCache) -> None:
    """Gives each model of `runs` a calibration, from the errors of those that left clips out."""
    rated = [clip for clip in clips if clip.judged]
    chosen = runs(data, rated)
    for name, keep in chosen.items():
        folder = work / "runs" / name / "model"
        model = AIGVEvalModel.from_pretrained(folder)
        processor = AIGVEvalProcessor.from_pretrained(folder)
        encoders = list(processor.encoders.values())
        known = [clip for clip, kept in zip(rated, keep) if kept]
        vectors = ridge.clip_means([clip.row() for clip in known], model.model, encoders, cache)
        model.model.add_calibration(len(known)).fit(vectors, [clip.group for clip in known])
        model.save_pretrained(folder)
    fold = manifests.fold_of(data, [clip.group for clip in rated])
    known_width, unknown_width = half_widths(*left_out_errors(work, rated, fold, cache).values())
    for name in chosen:
        folder = work / "runs" / name / "model"
        model = AIGVEvalModel.from_pretrained(folder)
        model.model.calibration.known.copy_(known_width)
        model.model.calibration.unknown.copy_(unknown_width)
        model.save_pretrained(folder)


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


def render(data: Path, work: Path, *, stages: bool) -> None:
    """The ladders, where they aren't there yet; `rated` is for step 4."""
    clips, modern, rated = (data / name for name in ("clips", "modern", "fetv_dev"))
    train, held_out = split_clips(clips)
    train_modern, held_out_modern = split_modern(modern)
    for part, folder, names, severities in (
        ("train", clips, train, SEVERITIES_TRAINED),
        ("modern", modern, train_modern, SEVERITIES_TRAINED),
        ("heldout", clips, held_out, SEVERITIES_HELD_OUT),
        ("heldout_modern", modern, held_out_modern, SEVERITIES_TRAINED),
        ("rated", rated, sorted(path.name for path in rated.glob("*.mp4")), SEVERITIES_RATED),
    ):
        if part == "rated" and not stages:
            continue
        if not (work / "ladder" / part / "manifest.jsonl").exists():
            make_ladder(
                [folder / name for name in names],
                work / "ladder" / part,
                prompts=folder / "manifest.csv",
                severities=severities,
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
            )
        )
    return output / "model"


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """What the regressions of step 5 are fitted to.

    Attributes:
        tokens: Encoder to (n, d), of all clips.
        ladder: The ladder's rows, and `records` of its manifest.
        ladder_tokens: Encoder to (n, d), of these rows.
        eras: The data set of each row's source.
        wrong: What wrong prompts do to clips.
        of: Number of the clip of each row of `wrong`.
        shown: The wrong prompt of each.
        prompted: Numbers of the originals that have a prompt, (p,).
        bare: Encoder to (p, d), of these without it.
    """

    tokens: dict[str, Array]
    ladder: Sequence[TrainingRow]
    records: Sequence[dict[str, Any]]
    ladder_tokens: dict[str, Array]
    eras: NDArray[np.str_]
    wrong: ridge.Changes
    of: NDArray[np.int_]
    shown: Sequence[str]
    prompted: NDArray[np.int_]
    bare: dict[str, Array]


def read_evidence(
    model_folder: Path, clips: Sequence[Clip], work: Path, cache: FeatureCache
) -> Evidence:
    """Mean tokens, standardised as a model's projectors do; a run is fitted to a part of them."""
    backbone = AIGVEvalModel.from_pretrained(model_folder).model
    encoders = list(AIGVEvalProcessor.from_pretrained(model_folder).encoders.values())

    def tokens(rows: Sequence[TrainingRow]) -> dict[str, Array]:
        return ridge.mean_tokens(rows, backbone, encoders, cache)

    own = tokens([clip.row() for clip in clips])
    ladders = [manifests.read_ladder(work / "ladder" / part) for part in LADDERS]
    rows, records = (list(chain.from_iterable(part)) for part in zip(*ladders))
    number, prompts = manifests.wrong_prompts(clips, ridge.WRONG_PROMPTS)
    shown = [replace(clips[n].row(), prompt=prompt) for n, prompt in zip(number, prompts)]
    wrong = ridge.wrong_prompts(
        [clips[n] for n in number], {name: t[number] for name, t in own.items()}, tokens(shown)
    )
    prompted = np.unique(number)
    return Evidence(
        tokens=own,
        ladder=rows,
        records=records,
        ladder_tokens=tokens(rows),
        eras=np.repeat(["clips", "modern"], [len(rows) for rows, _ in ladders]),
        wrong=wrong,
        of=number,
        shown=prompts,
        prompted=prompted,
        bare=tokens([replace(clips[n].row(), prompt=None) for n in prompted]),
    )


def rated_model(
    output: Path,
    base: Path,
    clips: Sequence[Clip],
    keep: NDArray[np.bool_],
    evidence: Evidence,
    cache: FeatureCache,
) -> None:
    """The base model with new projectors, which know the clips that are kept."""
    if (output / "config.json").exists():
        return
    chosen = [clip for clip, kept in zip(clips, keep) if kept]
    tokens = {name: tokens[keep] for name, tokens in evidence.tokens.items()}
    damaged = np.flatnonzero(np.isin(evidence.eras, [clip.dataset for clip in chosen]))
    records = [evidence.records[n] for n in damaged]
    ladder_tokens = {name: tokens[damaged] for name, tokens in evidence.ladder_tokens.items()}
    changes = [ridge.damage(records, ladder_tokens), evidence.wrong.chosen(keep[evidence.of])]
    linear = ridge.fitted(chosen, tokens, changes)
    config = AIGVEvalConfig.from_pretrained(base, feature_noise=HEADS["feature_noise"])
    model = AIGVEvalModel.from_pretrained(base, config=config)
    processor = AIGVEvalProcessor.from_pretrained(base)
    backbone = model.model
    backbone.remove_measured()
    backbone.learn_damage_only(prompt_share=PROMPT_SHARE)
    torch.manual_seed(0)
    with torch.no_grad():
        for name, projector in backbone.projectors.items():
            projector.reset_parameters()
            weights = torch.from_numpy(linear.weights[name]).float()
            bias = torch.from_numpy(linear.bias).float()
            projector.set_probe(weights, (bias - MIDDLE) / len(linear.weights))
        ridge.set_likeness(backbone, linear)
    hooks = limit_heads(backbone)
    encoders = list(processor.encoders.values())
    labels = manifests.after_damage(records, linear(ladder_tokens)).tolist()
    rows = [replace(evidence.ladder[n], scores=tuple(one)) for n, one in zip(damaged, labels)]
    goals = linear(tokens).tolist()
    rows += [replace(clip.row(goal), weight=CLIP_WEIGHT) for clip, goal in zip(chosen, goals)]
    rows += [  # without a prompt there is nothing to miss
        replace(clips[n].row(goal), prompt=None, weight=CLIP_WEIGHT)
        for n, goal in zip(evidence.prompted, linear(evidence.bare).tolist())
        if keep[n]
    ]
    rows += [
        replace(clips[n].row(WRONG_SCORES), prompt=prompt)
        for n, prompt in zip(evidence.of, evidence.shown)
        if keep[n]
    ]
    digests = {row.video: cache.digest(row.video) for row in rows}
    dataset = KeptDataset([rows], digests, encoders, cache)
    fit_config = FitConfig(train=["-"], output_dir="-", cache_dir="-", **HEADS)
    pretrain_projectors(backbone, dataset, fit_config, Console(stderr=True))
    for hook in hooks:
        hook.remove()
    forgive(backbone)
    with torch.no_grad():
        ridge.set_local_expert(backbone, chosen, tokens, linear)
    model.eval().save_pretrained(output)
    processor.save_pretrained(output)


def limit_heads(backbone: AIGVEvalBackbone) -> list[RemovableHandle]:
    """Have the score heads read `COLUMNS` and speak of `SPOKEN` only, until the hooks are gone."""
    hooks = []
    for name, projector in backbone.projectors.items():
        columns = torch.zeros(projector.up.in_features)
        for part in COLUMNS.get(name, [slice(None)]):
            columns[part] = 1
        spoken = torch.tensor([float(score in SPOKEN[name]) for score in SCORES])
        projector.up.weight.data.mul_(columns)
        for parameter, mask in (
            (projector.up.weight, columns),
            (projector.score_head.weight, spoken[:, None]),
            (projector.score_head.bias, spoken),
        ):
            hooks.append(parameter.register_hook(partial(torch.mul, mask)))
    return hooks


@torch.no_grad()
def forgive(backbone: AIGVEvalBackbone) -> None:
    """Add `MARGIN` to the score heads' sum."""
    for column, score in enumerate(SCORES):
        name = next(name for name, spoken in SPOKEN.items() if score in spoken)
        backbone.projectors[name].score_head.bias[column] += MARGIN[score]  # type: ignore[union-attr]


class KeptDataset(QualityDataset):
    """Rows whose tokens stay in memory, for all runs: about 2 GB."""

    kept: ClassVar[dict[tuple[str, str | None], list[Tensor]]] = {}

    def tokens(self, index: int, prompt: str | None) -> list[Tensor]:
        key = self.rows[index].video, prompt
        if key not in self.kept:
            self.kept[key] = super().tokens(index, prompt)
        return self.kept[key]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("work", type=Path)
    parser.add_argument("--explaining", type=Path, help="model with step 4's LoRA and detector")
    arguments = parser.parse_args()
    main(arguments.data.resolve(), arguments.work.resolve(), arguments.explaining)

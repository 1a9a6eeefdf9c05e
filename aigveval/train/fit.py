"""The regression stage, ``aigveval fit CONFIG.yaml``: projectors and LoRA on rated clips or pairs.

Reads from top to bottom in `_run`. A frozen encoder sees a clip once, ever; encoders can be trained
with the rest. On several GPUs it is started by torchrun or `accelerate launch`, as any Trainer.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from torch import distributed as dist
from transformers import PrinterCallback, TrainerCallback, TrainingArguments, set_seed

from aigveval.config import blind_dimensions
from aigveval.data.cache import ExtractReport, FeatureCache, extract
from aigveval.fusion import pack_features
from aigveval.modeling import AIGVEvalOutput
from encoders.bars import no_bars
from encoders.base import Encoder

from .align import ReadingTrainer, align
from .arguments import tensorboard, training_arguments
from .build import Built, build_model, set_stats
from .control import EarlyStop, SaveCallback
from .dataset import Collator, QualityDataset
from .fit_config import FitConfig, FitError
from .fit_yaml import read_fit_config
from .parts import Part, check_parts, read_parts
from .progress import ProgressCallback, title
from .resume import (
    best_metrics, check_same_run, history_of, last_checkpoint, remove_unfinished, step_of,
)
from .trainer import QualityTrainer
from .validation import ValidationMetrics, metric_lines

_TRAINERS = {"scores": QualityTrainer, "reading": ReadingTrainer}


@dataclass(frozen=True, kw_only=True)
class FitResult:
    """What a run gave.

    Attributes:
        model: Folder with the best model (the last one, if there was no validation).
        steps: Optimizer steps of the whole run.
        resumed_from: Checkpoint that this call went on from, or None.
        metrics: Of `model` on the validation manifests: ``srocc``, the mean over all that are
            defined, and ``MANIFEST_srocc_SCORE``, ``MANIFEST_plcc_SCORE``; on manifests of pairs
            likewise ``accuracy`` and ``MANIFEST_accuracy_SCORE``.
    """

    model: Path
    steps: int
    resumed_from: Path | None
    metrics: dict[str, float]


def main(config: FitConfig | str | Path) -> FitResult:
    """Train, going on from the last checkpoint in ``output_dir`` if there is one.

    Raises:
        FitError: The config or the data can't be used, or ``output_dir`` holds another run.
        aigveval.data.tables.ManifestError: A manifest can't be used.
        SystemExit: 130, after Ctrl-C.
    """
    # of several processes, one speaks
    console = Console(stderr=True, quiet=os.environ.get("RANK", "0") != "0")
    if not isinstance(config, FitConfig):
        config = read_fit_config(config)
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    output = Path(config.output_dir)
    try:
        with no_bars():  # transformers would draw one for each checkpoint, over ours
            return _run(config, output, console)
    except KeyboardInterrupt:
        last = last_checkpoint(output)
        kept = f"from step {step_of(last)}" if last else "with the features encoded so far"
        console.print(f"\nStopped. The same command goes on {kept}.", style="yellow")
        raise SystemExit(130) from None


def _run(config: FitConfig, output: Path, console: Console) -> FitResult:
    scale = config.score_scale
    train, valid = (read_parts(paths, scale=scale) for paths in (config.train, config.valid))
    check_parts(config, train)
    arguments = training_arguments(config)
    _tell_gpus(console, arguments)
    set_seed(config.seed)  # before the projectors are initialised
    built = build_model(config)
    model, processor = built.model, built.processor

    cache = FeatureCache(config.cache_dir)
    videos = [video for part in (*train, *valid) for video in part.videos]
    report = _encode(videos, built.frozen, cache, config, arguments)
    blind = blind_dimensions(model.config.encoders)
    train, valid = (
        [part.usable(report.digests, blind=blind) for part in parts] for parts in (train, valid)
    )
    if blind:
        console.print(f"No encoder of {' or '.join(blind)}: these scores are left out")
    _tell(console, train, valid, built, report)
    train_set = QualityDataset(
        [part.rows for part in train], report.digests, built.encoders, cache,
        pairs=[pair for part in train for pair in part.pairs], trained=built.trained,
        mismatch_probability=config.mismatch_probability,
        mismatch_scores=(config.mismatch_scores[0], config.mismatch_scores[1]),
        prompt_dropout=config.prompt_dropout, seed=config.seed,
    )
    valid_set = QualityDataset(
        [part.clips for part in valid], report.digests, built.encoders, cache,
        trained=built.trained,
    )
    collate = Collator(encode_prompts=processor.encode_prompts, pack_features=pack_features)
    metrics = ValidationMetrics(valid, valid_set)
    if valid and not metrics.defined:
        raise FitError("the validation manifests have no score with three different values")

    checkpoint = last_checkpoint(output)
    with arguments.main_process_first(desc="starting"):  # the others see what it has written
        _start(config, output, built, train_set, checkpoint, arguments)
    if checkpoint is not None:
        console.print(f"Going on from step {step_of(checkpoint)}", highlight=False)
    elif config.align_epochs:
        loss = align(model.model, train_set, collate, config, console)
        console.print(f"Projectors aligned, loss {loss:.3f}", highlight=False)

    progress = ProgressCallback(console, metrics.names, main=metrics.main)
    saving = SaveCallback(console, steps=config.save_steps, minutes=config.save_minutes)
    callbacks: list[TrainerCallback] = [progress, saving]
    if valid:
        arguments.metric_for_best_model = metrics.main
        if config.early_stop is not None:
            stop = EarlyStop(config.early_stop, main=metrics.main)
            callbacks.append(stop)
            if checkpoint is not None and stop.has_ended(history_of(checkpoint)):
                arguments.max_steps = step_of(checkpoint)
    step = 0 if checkpoint is None else step_of(checkpoint)
    if arguments.process_index == 0 and (log := tensorboard(config, from_step=step)):
        callbacks.append(log)
    trainer = _TRAINERS[config.learn](
        fit=config, model=model, args=arguments, train_dataset=train_set,
        eval_dataset=valid_set if valid else None,
        data_collator=collate, compute_metrics=metrics, callbacks=callbacks,
    )
    trainer.remove_callback(PrinterCallback)  # it prints dicts
    torch.manual_seed(config.seed + arguments.process_index)  # own dropout and noise in each
    try:
        trainer.train(
            resume_from_checkpoint=None if checkpoint is None else str(checkpoint),
            ignore_keys_for_eval=[f.name for f in dataclasses.fields(AIGVEvalOutput)
                                  if f.name != "scores"],
        )
    finally:
        progress.stop()
        saving.stop()

    trainer.use_average()
    trainer.save_trained(output / "model")
    if arguments.process_index == 0:
        processor.save_pretrained(output / "model")
    best = best_metrics(trainer.state.log_history, trainer.state.best_global_step)
    if valid:
        console.print(f"Best {title(metrics.main)} {best[metrics.main]:.4f}", highlight=False)
        for line in metric_lines(best, metrics.names):
            console.print(line, highlight=False, soft_wrap=True)
    console.print(f"Saved [bold]{output / 'model'}[/bold]", highlight=False, soft_wrap=True)
    return FitResult(
        model=output / "model", steps=trainer.state.global_step, resumed_from=checkpoint,
        metrics=best,
    )


def _encode(
    videos: Sequence[str], encoders: Sequence[Encoder], cache: FeatureCache, config: FitConfig,
    arguments: TrainingArguments,
) -> ExtractReport:
    """Make sure of the tokens of all videos, each process encoding its share of them."""
    options: dict[str, Any] = {
        "workers": config.workers, "batch_size": config.encode_batch_size,
        "device": arguments.device,
    }
    options["progress"] = _is_first(arguments)
    unique, computed = list(dict.fromkeys(videos)), 0
    if arguments.world_size > 1:
        share = unique[arguments.process_index:: arguments.world_size]
        computed = extract(share, encoders, cache, **options).computed
        dist.barrier()
    report = extract(unique, encoders, cache, **options)
    report.computed += computed
    for encoder in encoders:
        encoder.to("cpu")  # `join` runs in the data loader
    return report


def _start(
    config: FitConfig, output: Path, built: Built, dataset: QualityDataset,
    checkpoint: Path | None, arguments: TrainingArguments,
) -> None:
    """Look after the folder, and set the statistics of a model that begins."""
    first = _is_first(arguments)
    check_same_run(config, output, dataset, resuming=checkpoint is not None, write=first)
    if first:
        remove_unfinished(output)
    if checkpoint is None and config.base is None:
        set_stats(built, dataset, device=arguments.device)
        for encoder in built.encoders:
            encoder.to("cpu")


def _is_first(arguments: TrainingArguments) -> bool:
    return arguments.process_index == 0


def _tell_gpus(console: Console, arguments: TrainingArguments) -> None:
    count = torch.cuda.device_count()
    if arguments.device.type == "cuda" and arguments.world_size == 1 and count > 1:
        console.print(
            f"Training on one of {count} GPUs; "
            f"torchrun --nproc-per-node {count} -m aigveval fit ... takes them all",
            highlight=False, soft_wrap=True,
        )


def _tell(
    console: Console, train: Sequence[Part], valid: Sequence[Part], built: Built,
    report: ExtractReport,
) -> None:
    for line in report.notes:
        console.print(f"[yellow]{line}[/yellow]", highlight=False, soft_wrap=True)
    if report.errors:
        console.print(f"[yellow]{len(report.errors)} videos can't be used:[/yellow]")
        lines = list(report.errors.values())
        more = [f"... and {len(lines) - 10} more"] if len(lines) > 10 else []
        for line in lines[:10] + more:
            console.print(f"  {line}", markup=False, highlight=False, soft_wrap=True)
    pairs = sum(len(part.pairs) for part in (*train, *valid))
    console.print(
        f"Training on {sum(map(len, train))} rows, validating on {sum(map(len, valid))}; "
        + (f"{pairs} of them are preference pairs; " if pairs else "")
        + f"{len(report.digests)} videos, {report.computed} of them newly encoded",
        highlight=False, soft_wrap=True,
    )
    if built.trained:
        console.print(f"Encoders in training: {', '.join(built.trained)}", highlight=False)

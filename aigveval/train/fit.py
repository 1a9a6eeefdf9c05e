"""The regression stage, ``aigveval fit CONFIG.yaml``: projectors and LoRA on rated clips.

Reads from top to bottom in `main`. Encoders and LLM stay frozen, so a clip is encoded once, ever.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from torch import Tensor, nn
from transformers import EarlyStoppingCallback, PrinterCallback, TrainingArguments, set_seed

from aigveval.config import AIGVEvalConfig, blind_dimensions
from aigveval.data.cache import ExtractReport, FeatureCache, extract
from aigveval.fusion import pack_features
from aigveval.modeling import AIGVEvalModel, AIGVEvalOutput
from aigveval.processing import AIGVEvalProcessor
from encoders import create_encoder
from encoders.bars import no_bars
from encoders.base import Encoder
from prompts.rubric import SCORES

from .align import ReadingTrainer, align
from .data import TrainingRow, read_training_manifest
from .dataset import Collator, QualityDataset
from .fit_config import FitConfig, FitError, read_fit_config
from .progress import ProgressCallback, metric_lines
from .resume import best_metrics, check_same_run, last_checkpoint, remove_unfinished, step_of
from .trainer import CorrelationMetrics, QualityTrainer


@dataclass(frozen=True, kw_only=True)
class FitResult:
    """What a run gave.

    Attributes:
        model: Folder with the best model (the last one, if there was no validation).
        steps: Optimizer steps of the whole run.
        resumed_from: Checkpoint that this call went on from, or None.
        metrics: Of `model` on the validation manifests: ``srocc``, the mean over all that are
            defined, and ``MANIFEST_srocc_SCORE``, ``MANIFEST_plcc_SCORE``.
    """

    model: Path
    steps: int
    resumed_from: Path | None
    metrics: dict[str, float]


def main(config: FitConfig | str | Path) -> FitResult:
    """Train, going on from the last checkpoint in ``output_dir`` if there is one.

    Raises:
        FitError: The config or the data can't be used, or ``output_dir`` holds another run.
        aigveval.train.data.ManifestError: A manifest can't be used.
        SystemExit: 130, after Ctrl-C.
    """
    console = Console(stderr=True)
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
    train_rows = [read_training_manifest(path) for path in config.train]
    valid_rows = [read_training_manifest(path) for path in config.valid]
    parts = _part_names(config.valid)

    set_seed(config.seed)  # before the projectors are initialised
    model, processor, encoders = build_model(config)

    arguments = _training_arguments(config)
    cache = FeatureCache(config.cache_dir)
    with arguments.main_process_first(desc="encoding"):
        report = extract(
            [row.video for rows in (*train_rows, *valid_rows) for row in rows], encoders, cache,
            workers=config.workers, batch_size=config.encode_batch_size, device=arguments.device,
        )
    for encoder in encoders:
        encoder.to("cpu")  # `join` runs in the data loader
    blind = blind_dimensions(model.config.encoders)
    train_rows = [_usable(r, report.digests, p, blind) for r, p in zip(train_rows, config.train)]
    valid_rows = [_usable(r, report.digests, p, blind) for r, p in zip(valid_rows, config.valid)]
    if blind:
        console.print(f"No encoder of {' or '.join(blind)}: these scores are left out")
    _tell(console, train_rows, valid_rows, report)

    train_set = QualityDataset(
        train_rows, report.digests, encoders, cache,
        mismatch_probability=0.0 if "semantic" in blind else config.mismatch_probability,
        mismatch_scores=(config.mismatch_scores[0], config.mismatch_scores[1]),
        prompt_dropout=config.prompt_dropout, seed=config.seed,
    )
    # rows of like length side by side need less padding
    valid_set = QualityDataset(
        [sorted(rows, key=lambda row: len(row.prompt or "")) for rows in valid_rows],
        report.digests, encoders, cache,
    )
    collate = Collator(encode_prompts=processor.encode_prompts, pack_features=pack_features)
    compute_metrics = CorrelationMetrics(parts)
    if valid_rows and not compute_metrics.defined(valid_set):
        raise FitError("the validation manifests have no score with three different values")

    checkpoint = last_checkpoint(output)
    check_same_run(config, output, train_set, resuming=checkpoint is not None)
    if checkpoint is not None:
        console.print(f"Going on from step {step_of(checkpoint)}", highlight=False)
    else:
        if config.base is None:
            for entry, (mean, std) in zip(model.config.encoders, feature_stats(train_set)):
                model.set_feature_stats(entry["name"], mean, std)
        if config.align_epochs:
            loss = align(model.model, train_set, collate, config, console)
            console.print(f"Projectors aligned, loss {loss:.3f}", highlight=False)

    if arguments.process_index == 0:
        remove_unfinished(output)

    progress = ProgressCallback(console, parts, save_steps=config.save_steps)
    trainer = {"scores": QualityTrainer, "reading": ReadingTrainer}[config.learn](
        fit=config, model=model, args=arguments, train_dataset=train_set,
        eval_dataset=valid_set if valid_rows else None,
        data_collator=collate,
        compute_metrics=compute_metrics, callbacks=[progress],
    )
    trainer.remove_callback(PrinterCallback)  # it prints dicts
    if config.early_stop is not None and valid_rows:
        trainer.add_callback(EarlyStoppingCallback(config.early_stop))
    try:
        trainer.train(
            resume_from_checkpoint=None if checkpoint is None else str(checkpoint),
            ignore_keys_for_eval=[f.name for f in dataclasses.fields(AIGVEvalOutput)
                                  if f.name != "scores"],
        )
    finally:
        progress.stop()

    if trainer.is_world_process_zero():
        model.eval().save_pretrained(output / "model")
        processor.save_pretrained(output / "model")
    best = best_metrics(trainer.state.log_history, trainer.state.best_global_step)
    if parts:
        console.print(f"Best mean SROCC {best['srocc']:.4f}", highlight=False, soft_wrap=True)
        for line in metric_lines({f"eval_{k}": v for k, v in best.items()}, parts):
            console.print(line, highlight=False, soft_wrap=True)
    console.print(f"Saved [bold]{output / 'model'}[/bold]", highlight=False, soft_wrap=True)
    return FitResult(
        model=output / "model", steps=trainer.state.global_step, resumed_from=checkpoint,
        metrics=best,
    )


def build_model(config: FitConfig) -> tuple[AIGVEvalModel, AIGVEvalProcessor, list[Encoder]]:
    """The model to train, its processor, and the encoders in the order of the model's config."""
    noise: dict[str, Any] = {
        "feature_dropout": config.feature_dropout, "feature_noise": config.feature_noise,
    }
    if config.base is not None:
        processor = AIGVEvalProcessor.from_pretrained(config.base)
        saved = AIGVEvalConfig.from_pretrained(config.base, **noise)
        model = AIGVEvalModel.from_pretrained(config.base, config=saved)
        model.load_encoders(processor.encoders)
        model.encoders = nn.ModuleDict()  # checked; optimizer and checkpoints don't need them
        return model, processor, [processor.encoders[e["name"]] for e in saved.encoders]
    made = [_make_encoder(entry) for entry in config.encoders]
    model_config = AIGVEvalConfig.from_encoders(
        made, llm=config.llm, lora=config.lora, projector_hidden=config.projector_hidden, **noise
    )
    by_name = {encoder.spec.name: encoder for encoder in made}
    processor = AIGVEvalProcessor.from_config(model_config)
    encoders = [by_name[entry["name"]] for entry in model_config.encoders]
    return AIGVEvalModel(model_config), processor, encoders


def _make_encoder(entry: str | Mapping[str, Any]) -> Encoder:
    name = entry if isinstance(entry, str) else entry["name"]
    options = {} if isinstance(entry, str) else entry.get("options") or {}
    try:
        return create_encoder(name, **options)
    except (TypeError, ValueError) as error:  # a wrong name or option
        raise FitError(f"encoder {name}: {error}") from error


def feature_stats(dataset: QualityDataset) -> list[tuple[Tensor, Tensor]]:
    """Per encoder, mean (d,) and standard deviation (d,) over the tokens of all rows."""
    count = 0
    sums: list[tuple[Tensor, Tensor, Tensor]] = []  # shift, sum and sum of squares about it
    for index, row in enumerate(dataset.rows):
        tokens = [part.double() for part in dataset.tokens(index, row.prompt)]
        if not sums:
            sums = [(t.mean(0), torch.zeros_like(t[0]), torch.zeros_like(t[0])) for t in tokens]
        for part, (shift, total, squares) in zip(tokens, sums, strict=True):
            total += (part - shift).mean(0)
            squares += (part - shift).square().mean(0)
        count += 1
    result = []
    for shift, total, squares in sums:
        variance = (squares / count - (total / count).square()).clamp(min=0)
        result.append(((shift + total / count).float(), variance.sqrt().float()))
    return result


def _training_arguments(config: FitConfig) -> TrainingArguments:
    validates = bool(config.valid)
    memory: dict[str, Any] = {}
    if config.gradient_checkpointing:  # even False would warn, where it has got its newer name
        memory["gradient_checkpointing"] = True
    return TrainingArguments(
        output_dir=config.output_dir,
        num_train_epochs=config.epochs,
        max_steps=config.max_steps or -1,
        per_device_train_batch_size=config.batch_size,
        per_device_eval_batch_size=config.eval_batch_size,
        gradient_accumulation_steps=config.grad_accum,
        **memory,
        learning_rate=config.learning_rate,
        lr_scheduler_type="cosine",
        warmup_steps=config.warmup,
        max_grad_norm=config.max_grad_norm,
        eval_strategy="epoch" if validates else "no",
        save_strategy="epoch",
        save_total_limit=2,
        load_best_model_at_end=validates,
        metric_for_best_model="srocc" if validates else None,
        greater_is_better=True if validates else None,
        seed=config.seed,
        use_cpu=config.device == "cpu",
        label_names=["labels"],
        remove_unused_columns=False,
        dataloader_pin_memory=torch.cuda.is_available(),
        logging_steps=10,
        logging_first_step=True,
        disable_tqdm=True,
        report_to="none",
    )


def _part_names(paths: Sequence[str]) -> list[str]:
    names: list[str] = []
    for path in paths:
        stem = Path(path).stem
        names.append(stem if stem not in names else f"{stem}{len(names) + 1}")
    return names


def _usable(
    rows: Sequence[TrainingRow], digests: Mapping[str, str], path: str, blind: Sequence[str]
) -> list[TrainingRow]:
    """The rows that were read and have a score of a dimension that the model looks at."""
    hidden = [SCORES.index(dimension) for dimension in blind]
    kept = [
        dataclasses.replace(row, scores=tuple(
            math.nan if column in hidden else score for column, score in enumerate(row.scores)
        ))
        for row in rows if row.video in digests
    ]
    kept = [row for row in kept if not all(map(math.isnan, row.scores))]
    if not kept:
        raise FitError(f"{path}: none of its {len(rows)} videos can be used")
    return kept


def _tell(
    console: Console, train: Sequence[Sequence[TrainingRow]],
    valid: Sequence[Sequence[TrainingRow]], report: ExtractReport,
) -> None:
    for line in report.notes:
        console.print(f"[yellow]{line}[/yellow]", highlight=False, soft_wrap=True)
    if report.errors:
        console.print(f"[yellow]{len(report.errors)} videos can't be used:[/yellow]")
        lines = list(report.errors.values())
        more = [f"... and {len(lines) - 10} more"] if len(lines) > 10 else []
        for line in lines[:10] + more:
            console.print(f"  {line}", markup=False, highlight=False, soft_wrap=True)
    console.print(
        f"Training on {sum(map(len, train))} rows, validating on {sum(map(len, valid))}; "
        f"{len(report.digests)} videos, {report.computed} of them newly encoded",
        highlight=False, soft_wrap=True,
    )

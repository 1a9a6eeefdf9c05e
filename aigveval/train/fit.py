"""A stage of training: projectors and LoRA on clips or preference pairs.

Reads from top to bottom in `_prepare` and `_run`; `grpo` has what stage grpo does instead of the
latter, `stages` reads the options and runs several. Frozen encoders encode each clip only once,
ever; encoders can be trained with the rest. On several GPUs it is started by torchrun or
`accelerate launch`, like any Trainer.
"""

from __future__ import annotations

import dataclasses
import math
import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.markup import escape
from torch import distributed as dist
from transformers import (
    EarlyStoppingCallback,
    EvalPrediction,
    TrainerCallback,
    TrainingArguments,
    set_seed,
)

from encoders.base import Encoder
from encoders.onednn import use_onednn
from encoders.pretrained import no_bars

from ..data.scales import MOS
from ..errors import cause_of, is_disk_full, is_ours, is_out_of_memory
from ..features.cache import ExtractReport, FeatureCache, extract
from ..files import writing
from ..model.base import AIGVEvalOutput, ScorerModel
from ..model.modeling import AIGVEvalModel
from .answer_targets import AnswerTargets, FromDetections, FromLabels
from .answers import AnswerCollator, read_answer_parts
from .build import Built, build_model, set_stats
from .callbacks import ProgressCallback, SaveCallback, print_best, print_line, print_metrics
from .config import FitConfig, FitError
from .dataset import QualityDataset
from .detector_fit import fit_detector, names_in
from .predict import score_rows
from .projector_pretraining import pretrain_projectors
from .rejection_sampling import add_best
from .resume import (
    best_metrics,
    check_same_run,
    history_of,
    last_checkpoint,
    remove_unfinished,
    stale_validations,
    step_of,
)
from .ridge import fit_ridge
from .rows import Part, check_parts, read_parts
from .trainer import QualityTrainer, fork_workers, loss_terms, tensorboard, training_arguments
from .validation import ValidationMetrics, gain_line

_Scores = NDArray[np.float32]  # (n, 4) of the validation clips


@dataclass(frozen=True, kw_only=True)
class FitResult:
    """The result of a run.

    Attributes:
        model: Folder with the best model (the last one, if there was no validation).
        steps: Optimizer steps of the whole run.
        resumed_from: Checkpoint that this call resumed from, or None.
        metrics: Of `model` on the validation manifests: ``srocc``, the mean over all that are
            defined, and ``MANIFEST_srocc_SCORE``, ``MANIFEST_plcc_SCORE``; on manifests of pairs
            likewise ``accuracy`` and ``MANIFEST_accuracy_SCORE``.
    """

    model: Path
    steps: int
    resumed_from: Path | None
    metrics: dict[str, float]


def main(config: FitConfig) -> FitResult:
    """Train, resuming from the last checkpoint in ``output_dir`` if there is one.

    Raises:
        FitError: The config or the data cannot be used, ``output_dir`` holds another run, or the
            memory or its disk does not suffice.
        ManifestError: A manifest cannot be used.
        SystemExit: 130, after Ctrl-C.
    """
    # one of several processes prints
    console = Console(stderr=True, quiet=os.environ.get("RANK", "0") != "0")
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
    except Exception as error:
        says_where = is_ours(error) or getattr(error, "filename", None)
        if is_disk_full(error) and not says_where:
            raise FitError(
                f"{output}: cannot be written ({cause_of(error, limit=200)}); make room on its "
                "disk, and the same command goes on"
            ) from error
        if not is_out_of_memory(error):
            raise
        raise FitError(
            f"out of memory ({cause_of(error, limit=200)}); set gradient_checkpointing: true or "
            "bf16: true, or a smaller batch_size (grad_accum makes up for it), eval_batch_size or "
            "encode_batch_size"
        ) from error


@dataclass(frozen=True, kw_only=True)
class _Prepared:
    """Model and data, as all stages need them."""

    config: FitConfig
    console: Console
    built: Built
    arguments: TrainingArguments
    train_set: QualityDataset
    valid_set: QualityDataset
    metrics: ValidationMetrics
    checkpoint: Path | None


def _prepare(config: FitConfig, output: Path, console: Console) -> _Prepared:
    """Read the data, make or load the model, encode the videos."""
    scale, answers = config.score_scale, config.stage != "regression"
    train = (
        read_answer_parts(config, config.train)
        if answers
        else read_parts(config.train, scale=scale)
    )
    valid = read_parts(config.valid, scale=scale)
    check_parts(config, train)
    if config.stage == "sft2":
        train = add_best(config, train, console)
    arguments = training_arguments(config)
    if config.fsdp and not (dist.is_available() and dist.is_initialized()):
        raise FitError("fsdp: true is for several processes: start with torchrun or accelerate")
    _print_gpus(console, arguments)
    set_seed(config.seed)  # before the projectors are initialised
    if config.stage == "grpo":  # sampling and training must see the same
        built = build_model(replace(config, feature_dropout=0.0, feature_noise=0.0))
    else:
        built = build_model(config)
    model = built.model
    if isinstance(model, AIGVEvalModel) and arguments.device.type == "cpu" and not config.fsdp:
        use_onednn(model.model.language_model, training=True)
    if built.is_vlm:  # as with encoders in training, see `training_arguments`
        arguments.dataloader_num_workers = config.workers
        fork_workers(arguments)
    _set_answer_form(config, model, train)

    _check_writable(output)
    cache = FeatureCache(config.cache_dir)
    videos = [video for part in (*train, *valid) for video in part.videos]
    report = _encode(videos, built.frozen, cache, config, arguments)
    _print_faults(console, report)
    unscored = model.config.unscored
    train, valid = (
        [part.usable(report.digests, unscored=unscored) for part in parts]
        for parts in (train, valid)
    )
    if unscored:
        console.print(f"No encoder of {' or '.join(unscored)}: these scores are left out")
        train = [part.without_answers_on(unscored) for part in train]
    _print_data(config, train, valid, built, report, console=console)
    _print_shared(console, train, valid, report.digests)
    train_set = built.dataset(
        [part.rows for part in train],
        report.digests,
        cache,
        answers=answers,
        pairs=[pair for part in train for pair in part.pairs],
        mismatch_probability=config.mismatch_probability,
        mismatch_scores=(config.mismatch_scores[0], config.mismatch_scores[1]),
        prompt_dropout=config.prompt_dropout,
        seed=config.seed,
    )
    if config.detector:
        cast(AIGVEvalModel, model).model.add_detector(names_in(train_set))
    valid_set = built.dataset([part.clips for part in valid], report.digests, cache)
    metrics = ValidationMetrics(valid, valid_set)
    if valid and not metrics.defined:
        raise FitError("the validation manifests have no score with three different values")

    checkpoint = last_checkpoint(output)
    first = _is_first(arguments)
    with arguments.main_process_first(desc="starting"):  # the others see what it has written
        check_same_run(
            config,
            output,
            train_set,
            resuming=checkpoint is not None,
            write=first,
            processes=arguments.world_size,
        )
        if first:
            remove_unfinished(output)
        if checkpoint is None and config.base is None:
            set_stats(built, train_set, device=arguments.device)
    if checkpoint is not None:
        console.print(f"Going on from step {step_of(checkpoint)}", highlight=False)
    return _Prepared(
        config=config,
        console=console,
        built=built,
        arguments=arguments,
        train_set=train_set,
        valid_set=valid_set,
        metrics=metrics,
        checkpoint=checkpoint,
    )


def _check_writable(folder: Path) -> None:
    """Raise `FitError` where no file can be made in a folder: before hours of encoding."""
    with writing(folder, kind=FitError):
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()


def _run(config: FitConfig, output: Path, console: Console) -> FitResult:
    ready = _prepare(config, output, console)
    if config.stage == "grpo":
        return _run_grpo(ready)
    model, processor, arguments = ready.built.model, ready.built.processor, ready.arguments
    metrics, checkpoint = ready.metrics, ready.checkpoint
    before = _base_scores(ready, output)
    if checkpoint is None:
        _fit_heads(ready)
    if not config.epochs:
        found, after = _save_and_validate(ready)
        _print_gain(ready, before, after)
        return _result(ready, found, steps=0)
    collate = ready.built.collate
    if config.stage != "regression":
        targets: AnswerTargets = FromLabels(model=model, noise=config.feature_noise)
        if config.learn == "distill" and config.stage == "sft":
            targets = FromDetections(names=model.config.detector, variants=config.answer_variants)
        collate = AnswerCollator(collate=collate, tokenizer=processor.tokenizer, targets=targets)
    if config.learn == "distill":
        cast(AIGVEvalModel, model).model.projectors.requires_grad_(False)

    step = 0 if checkpoint is None else step_of(checkpoint)
    callbacks: list[TrainerCallback] = [
        ProgressCallback(console, metrics.names, main=metrics.main),
        SaveCallback(console, steps=config.save_steps, minutes=config.save_minutes),
    ]
    if config.valid:
        arguments.metric_for_best_model = metrics.main
        if config.early_stop is not None:
            stop = EarlyStoppingCallback(config.early_stop)
            callbacks.append(stop)
            if checkpoint is not None:
                # Its own way of resuming would bring back the patience of then.
                stale = stale_validations(history_of(checkpoint), metrics.main)
                stop.early_stopping_patience_counter = stale
                if stale >= config.early_stop:
                    arguments.max_steps = step
    if config.max_steps is not None and step >= config.max_steps:
        # Ended within an epoch, of which the Trainer would go on with the next step.
        arguments.max_steps, arguments.num_train_epochs = -1, 0
    if _is_first(arguments) and (log := tensorboard(config, from_step=step)):
        callbacks.append(log)
    trainer = QualityTrainer(
        config=config,
        model=model,
        terms=loss_terms(config, model),
        args=arguments,
        train_dataset=ready.train_set,
        eval_dataset=ready.valid_set if config.valid else None,
        data_collator=collate,
        compute_metrics=metrics,
        callbacks=callbacks,
    )
    # Each process has its own dropout and noise.
    torch.manual_seed(config.seed + arguments.process_index)
    trainer.train(
        checkpoint,
        ignore_keys_for_eval=[
            f.name for f in dataclasses.fields(AIGVEvalOutput) if f.name != "scores"
        ],
    )
    trainer.save_trained(output / "model")
    if _is_first(arguments):
        processor.save_pretrained(output / "model")
        if before is not None:
            _print_gain(ready, before, _validated(ready)[0])
    best = best_metrics(trainer.state.log_history, trainer.state.best_global_step)
    return _result(ready, best, steps=trainer.state.global_step)


def _base_scores(ready: _Prepared, output: Path) -> _Scores | None:
    """The base's scores (n, 4) of the validation clips, kept for a run that is resumed.

    None where they are not compared. A sharded model cannot be, as no process can score alone.
    """
    config = ready.config
    wanted = config.base and config.valid and config.stage == "regression" and not config.fsdp
    if not wanted or not _is_first(ready.arguments) or ready.built.is_vlm:
        return None
    path = output / "base_scores.npy"
    if ready.checkpoint is not None:
        return np.load(path) if path.exists() else None
    scores, _ = _validated(ready)
    np.save(path, scores)
    return scores


def _validated(ready: _Prepared) -> tuple[_Scores, NDArray[np.float32]]:
    """Scores (n, 4) of the validation clips, in their order, and labels; see `score_rows`."""
    device = ready.arguments.device
    ready.built.model.to(device)  # type: ignore[arg-type]
    return score_rows(
        ready.built.model,
        ready.valid_set,
        ready.built.collate,
        batch_size=ready.config.eval_batch_size,
        device=device,
    )


def _fit_heads(ready: _Prepared) -> None:
    """Train what is fitted before the LLM: projectors and defect detector, if asked for."""
    config, console, model = ready.config, ready.console, cast(Any, ready.built.model)
    if config.ridge:
        fit_ridge(model.model, ready.train_set, console, seed=config.seed)
    if config.align_epochs:
        loss = pretrain_projectors(model.model, ready.train_set, config, console)
        if not math.isfinite(loss):
            raise FitError(
                f"align_epochs has diverged: the loss is {loss}; take a lower align_learning_rate"
            )
        console.print(f"Projectors aligned, loss {loss:.3f}", highlight=False)
    if config.detector:
        fit_detector(model.model, ready.train_set, console, seed=config.seed)
        console.print(f"Detects {', '.join(model.config.detector)}", highlight=False)


def _run_grpo(ready: _Prepared) -> FitResult:
    try:
        from . import grpo
    except ImportError as error:
        raise FitError(f"stage grpo needs TRL ({error}): pip install 'aigveval[grpo]'") from error
    steps = grpo.train(
        ready.config,
        model=ready.built.model,
        processor=ready.built.processor,
        dataset=ready.train_set,
        collate=ready.built.collate,
        checkpoint=ready.checkpoint,
        console=ready.console,
    )
    found, _ = _save_and_validate(ready)
    return _result(ready, found, steps=steps)


def _save_and_validate(ready: _Prepared) -> tuple[dict[str, float], _Scores | None]:
    """Save the model as it is, by the first process; its metrics, and its scores (n, 4) of the
    validation clips. Nothing of both without validation."""
    if not _is_first(ready.arguments):
        return {}, None
    folder = Path(ready.config.output_dir) / "model"
    ready.built.model.eval().save_pretrained(folder)
    ready.built.processor.save_pretrained(folder)
    if not ready.config.valid:
        return {}, None
    scores, labels = _validated(ready)
    return ready.metrics(EvalPrediction(predictions=scores, label_ids=labels)), scores


def _print_gain(ready: _Prepared, before: _Scores | None, after: _Scores | None) -> None:
    """One line against the base's scores of the validation clips, if both are known."""
    if before is None or after is None:
        return
    line = gain_line(before, after, ready.valid_set, name=str(ready.config.base))
    if line is not None:
        print_line(ready.console, line, markup=False)


def _result(ready: _Prepared, metrics: dict[str, float], *, steps: int) -> FitResult:
    """The result of a run, printed."""
    if metrics:
        print_best(ready.console, metrics, main=ready.metrics.main)
        print_metrics(ready.console, metrics, ready.metrics.names)
    model = Path(ready.config.output_dir) / "model"
    print_line(ready.console, f"Saved [bold]{escape(str(model))}[/bold]")
    return FitResult(model=model, steps=steps, resumed_from=ready.checkpoint, metrics=metrics)


def _set_answer_form(config: FitConfig, model: ScorerModel, train: Sequence[Part]) -> None:
    """Set in a model's config the answers that it learns to write."""
    if config.stage == "regression":
        return
    known = model.config
    if config.stage == "grpo" and not known.explains:
        raise FitError(f"{config.base} doesn't write answers; stage sft teaches it, before grpo")
    if known.explains and known.answer_times != config.answer_times:
        raise FitError(
            f"{config.base} writes times in {known.answer_times}, answer_times is "
            f"{config.answer_times}"
        )
    known.explains, known.answer_times = True, config.answer_times
    if config.stage == "sft" and config.facts and config.learn != "distill":
        known.reads_facts = any(row.facts for part in train for row in part.rows)


def _encode(
    videos: Sequence[str],
    encoders: Sequence[Encoder],
    cache: FeatureCache,
    config: FitConfig,
    arguments: TrainingArguments,
) -> ExtractReport:
    """Fill the cache with the tokens of all videos; each process encodes its share."""
    options: dict[str, Any] = {
        "workers": config.workers,
        "batch_size": config.encode_batch_size,
        "device": arguments.device,
        "progress": _is_first(arguments),
    }
    unique, computed = list(dict.fromkeys(videos)), 0
    if arguments.world_size > 1:
        share = unique[arguments.process_index :: arguments.world_size]
        computed = extract(share, encoders, cache, **options).computed
        dist.barrier()
    report = extract(unique, encoders, cache, **options)
    report.computed += computed
    for encoder in encoders:
        encoder.to("cpu")  # `join` runs in the data loader
    return report


def _is_first(arguments: TrainingArguments) -> bool:
    return arguments.process_index == 0


def _print_gpus(console: Console, arguments: TrainingArguments) -> None:
    count = torch.cuda.device_count()
    if arguments.device.type == "cuda" and arguments.world_size == 1 and count > 1:
        command = f"torchrun --nproc-per-node {count} -m aigveval fit ..."
        print_line(console, f"Training on one of {count} GPUs; {command} takes them all")


def _print_faults(console: Console, report: ExtractReport) -> None:
    for line in report.notes:
        print_line(console, line, style="yellow", markup=False)
    if report.errors:
        console.print(f"[yellow]{len(report.errors)} videos can't be used:[/yellow]")
        lines = list(report.errors.values())
        more = [f"... and {len(lines) - 10} more"] if len(lines) > 10 else []
        for line in lines[:10] + more:
            print_line(console, f"  {line}", markup=False)


def _print_data(
    config: FitConfig,
    train: Sequence[Part],
    valid: Sequence[Part],
    built: Built,
    report: ExtractReport,
    *,
    console: Console,
) -> None:
    pairs = sum(len(part.pairs) for part in (*train, *valid))
    print_line(
        console,
        f"Training on {sum(map(len, train))} rows, validating on {sum(map(len, valid))}; "
        + (f"{pairs} of them are preference pairs; " if pairs else "")
        + f"{len(report.digests)} videos, {report.computed} of them newly encoded",
    )
    if config.score_scale != MOS:
        print_line(
            console,
            f"Ratings on {config.score_scale} count as 1-5, the scale of the model's scores",
        )
    if built.trained:
        console.print(f"Encoders in training: {', '.join(built.trained)}", highlight=False)


def _print_shared(
    console: Console, train: Sequence[Part], valid: Sequence[Part], digests: Mapping[str, str]
) -> None:
    """One line where files of the same content are trained on and validated on."""
    trained = {digests[video] for part in train for video in part.videos}
    validated = {digests[video]: video for part in valid for video in part.videos}
    shared = [video for digest, video in validated.items() if digest in trained]
    if shared:
        print_line(
            console,
            f"{len(shared)} of {len(validated)} validation videos are trained on too, such as "
            f"{shared[0]}: what is measured on them is too good",
            style="yellow",
            markup=False,
        )

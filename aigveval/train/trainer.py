"""The Trainer of the stages without reinforcement learning: loss terms, optimizer, arguments.

A run's loss is a weighted sum of terms, each of which makes its own forward pass: `ScoreTerm` and,
in its place, `DistillTerm`; in stages with answers, `answer_term` besides. Their numerics are the
pure functions of `losses`.
"""

from __future__ import annotations

import math
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple, cast
from zipfile import ZipFile

import torch
from accelerate.utils import gather_object
from safetensors import safe_open
from torch import Tensor, nn
from torch.utils.data import DataLoader
from transformers import (
    PrinterCallback,
    Trainer,
    TrainerCallback,
    TrainerState,
    TrainingArguments,
)
from transformers.integrations import TensorBoardCallback, get_available_reporting_integrations
from transformers.utils import is_torch_bf16_gpu_available

from prompts.rubric import MAX_SCORE, MIN_SCORE, SCORES

from ..model.base import ScorerModel
from ..model.checkpoint import WEIGHTS
from ..model.library_internals import checkpointing_option, is_lora, use_one_gpu
from ..model.modeling import AIGVEvalModel
from ..model.projector import FeatureProjector
from .callbacks import ProgressCallback, SaveCallback, WeightAverage
from .config import FitConfig, FitError, check_known
from .dataset import GROUP, PAIR, WEIGHT, EpochSampler, QualityDataset
from .losses import IGNORED, ScoreLoss, answer_loss, gather_rows, global_loss

TENSORBOARD = "tensorboard"
_DAY = 24 * 3600
_KINDS = ("projector", "lora", "encoder")  # of parameters; in the order of the optimizer's groups
# Arguments of transformers' Trainer without effect here: optimizer, order of rows, loss and the
# steps of checkpoints are our own.
_UNUSED = {
    "optim",
    "optim_args",
    "data_seed",
    "label_smoothing_factor",
    "save_steps",
    "eval_steps",
    "gradient_checkpointing",
    "activation_checkpointing",
}


# ---- loss terms ---------------------------------------------------------------------------------


class TermValue(NamedTuple):
    """A term of the loss for one batch.

    Attributes:
        loss: Scalar, unweighted.
        outputs: Of the model, if the term is one of the scores.
        logged: Whether it is part of the mean that is logged.
    """

    loss: Tensor
    outputs: Any = None
    logged: bool = True


class LossTerm(NamedTuple):
    """A term of the training loss.

    Attributes:
        name: What its mean is logged as, where a run has several terms.
        weight: In the sum of the terms.
        compute: Takes the model, as the Trainer has wrapped it, and a batch of the collator; gives
            None where the batch has nothing for it.
    """

    name: str
    weight: float
    compute: Callable[[nn.Module, Mapping[str, Any]], TermValue | None]


@dataclass(frozen=True, kw_only=True)
class ScoreTerm:
    """The scores, as level logits, against the rows' labels."""

    loss: ScoreLoss

    def __call__(self, model: nn.Module, batch: Mapping[str, Any]) -> TermValue:
        outputs = model(**{k: v for k, v in batch.items() if k not in ("labels", "answers")})
        found = outputs.level_logits, batch["labels"], batch["slot_mask"]
        if not model.training:  # each process measures its own rows
            return TermValue(self.loss(*found), outputs)
        # Correlations and ranks are of the batches of all processes together.
        return TermValue(global_loss(self.loss(*map(gather_rows, found))), outputs)


@dataclass(frozen=True, kw_only=True)
class DistillTerm:
    """The scores against what the projectors' score heads predict; the projectors are frozen.

    The LLM's LoRA learns to say what the LLM is shown, which needs no rating at all, so that one
    LoRA can read projectors that were trained on other ratings. So that the LLM reads nothing else,
    the encoders' tokens come from different rows of a batch, beside the prompt of a third; and a
    random shift of all predictions, of a standard deviation of `SHIFT`, lets every score occur.

    Attributes:
        scores: Gets the batch with these targets; in validation, the batch as it is.
        model: As it is before the Trainer wraps it.
    """

    SHIFT = 0.7

    scores: ScoreTerm
    model: AIGVEvalModel

    def __call__(self, model: nn.Module, batch: Mapping[str, Any]) -> TermValue:
        if not model.training:
            return self.scores(model, batch)
        backbone = self.model.model
        parts = batch["features"].split([k for k, _ in backbone.config.feature_shapes], dim=1)
        features = torch.cat([part[torch.randperm(len(part))] for part in parts], dim=1)
        backbone.projectors.eval()  # no noise: targets and tokens must be of one kind
        with self._shifted():
            with torch.no_grad():
                targets = backbone.score_hints(features).clamp(MIN_SCORE, MAX_SCORE)
            labels = batch["labels"].clone()
            labels[:, : len(SCORES)], labels[:, WEIGHT] = targets, 1.0
            labels[:, GROUP] = labels[:, PAIR] = -1
            return self.scores(model, {**batch, "features": features, "labels": labels})

    @contextmanager
    def _shifted(self) -> Iterator[None]:
        first = cast(FeatureProjector, next(iter(self.model.model.projectors.values())))
        bias = first.constant
        kept = bias.clone()
        bias += self.SHIFT * torch.randn(len(SCORES), device=bias.device)
        try:
            yield
        finally:
            bias.copy_(kept)


def answer_term(model: nn.Module, batch: Mapping[str, Any]) -> TermValue | None:
    """The written answers, token by token; see `answers.AnswerCollator`.

    The mean over the processes is the one over the tokens of all of them.
    """
    if "answers" not in batch:
        return None
    inputs = dict(batch["answers"])
    targets = inputs.pop("targets")
    logits = model(**inputs, logits_to_keep=targets.shape[1] + 1).logits
    written = (targets != IGNORED).sum()
    each = gather_rows(written[None]).float().mean()
    loss = answer_loss(logits, targets) * (written / each.clamp(min=torch.finfo().tiny))
    return TermValue(loss, logged=bool(each))


def score_loss(config: FitConfig) -> ScoreLoss:
    """The loss of the scores as a config wants it."""
    return ScoreLoss(
        terms=config.loss,
        smoothing=config.smoothing,
        min_difference=config.rank_min_difference,
        pair_scale=config.pair_scale,
        pair_tie=config.pair_tie,
    )


def loss_terms(config: FitConfig, model: ScorerModel) -> list[LossTerm]:
    """The terms of a run's loss."""
    rated = ScoreTerm(loss=score_loss(config))
    scores: ScoreTerm | DistillTerm = rated
    if config.learn == "distill":
        scores = DistillTerm(scores=rated, model=cast(AIGVEvalModel, model))
    if config.stage == "regression":
        return [LossTerm("score_loss", 1.0, scores)]
    return [
        LossTerm("score_loss", config.score_weight, scores),
        LossTerm("text_loss", config.text_weight, answer_term),
    ]


# ---- the Trainer --------------------------------------------------------------------------------


class TrainerParts:
    """What our subclasses of Trainer and of TRL's trainers share; comes before the library's class.

    Attributes:
        config: Options of the run.
        scorer: The model as it is before it is wrapped.
        resumes_from: A checkpoint, or None.
    """

    config: FitConfig
    scorer: ScorerModel
    resumes_from: Path | None = None
    args: TrainingArguments
    optimizer: Any
    callback_handler: Any
    remove_callback: Any

    @cached_property
    def _noted(self) -> dict[str, list[float]]:
        return defaultdict(list)

    def note(self, name: str, value: Tensor) -> None:
        """Remember a value, of which the mean over all processes is logged with the next loss."""
        self._noted[name].append(value.detach().item())

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        """As the library does, with what was noted; raises `FitError` where training diverged."""
        if "loss" in logs:
            if not math.isfinite(logs["loss"]):  # the mean over all processes, so all end
                raise FitError(
                    f"the training has diverged: the loss is {logs['loss']}; take a lower "
                    "learning_rate or lora_learning_rate, and another output_dir"
                )
            own = {name: fmean(values) for name, values in self._noted.items()}
            found = gather_object([own])  # of each process, which have noted the same names
            logs = {**logs, **{name: fmean(one[name] for one in found) for name in own}}
            self._noted.clear()
        super().log(logs, *args, **kwargs)  # type: ignore[misc]

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        if self.optimizer is None:
            self.optimizer = make_optimizer(model or self.scorer, self.config, self.args)
        return self.optimizer

    def train(self, resume_from_checkpoint: Any = None, *args: Any, **options: Any) -> Any:
        """Train as the library does, from a checkpoint on if there is one (a path)."""
        if resume_from_checkpoint is not None:
            self.resumes_from = Path(resume_from_checkpoint)
            check_checkpoint(self.scorer, self.resumes_from)
            resume_from_checkpoint = str(resume_from_checkpoint)
        self.remove_callback(PrinterCallback)  # it prints dicts
        try:
            return super().train(resume_from_checkpoint, *args, **options)  # type: ignore[misc]
        finally:
            for callback in self.callback_handler.callbacks:
                if isinstance(callback, (ProgressCallback, SaveCallback)):
                    callback.stop()

    def _issue_warnings_after_load(self, load_result: Any) -> None:
        """None: what is frozen is not in a checkpoint, and the rest was checked."""


class QualityTrainer(TrainerParts, Trainer):
    """Trainer with our loss terms, learning rates, order of rows and averaged weights.

    The first of the loss terms gives the scores that are validated.
    """

    def __init__(
        self,
        *,
        config: FitConfig,
        model: ScorerModel,
        terms: Sequence[LossTerm],
        train_dataset: QualityDataset,
        **options: Any,
    ) -> None:
        super().__init__(model=model, train_dataset=train_dataset, **options)
        self.config, self.scorer, self.terms = config, model, terms
        self.train_rows = train_dataset
        self.model_accepts_loss_kwargs = False  # so the loss is divided by grad_accum
        # After Trainer has moved the model to its device.
        self.average = None if config.ema is None else WeightAverage(model, config.ema)
        self.sampler: EpochSampler | None = None
        self.add_callback(_Hooks(self))

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Any = None,
    ) -> Any:
        loss: Any = 0.0
        outputs = None
        for term in self.terms:
            found = term.compute(model, inputs)
            if found is None:
                continue
            loss = loss + term.weight * found.loss
            outputs = found.outputs if outputs is None else outputs
            if model.training and len(self.terms) > 1 and found.logged:
                self.note(term.name, found.loss)
        return (loss, outputs) if return_outputs else loss

    def save_trained(self, folder: Path) -> None:
        """Write the model, with its averaged weights if there are any; one process writes."""
        if self.average is not None:
            best = self.state.best_model_checkpoint
            if best is not None and self.args.load_best_model_at_end:
                self.average.load(Path(best))
            self.average.copy_to_model()
        model, state = self.scorer, None
        if self.is_fsdp_enabled:
            state = self.accelerator.get_state_dict(self.model)
            model = self.accelerator.unwrap_model(self.model)
        if self.args.should_save:
            model.eval().save_pretrained(folder, state_dict=state)

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        if self.average is None:
            return super().evaluate(*args, **kwargs)
        with self.average.in_place():
            return super().evaluate(*args, **kwargs)

    def get_train_dataloader(self) -> DataLoader:
        self.sampler = None
        loader = super().get_train_dataloader()
        if self.sampler is not None:
            return loader
        # This version of transformers does not ask for our order of rows where others do.
        return self.accelerator.prepare(
            DataLoader(
                self.train_rows,
                batch_size=self.config.batch_size,
                sampler=self._get_train_sampler(),
                collate_fn=self.data_collator,
                num_workers=self.args.dataloader_num_workers,
                pin_memory=self.args.dataloader_pin_memory,
                multiprocessing_context=self.args.dataloader_multiprocessing_context,
            )
        )

    def _get_train_sampler(self, train_dataset: Any = None) -> EpochSampler:
        config, rows = self.config, self.train_rows
        batch = config.batch_size * self.args.world_size
        self.sampler = EpochSampler(
            rows.groups,
            batch_size=batch,
            seed=config.seed,
            pairs_from=rows.pairs_from,
            group_size=config.group_size if config.group_batches else 1,
            # Otherwise accelerate would repeat rows until each process has as many.
            multiple_of=batch if self.args.world_size > 1 else 1,
        )
        return self.sampler

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        super().save_model(output_dir, _internal_call)
        if self.average is not None and self.args.should_save:
            self.average.save(Path(output_dir or str(self.args.output_dir)))


class _Hooks(TrainerCallback):
    def __init__(self, trainer: QualityTrainer) -> None:
        self.trainer = trainer

    def on_train_begin(self, args: Any, state: TrainerState, control: Any, **kwargs: Any) -> None:
        if state.best_global_step is not None:
            # The recorded path is wrong where the folder of a resumed run was moved.
            best = Path(args.output_dir, f"checkpoint-{state.best_global_step}")
            if best.is_dir():
                state.best_model_checkpoint = str(best)
        if self.trainer.average is not None and self.trainer.resumes_from is not None:
            self.trainer.average.load(self.trainer.resumes_from)

    def on_epoch_begin(self, args: Any, state: TrainerState, control: Any, **kwargs: Any) -> None:
        # In a run of several processes that resumes within an epoch, the Trainer does not do it.
        if self.trainer.sampler is not None:
            self.trainer.sampler.set_epoch(int(state.epoch or 0))

    def on_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self.trainer.average is not None:
            self.trainer.average.update()


def make_optimizer(
    model: nn.Module, config: FitConfig, arguments: TrainingArguments
) -> torch.optim.Optimizer:
    """AdamW with a learning rate for each kind of parameter; only matrices decay."""
    rates = {
        "encoder": config.encoder_learning_rate,
        "lora": config.lora_learning_rate,
        "projector": config.learning_rate,
    }
    groups: dict[tuple[str, bool], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            decays = parameter.ndim > 1 and "position" not in name
            groups.setdefault((_kind(name), decays), []).append(parameter)
    return torch.optim.AdamW(
        [
            {
                "params": groups[kind, decays],
                "lr": rates[kind],
                "weight_decay": config.weight_decay if decays else 0.0,
            }
            for kind in _KINDS
            for decays in (False, True)
            if (kind, decays) in groups
        ],
        betas=(arguments.adam_beta1, arguments.adam_beta2),
        eps=arguments.adam_epsilon,
    )


def _kind(name: str) -> str:
    if is_lora(name):
        return "lora"
    return "encoder" if name.removeprefix("module.").startswith("encoders.") else "projector"


def check_checkpoint(model: ScorerModel, folder: Path) -> None:
    """Raise `FitError` where a checkpoint is damaged, lacks what the model trains, or has more.

    The latter isn't checked where its weights are sharded.
    """
    for path in sorted(folder.iterdir()):
        if not _is_whole(path):
            raise FitError(
                f"{path} is damaged; remove {folder.name}, and the run goes on from the checkpoint "
                "before it, if there is one"
            )
    path = folder / WEIGHTS
    if not path.is_file():
        return
    with safe_open(path, framework="pt") as file:
        found = set(file.keys())
    missing, unexpected = sorted(model.trained_keys() - found), sorted(found - model.trained_keys())
    if missing or unexpected:
        raise FitError(
            f"a checkpoint doesn't fit the model: missing {missing[:3]}, "
            f"unexpected {unexpected[:3]}"
        )


def _is_whole(path: Path) -> bool:
    """Whether a file of PyTorch or of safetensors can be read; True for others."""
    try:
        if path.suffix in (".pt", ".pth"):
            with ZipFile(path) as file:
                return file.testzip() is None
        if path.suffix == ".safetensors":
            safe_open(path, framework="pt")
    except OSError as error:
        raise FitError(f"{path}: cannot be read: {error.strerror or error}") from None
    except Exception:  # of many kinds, as of what is damaged in a zip
        return False
    return True


# ---- its arguments ------------------------------------------------------------------------------


def training_arguments(
    config: FitConfig, *, kind: type[TrainingArguments] = TrainingArguments, **more: Any
) -> TrainingArguments:
    """The Trainer's arguments; joins the other processes of torchrun or accelerate, if any.

    One of TRL's trainers has a class of its own of them (`kind`), with some `more`.

    Raises:
        FitError: The machine cannot do what the config asks for, or `trainer` has an argument that
            is unknown or follows from other options.
    """
    if config.bf16 and config.device != "cpu" and not is_torch_bf16_gpu_available():
        raise FitError(
            "bf16: true needs a GPU that computes in bfloat16, and there is none here; set bf16: "
            "false, or device: cpu to train in bfloat16 on the CPU, which is slow on most"
        )
    validates = bool(config.valid)
    options: dict[str, Any] = {
        "output_dir": config.output_dir,
        "num_train_epochs": config.epochs,
        "max_steps": config.max_steps or -1,
        "per_device_train_batch_size": config.batch_size,
        "per_device_eval_batch_size": config.eval_batch_size,
        "gradient_accumulation_steps": config.grad_accum,
        "learning_rate": config.learning_rate,
        "weight_decay": config.weight_decay,
        "warmup_steps": config.warmup,
        "max_grad_norm": config.max_grad_norm,
        "bf16": config.bf16,
        checkpointing_option(kind): config.gradient_checkpointing,  # on by default in TRL
        "eval_strategy": "epoch" if validates else "no",
        "save_strategy": "epoch",
        "load_best_model_at_end": validates,
        "metric_for_best_model": "srocc" if validates else None,
        "greater_is_better": True if validates else None,
        "seed": config.seed,
        "use_cpu": config.device == "cpu",
        "label_names": ["labels"],
        "remove_unused_columns": False,
        "logging_steps": config.log_steps,
        "disable_tqdm": True,
        "report_to": [name for name in _loggers(config) if name != TENSORBOARD] or "none",
        **more,
    }
    if config.fsdp:
        options |= {"fsdp": True, "fsdp_config": dict(config.fsdp_config)}
    if config.train_encoders:
        options |= {
            # Not persistent: those draw from torch's generator at other times in a resumed run.
            "dataloader_num_workers": config.workers,
            # of CLIP, say, the temperature is not used
            "ddp_find_unused_parameters": True,
        }
    for name in config.trainer:
        check_known("argument of trainer", name, TrainingArguments.__dataclass_fields__)
        if name in options or name in _UNUSED:
            raise FitError(f"trainer: {name} follows from the other options; leave it out")
    free = {
        "lr_scheduler_type": "cosine",
        "save_total_limit": 2,
        "ddp_timeout": _DAY,  # one process may encode videos while the others wait
        "logging_first_step": True,
        "logging_nan_inf_filter": False,  # it would log a loss of 0 for one that is no number
        **config.trainer,
    }
    try:
        arguments = kind(**options, **free)
    except (ImportError, TypeError, ValueError) as error:
        raise FitError(" ".join(str(error).split())) from error
    if config.train_encoders:
        fork_workers(arguments)
    arguments.dataloader_pin_memory = arguments.device.type == "cuda"
    use_one_gpu(arguments)  # several are for torchrun
    return arguments


def fork_workers(arguments: TrainingArguments) -> None:
    """Has processes that read rows start as forks on Linux, unless `trainer` says otherwise.

    From Python 3.14 on they don't, and then each tensor of an encoder goes to them through a file,
    which are too many.
    """
    if sys.platform == "linux" and arguments.dataloader_multiprocessing_context is None:
        arguments.dataloader_multiprocessing_context = "fork"


def _loggers(config: FitConfig) -> list[str]:
    # transformers would take tensorboardX for it, which torch's writer does not
    available = [
        name
        for name in get_available_reporting_integrations()
        if name != TENSORBOARD or find_spec(TENSORBOARD)
    ]
    if config.report_to is None:
        return [name for name in available if name == TENSORBOARD]
    for name in config.report_to:
        if name not in available:
            raise FitError(
                f"report_to: {name} is not installed, or not known to transformers; "
                f"there are {', '.join(available) or 'none'}"
            )
    return config.report_to


def tensorboard(config: FitConfig, *, from_step: int) -> TensorBoardCallback | None:
    """TensorBoard's log of a run, in one folder however often it is resumed; None where off.

    What was logged for later steps than the one that it resumes from is discarded.
    """
    if TENSORBOARD not in _loggers(config):
        return None
    from torch.utils.tensorboard import SummaryWriter

    folder = Path(config.output_dir) / TENSORBOARD
    return TensorBoardCallback(SummaryWriter(str(folder), purge_step=from_step + 1))

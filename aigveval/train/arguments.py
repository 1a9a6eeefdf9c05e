"""`FitConfig` as transformers' Trainer has it: its arguments, and where it logs."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

from transformers import TrainingArguments
from transformers.integrations import (
    TensorBoardCallback, get_available_reporting_integrations,
)
from transformers.utils import is_torch_bf16_gpu_available

from ..model.library_internals import checkpointing_option, use_one_gpu

from .config import FitConfig, FitError

TENSORBOARD = "tensorboard"
_DAY = 24 * 3600


def training_arguments(
    config: FitConfig, *, kind: type[TrainingArguments] = TrainingArguments, **more: Any
) -> TrainingArguments:
    """The Trainer's arguments; joins the other processes of torchrun or accelerate, if any.

    Args:
        config: Of the run.
        kind: Their class, as of one of TRL's trainers.
        **more: Arguments that class has besides.

    Raises:
        FitError: The machine can't do what the config asks for.
    """
    if config.bf16 and config.device != "cpu" and not is_torch_bf16_gpu_available():
        raise FitError(
            "bf16: true needs a GPU that computes in bfloat16, and there is none here; set bf16: "
            "false, or device: cpu to train in bfloat16 on the CPU, which is slow on most"
        )
    options: dict[str, Any] = {}
    # TRL's classes do it by default.
    options[checkpointing_option(kind)] = config.gradient_checkpointing
    if config.fsdp:
        options |= {"fsdp": True, "fsdp_config": dict(config.fsdp_config)}
    if config.train_encoders:
        options |= {
            # Not persistent: those draw from torch's generator at other times in a resumed run.
            "dataloader_num_workers": config.workers,
            # of CLIP, say, the temperature takes part in nothing
            "ddp_find_unused_parameters": True,
        }
    validates = bool(config.valid)
    try:
        arguments = kind(
            output_dir=config.output_dir,
            num_train_epochs=config.epochs,
            max_steps=config.max_steps or -1,
            per_device_train_batch_size=config.batch_size,
            per_device_eval_batch_size=config.eval_batch_size,
            gradient_accumulation_steps=config.grad_accum,
            learning_rate=config.learning_rate,
            lr_scheduler_type="cosine",
            warmup_steps=config.warmup,
            max_grad_norm=config.max_grad_norm,
            bf16=config.bf16,
            eval_strategy="epoch" if validates else "no",
            save_strategy="epoch",
            save_total_limit=2,
            load_best_model_at_end=validates,
            metric_for_best_model="srocc" if validates else None,
            greater_is_better=True if validates else None,
            seed=config.seed,
            use_cpu=config.device == "cpu",
            ddp_timeout=_DAY,  # one process may encode videos while the others wait
            label_names=["labels"],
            remove_unused_columns=False,
            logging_steps=config.log_steps,
            logging_first_step=True,
            disable_tqdm=True,
            report_to=[name for name in _loggers(config) if name != TENSORBOARD] or "none",
            **options, **more,
        )
    except (ImportError, ValueError) as error:
        raise FitError(" ".join(str(error).split())) from error
    arguments.dataloader_pin_memory = arguments.device.type == "cuda"
    use_one_gpu(arguments)  # several are for torchrun
    return arguments


def _loggers(config: FitConfig) -> list[str]:
    # transformers would take tensorboardX for it, which torch's writer doesn't
    available = [
        name for name in get_available_reporting_integrations()
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
    """TensorBoard's log of a run, in one folder however often it's stopped; None where off.

    Args:
        config: Of the run.
        from_step: Step that it goes on from; what was logged of later ones doesn't count.
    """
    if TENSORBOARD not in _loggers(config):
        return None
    from torch.utils.tensorboard import SummaryWriter

    folder = Path(config.output_dir) / TENSORBOARD
    return TensorBoardCallback(SummaryWriter(str(folder), purge_step=from_step + 1))

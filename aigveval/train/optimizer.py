"""The optimizer of all stages, and the check of a checkpoint that a run goes on from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import nn

from ..model.checkpoint import WEIGHTS
from ..model.library_internals import is_lora

from .config import FitConfig, FitError

_KINDS = ("projector", "lora", "encoder")  # of parameters; in the order of the optimizer's groups


def make_optimizer(model: nn.Module, config: FitConfig) -> torch.optim.Optimizer:
    """AdamW with a learning rate for each kind of parameter; matrices alone decay."""
    rates = {
        "encoder": config.encoder_learning_rate, "lora": config.lora_learning_rate,
        "projector": config.learning_rate,
    }
    groups: dict[tuple[str, bool], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            decays = parameter.ndim > 1 and "position" not in name
            groups.setdefault((_kind(name), decays), []).append(parameter)
    return torch.optim.AdamW([
        {"params": groups[kind, decays], "lr": rates[kind],
         "weight_decay": config.weight_decay if decays else 0.0}
        for kind in _KINDS for decays in (False, True) if (kind, decays) in groups
    ])


def check_checkpoint(model: Any, folder: Path) -> None:
    """Raise `FitError` where a checkpoint lacks what the model trains, or has more.

    Args:
        model: Says by `trained_keys()` what it trains.
        folder: The checkpoint. One that several processes share the weights of isn't looked at.
    """
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


def _kind(name: str) -> str:
    if is_lora(name):
        return "lora"
    return "encoder" if name.removeprefix("module.").startswith("encoders.") else "projector"

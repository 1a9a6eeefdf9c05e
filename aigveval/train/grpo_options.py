"""The options of stage grpo that no other stage has."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, get_args

from .config import FitError, check_known
from .rewards import NAMES

if TYPE_CHECKING:
    from .config import FitConfig

Loss = Literal["grpo", "dapo", "dr_grpo", "bnpo"]


@dataclass(frozen=True, kw_only=True)
class GrpoOptions:
    """Group, sampling and rewards of GRPO (arXiv 2402.03300).

    Group size, beta and temperature are VideoScore2's (arXiv 2509.22799); Q-Save's are not public.
    The rest are choices.

    Attributes:
        group: Answers to each clip, which are compared with each other.
        beta: Weight of the KL divergence from the model that the stage started from; 0 for none.
        temperature: Of the sampling.
        top_p: Of the sampling. Below 1, answers come from a distribution that the loss doesn't
            know of; VideoScore2 has 0.95.
        max_new_tokens: Where an answer is cut that the model doesn't end; an answer with two
            defects has about 70 of SmolLM2's.
        clip: How far the probability of a token may move, from 1, before it's left alone.
        loss: How the tokens of a batch are averaged, as TRL's `loss_type` names it.
        rewards: Weight of each reward of `aigveval.train.rewards`; those that aren't named have
            none. Their weighted mean lies within 0-1.

    Raises:
        FitError: An option is out of its range; the message names it.
    """

    group: int = 8
    beta: float = 0.04
    temperature: float = 1.0
    top_p: float = 1.0
    max_new_tokens: int = 160
    clip: float = 0.2
    loss: Loss = "dapo"
    rewards: dict[str, Any] = field(default_factory=lambda: {
        "format": 1.0, "smooth": 1.0, "defect_f1": 1.0, "time_iou": 0.5, "consistency": 1.0,
        "length": 0.25,
    })

    def __post_init__(self) -> None:
        for name, kind in (("group", int), ("max_new_tokens", int)):
            if not isinstance(value := getattr(self, name), kind) or isinstance(value, bool):
                raise FitError(f"grpo.{name} must be a whole number, got {value!r}")
        for name in ("beta", "temperature", "top_p", "clip"):
            if isinstance(value := getattr(self, name), bool) or not isinstance(value, int | float):
                raise FitError(f"grpo.{name} must be a number, got {value!r}")
        if self.group < 2:
            raise FitError(f"grpo.group must be at least 2, got {self.group}")
        for name in ("temperature", "max_new_tokens", "clip"):
            if not getattr(self, name) > 0:
                raise FitError(f"grpo.{name} must be above 0, got {getattr(self, name)}")
        if not self.beta >= 0:
            raise FitError(f"grpo.beta must not be negative, got {self.beta}")
        if not 0 < self.top_p <= 1:
            raise FitError(f"grpo.top_p must lie in (0, 1], got {self.top_p}")
        if self.loss not in get_args(Loss):
            raise FitError(f"grpo.loss must be one of {get_args(Loss)}, got {self.loss!r}")
        if not isinstance(self.rewards, dict):
            raise FitError(f"grpo.rewards must be a mapping of weights, got {self.rewards!r}")
        for name, weight in self.rewards.items():
            check_known("reward", name, NAMES)
            if isinstance(weight, bool) or not isinstance(weight, int | float) or weight < 0:
                raise FitError(f"the weight of reward {name} must be >= 0, got {weight!r}")
        if not any(self.rewards.values()):
            raise FitError("at least one of grpo.rewards must weigh more than 0")

    @property
    def weights(self) -> dict[str, float]:
        """Of the rewards that count, adding up to 1."""
        total = sum(self.rewards.values())
        return {name: weight / total for name, weight in self.rewards.items() if weight}

    def groups_per_step(self, config: FitConfig) -> int:
        """How many groups an optimizer step has, in all processes together.

        Raises:
            FitError: They aren't whole.
        """
        processes = int(os.environ.get("WORLD_SIZE", "1"))  # of torchrun or accelerate
        completions = config.batch_size * config.grad_accum * processes
        if completions % self.group:
            each = f" x {processes} processes" if processes > 1 else ""
            raise FitError(
                f"batch_size x grad_accum{each} = {completions} answers per step must be a "
                f"multiple of grpo.group = {self.group}"
            )
        return completions // self.group

"""What ``aigveval fit CONFIG.yaml`` reads: one flat, validated set of options."""

from __future__ import annotations

import dataclasses
import difflib
import math
import os
import types
import typing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import yaml

from aigveval.config import LORA
from aigveval.presets import list_presets, read_preset

from .losses import LOSS_TERMS


class FitError(ValueError):
    """Training can't start or go on; the message is one line for the user."""


_FROM_BASE = ("llm", "encoders", "lora", "projector_hidden")


@dataclass(frozen=True, kw_only=True)
class FitConfig:
    """Options of the regression stage. Paths are relative to the YAML file's folder; ``~`` and
    ``$VARIABLES`` are expanded. A YAML file may take over the options of a preset, see
    `aigveval.presets`, by ``preset: NAME``; what it says itself counts more.

    Attributes:
        train: Manifests to train on, see `aigveval.train.data.read_training_manifest`.
        valid: Manifests that are measured after each epoch. Without any the last state is kept.
        output_dir: Checkpoints while training, and in the end the folder ``model``. A run that was
            stopped goes on when it's started again with the same folder.
        cache_dir: Feature cache; may be shared by many runs.
        base: Folder or Hub id of a model to go on training; it brings its own `llm`, `encoders`,
            `lora` and `projector_hidden`.
        llm: `smollm2-135m-instruct`, a folder or a Hub id of a causal LM.
        encoders: Names, or mappings with ``name`` and ``options``; at least one. A dimension
            without an encoder gets no score, and none of its scores is trained.
        lora: r, alpha, dropout, target_modules; null for projectors only.
        projector_hidden: Width of the projectors' hidden layer.
        feature_dropout: Chance that training hides all tokens of an encoder, in [0, 1).
        feature_noise: Std of Gaussian noise on the standardised features in training.
        align_epochs: Passes over the training rows in which the projectors alone learn to tell the
            scores, see `aigveval.train.align`: seconds each, and the LLM then learns much faster.
        learn: `scores` from the rows' labels; `reading`: with the projectors left as they are, the
            LoRA learns to say what they tell, see `aigveval.train.align.ReadingTrainer`.
        align_learning_rate: Peak, of the projectors in these passes.
        epochs: Passes over the training rows.
        max_steps: Stop after so many optimizer steps, whatever `epochs` says.
        batch_size: Rows per forward pass.
        eval_batch_size: Rows per forward pass of the validation.
        grad_accum: Forward passes per optimizer step. PLCC and rank are per pass.
        learning_rate: Peak, of the projectors.
        lora_learning_rate: Peak, of the LoRA matrices.
        weight_decay: AdamW's, on matrices only.
        warmup: Share of all steps if below 1, else steps; a cosine down to 0 follows.
        max_grad_norm: Gradients are clipped to this norm; 0 for no clipping.
        loss: Weight of the terms level, plcc, rank and group_rank (pairs inside of a group only).
        smoothing: Share of the level target that's spread over all levels, in [0, 1).
        rank_min_difference: Only pairs whose scores differ by more count in the rank terms.
        group_batches: Put rows of the same `group` into the same batch.
        group_size: With `group_batches`: at most so many rows of a group in a batch.
        mismatch_probability: Chance that a row gets a wrong prompt and a low semantic target.
        mismatch_scores: Range of that target.
        prompt_dropout: Chance that a row loses its prompt.
        seed: Of everything random.
        save_steps: Checkpoint every so many steps besides the one after each epoch.
        early_stop: Stop after so many epochs without a better mean SROCC.
        gradient_checkpointing: Trade time for memory.
        device: `auto` takes a GPU where there is one.
        threads: Of torch on the CPU; null leaves it alone.
        workers: Threads that decode videos.
        encode_batch_size: Videos per encoder call, see `aigveval.data.cache.extract`.

    Raises:
        FitError: An option is out of its range; the message names it.
    """

    train: list[str]
    output_dir: str
    cache_dir: str
    valid: list[str] = field(default_factory=list)
    base: str | None = None
    llm: str = "smollm2-135m-instruct"
    encoders: list[Any] = field(
        default_factory=lambda: ["semantic_lite", "motion_flow", "technical_lite"]
    )
    lora: dict[str, Any] | None = field(default_factory=lambda: dict(LORA))
    projector_hidden: int = 512
    feature_dropout: float = 0.0
    feature_noise: float = 0.0
    align_epochs: int = 0
    align_learning_rate: float = 1e-3
    learn: Literal["scores", "reading"] = "scores"
    epochs: int = 10
    max_steps: int | None = None
    batch_size: int = 16
    eval_batch_size: int = 32
    grad_accum: int = 1
    learning_rate: float = 5e-4
    lora_learning_rate: float = 2e-4
    weight_decay: float = 0.05
    warmup: float = 0.05
    max_grad_norm: float = 1.0
    loss: dict[str, Any] = field(default_factory=lambda: {"level": 1.0, "plcc": 1.0, "rank": 0.3})
    smoothing: float = 0.0
    rank_min_difference: float = 0.0
    group_batches: bool = False
    group_size: int = 8
    mismatch_probability: float = 0.0
    mismatch_scores: list[Any] = field(default_factory=lambda: [1.0, 1.5])
    prompt_dropout: float = 0.0
    seed: int = 0
    save_steps: int | None = None
    early_stop: int | None = None
    gradient_checkpointing: bool = False
    device: Literal["auto", "cpu"] = "auto"
    threads: int | None = None
    workers: int = 1
    encode_batch_size: int = 1

    def __post_init__(self) -> None:
        positive = (
            "epochs", "max_steps", "batch_size", "eval_batch_size", "grad_accum", "group_size",
            "learning_rate", "save_steps", "early_stop", "threads", "workers",
            "encode_batch_size", "projector_hidden", "align_learning_rate",
        )
        for name in positive:
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise FitError(f"{name} must be above 0, got {value}")
        for name in ("lora_learning_rate", "weight_decay", "warmup", "max_grad_norm",
                     "feature_noise", "rank_min_difference", "seed", "align_epochs"):
            if not 0 <= getattr(self, name) < math.inf:
                raise FitError(f"{name} must not be negative, got {getattr(self, name)}")
        for name in ("feature_dropout", "smoothing", "mismatch_probability", "prompt_dropout"):
            if not 0 <= getattr(self, name) < 1:
                raise FitError(f"{name} must lie in [0, 1), got {getattr(self, name)}")
        if self.mismatch_probability + self.prompt_dropout > 1:
            raise FitError("mismatch_probability and prompt_dropout must not exceed 1 together")
        if not self.train:
            raise FitError("train must name at least one manifest")
        for name, weight in self.loss.items():
            _known("loss term", name, LOSS_TERMS)
            if isinstance(weight, bool) or not isinstance(weight, int | float) or weight < 0:
                raise FitError(f"the weight of loss term {name} must be >= 0, got {weight!r}")
        if not any(self.loss.values()):
            raise FitError("at least one loss term must weigh more than 0")
        try:
            low, high = map(float, self.mismatch_scores)
            right = 1 <= low <= high <= 5
        except (TypeError, ValueError):
            right = False
        if not right:
            raise FitError(
                f"mismatch_scores must be [low, high] within 1-5, got {self.mismatch_scores}"
            )
        if not self.encoders:
            raise FitError("encoders must name at least one")
        for entry in self.encoders:
            if isinstance(entry, dict):
                for key in entry:
                    _known("encoder key", key, ("name", "options"))
            if not isinstance(entry, str) and not (isinstance(entry, dict) and "name" in entry):
                raise FitError(f"an encoder is a name or has name and options, got {entry!r}")
        if self.base is not None:
            for option in dataclasses.fields(self):
                if option.name in _FROM_BASE and getattr(self, option.name) != _default(option):
                    raise FitError(f"{option.name} comes with the base model; leave it out")


def read_fit_config(path: str | Path) -> FitConfig:
    """Read a YAML file.

    Raises:
        FitError: The file can't be read, a key is unknown (the nearest right one is offered), or
            a value has a wrong type or range.
    """
    path = Path(path)
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise FitError(f"{path}: {getattr(error, 'strerror', None) or 'not UTF-8 text'}") from error
    except yaml.YAMLError as error:
        raise FitError(f"{path}: not YAML ({' '.join(str(error).split())})") from error
    if not isinstance(values, dict):
        raise FitError(f"{path}: expected options, one 'name: value' a line")
    hints = typing.get_type_hints(FitConfig)
    folder = path.resolve().parent  # the same run, wherever it's started from
    try:
        if "preset" in values:
            values = _with_preset(values)
        for name in values:
            _known("option", name, hints)
        for option in dataclasses.fields(FitConfig):
            if option.name not in values and _default(option) is dataclasses.MISSING:
                raise FitError(f"option {option.name!r} is missing")
        given = {name: _convert(name, value, hints[name]) for name, value in values.items()}
        for name in ("train", "valid"):
            given[name] = [_path(entry, folder) for entry in given.get(name, [])]
        for name in ("output_dir", "cache_dir"):
            given[name] = _path(given[name], folder)
        for name in ("base", "llm"):  # a folder, or the name of something elsewhere
            local = _path(given[name], folder) if given.get(name) else None
            if local and Path(local).exists():
                given[name] = local
        return FitConfig(**given)
    except FitError as error:
        raise FitError(f"{path}: {error}") from None


def _with_preset(values: dict[str, Any]) -> dict[str, Any]:
    name = values["preset"]
    if name not in list_presets():
        raise FitError(f"no preset {name!r}; there are {', '.join(list_presets())}")
    return {**read_preset(name), **{key: values[key] for key in values if key != "preset"}}


def _known(what: str, name: Any, names: Any) -> None:
    if name not in names:
        near = difflib.get_close_matches(str(name), names, 1)
        hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(names)}"
        raise FitError(f"unknown {what} {name!r}; {hint}")


def _default(option: dataclasses.Field[Any]) -> Any:
    if option.default_factory is not dataclasses.MISSING:
        return option.default_factory()
    return option.default


def _path(text: str, folder: Path) -> str:
    return str(folder / os.path.expanduser(os.path.expandvars(text)))


def _convert(name: str, value: Any, hint: Any) -> Any:
    if typing.get_origin(hint) is types.UnionType:
        if value is None:
            return None
        hint = typing.get_args(hint)[0]
    if typing.get_origin(hint) is Literal:
        if value not in typing.get_args(hint):
            raise FitError(f"{name} must be one of {typing.get_args(hint)}, got {value!r}")
        return value
    kind = typing.get_origin(hint) or hint
    if kind is float and isinstance(value, int | str) and not isinstance(value, bool):
        try:
            return float(value)  # YAML takes 5e-4 for text
        except ValueError:
            pass
    if kind is list and hint == list[str] and isinstance(value, str):
        return [value]
    entries = typing.get_args(hint)[0] if kind is list else Any
    wrong = kind is list and isinstance(value, list) and entries is str and not all(
        isinstance(entry, str) for entry in value
    )
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)) or wrong:
        expected = {"str": "text", "int": "a whole number", "float": "a number",
                    "bool": "true or false", "list": "a list", "dict": "a mapping"}
        raise FitError(f"{name} must be {expected[kind.__name__]}, got {value!r}")
    return value

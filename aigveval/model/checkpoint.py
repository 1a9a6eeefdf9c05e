"""Saved models: by which name they are opened, and what is in their folder.

config.json, model.safetensors      always: what was trained
llm/, encoders/NAME.safetensors     in a merged folder: the frozen parts too
"""

import copy
import hashlib
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from encoders.base import Encoder

from ..errors import ModelError
from .config import AIGVEvalConfig, rename_weights

CHECKPOINTS = Path(__file__).parents[1] / "checkpoints"  # those that come with the package
_PRESETS = Path(__file__).parents[1] / "presets"
WEIGHTS = "model.safetensors"
ENCODER_PREFIX = "encoders."  # of an encoder's keys in a model's state dict
# `model_type` of a config -> model and processor, imported when they are wanted.
_CLASSES = {
    "aigveval": ("modeling:AIGVEvalModel", "processing:AIGVEvalProcessor"),
    "qsave": ("modeling_vlm:VlmModel", "processing_vlm:VlmProcessor"),
}
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
# Formats that can run code when they're read, or that only an old version of a file would have.
_OTHER_WEIGHTS = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl", "*.h5")


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A saved model; made by `open_checkpoint`.

    Attributes:
        source: Its folder, or its id on the Hugging Face Hub.
        hub_options: `revision`, `token` and `cache_dir`, for the Hub.
    """

    source: str
    hub_options: Mapping[str, Any] = field(default_factory=dict)

    @cached_property
    def folder(self) -> Path:
        """Its folder; what is on the Hub is downloaded.

        Raises:
            OSError: There is no such folder, and the Hub doesn't give it.
        """
        if os.path.isdir(self.source):
            return Path(self.source)
        from huggingface_hub import snapshot_download

        try:
            return Path(
                snapshot_download(
                    self.source,
                    **self.hub_options,
                    allow_patterns=["*.json", "*.safetensors", "*.jinja", "*.txt", "*.model"],
                )
            )
        except Exception as error:  # the Hub client has a dozen kinds of errors
            lines = str(error).strip().splitlines() or [type(error).__name__]
            raise OSError(
                f"{self.source} is not a folder, and the Hugging Face Hub doesn't give it: "
                f"{lines[0]}"
            ) from error

    @cached_property
    def model_type(self) -> str:
        """`aigveval` or, for a vision-language model, `qsave`; as its config says.

        Raises:
            OSError: There is no such folder, and the Hub doesn't give it.
            ValueError: The config is not that of one of our models.
        """
        path, found = self.folder / "config.json", self._config.get("model_type")
        if found not in _CLASSES:
            raise ValueError(
                f"{path} is of a model of type {found!r}; aigveval's are {', '.join(_CLASSES)}"
            )
        return found

    @property
    def hints_within(self) -> float | None:
        """Of its config, see `AIGVEvalConfig`; raises as `model_type` does."""
        return self._config.get("hints_within")

    @cached_property
    def _config(self) -> dict[str, Any]:
        path = self.folder / "config.json"
        try:
            return dict(json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError) as error:
            raise ValueError(f"{path} cannot be read ({' '.join(str(error).split())})") from error

    @property
    def model_class(self) -> Any:
        """`AIGVEvalModel` or `VlmModel`; raises as `model_type` does."""
        return _import(_CLASSES[self.model_type][0])

    @property
    def hint_class(self) -> Any:
        """`HintModel`, for a model with `hints_within`."""
        return _import("modeling:HintModel")

    @property
    def processor_class(self) -> Any:
        """`AIGVEvalProcessor` or `VlmProcessor`; raises as `model_type` does."""
        return _import(_CLASSES[self.model_type][1])


def open_checkpoint(name: str | os.PathLike[str], **hub_options: Any) -> Checkpoint:
    """Find a saved model by its name; nothing is read or downloaded yet.

    Args:
        name: `lite`, which comes with the package; a folder that `save_pretrained` wrote; or the
            id of a model on the Hugging Face Hub.
        **hub_options: `revision`, `token` and `cache_dir`, for the Hub.

    Raises:
        ModelError: The name stands for nothing.
    """
    name = os.fspath(name)
    shipped = sorted(path.parent.name for path in CHECKPOINTS.glob("*/config.json"))
    if name in shipped:
        return Checkpoint(source=str(CHECKPOINTS / name))
    if os.path.isdir(name):
        if not os.path.isfile(os.path.join(name, "config.json")):
            raise ModelError(f"no model in the folder {name}: it has no config.json")
        return Checkpoint(source=name)
    if _HUB_ID.fullmatch(name) and not name.startswith("."):
        return Checkpoint(source=name, hub_options=hub_options)
    if name in (path.stem for path in _PRESETS.glob("*.yaml")):
        raise ModelError(
            f"the preset {name} comes without a trained checkpoint; train one by `preset: {name}` "
            "in a config for `aigveval fit`, and give its folder"
        )
    raise ModelError(
        f"no model {name!r}; give {', '.join(shipped + ['a folder'])} or a hub id like OWNER/NAME"
    )


def read_trained(folder: Path) -> dict[str, Tensor]:
    """The trained weights of a folder.

    Raises:
        ValueError: There is no such safetensors file, or it is broken.
    """
    path = folder / WEIGHTS
    if not path.is_file():
        others = sorted(file.name for pattern in _OTHER_WEIGHTS for file in folder.glob(pattern))
        hint = f"; of weights, only safetensors are read, not {', '.join(others)}" if others else ""
        raise ValueError(f"{folder} has no {WEIGHTS}{hint}")
    weights = _read(path)
    rename_weights(weights)
    return weights


def split_encoders(
    state: Mapping[str, Tensor], config: AIGVEvalConfig, *, source: Path
) -> tuple[dict[str, Tensor], dict[str, dict[str, Tensor]]]:
    """The trained weights without those of encoders, and those of each trained encoder.

    Raises:
        ValueError: They are not of the encoders that the config calls trained.
    """
    rest: dict[str, Tensor] = {}
    encoders: dict[str, dict[str, Tensor]] = {}
    for key, value in state.items():
        if key.startswith(ENCODER_PREFIX):
            name, _, key = key.removeprefix(ENCODER_PREFIX).partition(".")
            encoders.setdefault(name, {})[key] = value
        else:
            rest[key] = value
    if sorted(encoders) != sorted(config.trained_encoders):
        raise ValueError(
            f"{source / WEIGHTS} doesn't fit its config; it has the encoders {sorted(encoders)}, "
            f"the config says that {sorted(config.trained_encoders)} were trained"
        )
    return rest, encoders


def frozen_llm(folder: Path, config: AIGVEvalConfig) -> str:
    """Where the LLM is: in the folder if it's a merged one, else what the config names."""
    return str(folder / "llm") if (folder / "llm" / "config.json").is_file() else config.llm


def with_saved_weights(encoder: Encoder, folder: Path | None) -> Encoder:
    """The encoder, or a copy with the weights that a merged folder has of it.

    A copy, because encoders of one process may share a backbone.
    """
    path = None if folder is None else folder / f"{encoder.spec.name}.safetensors"
    if path is None or not path.is_file():
        return encoder
    encoder = copy.deepcopy(encoder)
    encoder.load_state_dict(_read(path))
    return encoder


def with_trained_weights(encoder: Encoder, state: Mapping[str, Tensor] | None) -> Encoder:
    """The encoder, or a copy with the weights that it was trained to, and another fingerprint.

    Raises:
        ValueError: They are not the weights of such an encoder.
    """
    if state is None:
        return encoder
    encoder = copy.deepcopy(encoder)
    try:
        encoder.load_state_dict(state)
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"the trained weights of {encoder.spec.name}: {reason}") from None
    digest = hashlib.sha256()
    for key, value in sorted(state.items()):
        digest.update(key.encode())
        digest.update(value.cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    encoder.weights_id = f"{encoder.weights_id} trained {digest.hexdigest()[:16]}"
    return encoder


def _import(target: str) -> Any:
    module, _, name = target.partition(":")
    return getattr(import_module(f".{module}", __package__), name)


def _read(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path} is not a readable safetensors file: {error}") from error

"""What is on disk: trained weights alone, or the frozen ones beside them (`merge=True`).

    config.json, model.safetensors      always
    llm/, encoders/NAME.safetensors     in a merged folder
"""

import copy
import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from encoders.base import Encoder

from .config import AIGVEvalConfig
from .library_internals import is_lora
from .backbones import save_llm

if TYPE_CHECKING:
    from .modeling import AIGVEvalModel
    from .base import ScorerModel

WEIGHTS = "model.safetensors"
_KINDS = {
    "aigveval": (
        ("model.modeling", "AIGVEvalModel"), ("model.processing", "AIGVEvalProcessor"),
        ("inference.assessor", "ModelEngine"),
    ),
    "qsave": (
        ("model.modeling_vlm", "QSaveModel"), ("model.processing_vlm", "QSaveProcessor"),
        ("inference.engine_vlm", "VisionEngine"),
    ),
}
_ENCODERS = "encoders."  # what keys of encoders in a model's state dict begin with
# Formats that can run code when they're read, or that only an old version of a file would have.
_OTHER_WEIGHTS = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl", "*.h5")


def model_folder(
    name_or_path: str | Path,
    *,
    revision: str | None = None,
    token: str | None = None,
    cache_dir: str | None = None,
) -> Path:
    """A folder as it is, or the local copy of a Hub repository.

    Raises:
        OSError: There's no such folder, and the Hub doesn't give it.
    """
    folder = Path(name_or_path)
    if folder.is_dir():
        return folder
    from huggingface_hub import snapshot_download

    try:
        return Path(
            snapshot_download(
                str(name_or_path),
                revision=revision,
                token=token,
                cache_dir=cache_dir,
                allow_patterns=["*.json", "*.safetensors", "*.jinja", "*.txt", "*.model"],
            )
        )
    except Exception as error:  # the Hub client has a dozen kinds of errors
        reason = str(error).strip().splitlines()[0]
        raise OSError(
            f"{name_or_path} is not a folder, and the Hugging Face Hub doesn't give it: {reason}"
        ) from error


@dataclass(frozen=True, kw_only=True)
class Kind:
    """The classes of a kind of model."""

    model: Any
    processor: Any
    engine: Any  # see `assess.ModelEngine`


def kind_of(name_or_path: str | Path) -> Kind:
    """Which classes a folder or Hub repository is of, by the `model_type` of its config.

    Raises:
        OSError: There's no such folder, and the Hub doesn't give it.
        ValueError: Its config is not that of one of our models.
    """
    folder = model_folder(name_or_path)
    path = folder / "config.json"
    try:
        found = json.loads(path.read_text(encoding="utf-8")).get("model_type")
    except (OSError, ValueError, AttributeError) as error:
        raise ValueError(f"{path} can't be read ({' '.join(str(error).split())})") from error
    if found not in _KINDS:
        raise ValueError(
            f"{path} is of a model of type {found!r}; aigveval's are {', '.join(_KINDS)}"
        )
    model, processor, engine = (
        getattr(import_module(f"..{module}", __package__), name) for module, name in _KINDS[found]
    )
    return Kind(model=model, processor=processor, engine=engine)


def trained_keys(model: "ScorerModel") -> set[str]:
    """Keys of the state dict that training changes: projectors (with statistics), the head that
    finds signs, LoRA, and those of trained encoders as far as they are in the model."""
    own = [f"{_ENCODERS}{name}." for name in model.config.trained_encoders]
    prefixes = ["model.projectors.", "model.signs.", *own]
    return {
        key for key in model.state_dict()
        if key.startswith(tuple(prefixes)) or (is_lora(key) and not key.startswith(_ENCODERS))
    }


def read_trained(folder: Path) -> dict[str, Tensor]:
    """The trained weights of a folder.

    Raises:
        ValueError: There's no such safetensors file, or it's broken.
    """
    path = folder / WEIGHTS
    if not path.is_file():
        others = sorted(file.name for pattern in _OTHER_WEIGHTS for file in folder.glob(pattern))
        hint = f"; of weights, only safetensors are read, not {', '.join(others)}" if others else ""
        raise ValueError(f"{folder} has no {WEIGHTS}{hint}")
    return _read(path)


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
        if key.startswith(_ENCODERS):
            name, _, key = key.removeprefix(_ENCODERS).partition(".")
            encoders.setdefault(name, {})[key] = value
        else:
            rest[key] = value
    if sorted(encoders) != sorted(config.trained_encoders):
        raise ValueError(
            f"{source / WEIGHTS} doesn't fit its config; it has the encoders {sorted(encoders)}, "
            f"the config says that {sorted(config.trained_encoders)} were trained"
        )
    return rest, encoders


def load_trained(model: "ScorerModel", state: dict[str, Tensor], *, source: Path) -> None:
    """Copy trained weights into the model: all of them, and nothing else.

    Raises:
        ValueError: Keys are missing, unknown or of another shape; the message names them.
    """
    expected = model.state_dict()
    trained = trained_keys(model)
    shapes = [
        f"{key} {tuple(value.shape)} instead of {tuple(expected[key].shape)}"
        for key, value in state.items()
        if key in trained and value.shape != expected[key].shape
    ]
    problems = {
        "missing": _listed(trained - set(state)),
        "unknown": _listed(set(state) - trained),
        "of another shape": _listed(shapes),
    }
    if text := "; ".join(f"{what}: {keys}" for what, keys in problems.items() if keys):
        raise ValueError(f"{source / WEIGHTS} doesn't fit its config; {text}")
    model.load_state_dict(state, strict=False)


def save_frozen(model: "AIGVEvalModel", folder: Path) -> None:
    """Write the LLM, its tokenizer and the encoders' weights beside the trained weights."""
    save_llm(model.model.language_model, model.lm_head, model.config.llm, folder / "llm")
    (folder / "encoders").mkdir(exist_ok=True)
    for name, encoder in model.encoders.items():
        # Copies, because safetensors refuses tensors that share memory.
        state = {key: value.clone().contiguous() for key, value in encoder.state_dict().items()}
        save_file(state, folder / "encoders" / f"{name}.safetensors")


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


def _read(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path} is not a readable safetensors file: {error}") from error


def _listed(keys: Iterable[str], *, most: int = 10) -> str:
    names = sorted(keys)
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more

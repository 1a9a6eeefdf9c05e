"""What is on disk: trained weights alone, or the frozen ones beside them (`merge=True`).

    config.json, model.safetensors      always
    llm/, encoders/NAME.safetensors     in a merged folder
"""

import copy
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from encoders.base import Encoder

from .config import AIGVEvalConfig
from .llm import save_llm

if TYPE_CHECKING:
    from .modeling import AIGVEvalModel

WEIGHTS = "model.safetensors"
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


def trained_keys(model: "AIGVEvalModel") -> set[str]:
    """Keys of the state dict that training changes: projectors (with statistics) and LoRA."""
    return {
        key for key in model.state_dict() if key.startswith("model.projectors.") or ".lora_" in key
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


def load_trained(model: "AIGVEvalModel", state: dict[str, Tensor], *, source: Path) -> None:
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


def _read(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path} is not a readable safetensors file: {error}") from error


def _listed(keys: Iterable[str], *, most: int = 10) -> str:
    names = sorted(keys)
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more

"""Weights that other libraries fetch: from a model hub, or out of a folder made from one.

Here lie what their loaders have in common: one line when the hub can't be reached, a name for the
weights that came, and no network that is left half random.
"""

import hashlib
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import nn

from .registry import EncoderError
from .wheels import WeightsError

_REPOSITORY = re.compile(r"\w[\w.-]*/[\w.-]+", re.ASCII)
_REASON = 140  # characters of a library's message that are passed on
_SMALL_FILES = ("*.json", "*.txt", "*.model", "*.jinja")


def is_repository(name: str) -> bool:
    """Whether a name can only be that of a Hugging Face Hub repository, such as `org/model`."""
    path = Path(name).expanduser()
    named_file = path.suffix in (".bin", ".pt", ".pth", ".safetensors")
    return bool(_REPOSITORY.fullmatch(name)) and not path.exists() and not named_file


@contextmanager
def hub_errors(model: str, *, instead: str) -> Iterator[None]:
    """Turn whatever a library raises while it loads a model into one line.

    Args:
        model: What was asked for, in the user's words.
        instead: What to do where there is no network; ends the line.

    Raises:
        WeightsError: Anything went wrong inside.
    """
    try:
        yield
    except (EncoderError, WeightsError):
        raise
    except Exception as error:  # hubs, HTTP clients and loaders have dozens of kinds
        raise WeightsError(f"{model}: can't be loaded ({reason_of(error)}); {instead}") from error


def reason_of(error: Exception) -> str:
    """An exception as one line of bounded length."""
    text = " ".join(f"{type(error).__name__}: {error}".split())
    return text if len(text) <= _REASON else f"{text[:_REASON]}..."


def model_folder(name: str, *, weights: Sequence[str], instead: str) -> Path:
    """A folder as it is, or the local copy of a Hugging Face Hub repository.

    Args:
        name: Path of a folder, or a repository such as `openai/clip-vit-large-patch14`.
        weights: Patterns of weights files, the best first; of a repository that has several, only
            the first that matches is fetched.
        instead: What to do where there is no network.

    Raises:
        WeightsError: There is neither such a folder nor such a repository, or no network.
    """
    folder = Path(name).expanduser()
    if folder.is_dir():
        return folder
    if not is_repository(name):
        raise WeightsError(f"{name}: no such folder")
    from huggingface_hub import snapshot_download

    with hub_errors(name, instead=instead):
        for pattern in weights:
            found = Path(snapshot_download(name, allow_patterns=[*_SMALL_FILES, pattern]))
            if any(found.glob(pattern)):
                return found
    raise WeightsError(f"{name}: has no weights ({' or '.join(weights)})")


def ask_hub(repository: str) -> None:
    """Fail at once if the Hub is out of reach, where a library's loader would retry for a minute.

    Raises:
        Exception: One of `huggingface_hub`; call it inside `hub_errors`.
    """
    from huggingface_hub import snapshot_download

    snapshot_download(repository, allow_patterns="*.json")


def state_id(*modules: nn.Module) -> str:
    """SHA-256 of all tensors of networks with their names, for `Encoder.weights_id`.

    Unlike a file's hash it is the same for one set of weights from the hub, a folder or a file,
    sharded or not. About a second per GB.
    """
    digest = hashlib.sha256()
    for module in modules:
        for name, value in sorted(module.state_dict().items()):
            digest.update(f"{name} {tuple(value.shape)} {value.dtype}\n".encode())
            data = value.detach().cpu().contiguous().flatten().view(torch.uint8)
            digest.update(data.numpy())
    return digest.hexdigest()


def check_complete(model: str, missing: Sequence[str]) -> None:
    """Refuse a network of which a loader filled only a part and left the rest random.

    Raises:
        WeightsError: Something is missing; the message names the first three.
    """
    if missing:
        names = sorted(missing)
        more = f" and {len(names) - 3} more" if len(names) > 3 else ""
        raise WeightsError(f"{model}: lacks the weights {', '.join(names[:3])}{more}")


@contextmanager
def no_bars() -> Iterator[None]:
    """Without the bars that transformers draws even for a load of 0.1 s (not for downloads)."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()

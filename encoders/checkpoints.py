"""The papers' checkpoints: files that the user downloads, found by path or by a fixed name.

Used by every encoder whose weights come in no wheel. Each takes the option `weights`: a path, or
None for the fixed file name in `<home()>/checkpoints/`. Every tensor of a file is accounted for:
what is missing, left over or misshapen is named, so that a network is never half loaded.
"""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from .weights import home, load_torch_file
from .wheels import WeightsError

RANDOM = "random"
"""The value of `weights` that leaves a network with seeded random weights. For tests only: such
an encoder tells nothing about a video. Its `weights_id` is this word instead of a SHA-256."""

_LISTED = 3  # names in a message; a wrong file may have hundreds


def find_checkpoint(
    weights: str | os.PathLike[str] | None, *, filename: str, source_url: str, licence: str
) -> Path:
    """The checkpoint's file (or folder, where the source is one).

    Args:
        weights: Its path; None looks for `filename` in `<home()>/checkpoints/`.
        filename: The name under which the source publishes it.
        source_url: Where to download it.
        licence: SPDX identifier of its licence, or what the source says about its use.

    Raises:
        WeightsError: It is not there; one line says which file, from where, and where to put it.
    """
    path = Path(weights).expanduser() if weights else home() / "checkpoints" / filename
    if path.exists():
        return path
    place = f"put it into {path.parent}, or give its path as the option weights"
    if weights:
        place = "give the path where you keep it"
    raise WeightsError(
        f"{path}: no such checkpoint; download {filename} ({licence}) from {source_url} and {place}"
    )


def read_checkpoint(path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """`load_torch_file` for files of research code, which also hold NumPy numbers.

    FAST-VQA's training script saves its validation results (NumPy floats) beside the tensors. A
    number runs no code when it is read, but `weights_only=True` refuses it unless allowed.

    Raises:
        WeightsError: The file is absent, damaged, or holds more than tensors and numbers.
    """
    number: Any = np.float64(0).__reduce__()[0]  # NumPy moved it: a file has either name
    allowed: list[Any] = [(number, f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")]
    allowed += [np.dtype, np.dtypes.Float64DType, np.dtypes.Float32DType]
    with torch.serialization.safe_globals(allowed):
        return load_torch_file(path)


def load_strict(
    module: nn.Module, tensors: Mapping[str, Tensor], *, file: object, ignore: Sequence[str] = ()
) -> None:
    """Load tensors into a module whose state has exactly these names and shapes.

    Args:
        module: Takes the tensors; left as it was if they don't fit.
        tensors: By the module's own names; rename the checkpoint's before.
        file: What to call their source in a message, its path.
        ignore: Prefixes of names that the file may have and the module needn't, such as a
            classifier that is not used. They are never loaded.

    Raises:
        WeightsError: A tensor is missing, left over or of another shape; the message names it.
    """
    given = {name: value for name, value in tensors.items() if not name.startswith(tuple(ignore))}
    wanted = module.state_dict()
    faults = [f"missing {name}" for name in wanted if name not in given]
    faults += [f"unknown {name}" for name in given if name not in wanted]
    faults += [
        f"{name} is {tuple(given[name].shape)} and should be {tuple(value.shape)}"
        for name, value in wanted.items()
        if name in given and given[name].shape != value.shape
    ]
    if faults:
        more = f" and {len(faults) - _LISTED} more" if len(faults) > _LISTED else ""
        raise WeightsError(
            f"{file}: not the weights of {type(module).__name__}: "
            f"{', '.join(faults[:_LISTED])}{more}"
        )
    module.load_state_dict(given)

"""The outputs of the public reference implementations, and the weights they were made with."""

import importlib.util
import json
from pathlib import Path

import numpy as np
import torch


def expected(data_dir: Path, name: str) -> dict[str, torch.Tensor]:
    with np.load(data_dir / "golden" / f"{name}.npz") as arrays:
        return {key: torch.from_numpy(arrays[key]) for key in arrays}


def weights(data_dir: Path, name: str) -> dict[str, torch.Tensor]:
    """The floating-point tensors under the public checkpoint's names."""
    spec = importlib.util.spec_from_file_location("fill", data_dir / "golden" / "fill.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    keys = json.loads((data_dir / "golden" / f"{name}_keys.json").read_text())
    shapes = {key: tuple(shape) for key, (shape, dtype) in keys.items() if dtype == "float32"}
    return {key: torch.from_numpy(value) for key, value in module.fill(shapes).items()}


def integer_keys(data_dir: Path, name: str) -> dict[str, tuple[int, ...]]:
    """Name and shape of the tensors that the weights leave out."""
    keys = json.loads((data_dir / "golden" / f"{name}_keys.json").read_text())
    return {key: tuple(shape) for key, (shape, dtype) in keys.items() if dtype != "float32"}


def noise(num_frames: int) -> torch.Tensor:
    """A normalised input (1, 3, t, 224, 224)."""
    values = np.random.RandomState(num_frames).standard_normal((1, 3, num_frames, 224, 224))
    return torch.from_numpy(values.astype(np.float32))

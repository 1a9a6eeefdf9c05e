"""Exponential moving average of the trained weights."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

AVERAGE = "average.safetensors"  # in a checkpoint, beside the weights that training goes on with


class WeightAverage:
    """Average of a model's trainable parameters over the steps, the last ones counting most.

    Starts as a copy. After n updates the decay is min(decay, (1 + n) / (10 + n)), as in
    TensorFlow's and timm's averages, so that a short run isn't held back at its start.

    Args:
        model: On the device it's trained on.
        decay: Share of the old average that stays with each update, in (0, 1). FAST-VQA and DOVER
            take 0.999.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay, self.updates = decay, 0
        self._parameters = {n: p for n, p in model.named_parameters() if p.requires_grad}
        self.values = {n: p.detach().float().clone() for n, p in self._parameters.items()}

    @torch.no_grad()
    def update(self) -> None:
        """Take the parameters in as they are after an optimizer step."""
        self.updates += 1
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        for name, parameter in self._parameters.items():
            self.values[name].lerp_(parameter.float(), 1 - decay)

    @torch.no_grad()
    def copy_to_model(self) -> None:
        """Replace the parameters by their averages."""
        for name, parameter in self._parameters.items():
            parameter.copy_(self.values[name])

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Inside, the model has the averages; afterwards what it had before."""
        kept = {name: value.detach().clone() for name, value in self._parameters.items()}
        self.copy_to_model()
        try:
            yield
        finally:
            with torch.no_grad():
                for name, parameter in self._parameters.items():
                    parameter.copy_(kept[name])

    def save(self, folder: Path) -> None:
        """Write it into a checkpoint."""
        values = {name: value.cpu().contiguous() for name, value in self.values.items()}
        save_file(values, folder / AVERAGE, {"updates": str(self.updates)})

    def load(self, folder: Path) -> None:
        """Read it from a checkpoint.

        Raises:
            ValueError: It is an average of other parameters.
        """
        with safe_open(folder / AVERAGE, framework="pt") as file:
            loaded: dict[str, Tensor] = {name: file.get_tensor(name) for name in file.keys()}
            updates = int(file.metadata()["updates"])
        if loaded.keys() != self.values.keys():
            raise ValueError(f"{folder / AVERAGE} is an average of other parameters")
        for name, value in loaded.items():
            self.values[name].copy_(value)
        self.updates = updates

"""What drives a `QSaveModel`, as `ModelEngine` does the other one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from encoders.video import FrameRequest, Frames

from .assessor import ModelEngine, Views


class VisionEngine(ModelEngine):
    """Drives a `QSaveModel` and its processor on one device."""

    tells_apart = False

    def __init__(self, model: Any, processor: Any, *, device: torch.device) -> None:
        self.model = model.eval().to(device)
        self.processor = processor
        self.device = device
        self.sizes = processor.sizes
        self.run = self.model

    @property
    def requests(self) -> dict[str, FrameRequest]:
        return self.processor.requests

    def view(self, frames: Mapping[str, Frames], path: Path, start_seconds: float = 0.0) -> Views:
        return self.processor.encode_frames(frames, name=str(path), start_seconds=start_seconds)

    @torch.inference_mode()
    def batch(
        self, clips: Sequence[Views], prompts: Sequence[str | None]
    ) -> dict[str, Any]:
        """What the model takes: text and pixels."""
        batch = self.processor.encode_prompts(list(prompts), list(clips))
        return {
            name: value.to(self.device) if isinstance(value, Tensor) else value
            for name, value in batch.items()
        }

"""What encoders share that show each slow frame to a network made for pictures."""

import hashlib
import inspect
import os
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from .base import EvenEncoder, check_frames, slow_spec
from .resizing import repeat_to

Interpolation = Literal["nearest", "bilinear", "bicubic"]
_FILTERS = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
}
_WIDEST = 4  # sides; what a centre square leaves out of a longer strip needn't be resized


@dataclass(frozen=True, kw_only=True)
class PictureInput:
    """How a network was shown its pictures; travels with the weights.

    Resizing is Pillow's, as in the networks' own transforms: antialiased, and the same on any
    machine and with any number of threads.

    Attributes:
        size: Side of the input in pixels.
        mean: Per-channel mean, on the 0-255 scale.
        std: Per-channel divisor, on the 0-255 scale.
        interpolation: Filter of the resizing.
        crop: Whether the short side is resized and the centre square taken; else the whole frame
            is squeezed into a square.

    Raises:
        ValueError: There is no such interpolation.
    """

    size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    interpolation: Interpolation = "bicubic"
    crop: bool = False

    def __post_init__(self) -> None:
        if self.interpolation not in _FILTERS:
            raise ValueError(
                f"interpolation must be one of {tuple(_FILTERS)}, got {self.interpolation!r}"
            )

    def resized(self, frames: Tensor) -> Tensor:
        """uint8 (t, 3, h, w) to uint8 (t, 3, size, size)."""
        pictures = [self._resized(frame) for frame in frames.permute(0, 2, 3, 1).numpy()]
        return torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).contiguous()

    def normalised(self, pixels: Tensor) -> Tensor:
        """(..., 3, size, size), 0-255, any type, to float32 as the network takes it."""
        mean, std = (
            torch.tensor(values, dtype=torch.float32, device=pixels.device).view(-1, 1, 1)
            for values in (self.mean, self.std)
        )
        return (pixels.float() - mean) / std

    def _resized(self, frame: np.ndarray) -> np.ndarray:
        picture = Image.fromarray(np.ascontiguousarray(frame))
        method = _FILTERS[self.interpolation]
        if not self.crop:
            return np.asarray(picture.resize((self.size, self.size), method))
        longest = _WIDEST * min(picture.size)
        picture = _centre(picture, min(picture.width, longest), min(picture.height, longest))
        # The long side is cut off to whole pixels, as in torchvision's `Resize`.
        width, height = (self.size * side // min(picture.size) for side in picture.size)
        return np.asarray(_centre(picture.resize((width, height), method), self.size, self.size))


def as_option(path: str | os.PathLike[str] | None) -> str | None:
    """A path as an option that JSON can hold."""
    return None if path is None else os.fspath(path)


def _centre(picture: Image.Image, width: int, height: int) -> Image.Image:
    left, top = round((picture.width - width) / 2), round((picture.height - height) / 2)
    return picture.crop((left, top, left + width, top + height))


class FrameEncoder(EvenEncoder):
    """An encoder of slow frames spread over the clip, each seen by itself.

    A subclass sets `weights_id`, `picture` and an attribute for each of its options, writes
    `encode`, and calls `finish` at the end of its constructor.

    Args:
        num_frames: Slow frames; a shorter clip repeats its nearest ones.

    Raises:
        ValueError: `num_frames` is below 1.
    """

    picture: PictureInput
    # Options that say where the weights are. What they are is in `weights_id`, so that a file
    # that moved leaves the fingerprint as it was.
    places: tuple[str, ...] = ("weights",)

    def __init__(self, *, num_frames: int) -> None:
        super().__init__()
        if num_frames < 1:
            raise ValueError(f"num_frames must be at least 1, got {num_frames}")
        self.num_frames = num_frames

    def finish(self, name: str, dim: int, *, per_frame: int = 1, others: int = 0) -> None:
        """Sets `spec`, and freezes all: it trains where a caller asks for it."""
        own, steps = self.picture, self.num_frames * per_frame
        self.spec = slow_spec(
            name, steps, dim, size=own.size, mean=own.mean, std=own.std, others=others
        )
        self.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> "FrameEncoder":
        """As in torch, but a frozen encoder stays in eval mode: its tokens never change."""
        return super().train(mode and any(p.requires_grad for p in self.parameters()))

    def options(self) -> dict[str, Any]:
        """Each option of the constructor, kept under its own name."""
        return {name: getattr(self, name) for name in inspect.signature(type(self)).parameters}

    def fingerprint(self) -> str:
        chosen = {name: v for name, v in self.plain_options().items() if name not in self.places}
        parts = (self.spec, self.version, self.weights_id, self.picture, sorted(chosen.items()))
        return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]

    def preprocess(self, frames: Tensor, *, seed: int = 0) -> Tensor:
        """uint8 (t, 3, h, w) to uint8 (num_frames, 3, size, size)."""
        check_frames(frames)
        return repeat_to(self.picture.resized(frames), self.num_frames)

    def pixels(self, view: Tensor) -> Tensor:
        """View (b, ..., 3, size, size) to the network's input (n, 3, size, size)."""
        dtype = next((p.dtype for p in self.parameters()), torch.float32)
        return self.picture.normalised(view.flatten(0, -4)).to(dtype)

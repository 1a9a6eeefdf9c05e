"""Learned optical flow: torchvision's RAFT (Teed and Deng, ECCV 2020), small or large.

Weights: torchvision's C_T_V2 (BSD-3-Clause), trained on FlyingChairs and FlyingThings3D.
"""

import os
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import nn

from .base import full_float32, seeded
from .checkpoints import RANDOM, find_checkpoint, load_strict
from .library_internals import forget_correlations
from .weights import load_torch_file
from .wheels import WeightsError, sha256

LICENCE = "BSD-3-Clause"
SMALLEST_PX = 128  # per side; below, the correlation pyramid runs out of pixels
_STRIDE = 8
_BATCH = 8  # pairs at once
# torchvision's network keeps what it computes on itself, so that threads must take turns.
_turn = threading.Lock()


class Raft(nn.Module):
    """Optical flow between frames. It measures and doesn't learn: all its tensors are buffers.

    Args:
        size: `small` (1.0 M weights) or `large` (5.3 M).
        weights: Path of torchvision's checkpoint of that size. None looks for it in the folder
            `checkpoints` of the cache folder, then lets torchvision download it.

    Raises:
        WeightsError: The checkpoint can't be had or isn't this network's.
    """

    def __init__(
        self, size: Literal["small", "large"], *, weights: str | os.PathLike[str] | None = None
    ) -> None:
        super().__init__()
        from torchvision.models import optical_flow

        with seeded():
            self.network = getattr(optical_flow, f"raft_{size}")(weights=None)
        if weights == RANDOM:
            self.weights_id = RANDOM
        else:
            published = getattr(optical_flow, f"Raft_{size.capitalize()}_Weights").C_T_V2
            path = _find(weights, published.url)
            load_strict(self.network, load_torch_file(path), file=path)
            self.weights_id = sha256(path)
        for module in self.network.modules():
            for name, value in list(module.named_parameters(recurse=False)):
                delattr(module, name)
                module.register_buffer(name, value.detach())
        self.eval()

    def train(self, mode: bool = True) -> "Raft":
        return super().train(False)

    @torch.no_grad()
    def flows(self, frames: np.ndarray, pairs: Sequence[tuple[int, int]]) -> Iterator[np.ndarray]:
        """Flow of each pair of frames, computed where the weights are.

        Args:
            frames: uint8 RGB (t, h, w, 3), sides of at least 128 px.
            pairs: From which frame to which.

        Yields:
            float32 (h, w, 2) for each pair: pixels to the right and down.
        """
        like = next(self.buffers())
        pixels = torch.from_numpy(frames).permute(0, 3, 1, 2)
        height, width = pixels.shape[-2:]
        padding = (0, -width % _STRIDE, 0, -height % _STRIDE)
        for start in range(0, len(pairs), _BATCH):
            chosen = torch.tensor(pairs[start : start + _BATCH], device=pixels.device)
            both = pixels[chosen.T.flatten()].to(like.device, like.dtype) / 127.5 - 1
            first, second = nn.functional.pad(both, padding, mode="replicate").chunk(2)
            with _turn, full_float32(like.device):
                flow = self.network(first, second)[-1]
                forget_correlations(self.network)
            yield from flow[..., :height, :width].permute(0, 2, 3, 1).float().cpu().numpy()


def _find(weights: str | os.PathLike[str] | None, url: str) -> Path:
    filename = url.rpartition("/")[2]
    try:
        return find_checkpoint(weights, filename=filename, source_url=url, licence=LICENCE)
    except WeightsError as missing:
        if weights:
            raise
        try:
            torch.hub.load_state_dict_from_url(
                url, map_location="cpu", check_hash=True, weights_only=True
            )
        except (OSError, RuntimeError) as error:
            reason = " ".join(f"{type(error).__name__}: {error}".split())
            raise WeightsError(f"{missing}; torchvision's download failed ({reason})") from error
        return Path(torch.hub.get_dir()) / "checkpoints" / filename

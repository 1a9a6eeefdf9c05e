"""FAST-VQA, FasterVQA and DOVER's technical branch as metrics of their own, without an LLM.

`technical_fastvqa` gives the features of the same networks as tokens.
"""

import math
import os
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn

from .base import full_float32, seeded
from .checkpoints import RANDOM, read_checkpoint
from .fastvqa_network import FastVQANetwork, is_plain, variant_of
from .fastvqa_variants import VARIANTS, find_variant, network_input
from .video import FrameRequest, read_frames
from .wheels import WeightsError

_NATIVE_PX = 1 << 16  # fragments are cut from frames of any size, without shrinking them


class FASTVQA(nn.Module):
    """A published video quality metric, alone.

        metric = FASTVQA("FAST_VQA_B_1_4.pth")
        metric.score("clip.mp4")  # 0 (worst) to 1 (best)

    Frames are those of the authors' tests, also where a video is shorter than a clip: the clip
    then goes on at the video's beginning. (Upstream's script for a single video forgets to pass
    on the interval and takes neighbouring frames.) The places of fragments, which upstream draws
    anew each time, come from a seed: the same video always has the same score.

    Args:
        weights: Path of the checkpoint; None looks for the variant's file in the folder
            `checkpoints` of the cache folder.
        variant: A name in `VARIANTS` with a quality head; None tells it from the file, as
            `variant_of` does.
        num_clips: Clips whose scores are averaged; None takes as many as the authors' tests do.
        strict_upstream: Reproduce the slips of upstream's code; see `sample_fragments` and
            `FastVQANetwork`. For comparisons with it only.
        embed_dim: Width of the first stage; every checkpoint has 96.

    Raises:
        WeightsError: The checkpoint is not there, not this network's, or has no quality head.
        ValueError: An option is out of its range.
    """

    def __init__(
        self,
        weights: str | os.PathLike[str] | None = None,
        *,
        variant: str | None = None,
        num_clips: int | None = None,
        strict_upstream: bool = False,
        embed_dim: int = 96,
    ) -> None:
        super().__init__()
        chosen = find_variant(variant or "fast-vqa-b")
        path, tensors = None, None
        if weights != RANDOM:
            path = chosen.checkpoint(weights)
            tensors = read_checkpoint(path)
            variant = variant or variant_of(path, tensors)
            chosen = VARIANTS[variant]
        if chosen.scale is None or tensors is not None and is_plain(tensors):
            raise WeightsError(f"{path or variant}: has no quality head, so it can't score videos")
        self.variant, self.scale, self.strict_upstream = chosen, chosen.scale, strict_upstream
        self.sampling = chosen.sampling
        if num_clips is not None:
            self.sampling = replace(chosen.sampling, num_clips=num_clips)
        with seeded():
            self.network = FastVQANetwork(
                chosen, embed_dim=embed_dim, strict_upstream=strict_upstream
            )
        if path is not None and tensors is not None:
            self.network.load(path, chosen, tensors)
        self.eval()

    def forward(self, view: Tensor) -> Tensor:
        """Views (b, num_clips, num_frames, 3, h, w), 0-255, to raw scores (b,)."""
        return self.quality_map(view).mean((1, 2, 3, 4))

    def quality_map(self, view: Tensor) -> Tensor:
        """Views as above to a raw score per place: (b, num_clips, num_frames / 2, grid, grid)."""
        assert self.network.vqa_head is not None
        dtype = self.network.vqa_head.fc_last.weight.dtype
        maps = self.network.vqa_head(self.network.backbone(network_input(view, dtype)))
        return maps.squeeze(1).unflatten(0, view.shape[:2])

    def view(self, video: str | os.PathLike[str], *, seed: int = 0) -> Tensor:
        """A video's fragments: uint8 (num_clips, num_frames, 3, h, w).

        Raises:
            VideoError: The file can't be read.
        """
        request = FrameRequest(
            indices=lambda num_frames, fps: np.unique(self.sampling.rows(num_frames)),
            stream="slow",
        )
        info, frames = read_frames(video, {"": request}, slow_max_side_px=_NATIVE_PX)
        rows, pixels = self.sampling.rows(info.num_frames).flatten(), frames[""].pixels
        if not np.array_equal(rows, frames[""].indices):  # large frames are copied if need be only
            pixels = pixels[torch.from_numpy(np.searchsorted(frames[""].indices, rows))]
        strict = self.strict_upstream
        return self.variant.view(pixels, self.sampling, seed=seed, strict_upstream=strict)

    @torch.no_grad()
    def score(self, video: str | os.PathLike[str], *, seed: int = 0) -> float:
        """Quality of a video from 0 (worst) to 1 (best), on the scale that the authors publish.

        Args:
            video: A local file.
            seed: Of the places of the fragments; the same seed gives the same score.

        Raises:
            VideoError: The file can't be read.
        """
        device = next(self.parameters()).device
        with full_float32(device):
            raw = self(self.view(video, seed=seed)[None].to(device)).item()
        mean, std = self.scale
        return 1 / (1 + math.exp((mean - raw) / std))

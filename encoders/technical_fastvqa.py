"""Technical quality from FAST-VQA's network: Video-Swin-T on fragments at native resolution."""

import os
from dataclasses import replace
from typing import Any

import numpy as np
from torch import Tensor

from .base import Encoder, EncoderSpec, check_frames, seeded
from .checkpoints import RANDOM, read_checkpoint
from .fastvqa_network import FastVQANetwork
from .fastvqa_variants import MEAN, STD, find_variant, network_input
from .resizing import repeat_to
from .sampling import uniform
from .wheels import sha256


class TechnicalFastVQA(Encoder):
    """Tokens (b, k, 8 * embed_dim) float32, in the order of time: of the last stage's map.

    One token is the mean over the picture of two frames. `time_steps` averages neighbours in time,
    `spatial_map` keeps the places (7 x 7, rows first) apart: 32 frames give 16 tokens, 4 x 7 x 7
    with `time_steps=4, spatial_map=True`, and AIGVEval's one token with `time_steps=1`. A token
    is of its time, but attention has let it see what comes before and after.

    Frames are those of the variant. Where its clips would overlap or wrap around, as the video is
    too short for them, the frames are spread evenly over the video instead, so that tokens stay
    in the order of time; the nearest are repeated if there are fewer than the network takes. Note
    that one clip of 32 frames sees the middle 64 frames of a longer video; take more clips, or
    `segments`, to see all of it.

    Args:
        variant: `fast-vqa-b`, `fastervqa`, `fast-vqa-m`, `dover` (its technical branch) or
            `kinetics` (the plain Video-Swin-T); see `VARIANTS` for where each comes from.
        weights: Path of the variant's checkpoint, or of Kinetics' to begin a training with; None
            looks for the variant's file in the folder `checkpoints` of the cache folder.
        num_frames: Frames per clip, even; None takes the variant's.
        frame_interval: Distance in frames between two of them; None takes the variant's.
        num_clips: Clips spread over the video, each seen alone; their tokens follow each other.
        segments: Above 1, a clip is made of runs from as many parts of its share of the video,
            as FasterVQA does with 8; None takes the variant's. As many as `num_frames` spread
            the frames evenly.
        time_steps: Tokens along time; divides num_clips * num_frames / 2; None keeps all.
        spatial_map: One token for each place instead of their mean.
        strict_upstream: Reproduce the slips of upstream's code; see `sample_fragments` and
            `FastVQANetwork`.
        drop_path: Rate of stochastic depth in training; upstream trains with 0.1.
        embed_dim: Width of the first stage, a multiple of 3; every checkpoint has 96.

    Raises:
        WeightsError: The checkpoint is not there or not this network's.
        ValueError: An option is out of its range.
    """

    def __init__(
        self,
        *,
        variant: str = "fast-vqa-b",
        weights: str | os.PathLike[str] | None = None,
        num_frames: int | None = None,
        frame_interval: int | None = None,
        num_clips: int = 1,
        segments: int | None = None,
        time_steps: int | None = None,
        spatial_map: bool = False,
        strict_upstream: bool = False,
        drop_path: float = 0.0,
        embed_dim: int = 96,
    ) -> None:
        super().__init__()
        self.variant = find_variant(variant)
        given: dict[str, Any] = {
            "num_frames": num_frames,
            "frame_interval": frame_interval,
            "segments": segments,
            "num_clips": num_clips,
        }
        self.sampling = replace(
            self.variant.sampling, **{name: n for name, n in given.items() if n is not None}
        )
        if self.sampling.apart:
            self.version = 2  # its clips were spread as FAST-VQA's
        self.strict_upstream, self.spatial_map = strict_upstream, spatial_map
        self.time_steps = self.sampling.time_steps if time_steps is None else time_steps
        if self.time_steps < 1 or self.sampling.time_steps % self.time_steps:
            raise ValueError(
                f"time_steps must divide the {self.sampling.time_steps} of the clips, "
                f"got {self.time_steps}"
            )
        with seeded():
            network = FastVQANetwork(
                self.variant,
                embed_dim=embed_dim,
                drop_path=drop_path,
                strict_upstream=strict_upstream,
            )
        if weights == RANDOM:
            self.weights_id = RANDOM
        else:
            path = self.variant.checkpoint(weights)
            network.load(path, self.variant, read_checkpoint(path))
            self.weights_id = sha256(path)
        self.backbone = network.backbone  # the head was checked too, but no token needs it
        self.requires_grad_(False)
        tokens = self.time_steps * (self.variant.grid**2 if spatial_map else 1)
        self.spec = EncoderSpec(
            name="technical_fastvqa",
            dimension="technical",
            num_tokens=tokens,
            dim=self.backbone.width,
            stream="slow",
            size=self.variant.size_px,
            mean=MEAN,
            std=STD,
            time_steps=tokens if self.time_steps > 1 else 0,
        )
        self._options = {
            **{name: getattr(self.sampling, name) for name in given},
            "variant": variant,
            "time_steps": self.time_steps,
            "spatial_map": spatial_map,
            "strict_upstream": strict_upstream,
            "drop_path": drop_path,
            "embed_dim": embed_dim,
        }
        if weights == RANDOM:
            self._options["weights"] = RANDOM

    def train(self, mode: bool = True) -> "TechnicalFastVQA":
        """Stochastic depth is for what learns: a frozen encoder gives the same tokens always."""
        return super().train(mode and any(value.requires_grad for value in self.parameters()))

    def options(self) -> dict[str, Any]:
        return dict(self._options)

    def frame_indices(self, num_frames: int, fps: float) -> np.ndarray:
        rows = self.sampling.rows(num_frames).flatten()
        return rows if (np.diff(rows) > 0).all() else uniform(num_frames, self.sampling.total)

    def preprocess(self, frames: Tensor, *, seed: int = 0) -> Tensor:
        """uint8 (t, 3, h, w) to uint8 (num_clips, num_frames, 3, size, size)."""
        check_frames(frames)
        if len(frames) < self.sampling.total:
            frames = repeat_to(frames, self.sampling.total)
        strict = self.strict_upstream
        return self.variant.view(frames, self.sampling, seed=seed, strict_upstream=strict)

    def encode(self, view: Tensor) -> Tensor:
        dtype = self.backbone.norm.weight.dtype
        maps = self.backbone(network_input(view, dtype))
        places = maps.permute(0, 2, 3, 4, 1)  # b * clips, t, h, w, d
        places = places.reshape(len(view), self.time_steps, -1, *places.shape[2:]).mean(2)
        return places.flatten(1, 3) if self.spatial_map else places.mean((2, 3))

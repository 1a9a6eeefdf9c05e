"""The published networks around FAST-VQA: where they are, which frames and fragments they see.

Sources: FAST-VQA (Wu et al., ECCV 2022), FasterVQA (Wu et al., TPAMI 2023), DOVER's technical
branch (Wu et al., ICCV 2023), Video-Swin-T (Liu et al., CVPR 2022). Licences are those that the
sources' repositories name.
"""

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from .checkpoints import find_checkpoint
from .fragments import sample_fragments
from .sampling import clips, temporal_fragments
from .swin3d import PATCH, Size

MEAN = (123.675, 116.28, 103.53)
STD = (58.395, 57.12, 57.375)
FRAGMENT_PX = 32


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """Which frames make the clips.

    Attributes:
        num_frames: Frames per clip, even.
        frame_interval: Distance in frames between two of them.
        num_clips: Clips spread over the video; each is seen alone, and scores are averaged.
        segments: Above 1, a clip is made of runs from as many parts of its share of the video.
        apart: Each clip comes from the middle of its own share of the video, as runs do. Else clips
            are spread over the places where one can start, and so lie nearer to the middle.

    Raises:
        ValueError: A field is out of its range; the message names it.
    """

    num_frames: int = 32
    frame_interval: int = 2
    num_clips: int = 1
    segments: int = 1
    apart: bool = False

    def __post_init__(self) -> None:
        for name in ("num_frames", "frame_interval", "num_clips", "segments"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.num_frames % PATCH[0]:
            raise ValueError(f"num_frames must be even, got {self.num_frames}")
        if self.num_frames % self.segments:
            raise ValueError(
                f"segments must divide num_frames ({self.num_frames}), got {self.segments}"
            )

    @property
    def total(self) -> int:
        """Frames of all clips."""
        return self.num_clips * self.num_frames

    @property
    def time_steps(self) -> int:
        """Time steps of all clips' feature maps."""
        return self.total // PATCH[0]

    def rows(self, num_frames: int) -> np.ndarray:
        """Upstream's frames of a video: int64 (num_clips, num_frames), which may wrap around."""
        if self.segments == 1 and not self.apart:
            return clips(num_frames, self.num_frames, self.frame_interval, self.num_clips)
        runs = temporal_fragments(
            num_frames,
            self.num_clips * self.segments,
            self.num_frames // self.segments,
            self.frame_interval,
        )
        return runs.reshape(self.num_clips, self.num_frames)


@dataclass(frozen=True, kw_only=True)
class Variant:
    """A published network and how its authors feed it.

    Attributes:
        filename, source_url, licence: Of its checkpoint.
        sampling: Its frames when tested.
        aligned: Frames in a row that share their fragments' places.
        grid: Fragments of 32 px along each side.
        window: Of its attention, as t, h, w.
        gated: It has the gated relative position bias.
        scale: Mean and standard deviation that the authors bring the raw score onto 0-1 with, as
            sigmoid((raw - mean) / std); None where there is no quality head.
        unused: Prefixes of tensors that are in the file and no part of this network.
    """

    filename: str
    source_url: str
    licence: str = "Apache-2.0"
    sampling: Sampling = field(default_factory=Sampling)
    aligned: int = 32
    grid: int = 7
    window: Size = (8, 7, 7)
    gated: bool = True
    scale: tuple[float, float] | None = None
    unused: tuple[str, ...] = ()

    @property
    def size_px(self) -> int:
        """Side of the picture that the fragments are joined to."""
        return self.grid * FRAGMENT_PX

    def checkpoint(self, weights: str | os.PathLike[str] | None) -> Path:
        """Its file at this path, or where there is none by its name; see `find_checkpoint`."""
        return find_checkpoint(
            weights, filename=self.filename, source_url=self.source_url, licence=self.licence
        )

    def view(
        self, frames: Tensor, sampling: Sampling, *, seed: int, strict_upstream: bool
    ) -> Tensor:
        """uint8 (total, 3, h, w) to uint8 (num_clips, num_frames, 3, side, side) of fragments."""
        mosaic = sample_fragments(
            frames,
            grid=self.grid,
            size=FRAGMENT_PX,
            seed=seed,
            strict_upstream=strict_upstream,
            aligned=math.gcd(self.aligned, sampling.num_frames),
        )
        return mosaic.unflatten(0, (sampling.num_clips, sampling.num_frames))


_FAST = "https://github.com/TimothyHTimothy/FAST-VQA/releases/download/v2.0.0/"
VARIANTS: Mapping[str, Variant] = {
    "fast-vqa-b": Variant(
        filename="FAST_VQA_B_1_4.pth",
        source_url=_FAST + "FAST_VQA_B_1_4.pth",
        sampling=Sampling(num_clips=4),
        scale=(-0.110198185, 0.04178565),
    ),
    "fastervqa": Variant(
        filename="FAST_VQA_3D_1_1.pth",
        source_url=_FAST + "FAST_VQA_3D_1_1.pth",
        sampling=Sampling(segments=8),
        aligned=8,
        scale=(0.14759505, 0.03613452),
    ),
    "fast-vqa-m": Variant(
        filename="FAST_VQA_M_1_4.pth",
        source_url=_FAST + "FAST_VQA_M_1_4.pth",
        sampling=Sampling(num_frames=16, num_clips=4),
        aligned=8,
        grid=4,
        window=(4, 4, 4),
        gated=False,
        scale=(0.023889644, 0.030781006),
    ),
    "dover": Variant(
        filename="DOVER.pth",
        source_url="https://github.com/QualityAssessment/DOVER/releases/download/v0.1.0/DOVER.pth",
        licence="MIT",
        # Upstream draws where in its third a clip begins.
        sampling=Sampling(num_clips=3, apart=True),
        scale=(0.1107, 0.07355),
        unused=("aesthetic_backbone.", "aesthetic_head."),
    ),
    "kinetics": Variant(
        filename="swin_tiny_patch244_window877_kinetics400_1k.pth",
        source_url="https://github.com/SwinTransformer/storage/releases/download/v1.0.4/"
        "swin_tiny_patch244_window877_kinetics400_1k.pth",
        gated=False,
        unused=("cls_head.",),
    ),
}


def find_variant(name: str) -> Variant:
    """An entry of `VARIANTS`.

    Raises:
        ValueError: There is none of that name; the message lists them.
    """
    if name not in VARIANTS:
        raise ValueError(f"variant must be one of {', '.join(VARIANTS)}, got {name!r}")
    return VARIANTS[name]


def network_input(view: Tensor, dtype: torch.dtype) -> Tensor:
    """Views (b, clips, t, 3, h, w), 0-255, to normalised (b * clips, 3, t, h, w)."""
    pixels = view.flatten(0, 1).float()
    mean, std = (pixels.new_tensor(values).view(3, 1, 1) for values in (MEAN, STD))
    return ((pixels - mean) / std).transpose(1, 2).to(dtype)

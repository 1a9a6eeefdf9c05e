"""FAST-VQA and its relatives: which network, which frames, which fragments, and the score.

Sources: FAST-VQA (Wu et al., ECCV 2022), FasterVQA (Wu et al., TPAMI 2023), DOVER's technical
branch (Wu et al., ICCV 2023), Video-Swin-T (Liu et al., CVPR 2022). Their checkpoints load by path,
with every tensor accounted for. Licences are those that the sources name; see `VARIANTS`.
"""

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .checkpoints import RANDOM, find_checkpoint, load_strict, read_checkpoint, seeded
from .fragments import sample_fragments
from .sampling import clips, temporal_fragments
from .swin3d import PATCH, Size, VideoSwin, relative_index
from .video import FrameRequest, read_frames
from .wheels import WeightsError

MEAN = (123.675, 116.28, 103.53)
STD = (58.395, 57.12, 57.375)
FRAGMENT_PX = 32
_GATED_STAGES = 3
_NATIVE_PX = 1 << 16  # fragments are cut from frames of any size, without shrinking them
# What the same two parts are called in the files of FAST-VQA's and DOVER's training code.
_PARTS = {
    "fragments_backbone.": "backbone.",
    "technical_backbone.": "backbone.",
    "fragments_head.": "vqa_head.",
    "technical_head.": "vqa_head.",
}
_INDEX, _TABLE = "relative_position_index", "relative_position_bias_table"
_FRAGMENT_TABLE = "fragment_position_bias_table"


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """Which frames make the clips.

    Attributes:
        num_frames: Frames per clip, even.
        frame_interval: Distance in frames between two of them.
        num_clips: Clips spread over the video; each is seen alone, and scores are averaged.
        segments: Above 1, a clip is made of runs from as many parts of its share of the video.

    Raises:
        ValueError: A field is out of its range; the message names it.
    """

    num_frames: int = 32
    frame_interval: int = 2
    num_clips: int = 1
    segments: int = 1

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
        if self.segments == 1:
            return clips(num_frames, self.num_frames, self.frame_interval, self.num_clips)
        runs = temporal_fragments(
            num_frames, self.num_clips * self.segments, self.num_frames // self.segments,
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
        sampling=Sampling(num_clips=3),  # upstream draws where in its third a clip begins
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


class VQAHead(nn.Module):
    """Features (b, dim, t, h, w) to a quality per place, (b, 1, t, h, w)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.fc_hid = nn.Conv3d(dim, 64, 1)
        self.fc_last = nn.Conv3d(64, 1, 1)
        self.dropout = nn.Dropout(0.5)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc_last(self.dropout(F.gelu(self.fc_hid(self.dropout(x)))))


class FastVQANetwork(nn.Module):
    """Backbone and quality head under the names of the published checkpoints.

    Args:
        variant: What is built; one without a scale has no head.
        embed_dim: See `VideoSwin`; every checkpoint has 96.
        drop_path: See `VideoSwin`.
        strict_upstream: Give the M network windows of 2 positions, as upstream's code does: it
            takes M's input for a shrunken one of the B network.
    """

    def __init__(
        self, variant: Variant, *, embed_dim: int = 96, drop_path: float = 0.0,
        strict_upstream: bool = False,
    ) -> None:
        super().__init__()
        frames, side = variant.sampling.num_frames, variant.size_px
        self.backbone = VideoSwin(
            embed_dim=embed_dim, drop_path=drop_path, window=variant.window,
            base=(32, 224, 224) if strict_upstream else (frames, side, side),
            gated_stages=_GATED_STAGES if variant.gated else 0,
        )
        self.vqa_head = VQAHead(self.backbone.width) if variant.scale else None

    def load(self, path: Path, variant: Variant, tensors: Mapping[str, Tensor]) -> None:
        """Take a checkpoint's tensors.

        The plain Video-Swin of Kinetics may start any network: the second bias table begins as a
        copy of the first, and the quality head stays as it is.

        Raises:
            WeightsError: A tensor is missing, left over or of another shape.
        """
        given = _renamed(path, tensors)
        index = relative_index(variant.window, variant.window)
        for name in [name for name in given if name.endswith(_INDEX)]:
            # A constant that we compute; in the file it must be the same and belong to a table.
            if name.replace(_INDEX, _TABLE) in given:
                if not torch.equal(given.pop(name), index):
                    raise WeightsError(f"{path}: {name} is not that of windows {variant.window}")
        unused = variant.unused
        if is_plain(given):
            unused = VARIANTS["kinetics"].unused
            own = self.state_dict()
            given |= {name: own[name] for name in own if name.startswith("vqa_head.")}
            for name in own:
                if name.endswith(_FRAGMENT_TABLE) and name.replace("fragment", "relative") in given:
                    given[name] = given[name.replace("fragment", "relative")]
        load_strict(self, given, file=path, ignore=unused)


def is_plain(tensors: Mapping[str, Tensor]) -> bool:
    """Whether a checkpoint is a Video-Swin without a quality head and without gated bias."""
    return not any("_head." in name.replace("cls_head.", "") for name in tensors) and not any(
        name.endswith(_FRAGMENT_TABLE) for name in tensors
    )


def _renamed(path: Path, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    named: dict[str, Tensor] = {}
    for name, value in tensors.items():
        for theirs, ours in _PARTS.items():
            if name.startswith(theirs):
                name = ours + name.removeprefix(theirs)
        if name in named:
            raise WeightsError(f"{path}: {name} is there twice, under two names")
        named[name] = value
    return named


def fragment_view(
    frames: Tensor, *, variant: Variant, sampling: Sampling, seed: int, strict_upstream: bool
) -> Tensor:
    """uint8 (total, 3, h, w) to uint8 (num_clips, num_frames, 3, side, side) of fragments."""
    mosaic = sample_fragments(
        frames, grid=variant.grid, size=FRAGMENT_PX, seed=seed, strict_upstream=strict_upstream,
        aligned=math.gcd(variant.aligned, sampling.num_frames),
    )
    return mosaic.unflatten(0, (sampling.num_clips, sampling.num_frames))


def network_input(view: Tensor, dtype: torch.dtype) -> Tensor:
    """Views (b, clips, t, 3, h, w), 0-255, to normalised (b * clips, 3, t, h, w)."""
    mean = torch.tensor(MEAN, device=view.device).view(3, 1, 1)
    std = torch.tensor(STD, device=view.device).view(3, 1, 1)
    return ((view.flatten(0, 1).float() - mean) / std).transpose(1, 2).to(dtype)


class FASTVQA(nn.Module):
    """A published video quality metric, alone.

        metric = FASTVQA("FAST_VQA_B_1_4.pth")
        metric.score("clip.mp4")  # 0 (worst) to 1 (best)

    Frames are those that the authors' code takes, also where a video is shorter than a clip: the
    clip then goes on at the video's beginning. The places of fragments, which upstream draws anew
    each time, come from a seed: the same video always has the same score.

    Args:
        weights: Path of the checkpoint; None looks for the variant's file in the folder
            `checkpoints` of the cache folder.
        variant: A name in `VARIANTS` with a quality head; None tells it from the file: DOVER by
            its tensors, M by the missing second bias table, FasterVQA by `3D` in the file's name,
            which has the tensors of FAST-VQA-B; everything else is FAST-VQA-B.
        num_clips: Clips whose scores are averaged; None takes as many as the authors' tests do.
        strict_upstream: Reproduce the slips of upstream's code; see `sample_fragments` and
            `FastVQANetwork`. For comparisons with it only.
        embed_dim: Width of the first stage; every checkpoint has 96.

    Raises:
        WeightsError: The checkpoint is not there, not this network's, or has no quality head.
        ValueError: An option is out of its range.
    """

    def __init__(
        self, weights: str | os.PathLike[str] | None = None, *, variant: str | None = None,
        num_clips: int | None = None, strict_upstream: bool = False, embed_dim: int = 96,
    ) -> None:
        super().__init__()
        chosen = find_variant(variant or "fast-vqa-b")
        path, tensors = None, None
        if weights != RANDOM:
            path = find_checkpoint(
                weights, filename=chosen.filename, source_url=chosen.source_url,
                licence=chosen.licence,
            )
            tensors = read_checkpoint(path)
            variant = variant or _variant_of(path, tensors)
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
        rows = self.sampling.rows(info.num_frames).flatten()
        place = np.searchsorted(frames[""].indices, rows)
        return fragment_view(
            frames[""].pixels[torch.from_numpy(place)], variant=self.variant,
            sampling=self.sampling, seed=seed, strict_upstream=self.strict_upstream,
        )

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
        raw = self(self.view(video, seed=seed)[None].to(device)).item()
        mean, std = self.scale
        return 1 / (1 + math.exp((mean - raw) / std))


def _variant_of(path: Path, tensors: Mapping[str, Tensor]) -> str:
    if any(name.startswith("technical_") for name in tensors):
        return "dover"
    if not any(name.endswith(_FRAGMENT_TABLE) for name in tensors):
        return "fast-vqa-m"
    return "fastervqa" if "3D" in path.name else "fast-vqa-b"

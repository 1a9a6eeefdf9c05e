"""FAST-VQA's network, and its published checkpoints with every tensor accounted for."""

from collections.abc import Mapping
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .checkpoints import load_strict
from .fastvqa_variants import VARIANTS, Variant
from .swin3d import VideoSwin, relative_index
from .wheels import WeightsError

_GATED_STAGES = 3
# What the same two parts are called in the files of FAST-VQA's and DOVER's training code.
_PARTS = {
    "fragments_backbone.": "backbone.",
    "technical_backbone.": "backbone.",
    "fragments_head.": "vqa_head.",
    "technical_head.": "vqa_head.",
}
_INDEX, _TABLE = "relative_position_index", "relative_position_bias_table"
_FRAGMENT_TABLE = "fragment_position_bias_table"


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
        self,
        variant: Variant,
        *,
        embed_dim: int = 96,
        drop_path: float = 0.0,
        strict_upstream: bool = False,
    ) -> None:
        super().__init__()
        frames, side = variant.sampling.num_frames, variant.size_px
        self.backbone = VideoSwin(
            embed_dim=embed_dim,
            drop_path=drop_path,
            window=variant.window,
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
        # A constant that we compute; in the file it must be the same and belong to a table.
        constants = {
            name: given.pop(name)
            for name in list(given)
            if name.endswith(_INDEX) and name.replace(_INDEX, _TABLE) in given
        }
        unused = variant.unused
        if is_plain(given):
            unused = VARIANTS["kinetics"].unused
            own = self.state_dict()
            given |= {name: own[name] for name in own if name.startswith("vqa_head.")}
            for name in own:
                if name.endswith(_FRAGMENT_TABLE) and name.replace("fragment", "relative") in given:
                    given[name] = given[name.replace("fragment", "relative")]
        load_strict(self, given, file=path, ignore=unused)
        index = relative_index(variant.window, variant.window)
        for name, value in constants.items():
            if not torch.equal(value, index):
                raise WeightsError(f"{path}: {name} is not that of windows {variant.window}")


def is_plain(tensors: Mapping[str, Tensor]) -> bool:
    """Whether a checkpoint is a Video-Swin without a quality head and without gated bias."""
    return not any("_head." in name.replace("cls_head.", "") for name in tensors) and not any(
        name.endswith(_FRAGMENT_TABLE) for name in tensors
    )


def variant_of(path: Path, tensors: Mapping[str, Tensor]) -> str:
    """Which of the variants with a quality head a checkpoint is of, as far as it tells.

    DOVER by its names, M by the missing second bias table, FasterVQA by `3D` in the file's name,
    since it has the tensors of FAST-VQA-B; everything else is FAST-VQA-B.
    """
    if any(name.startswith("technical_") for name in tensors):
        return "dover"
    if not any(name.endswith(_FRAGMENT_TABLE) for name in tensors):
        return "fast-vqa-m"
    return "fastervqa" if "3D" in path.name else "fast-vqa-b"


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

"""Technical quality for a machine without GPU and model hub.

EfficientNet-Lite0 on each slow frame twice: resized as a whole (what the picture shows) and as
fragments at native resolution (how cleanly it shows it), with picture statistics of both. One
token per slow frame, so that a defect can be placed in time.
"""

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from .base import check_frames
from .fragments import sample_fragments
from .lite_backbone import HEAD_WIDTH, STAGE_WIDTHS, WEIGHTS_ID, LiteEncoder, distinctness
from .picture_statistics import NUM_STATISTICS, picture_statistics
from .resizing import repeat_to, resized, without_bars

_FRAMES_WIDTH = 2 * (HEAD_WIDTH + sum(STAGE_WIDTHS) + NUM_STATISTICS)


class TechnicalLite(LiteEncoder):
    """Tokens (b, num_frames, 2 x (1280 + 512 + 29) + 1280 [+ 1]) float32.

    The last 1280 are the same in each token: how much the whole frames' features vary over the
    clip, which a reader of single tokens couldn't tell.

    Args:
        num_frames: Slow frames, one token each; a shorter clip repeats its nearest frames.
        crop_bars: Look only at what lies between black bars.
        distinctness: Add one number for how distinct the places of a picture are (`distinctness`
            of `encoders.lite_backbone`). "frame", or True: of each frame. "clip": of the mean of
            the frames' maps, the same in each token. What warps or flickers is distinct in each
            frame, but not in the mean.

    Raises:
        ValueError: `distinctness` is something else.
        WeightsError: The weights could not be had; the message says why.
    """

    version = 3
    weights_id = WEIGHTS_ID

    def __init__(
        self,
        *,
        num_frames: int = 8,
        crop_bars: bool = False,
        distinctness: bool | Literal["frame", "clip"] = False,
    ) -> None:
        if distinctness not in (False, True, "frame", "clip"):
            raise ValueError(f"distinctness must be false, frame or clip, got {distinctness!r}")
        width = _FRAMES_WIDTH + HEAD_WIDTH + bool(distinctness)
        super().__init__("technical_lite", width, num_frames=num_frames, crop_bars=crop_bars)
        self.distinctness = distinctness

    def requires_grad_(self, requires_grad: bool = True) -> "TechnicalLite":
        super().requires_grad_(requires_grad)
        self.backbone.network.classifier.requires_grad_(False)  # no token depends on it
        return self

    def preprocess(self, frames: Tensor, *, seed: int = 0) -> Tensor:
        """uint8 (t, 3, h, w) to uint8 (num_frames, 2, 3, 224, 224): whole frame, fragments."""
        check_frames(frames)
        frames = without_bars(frames) if self.crop_bars else frames
        whole = resized(frames, self.spec.size, self.spec.size)
        # Multiples of 8 keep the codec's block grid in phase, so that blocking can be seen.
        mosaic = sample_fragments(frames, aligned=len(frames), seed=seed, snap=8)
        return repeat_to(torch.stack([whole, mosaic], dim=1), self.num_frames)

    def encode(self, view: Tensor) -> Tensor:
        parts, maps = [], []
        for pictures in view.unbind(2):  # whole frames, fragments
            pixels = pictures.flatten(0, 1).contiguous()
            stages, head, _, own = self.backbone(pixels)
            parts += [head, *stages, picture_statistics(pixels)]
            maps.append(own)
        if self.distinctness == "clip":
            mean = maps[0].unflatten(0, (-1, self.num_frames)).mean(1)
            parts.append(distinctness(mean).repeat_interleave(self.num_frames, dim=0))
        elif self.distinctness:
            parts.append(distinctness(maps[0]))
        return torch.cat(parts, dim=1).view(view.shape[0], self.num_frames, -1)

    def join(self, tokens: Tensor, text: Sequence[str] | None = None) -> Tensor:
        """Adds the standard deviation over the frames; the prompt plays no part."""
        change = tokens[..., :HEAD_WIDTH].std(1, correction=0, keepdim=True)
        own, places = tokens.tensor_split([_FRAMES_WIDTH], dim=2)
        return torch.cat([own, change.expand(-1, tokens.shape[1], -1), places], dim=2)

    def options(self) -> dict[str, Any]:
        # The default is left out, as models and cached features of before don't know it.
        kind = True if self.distinctness == "frame" else self.distinctness
        added = {"distinctness": kind} if kind else {}
        return {**super().options(), **added}

"""SlowFast-R50 8x8 (Feichtenhofer et al., ICCV 2019): few frames in wide layers, many in thin ones.

Modules go by the names of PyTorchVideo's `slowfast_r50`, so that its checkpoint loads without
renaming. The fast pathway never looks at the slow one: alone it gives the same features for a
tenth of the work (10.6 of 100.6 GFLOPs per clip of 32 frames at 224 px).

Axis legend: b batch, t slow steps, 4t fast frames, h w pixels.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

ALPHA = 4  # fast frames per slow step
SLOW_WIDTH, FAST_WIDTH = 2048, 256  # channels after the last stage
_BETA = 8  # the slow pathway has 8 times the channels of the fast one
_FUSED = 2  # channels that fusion makes of each channel of the fast pathway
_DEPTHS = (3, 4, 6, 3)


class Features(NamedTuple):
    """Feature maps after a stage; after the last one, 224 px have become 7."""

    slow: Tensor | None  # (b, 2048, t, h, w); None where the slow pathway was dropped
    fast: Tensor  # (b, 256, 4t, h, w)


class FrozenBatchNorm3d(nn.BatchNorm3d):
    """Batch normalisation that keeps the checkpoint's statistics while it is trained.

    Scale and shift learn. So clips of a batch never influence each other, and batches of quality
    assessment (AIGVEval: 8) are too small for statistics of their own.
    """

    def train(self, mode: bool = True) -> "FrozenBatchNorm3d":
        return super().train(False)


class Conv3d(nn.Conv3d):
    """A convolution that keeps the size where it has no stride; no bias, as a norm follows."""

    def __init__(
        self,
        dim_in: int,
        dim_out: int,
        *,
        kernel: tuple[int, int, int],
        stride: tuple[int, int, int] = (1, 1, 1),
    ) -> None:
        t, h, w = kernel
        padding = (t // 2, h // 2, w // 2)
        super().__init__(dim_in, dim_out, kernel, stride, padding, bias=False)
        nn.init.kaiming_normal_(self.weight, mode="fan_out", nonlinearity="relu")


class Stem(nn.Module):
    """(b, 3, t, h, w) to (b, dim, t, h / 4, w / 4)."""

    def __init__(self, dim: int, *, time_kernel: int) -> None:
        super().__init__()
        self.conv = Conv3d(3, dim, kernel=(time_kernel, 7, 7), stride=(1, 2, 2))
        self.norm = FrozenBatchNorm3d(dim)
        self.pool = nn.MaxPool3d((1, 3, 3), (1, 2, 2), (0, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.pool(self.norm(self.conv(x)).relu())


class Bottleneck(nn.Module):
    """Over time, over space, and back to the full width."""

    def __init__(self, dim_in: int, dim_out: int, *, time_kernel: int, stride: int) -> None:
        super().__init__()
        dim = dim_out // 4
        self.conv_a = Conv3d(dim_in, dim, kernel=(time_kernel, 1, 1))
        self.norm_a = FrozenBatchNorm3d(dim)
        self.conv_b = Conv3d(dim, dim, kernel=(1, 3, 3), stride=(1, stride, stride))
        self.norm_b = FrozenBatchNorm3d(dim)
        self.conv_c = Conv3d(dim, dim_out, kernel=(1, 1, 1))
        self.norm_c = FrozenBatchNorm3d(dim_out)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm_a(self.conv_a(x)).relu()
        x = self.norm_b(self.conv_b(x)).relu()
        return self.norm_c(self.conv_c(x))


class ResBlock(nn.Module):
    """A bottleneck beside the identity, or beside a projection where the width changes."""

    def __init__(self, dim_in: int, dim_out: int, *, time_kernel: int, stride: int) -> None:
        super().__init__()
        self.widens = dim_in != dim_out
        if self.widens:
            self.branch1_conv = Conv3d(
                dim_in, dim_out, kernel=(1, 1, 1), stride=(1, stride, stride)
            )
            self.branch1_norm = FrozenBatchNorm3d(dim_out)
        self.branch2 = Bottleneck(dim_in, dim_out, time_kernel=time_kernel, stride=stride)

    def forward(self, x: Tensor) -> Tensor:
        beside = self.branch1_norm(self.branch1_conv(x)) if self.widens else x
        return (beside + self.branch2(x)).relu()


class ResStage(nn.Module):
    """Residual blocks, of which the first has the stride."""

    def __init__(
        self, depth: int, dim_in: int, dim_out: int, *, time_kernel: int, stride: int
    ) -> None:
        super().__init__()
        first = ResBlock(dim_in, dim_out, time_kernel=time_kernel, stride=stride)
        others = [
            ResBlock(dim_out, dim_out, time_kernel=time_kernel, stride=1) for _ in range(depth - 1)
        ]
        self.res_blocks = nn.Sequential(first, *others)

    def forward(self, x: Tensor) -> Tensor:
        return self.res_blocks(x)


class FastToSlow(nn.Module):
    """Appends to the slow pathway what a strided convolution over time makes of the fast one."""

    def __init__(self, dim_fast: int) -> None:
        super().__init__()
        self.conv_fast_to_slow = Conv3d(
            dim_fast, _FUSED * dim_fast, kernel=(7, 1, 1), stride=(ALPHA, 1, 1)
        )
        self.norm = FrozenBatchNorm3d(_FUSED * dim_fast)

    def forward(self, slow: Tensor, fast: Tensor) -> Tensor:
        return torch.cat([slow, self.norm(self.conv_fast_to_slow(fast)).relu()], dim=1)


class Stage(nn.Module):
    """One stage of both pathways, then fusion, if there is any."""

    def __init__(self, slow: nn.Module, fast: nn.Module, fusion: FastToSlow | None) -> None:
        super().__init__()
        self.multipathway_blocks = nn.ModuleDict({"0": slow, "1": fast})
        self.multipathway_fusion = fusion

    def drop_slow(self) -> None:
        """Remove the slow pathway and the fusion."""
        del self.multipathway_blocks["0"]
        self.multipathway_fusion = None

    def forward(self, x: Features) -> Features:
        fast = self.multipathway_blocks["1"](x.fast)
        if x.slow is None:
            return Features(None, fast)
        slow = self.multipathway_blocks["0"](x.slow)
        if self.multipathway_fusion is not None:
            slow = self.multipathway_fusion(slow, fast)
        return Features(slow, fast)


class Head(nn.Module):
    """Class logits of both pathways' means."""

    def __init__(self) -> None:
        super().__init__()
        self.dropout = nn.Dropout(0.5)
        self.proj = nn.Linear(SLOW_WIDTH + FAST_WIDTH, 400)  # Kinetics-400

    def forward(self, slow: Tensor, fast: Tensor) -> Tensor:
        pooled = torch.cat([slow.mean((2, 3, 4)), fast.mean((2, 3, 4))], dim=1)
        return self.proj(self.dropout(pooled))


class SlowFastR50(nn.Module):
    """Both pathways, four stages, and the classifier."""

    def __init__(self) -> None:
        super().__init__()
        stems = Stem(64, time_kernel=1), Stem(64 // _BETA, time_kernel=5)
        blocks: dict[str, nn.Module] = {"0": Stage(*stems, FastToSlow(64 // _BETA))}
        dim_in = 64
        for n, depth in enumerate(_DEPTHS, start=1):
            dim_out, stride = 128 * 2**n, 1 if n == 1 else 2
            slow = ResStage(
                depth,
                dim_in + _FUSED * dim_in // _BETA,
                dim_out,
                time_kernel=1 if n < 3 else 3,
                stride=stride,
            )
            fast = ResStage(depth, dim_in // _BETA, dim_out // _BETA, time_kernel=3, stride=stride)
            fusion = FastToSlow(dim_out // _BETA) if n < len(_DEPTHS) else None
            blocks[str(n)] = Stage(slow, fast, fusion)
            dim_in = dim_out
        blocks["6"] = Head()  # upstream's block 5 pools
        self.blocks = nn.ModuleDict(blocks)
        self.slow = True

    def drop_head(self) -> None:
        """Remove the classifier, for a caller of `features` alone."""
        del self.blocks["6"]

    def drop_slow(self) -> None:
        """Remove the classifier and the slow pathway, for a caller of fast features alone."""
        self.drop_head()
        self.slow = False
        for stage in self.blocks.values():
            assert isinstance(stage, Stage)
            stage.drop_slow()

    def features(self, frames: Tensor) -> Features:
        """Feature maps after the last stage.

        Args:
            frames: Normalised RGB (b, 3, 4t, h, w): the fast pathway's frames. The slow one sees
                those at `slow_indices`.

        Raises:
            ValueError: The number of frames is no multiple of 4.
        """
        x = Features(frames[:, :, slow_indices(frames.shape[2])] if self.slow else None, frames)
        for n in range(len(_DEPTHS) + 1):
            x = self.blocks[str(n)](x)
        return x

    def forward(self, frames: Tensor) -> Tensor:
        """Logits (b, 400) of `frames`, see `features`.

        PyTorchVideo's are equal at 32 frames of up to 224 px; larger ones it pools in windows.
        """
        return self.blocks["6"](*self.features(frames))


def slow_indices(num_frames: int) -> list[int]:
    """Which of the fast frames the slow pathway sees: evenly spread, both ends included.

    As PyTorchVideo and AIGVEval choose them: 0, 4, 8, 13, 17, 22, 26 and 31 of 32.

    Raises:
        ValueError: `num_frames` is no positive multiple of 4.
    """
    if num_frames < ALPHA or num_frames % ALPHA:
        raise ValueError(f"num_frames must be a positive multiple of {ALPHA}, got {num_frames}")
    steps = num_frames // ALPHA
    return [n * (num_frames - 1) // max(1, steps - 1) for n in range(steps)]

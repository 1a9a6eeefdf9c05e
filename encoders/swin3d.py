"""Video-Swin-T (Liu et al., CVPR 2022), with FAST-VQA's gated relative position bias.

Modules go by the names of the published checkpoints, so that these load without renaming. In a
picture made of fragments (Wu et al., ECCV 2022), neighbouring pixels may come from far apart. So
the bias of a pair of positions is a mix of two tables, one for pairs within a fragment and one
for pairs across fragments; the mix is set by how many fragments apart they are.

Axis legend: b batch, t frames, h w pixels, d width, n windows, s positions in a window.
"""

import math
from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Size = tuple[int, int, int]  # t, h, w

DEPTHS = (2, 2, 6, 2)
HEADS = (3, 6, 12, 24)
PATCH: Size = (2, 4, 4)
_MASKED = -100.0  # what Swin adds to pairs that are no neighbours; exp makes nothing of it


class VideoSwin(nn.Module):
    """Four stages of shifted-window attention in space and time.

    Windows shrink with the input, as in FAST-VQA's and DOVER's code: where 32 frames have windows
    of 8 time steps, 8 frames have windows of 2. As there, the shift does not shrink: it stays half
    of `window`, so that up to 16 frames no window sees beyond its own stretch of time.

    Args:
        embed_dim: Width of the first stage, a multiple of 3; each stage doubles it. 96 is "Tiny".
        window: Positions that attend to each other, as t, h, w.
        base: Frames, height and width in pixels of the input that `window` was made for.
        gated_stages: How many of the first stages have the gated bias; 3 in FAST-VQA. Fragments
            are as many along each side as a window has positions.
        drop_path: Rate of stochastic depth in the last block in training; it grows from 0.

    Raises:
        ValueError: An option is out of its range.
    """

    def __init__(
        self,
        *,
        embed_dim: int = 96,
        window: Size = (8, 7, 7),
        base: Size = (32, 224, 224),
        gated_stages: int = 0,
        drop_path: float = 0.0,
    ) -> None:
        super().__init__()
        if embed_dim < HEADS[0] or embed_dim % HEADS[0]:
            raise ValueError(f"embed_dim must be a multiple of {HEADS[0]}, got {embed_dim}")
        if not 0 <= drop_path < 1:
            raise ValueError(f"drop_path must lie in 0..1 without 1, got {drop_path}")
        self.window, self.base = window, base
        self.width = embed_dim * 2 ** (len(DEPTHS) - 1)
        self.patch_embed = PatchEmbed(embed_dim)
        rates = iter(drop_path * n / (sum(DEPTHS) - 1) for n in range(sum(DEPTHS)))
        self.layers = nn.ModuleList(
            Stage(
                embed_dim * 2**i,
                heads=heads,
                window=window,
                drop_paths=[next(rates) for _ in range(depth)],
                gated=i < gated_stages,
                merges=i < len(DEPTHS) - 1,
            )
            for i, (depth, heads) in enumerate(zip(DEPTHS, HEADS))
        )
        self.norm = nn.LayerNorm(self.width)

    def forward(self, pixels: Tensor) -> Tensor:
        """Normalised (b, 3, t, h, w) to (b, width, t / 2, h / 32, w / 32), rounded up."""
        sizes = zip(self.window, pixels.shape[2:], self.base)
        window = _size(min(own, max(1, own * size // base)) for own, size, base in sizes)
        x = self.patch_embed(pixels)
        for stage in self.layers:
            x = stage(x, window)
        return self.norm(x).permute(0, 4, 1, 2, 3)


class PatchEmbed(nn.Module):
    """(b, 3, t, h, w) to (b, t / 2, h / 4, w / 4, dim)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.proj = nn.Conv3d(3, dim, PATCH, PATCH)
        self.norm = nn.LayerNorm(dim)

    def forward(self, x: Tensor) -> Tensor:
        t, h, w = (-size % patch for size, patch in zip(x.shape[2:], PATCH))
        x = self.proj(F.pad(x, (0, w, 0, h, 0, t)))
        return self.norm(x.permute(0, 2, 3, 4, 1))


class PatchMerging(nn.Module):
    """(b, t, h, w, d) to (b, t, h / 2, w / 2, 2d), rounded up."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(4 * dim)
        self.reduction = _linear(4 * dim, 2 * dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = F.pad(x, (0, 0, 0, x.shape[3] % 2, 0, x.shape[2] % 2))
        corners = [x[:, :, i::2, j::2] for j in (0, 1) for i in (0, 1)]
        return self.reduction(self.norm(torch.cat(corners, dim=-1)))


class Stage(nn.Module):
    """Blocks at one resolution, every second one with shifted windows; then it merges patches."""

    def __init__(
        self,
        dim: int,
        *,
        heads: int,
        window: Size,
        drop_paths: list[float],
        gated: bool,
        merges: bool,
    ) -> None:
        super().__init__()
        self.window, self.gated = window, gated
        self.blocks = nn.ModuleList(
            Block(dim, heads=heads, window=window, gated=gated, drop_path=rate)
            for rate in drop_paths
        )
        self.downsample = PatchMerging(dim) if merges else None

    def forward(self, x: Tensor, window: Size) -> Tensor:
        """(b, t, h, w, d) to the same, or half of h and w and twice d where it merges."""
        size = _size(x.shape[1:4])
        shift = _size(
            full // 2 if n > own else 0 for full, n, own in zip(self.window, size, window)
        )
        window = _size(min(pair) for pair in zip(size, window))
        index = relative_index(window, self.window, x.device)
        layouts = [
            Layout(size, window, moved, gated=self.gated, device=x.device)
            for moved in ((0, 0, 0), shift)
        ]
        for number, block in enumerate(self.blocks):
            x = block(x, layouts[number % 2], index)
        return x if self.downsample is None else self.downsample(x)


class Layout:
    """How a map is cut into windows, and what each window's pairs of positions are to each other.

    Attributes:
        distance: (spatial windows, s, s) fragments between two positions, |rows| + |columns|: the
            gate; None without fragments. It is the same for windows that differ in time only.
        apart: (n, s, s) true where the shift brought together what isn't adjacent, or None.
    """

    def __init__(
        self, size: Size, window: Size, shift: Size, *, gated: bool, device: torch.device
    ) -> None:
        self.size, self.window, self.shift = size, window, shift
        self.padded = _size(math.ceil(n / own) * own for n, own in zip(size, window))
        self.distance = self.apart = None
        if gated:
            rows, columns = self._in_windows([self._fragments(axis, device) for axis in (1, 2)])
            self.distance = _differences(rows).abs() + _differences(columns).abs()
        if any(shift):
            zones = [
                _zones(padded, own, moved, device)
                for padded, own, moved in zip(self.padded, window, shift)
            ]
            t, h, w = torch.meshgrid(*zones, indexing="ij")
            zone = partition((9 * t + 3 * h + w)[None, ..., None], window)[0, ..., 0]
            self.apart = _differences(zone) != 0

    def _fragments(self, axis: int, device: torch.device) -> Tensor:
        """Of each position along an axis, after the shift, the fragment it lies in: float."""
        place = torch.arange(self.padded[axis], device=device)
        place = place.clamp(max=self.size[axis] - 1)  # padding counts to the fragment beside it
        fragment = place * self.window[axis] // self.size[axis]
        return fragment.roll(-self.shift[axis]).float()

    def _in_windows(self, places: list[Tensor]) -> list[Tensor]:
        """Rows (h,) and columns (w,) as (spatial windows, s) each."""
        grids = torch.meshgrid(*places, indexing="ij")
        time = self.window[0]
        return [
            partition(grid.expand(1, time, -1, -1)[..., None], self.window)[0, ..., 0]
            for grid in grids
        ]

    def split(self, x: Tensor) -> Tensor:
        """(b, t, h, w, d) to (b, n, s, d), padded with zeros."""
        t, h, w = (padded - n for padded, n in zip(self.padded, self.size))
        x = F.pad(x, (0, 0, 0, w, 0, h, 0, t))
        if any(self.shift):
            x = x.roll([-moved for moved in self.shift], dims=(1, 2, 3))
        return partition(x, self.window)

    def join(self, x: Tensor) -> Tensor:
        """Inverse of `split`."""
        wt, wh, ww = self.window
        t, h, w = (n // own for n, own in zip(self.padded, self.window))
        x = x.view(len(x), t, h, w, wt, wh, ww, -1).permute(0, 1, 4, 2, 5, 3, 6, 7)
        x = x.reshape(len(x), *self.padded, -1)
        if any(self.shift):
            x = x.roll(self.shift, dims=(1, 2, 3))
        t, h, w = self.size
        return x[:, :t, :h, :w]


class Block(nn.Module):
    """Attention within windows, then two linear layers, each beside a shortcut."""

    def __init__(
        self, dim: int, *, heads: int, window: Size, gated: bool, drop_path: float
    ) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim)
        self.attn = WindowAttention(dim, heads=heads, window=window, gated=gated)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = Mlp(dim)
        self.drop_path: nn.Module = nn.Identity()
        if drop_path > 0:
            from torchvision.ops import StochasticDepth

            self.drop_path = StochasticDepth(drop_path, "row")

    def forward(self, x: Tensor, layout: Layout, index: Tensor) -> Tensor:
        windows = self.attn(layout.split(self.norm1(x)), layout, index)
        x = x + self.drop_path(layout.join(windows))
        return x + self.drop_path(self.mlp(self.norm2(x)))


class Mlp(nn.Module):
    """Two linear layers."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.fc1 = _linear(dim, 4 * dim)
        self.fc2 = _linear(4 * dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x)))


class WindowAttention(nn.Module):
    """Multi-head attention within each window, with a bias per pair of positions and head."""

    def __init__(self, dim: int, *, heads: int, window: Size, gated: bool) -> None:
        super().__init__()
        self.heads = heads
        table = torch.empty(math.prod(2 * n - 1 for n in window), heads)
        nn.init.trunc_normal_(table, std=0.02)
        self.relative_position_bias_table = nn.Parameter(table)
        self.fragment_position_bias_table = nn.Parameter(table.clone()) if gated else None
        self.qkv = _linear(dim, 3 * dim)
        self.proj = _linear(dim, dim)

    def forward(self, x: Tensor, layout: Layout, index: Tensor) -> Tensor:
        """(b, n, s, d) to the same."""
        b, n, s, d = x.shape
        parts = self.qkv(x).view(b, n, s, 3, self.heads, -1).permute(3, 0, 1, 4, 2, 5)
        # Windows stand in the place of heads: so one bias serves the batch without being copied.
        q, k, v = parts.flatten(2, 3)
        bias = self._bias(n, layout, index).to(q.dtype)
        x = F.scaled_dot_product_attention(q, k, v, attn_mask=bias[None])
        return self.proj(x.unflatten(1, (n, self.heads)).transpose(2, 3).reshape(b, n, s, d))

    def _bias(self, n: int, layout: Layout, index: Tensor) -> Tensor:
        """Of each window and head: (n * heads, s, s)."""
        across = self.relative_position_bias_table[index].permute(2, 0, 1)[None]
        if self.fragment_position_bias_table is None or layout.distance is None:
            bias = across
        else:
            within = self.fragment_position_bias_table[index].permute(2, 0, 1)[None]
            # distance * across + (1 - distance) * within; the gate is no share, it reaches 12.
            bias = within + layout.distance[:, None] * (across - within)
        bias = bias.expand(n // len(bias), -1, -1, -1, -1)  # repeated in time
        if layout.apart is not None:
            apart = layout.apart.view(*bias.shape[:1], -1, 1, *layout.apart.shape[1:])
            bias = bias + apart * _MASKED
        return bias.flatten(0, 2)


def partition(x: Tensor, window: Size) -> Tensor:
    """(b, t, h, w, d), multiples of the window, to (b, n, s, d), windows in the order t, h, w."""
    (b, *size, d), (wt, wh, ww) = x.shape, window
    t, h, w = (n // own for n, own in zip(size, window))
    x = x.reshape(b, t, wt, h, wh, w, ww, d).permute(0, 1, 3, 5, 2, 4, 6, 7)
    return x.reshape(b, t * h * w, wt * wh * ww, d)


def relative_index(window: Size, full: Size, device: torch.device | None = None) -> Tensor:
    """Rows of the bias table for each pair of positions: int64 (s, s).

    Args:
        window: The window in use.
        full: The window that the table was made for, at least as large.
    """
    axes = [torch.arange(n, device=device) for n in window]
    places = torch.stack(torch.meshgrid(*axes, indexing="ij")).flatten(1)
    index = torch.zeros((), dtype=torch.int64, device=device)
    for place, n in zip(places, full):
        index = index * (2 * n - 1) + place[:, None] - place[None, :] + n - 1
    return index


def _differences(values: Tensor) -> Tensor:
    """(n, s) to (n, s, s)."""
    return values[:, None, :] - values[:, :, None]


def _zones(padded: int, window: int, shift: int, device: torch.device) -> Tensor:
    """Of each position after the shift, the stretch of neighbours it belongs to: (padded,)."""
    place = torch.arange(padded, device=device)
    return (place >= padded - window).long() + (place >= padded - shift).long() * (shift > 0)


def _linear(dim_in: int, dim_out: int, *, bias: bool = True) -> nn.Linear:
    layer = nn.Linear(dim_in, dim_out, bias=bias)
    nn.init.trunc_normal_(layer.weight, std=0.02)
    if bias:
        nn.init.zeros_(layer.bias)
    return layer


def _size(values: Iterable[int]) -> Size:
    t, h, w = values
    return t, h, w

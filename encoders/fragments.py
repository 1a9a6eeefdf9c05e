"""Grid mini-patch sampling: patches at native resolution, one from each cell of a grid.

Source: FAST-VQA (Wu et al., ECCV 2022), there a 7x7 grid of 32 px patches joined into 224 x 224.
A resized frame loses the fine detail that sharpness, noise and compression are judged by; patches
keep it, and the grid keeps where in the frame they come from.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from .resizing import each_size_once, resized

# Of small frames that are enlarged together; one of a strip of 1 x 1920 has three times as many.
_MOST_PX = 1 << 25


def sample_fragments(
    frames: Tensor,
    *,
    grid: int = 7,
    size: int = 32,
    aligned: int,
    seed: int = 0,
    snap: int = 1,
    strict_upstream: bool = False,
) -> Tensor:
    """Join one patch from each cell of a grid into a mosaic, for every frame.

    A frame smaller than the mosaic is first enlarged (bilinear) to hold it; the grid is laid over
    the enlarged frame.

    Args:
        frames: uint8 or float (t, 3, h, w).
        grid: Cells along each side.
        size: Side of a patch in pixels.
        aligned: How many frames in a row share their patch positions; divides t.
        seed: Seed of the random position inside a cell.
        snap: Positions are rounded down to multiples of this many pixels; 8 keeps the grid of a
            block codec in phase across patches.
        strict_upstream: Do as FAST-VQA's code does, slips included: a small frame is enlarged,
            but the grid keeps its old size, so that patches overlap and see its top left only.
            Positions are those that upstream draws after `torch.manual_seed(seed)`.

    Returns:
        (t, 3, grid * size, grid * size), dtype as `frames`.

    Raises:
        ValueError: `aligned` does not divide t.
    """
    if frames.shape[0] % aligned:
        raise ValueError(f"aligned must divide the {frames.shape[0]} frames, got {aligned}")
    groups, side = frames.shape[0] // aligned, grid * size
    height, width = frames.shape[-2:]
    larger = _enlarged_size(height, width, side)
    if strict_upstream:
        rows, columns = _upstream_positions(frames.shape[-2:], groups, grid, size, seed)
    else:
        rows, columns = (
            _positions(length, groups, grid, size, seed, axis) for axis, length in enumerate(larger)
        )
    rows, columns = rows // snap * snap, columns // snap * snap
    enlarged = _enlarged_as_upstream if strict_upstream else _enlarged
    at_once = max(1, _MOST_PX // (larger[0] * larger[1]))
    if larger == (height, width) or len(frames) <= at_once:
        frames = enlarged(frames, side)
        return gather_fragments(frames, rows, columns, size=size, aligned=aligned)
    mosaics = []
    for place, group in zip(zip(rows.split(1), columns.split(1)), frames.split(aligned)):
        for part in group.split(at_once):
            with each_size_once():  # so that nobody keeps it
                larger_part = enlarged(part, side)
            mosaics.append(gather_fragments(larger_part, *place, size=size, aligned=len(part)))
    return torch.cat(mosaics)


def cell_starts(length: int, *, grid: int, size: int) -> Tensor:
    """Where the cells of a grid start along an axis of `length` pixels: int64 (grid,).

    The last cells start early enough to hold a patch of `size` pixels.
    """
    return torch.clamp(torch.arange(grid, device="cpu") * (length // grid), max=length - size)


def gather_fragments(
    frames: Tensor, rows: Tensor, columns: Tensor, *, size: int, aligned: int
) -> Tensor:
    """Join the patches at given positions.

    Args:
        frames: (t, 3, h, w), any dtype.
        rows, columns: int64 (t / aligned, grid, grid), the top and the left edge in pixels of
            the patch of each cell, the same for `aligned` frames in a row.
        size: Side of a patch in pixels.
        aligned: Frames per position.

    Returns:
        (t, 3, grid * size, grid * size), dtype as `frames`.
    """
    grid = rows.shape[1]
    mosaic = frames.new_empty((*frames.shape[:2], grid * size, grid * size))
    for n, (row, column) in enumerate(zip(rows.tolist(), columns.tolist())):
        source = frames[n * aligned :][:aligned]
        target = mosaic[n * aligned :][:aligned]
        for i in range(grid):
            for j in range(grid):
                patch = source[..., row[i][j] :, column[i][j] :][..., :size, :size]
                target[..., i * size :, j * size :][..., :size, :size] = patch
    return mosaic


def _positions(length: int, groups: int, grid: int, size: int, seed: int, axis: int) -> Tensor:
    """Where patches start along one axis: int64 (groups, grid, grid)."""
    starts = cell_starts(length, grid=grid, size=size)
    starts = starts.view(grid, 1) if axis == 0 else starts.view(1, grid)
    slack = length // grid - size
    if slack <= 0:
        return starts.expand(groups, grid, grid).clone()
    generator = torch.Generator().manual_seed(2 * seed + axis)
    return starts + torch.randint(slack, (groups, grid, grid), generator=generator, device="cpu")


def _upstream_positions(
    lengths: Sequence[int], groups: int, grid: int, size: int, seed: int
) -> list[Tensor]:
    """Where upstream's patches start, rows first: int64 (groups, grid, grid) each."""
    generator = torch.Generator().manual_seed(seed)
    positions = []
    for length, shape in zip(lengths, ((grid, 1), (1, grid))):
        # Below one patch there is no place to start at; upstream fails there.
        starts = cell_starts(length, grid=grid, size=size).clamp(min=0).view(shape)
        offsets = torch.zeros(grid, grid, groups, dtype=torch.int64, device="cpu")
        if length // grid > size:
            offsets.random_(length // grid - size, generator=generator)
        positions.append(starts + offsets.permute(2, 0, 1))
    return positions


def _enlarged_size(height: int, width: int, side: int) -> tuple[int, int]:
    """Of frames that are enlarged until their shorter side has so many pixels."""
    if min(height, width) >= side:
        return height, width
    factor = side / min(height, width)
    return max(side, round(height * factor)), max(side, round(width * factor))


def _enlarged(frames: Tensor, side: int) -> Tensor:
    height, width = frames.shape[-2:]
    larger = _enlarged_size(height, width, side)
    if larger == (height, width):
        return frames
    if frames.dtype == torch.uint8:
        return resized(frames, *larger)  # PyTorch's result depends on the number of threads
    return F.interpolate(frames, size=larger, mode="bilinear", align_corners=False)


def _enlarged_as_upstream(frames: Tensor, side: int) -> Tensor:
    ratio = min(length / side for length in frames.shape[-2:])
    if ratio >= 1:
        return frames
    # One channel at a time: with three, PyTorch's result depends on the number of threads.
    planes = (frames / 255.0).flatten(0, 1).unsqueeze(1)
    larger = F.interpolate(planes, scale_factor=1 / ratio, mode="bilinear") * 255.0
    return larger.squeeze(1).unflatten(0, frames.shape[:2]).to(frames.dtype)

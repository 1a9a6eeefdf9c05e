"""Grid mini-patch sampling: patches at native resolution, one from each cell of a grid.

Source: FAST-VQA (Wu et al., ECCV 2022), there a 7x7 grid of 32 px patches joined into 224 x 224.
A resized frame loses the fine detail that sharpness, noise and compression are judged by; patches
keep it, and the grid keeps where in the frame they come from.
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def sample_fragments(
    frames: Tensor, *, grid: int = 7, size: int = 32, aligned: int, seed: int = 0, snap: int = 1
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

    Returns:
        (t, 3, grid * size, grid * size), dtype as `frames`.

    Raises:
        ValueError: `aligned` does not divide t.
    """
    if frames.shape[0] % aligned:
        raise ValueError(f"aligned must divide the {frames.shape[0]} frames, got {aligned}")
    frames = _enlarged(frames, grid * size)
    rows = _offsets(frames.shape[-2], frames.shape[0] // aligned, grid, size, seed, 0)
    columns = _offsets(frames.shape[-1], frames.shape[0] // aligned, grid, size, seed, 1)
    mosaic = frames.new_empty((*frames.shape[:2], grid * size, grid * size))
    for n, (row, column) in enumerate(zip(rows // snap * snap, columns // snap * snap)):
        shared = slice(n * aligned, (n + 1) * aligned)
        for i in range(grid):
            for j in range(grid):
                top, left = int(row[i, j]), int(column[i, j])
                mosaic[shared, :, i * size : (i + 1) * size, j * size : (j + 1) * size] = frames[
                    shared, :, top : top + size, left : left + size
                ]
    return mosaic


def _offsets(length: int, groups: int, grid: int, size: int, seed: int, axis: int) -> Tensor:
    """Where patches start along one axis: int64 (groups, grid, grid)."""
    cell = length // grid
    starts = torch.clamp(torch.arange(grid) * cell, max=length - size)
    starts = starts.view(grid, 1) if axis == 0 else starts.view(1, grid)
    slack = cell - size
    if slack <= 0:
        return starts.expand(groups, grid, grid).clone()
    generator = torch.Generator().manual_seed(2 * seed + axis)
    return starts + torch.randint(slack, (groups, grid, grid), generator=generator)


def _enlarged(frames: Tensor, side: int) -> Tensor:
    height, width = frames.shape[-2:]
    if min(height, width) >= side:
        return frames
    factor = side / min(height, width)
    larger = (max(side, round(height * factor)), max(side, round(width * factor)))
    resized = F.interpolate(frames.float(), size=larger, mode="bilinear", align_corners=False)
    if frames.dtype == torch.uint8:
        return resized.round().clamp(0, 255).to(torch.uint8)
    return resized

"""How distinct the places of a picture are, to a network that knows things.

A picture of well-formed things has places that are like no other. Where a generator blurred all
into one, or repeats itself, each place has its like elsewhere.
"""

import torch
from torch import Tensor
from torch.nn.functional import normalize


def distinctness(maps: Tensor) -> Tensor:
    """How unlike a cell of a map of features is to its most similar other one, on average.

    Args:
        maps: (n, c, h, w), of at least two cells.

    Returns:
        float32 (n, 1): one less the cosine of what the cells have beyond their picture's mean, from
        0 (each has its like) to 2. Where all cells are the same, rounding decides.
    """
    with torch.autocast(maps.device.type, enabled=False):
        cells = maps.float().flatten(2)
        cells = normalize(cells - cells.mean(2, keepdim=True), dim=1)
        cosines = cells.transpose(1, 2) @ cells
    itself = torch.eye(cells.shape[2], dtype=torch.bool, device=cells.device)
    most = cosines.masked_fill(itself, -torch.inf).amax(2)
    return (1 - most.mean(1, keepdim=True)).clamp(0, 2)

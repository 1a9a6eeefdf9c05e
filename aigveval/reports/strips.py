"""Frames of a clip with what facts say about them: boxes in the picture, ranges along the time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from prompts.facts import Fact, is_evenly_paced, is_evenly_sharp
from prompts.sentences import behind_each

from ..assessment import Assessment

BAD, FINE = "#d55e00", "#009e73"  # Okabe and Ito's
_SHOWN = {
    "changes": "turns into",
    "morphs": "morphing",
    "count": "wrong count",
    "busiest": "most movement",
}
_IN_PICTURE = ("vanishes", "appears", "changes", "morphs", "count", "doubled", "seen")
_NEAR_SECONDS = 0.02  # the frame of a box was read at this time, up to rounding
_MOST_RANGES = 6


@dataclass(frozen=True, kw_only=True)
class Range:
    """A stretch of a clip and what is said of it; `start` and `end` are shares of the clip."""

    label: str
    start: float
    end: float
    colour: str
    length_seconds: float

    @property
    def seconds(self) -> tuple[float, float]:
        """When it starts and ends."""
        return self.start * self.length_seconds, self.end * self.length_seconds


def read_strip(path: Path, count: int, height_px: int) -> tuple[np.ndarray, np.ndarray]:
    """Frames evenly spread over a clip, uint8 (t, h, w, 3), and their times in seconds.

    Raises:
        VideoError: the file cannot be read as a video.
    """
    from encoders.sampling import uniform
    from encoders.video import FrameRequest, read_frames

    request = FrameRequest(indices=lambda total, fps: uniform(total, count), stream="fast")
    _, found = read_frames(path, {"strip": request}, fast_short_side_px=height_px)
    frames = found["strip"]
    return frames.pixels.permute(0, 2, 3, 1).numpy(), frames.timestamps_seconds


def boxes_at(seconds: float, evidence: Sequence[Fact]) -> list[Fact]:
    """The facts with a place in the frame of this time, one for each place."""
    found: dict[object, Fact] = {}
    for kind in _IN_PICTURE:
        for fact in evidence:
            at = fact.at_seconds
            if fact.kind == kind and at is not None and abs(at - seconds) <= _NEAR_SECONDS:
                found.setdefault(fact.box, fact)
    return list(found.values())


def label_of(fact: Fact) -> str:
    """A few words for a fact: `cat vanishes`, `dog 98 %`."""
    if fact.kind in ("seen", "asked_seen"):
        return f"{fact.name} {round(100 * (fact.confidence or 0))} %"
    return " ".join(filter(None, (fact.name, _SHOWN.get(fact.kind, fact.kind), fact.other)))


def colour_of(fact: Fact) -> str:
    """Of what is wrong, and of what isn't."""
    return FINE if fact.kind in ("seen", "asked_seen", "softest", "busiest") else BAD


def ranges_of(row: Assessment) -> list[Range]:
    """What is wrong with a clip and when; then when its things are seen, where there's room."""
    evidence = row.evidence or ()
    length = next((fact.value for fact in evidence if fact.kind == "duration"), None)
    if not length:
        return []
    found = []
    behind_defects = []
    for defect, fact in behind_each(row.defects or (), evidence):
        start, end = defect.span(length)
        label = defect.name.replace("_", " ")
        if fact is not None and fact.name:
            label += f": {fact.name}"
        behind_defects.append(fact)
        found.append(_range(label, start, end, length, BAD))
    even = {"softest": is_evenly_sharp(evidence), "busiest": is_evenly_paced(evidence)}
    for kind in ("cut", *(kind for kind, alike in even.items() if not alike), "seen"):
        for fact in evidence:
            if fact.kind != kind or fact in behind_defects or fact.start_seconds is None:
                continue
            end = fact.end_seconds or 0.0
            found.append(_range(label_of(fact), fact.start_seconds, end, length, colour_of(fact)))
    return found[: max(_MOST_RANGES, len(behind_defects))]


def _range(label: str, start: float, end: float, length: float, colour: str) -> Range:
    start, end = min(start / length, 1.0), min(end / length, 1.0)
    start = min(start, 0.99)
    end = max(end, start + 0.01)
    return Range(label=label, start=start, end=end, colour=colour, length_seconds=length)

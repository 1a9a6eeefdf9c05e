"""What can be measured of a clip, beside its scores: the ground of explanations.

One more decoding pass: eight frames, at 640 pixels at most, for the object detector and for
sharpness; 48 small ones for what moves. Black bars are left out. Nothing is learnt here, and
nothing is random.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import cv2
import numpy as np
from torch import Tensor

from encoders.detection import Thing, detect, overlap
from encoders.flow_statistics import new_flow
from encoders.resizing import between_bars, with_short_side
from encoders.sampling import uniform
from encoders.video import FrameRequest, Frames, Source, read_frames
from encoders.weights import WeightsError
from prompts.facts import Box

from .morphs import Morph, strongest_morph

NUM_SLOW, NUM_FAST = 8, 48
LOOKS = ("sharpness", "grain", "brightness", "contrast", "whites", "blacks", "cast")
SHORT_SIDE_PX = 128  # of the frames between which flow is computed
_MAX_SIDE_PX = 640  # of the frames in which things are looked for
_COMPARED_SIDE_PX = 128  # the longer side, from which on; the least of the reference clips has 160
_SAME, _SAME_PLACE = 0.45, 0.75  # overlap of two boxes of one thing: of one class, of two
_INSIDE = 0.8  # share of a box within a larger one of its class, likewise
_CUT_GRAY, _CUT_TIMES = 18.0, 3.0
_STILL_GRAY, _MOVING_GRAY = 0.35, 1.5  # mean difference of two samples
_COMES_TO_REST = 0.05  # mean change of samples that hold, of the others' median: no freeze
_SHORTEST_FREEZE_SECONDS = 0.35
_HELD_ELSEWHERE = 0.25  # share of other samples that hold, and of as many as the longest stretch
_SHORTEST_SHOT_SECONDS = 0.25
_COMPARED_SECONDS = 0.4  # between frames, at most; the reference clips' are 0.33 s apart at most
_SAME_SHAPES = 0.65  # correlation of two pictures' gray levels, from which on only light changes
_BLANK_GRAY = 3.0  # standard deviation of a picture up to which it shows nothing


@dataclass(frozen=True, kw_only=True)
class Observed:
    """Measurements of a clip; times are in seconds from its start.

    Args:
        duration_seconds: of the clip.
        slow_seconds: (8,) or fewer; when the frames are in which things are looked for.
        things: of each of those frames, the surest first; None where there's no detector.
        looks: what each of those frames looks like, by names of `LOOKS`; see `prompts.facts.KINDS`.
            Without sharpness and grain of a picture too small for these to mean anything.
        fast_seconds: (48,) or fewer; when the frames are between which movement is measured.
        pictures: their gray levels, uint8 (t, h, w).
        changes: (t - 1,) mean absolute difference of neighbours, in gray levels.
        speeds: (t - 1,) of the fastest tenth of the picture, in short sides a second.
        drifts: (t - 1, 2) of the whole picture, in short sides.
        cuts: when another shot begins.
        freezes: stretches in which the picture holds, though the clip moves.
        morph: where and when something most looks as if it turned into something else; None in
            clips of few or small frames, or of frames far apart.
        picture: left, top, right and bottom of what lies between black bars, as shares of the
            frame; all else is measured in it, boxes too.
        warnings: what could not be measured, one line each.
    """

    duration_seconds: float
    slow_seconds: np.ndarray
    things: list[list[Thing]] | None
    looks: dict[str, np.ndarray]
    fast_seconds: np.ndarray
    pictures: np.ndarray
    changes: np.ndarray
    speeds: np.ndarray
    drifts: np.ndarray
    cuts: list[float] = field(default_factory=list)
    freezes: list[tuple[float, float]] = field(default_factory=list)
    morph: Morph | None = None
    picture: Box = (0.0, 0.0, 1.0, 1.0)
    warnings: tuple[str, ...] = ()

    @property
    def is_comparable(self) -> bool:
        """Whether the frames are as close as those of the clips that movement is compared with."""
        return _apart(self.fast_seconds) <= _COMPARED_SECONDS

    @property
    def is_still(self) -> bool:
        """Whether the picture never moves."""
        return not (self.changes >= _STILL_GRAY).any()

    @property
    def shake(self) -> float:
        """Mean change of the whole picture's drift, in hundredths of the short side."""
        if len(self.drifts) < 2:
            return 0.0
        return 100 * float(np.linalg.norm(np.diff(self.drifts, axis=0), axis=1).mean())

    @property
    def flicker(self) -> float:
        """Median change of brightness's change from sample to sample, 0-100; cuts don't count."""
        means = 100 / 255 * self.pictures.reshape(len(self.pictures), -1).mean(1)
        return float(np.median(np.abs(np.diff(means, 2)))) if len(means) > 2 else 0.0

    @property
    def speed(self) -> float:
        """Median of `speeds` where the picture moves at all: one that holds isn't slow."""
        moving = self.speeds[self.changes >= _STILL_GRAY]
        return float(np.median(moving if len(moving) else self.speeds))

    def same_shot(self, start: float, end: float) -> bool:
        """Whether no cut lies between two times."""
        return not any(start < cut <= end for cut in self.cuts)

    def in_frame(self, box: Box) -> Box:
        """A box of the picture as shares of the whole frame."""
        left, top, right, bottom = self.picture
        width, height = right - left, bottom - top
        return (
            round(left + width * box[0], 3),
            round(top + height * box[1], 3),
            round(left + width * box[2], 3),
            round(top + height * box[3], 3),
        )


def observe(path: Source) -> Observed:
    """Measures a video: a file, a folder of pictures, or frames in memory.

    Raises:
        VideoError: when the file cannot be read as a video.
    """
    requests = {
        "slow": FrameRequest(indices=lambda n, fps: uniform(n, NUM_SLOW), stream="slow"),
        "fast": FrameRequest(indices=lambda n, fps: uniform(n, NUM_FAST), stream="fast"),
    }
    info, frames = read_frames(path, requests, slow_max_side_px=_MAX_SIDE_PX)
    return measure(frames["slow"], frames["fast"], info.duration_seconds)


def measure(slow: Frames, fast: Frames, duration_seconds: float) -> Observed:
    """Measures frames of a clip; a clip may have fewer than are wanted.

    All is measured between black bars; `Observed.in_frame` gives places in the whole frame.
    """
    warnings: tuple[str, ...] = ()
    things: list[list[Thing]] | None = None
    picture = _picture(slow.pixels, fast.pixels)
    large, small = _part(slow.pixels, picture), _part(fast.pixels, picture)
    try:
        things = [without_doubles(found) for found in detect(large)]
    except WeightsError as error:
        warnings = (f"objects not looked for: {error}",)
    looks = dict(zip(LOOKS, np.array([_look(frame) for frame in large]).T))
    height, width = large.shape[-2:]
    if max(height, width) < _COMPARED_SIDE_PX:
        del looks["sharpness"], looks["grain"]
        warnings += (f"sharpness not compared: {width}x{height} pixels are too few",)
    pictures = np.stack([_gray(f) for f in with_short_side(small, SHORT_SIDE_PX)])
    seconds = fast.timestamps_seconds
    changes, speeds, drifts, unlike = _movement(pictures, seconds)
    cuts = _cuts(changes, unlike, seconds)
    morph = None
    if (apart := _apart(seconds)) > _COMPARED_SECONDS:
        warnings += (f"movement not compared: frames looked at are {apart:.1f} s apart",)
    elif things is not None and max(height, width) >= _COMPARED_SIDE_PX:
        try:
            morph = strongest_morph(large, np.searchsorted(cuts, slow.timestamps_seconds, "right"))
        except WeightsError as error:
            warnings += (f"morphing not looked for: {error}",)
    return Observed(
        duration_seconds=duration_seconds,
        slow_seconds=slow.timestamps_seconds,
        things=things,
        looks=looks,
        fast_seconds=seconds,
        pictures=pictures,
        changes=changes,
        speeds=speeds,
        drifts=drifts,
        cuts=cuts,
        freezes=_freezes(changes, seconds, blank=pictures.std((1, 2)) <= _BLANK_GRAY),
        picture=picture,
        morph=morph,
        warnings=warnings,
    )


def _picture(slow: Tensor, fast: Tensor) -> Box:
    """`Observed.picture`: of two sets of frames of a clip, what either has between bars."""
    found = []
    for frames in (slow, fast):
        height, width = frames.shape[-2:]
        top, bottom, left, right = between_bars(frames)
        found.append((left / width, top / height, right / width, bottom / height))
    lefts, tops, rights, bottoms = zip(*found)
    return min(lefts), min(tops), max(rights), max(bottoms)


def _part(frames: Tensor, picture: Box) -> Tensor:
    """What lies in whole pixels within a part of the frames, (t, 3, h, w) both."""
    height, width = frames.shape[-2:]
    left, top, right, bottom = picture
    return frames[
        ...,
        math.ceil(top * height) : math.floor(bottom * height),
        math.ceil(left * width) : math.floor(right * width),
    ].contiguous()


def without_doubles(things: Sequence[Thing]) -> list[Thing]:
    """One box for each thing: of those that overlap the surest, whatever its class."""
    kept: list[Thing] = []
    for thing in things:
        doubles = (
            overlap(thing.box, one.box) >= (_SAME if one.name == thing.name else _SAME_PLACE)
            or (one.name == thing.name and _share_inside(thing, one) >= _INSIDE)
            for one in kept
        )
        if not any(doubles):
            kept.append(thing)
    return kept


def _share_inside(first: Thing, second: Thing) -> float:
    """Share of the smaller of two boxes that lies within the other."""
    a, b = first.box, second.box
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    return max(0.0, width) * max(0.0, height) / min(first.area, second.area)


def _apart(seconds: np.ndarray) -> float:
    """How far frames are from one another, in seconds."""
    return float(np.median(np.diff(seconds))) if len(seconds) > 1 else 0.0


def _gray(frame: Tensor) -> np.ndarray:
    """uint8 (3, h, w) to (h, w)."""
    return cv2.cvtColor(cv2.merge(list(frame.numpy())), cv2.COLOR_RGB2GRAY)


def _look(frame: Tensor) -> tuple[float, ...]:
    """`LOOKS` of a frame, uint8 (3, h, w).

    Sharpness is that of the sharpest tenth of an 8 x 8 grid, as what a lens leaves soft around its
    subject doesn't count; grain is that of its flattest fifth.
    """
    gray = _gray(frame)
    fine = cv2.Laplacian(cv2.GaussianBlur(gray, (0, 0), 0.8), cv2.CV_32F)
    rest = gray.astype(np.float32) - cv2.GaussianBlur(gray, (0, 0), 1.5)
    mean, std = (100 / 255 * float(value[0, 0]) for value in cv2.meanStdDev(gray))
    colours = [100 / 255 * float(plane.mean()) for plane in frame.numpy()]
    burnt = gray >= 250
    return (
        float(np.quantile(_tiles(fine), 0.9)),
        float(np.quantile(_tiles(rest), 0.2)),
        mean,
        std,
        0.0 if _on_white(gray, burnt) else 100 * float(burnt.mean()),
        100 * float((gray <= 6).mean()),
        max(colours) - min(colours),
    )


def _on_white(gray: np.ndarray, burnt: np.ndarray) -> bool:
    """Whether a subject is before a white ground that is meant, as in a studio or a cartoon.

    The ground fills the upper sides, ends at sharp edges, and the subject has its shadows. Where
    light burns out, it fades into the rest, and shadows are bright, too.
    """
    band = max(1, round(0.03 * min(gray.shape)))
    rest = gray[~burnt]
    return bool(
        min(burnt[:band].mean(), burnt[:, :band].mean(), burnt[:, -band:].mean()) >= 0.95
        and rest.size
        and (rest >= 225).sum() <= 0.1 * burnt.sum()
        and np.quantile(rest, 0.02) <= 35
    )


def _tiles(values: np.ndarray) -> list[float]:
    """Standard deviation in each cell of an 8 x 8 grid."""
    rows = np.array_split(values, min(8, values.shape[0]), axis=0)
    return [float(t.std()) for row in rows for t in np.array_split(row, min(8, row.shape[1]), 1)]


def _movement(
    pictures: np.ndarray, seconds: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Changes, speeds, drifts of `Observed`, and how unlike each picture is to the one before."""
    estimator = new_flow()
    side = min(pictures.shape[1:])
    changes, speeds, drifts, unlike = [], [], [], []
    for n in range(len(pictures) - 1):
        first, second = pictures[n], pictures[n + 1]
        changes.append(float(cv2.absdiff(first, second).mean()))
        flow = estimator.calc(first, second, None)  # type: ignore[call-overload]
        sample = flow[::4, ::4].reshape(-1, 2).astype(np.float64) / side
        length = np.linalg.norm(sample, axis=1)
        speeds.append(np.quantile(length, 0.9) / max(1e-3, seconds[n + 1] - seconds[n]))
        drifts.append(np.median(sample, axis=0))
        unlike.append(_unlike(first, second))
    return np.array(changes), np.array(speeds), np.array(drifts).reshape(-1, 2), np.array(unlike)


def _unlike(first: np.ndarray, second: np.ndarray) -> float:
    """How unlike two pictures are, 0 to 1; not at all where only the light changes."""
    a, b = (picture.astype(np.float64) - picture.mean() for picture in (first, second))
    alike = float((a * b).sum()) > _SAME_SHAPES * float(np.sqrt((a * a).sum() * (b * b).sum()))
    return 0.0 if alike else _histogram_distance(first, second)


def _histogram_distance(first: np.ndarray, second: np.ndarray) -> float:
    """Of the gray levels in the quarters of two pictures: 0 where alike, 1 for none in common."""
    found = []
    for rows in np.array_split(np.arange(first.shape[0]), 2):
        for columns in np.array_split(np.arange(first.shape[1]), 2):
            part = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
            counts = [
                np.histogram(p[part], 32, (0, 256))[0] / p[part].size for p in (first, second)
            ]
            found.append(0.5 * float(np.abs(counts[0] - counts[1]).sum()))
    return float(np.mean(found))


def _cuts(changes: np.ndarray, unlike: np.ndarray, seconds: np.ndarray) -> list[float]:
    if not len(changes):
        return []
    usual = float(np.median(changes))
    found = (changes > max(_CUT_GRAY, _CUT_TIMES * usual)) & (unlike > 0.35)
    times = [round(float(seconds[n + 1]), 3) for n in np.flatnonzero(found)]
    gaps = np.diff([-np.inf, *times, np.inf])
    # What comes again at once is a light that flickers.
    return [t for t, *near in zip(times, gaps, gaps[1:]) if min(near) >= _SHORTEST_SHOT_SECONDS]


def _freezes(
    changes: np.ndarray, seconds: np.ndarray, *, blank: np.ndarray | None = None
) -> list[tuple[float, float]]:
    """Stretches in which the picture holds.

    In a calm clip it may rest now and then, or what moves comes to rest; and where the picture
    holds again and again, frames were dropped. What is `blank`, such as a black leader, holds
    nothing.
    """
    moving = changes >= _STILL_GRAY
    still = ~moving if blank is None else ~moving & ~blank[:-1]
    if not moving.any() or not still.any():
        return []
    usual = float(np.median(changes[moving]))
    if usual < _MOVING_GRAY or changes[still].mean() > _COMES_TO_REST * usual:
        return []
    edges = np.flatnonzero(np.diff([False, *still, False])).reshape(-1, 2)
    longest = max(end - start for start, end in edges)
    elsewhere = int(still.sum()) - longest
    if elsewhere >= _HELD_ELSEWHERE * max(longest, len(still) - longest):
        return []
    return [  # until another picture is there
        (round(float(seconds[a]), 3), round(float(seconds[min(b + 1, len(changes))]), 3))
        for a, b in edges
        if seconds[b] - seconds[a] >= _SHORTEST_FREEZE_SECONDS
    ]

"""Fills a template into one HTML file that needs nothing beside it; contact strips of clips."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from prompts.facts import Fact
from prompts.rubric import MAX_SCORE, MIN_SCORE

from ...assessment import SCORE_FIELDS, Assessment
from ...errors import one_line
from ...files import write_text
from ...metrics import Estimate
from ...versions import __version__
from ..strips import Range, boxes_at, colour_of, label_of, ranges_of, read_strip
from ..tables import show

if TYPE_CHECKING:
    from jinja2 import Environment

MOST_STRIPS = 120  # about 10 kB and a third of a second each
MOST_ROWS = 500
FRAMES = 4  # of a strip's row
EXPLAINED_FRAMES = 8  # those that things were looked for in
HEIGHT_PX = 72
WIDEST_FRAME_PX = 128  # one of 16:9 is whole; a wider one is cut at the sides
_GAP_PX = 2
_QUALITY = 65  # of JPEG, 0 to 95

Progress = Callable[[int, int], None]  # called with how many of how many strips are made


@dataclass(frozen=True, kw_only=True)
class Strip:
    """A contact strip, or why there is none.

    Args:
        uri: `data:image/jpeg;base64,...`; empty without picture.
        width_px, height_px: of the picture.
        reason: why there is no picture; one line.
    """

    uri: str = ""
    width_px: int = 0
    height_px: int = 0
    reason: str = ""


@dataclass(frozen=True, kw_only=True)
class ScoreCell:
    """One score of a clip, drawn as a bar of its spread on the scale.

    Args:
        value: the prediction; None where there is none.
        std: its spread, or None.
        interval: its 80 % interval, or None; drawn in place of the spread.
        human: what people gave, or None.
        low, high: ends of the scale.
        sort: what the column is sorted by.
    """

    value: float | None
    std: float | None = None
    interval: tuple[float, float] | None = None
    human: float | None = None
    low: float = MIN_SCORE
    high: float = MAX_SCORE
    sort: float | None = None

    @property
    def ends(self) -> tuple[float, float] | None:
        """Those of the bar: of the interval, or of the spread."""
        if self.interval or self.value is None or self.std is None:
            return self.interval
        return self.value - self.std, self.value + self.std

    def percent(self, score: float) -> float:
        """Where a score lies between the ends of the scale, 0 to 100."""
        share = (score - self.low) / (self.high - self.low)
        return round(100.0 * min(max(share, 0.0), 1.0), 1)


@dataclass(kw_only=True)
class ClipRow:
    """One clip of a page.

    Args:
        path: where the video should be; None where that isn't known.
        strip: its frames; None where it is too far down for one.
        error: why it has no scores.
        warnings: what was noticed when it was read.
        explanation: sentences by dimension.
        advice: what to try, one line each.
        evidence: facts, whose places are drawn into the strip.
        ranges: what is marked along the time, under the strip.
    """

    video: str
    path: Path | None
    prompt: str | None = None
    generator: str | None = None
    cells: dict[str, ScoreCell] = field(default_factory=dict)
    strip: Strip | None = None
    error: str | None = None
    warnings: Sequence[str] = ()
    explanation: Mapping[str, str] = field(default_factory=dict)
    advice: Sequence[str] = ()
    evidence: Sequence[Fact] = ()
    ranges: Sequence[Range] = ()


def cells_of(row: Assessment) -> dict[str, ScoreCell]:
    """The scores that a row has, by name."""
    return {
        name: ScoreCell(
            value=score.score,
            std=score.std,
            interval=None if score.low is None else (score.low, score.high),
            sort=score.score,
        )
        for name in SCORE_FIELDS
        if (score := getattr(row, name))
    }


def clip_of(row: Assessment, files: Mapping[str, Path] | None = None) -> ClipRow:
    """A row of results, without an error, as one of a page.

    `files` says where the videos are, by the rows' names, others having no picture; by default the
    names are paths.
    """
    return ClipRow(
        video=row.video,
        path=Path(row.video) if files is None else files.get(row.video),
        prompt=row.prompt,
        cells=cells_of(row),
        warnings=row.notes,
        explanation=row.explanation or {},
        advice=row.advice or (),
        evidence=row.evidence or (),
        ranges=ranges_of(row),
    )


def make_strip(path: Path, evidence: Sequence[Fact] = (), *, height_px: int = HEIGHT_PX) -> Strip:
    """Reads four frames, evenly spread over the clip; a file that cannot be read gives a reason.

    With evidence they are eight, in two rows, with boxes around what facts speak of.
    """
    from PIL import Image

    from encoders.video import VideoError

    count = EXPLAINED_FRAMES if evidence else FRAMES
    try:
        frames, times = read_strip(path, count, 2 * height_px)
    except VideoError as error:
        return Strip(reason=one_line(error.reason))
    height, width = frames.shape[1:3]
    width = max(1, round(width * height_px / height))
    shown = min(width, WIDEST_FRAME_PX * height_px // HEIGHT_PX)
    left = (width - shown) // 2
    parts: list[np.ndarray] = []
    for frame, time in zip(frames, times):
        small = Image.fromarray(frame).resize((width, height_px), Image.Resampling.LANCZOS)
        _draw_boxes(small, boxes_at(float(time), evidence), (left, left + shown))
        parts += [np.asarray(small)[:, left : left + shown], np.full((height_px, _GAP_PX, 3), 255)]
    rows = [np.concatenate(parts[:-1][: 2 * FRAMES - 1], axis=1)]
    if further := parts[2 * FRAMES : -1]:
        second = np.full_like(rows[0], 255)
        line = np.concatenate(further, axis=1)
        second[:, : line.shape[1]] = line
        rows += [np.full((_GAP_PX, rows[0].shape[1], 3), 255), second]
    picture = np.concatenate(rows, axis=0).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, format="JPEG", quality=_QUALITY, optimize=True)
    encoded = base64.b64encode(buffer.getvalue()).decode("ascii")
    return Strip(
        uri=f"data:image/jpeg;base64,{encoded}", width_px=picture.shape[1], height_px=len(picture)
    )


def _draw_boxes(picture: Any, facts: Sequence[Fact], shown: tuple[int, int]) -> None:
    """Draws boxes of facts, with labels that lie within the columns which are shown."""
    from PIL import ImageDraw

    pen = ImageDraw.Draw(picture)
    for fact in facts:
        assert fact.box is not None
        size = (picture.width - 1, picture.height - 1)
        corners = [edge * size[n % 2] for n, edge in enumerate(fact.box)]
        colour = colour_of(fact)
        pen.rectangle(corners, outline=colour, width=2)
        label = label_of(fact)
        x = min(corners[0] + 3, shown[1] - pen.textlength(label) - 2)
        place = (max(shown[0] + 1, x), max(0.0, corners[1] + 1))
        pen.text(place, label, fill="white", stroke_width=1, stroke_fill=colour)


def add_strips(
    rows: Sequence[ClipRow], *, first: Sequence[ClipRow] = (), progress: Progress | None = None
) -> None:
    """Gives strips to the rows in `first`, then to others from the top until there are enough."""
    evidence = {row.path: row.evidence for row in (*rows, *first)}
    paths = [path for path in dict.fromkeys(row.path for row in (*first, *rows)) if path]
    paths = paths[:MOST_STRIPS]
    strips: dict[Path | None, Strip] = {None: Strip(reason="the video isn't at hand")}
    with ThreadPoolExecutor(2) as pool:
        made = pool.map(lambda path: make_strip(path, evidence[path]), paths)
        for path, strip in zip(paths, made):
            strips[path] = strip
            if progress is not None:
                progress(len(strips) - 1, len(paths))
    for row in (*first, *rows):
        row.strip = strips.get(row.path)


@lru_cache(maxsize=1)
def _environment() -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("aigveval.reports.html"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["show"] = show
    environment.tests["estimate"] = lambda cell: isinstance(cell, Estimate)
    environment.globals.update(version=__version__, most_rows=MOST_ROWS, most_strips=MOST_STRIPS)
    return environment


def render(template: str, **values: Any) -> str:
    """Fills `templates/TEMPLATE` with the values."""
    return _environment().get_template(template).render(values)


def write_page(path: Path, template: str, **values: Any) -> None:
    """Renders `templates/TEMPLATE` with the values into a file.

    Raises:
        InputError: it cannot be written.
    """
    write_text(path, render(template, **values))

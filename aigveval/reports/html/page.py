"""Fills a template into one HTML file that needs nothing beside it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ... import __version__
from ...evaluation.bootstrap import Estimate
from ..tables import show
from ..writing import write_whole
from .strips import Strip, make_strips

if TYPE_CHECKING:
    from jinja2 import Environment

MOST_STRIPS = 120  # about 10 kB and a third of a second each
MOST_ROWS = 500


@dataclass(frozen=True, kw_only=True)
class ScoreCell:
    """One score of a clip, drawn as a bar of its spread on the scale.

    Args:
        value: the prediction; None where there is none.
        std: its spread, or None.
        human: what people gave, or None.
        low, high: ends of the scale.
        sort: what the column is sorted by.
    """

    value: float | None
    std: float | None = None
    human: float | None = None
    low: float = 1.0
    high: float = 5.0
    sort: float | None = None

    def percent(self, score: float) -> float:
        """Where a score lies between the ends of the scale, 0 to 100."""
        share = (score - self.low) / (self.high - self.low)
        return round(100.0 * min(max(share, 0.0), 1.0), 1)


@dataclass(kw_only=True)
class ClipRow:
    """One clip of a page.

    Args:
        video, prompt, generator: as the files have them.
        path: where the video should be.
        cells: its scores.
        strip: its frames; None where it is too far down for one.
        error: why it has no scores.
        warnings: what was noticed when it was read.
    """

    video: str
    path: Path
    prompt: str | None = None
    generator: str | None = None
    cells: dict[str, ScoreCell] = field(default_factory=dict)
    strip: Strip | None = None
    error: str | None = None
    warnings: Sequence[str] = ()


def add_strips(
    rows: Sequence[ClipRow], *, first: Sequence[ClipRow] = (), quiet: bool = False
) -> None:
    """Gives strips to the rows in `first`, then to the others from the top until there are enough.
    """
    paths = list(dict.fromkeys(row.path for row in (*first, *rows)))[:MOST_STRIPS]
    strips = make_strips(paths, quiet=quiet)
    for row in (*first, *rows):
        row.strip = strips.get(row.path)


@lru_cache(maxsize=1)
def _environment() -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("aigveval.reports.html"), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )
    environment.filters["show"] = show
    environment.tests["estimate"] = lambda cell: isinstance(cell, Estimate)
    environment.globals.update(version=__version__, most_rows=MOST_ROWS, most_strips=MOST_STRIPS)
    return environment


def write_page(path: Path, template: str, **values: Any) -> None:
    """Renders `templates/TEMPLATE` with the values into a file.

    Raises:
        InputError: it cannot be written.
    """
    write_whole(path, _environment().get_template(template).render(values))

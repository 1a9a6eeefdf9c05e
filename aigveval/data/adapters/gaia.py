"""GAIA (arXiv 2406.06087): 9,180 videos of actions by 18 models, 0-100.

`MOS.csv` has the columns filename, subject, completeness and interaction: the quality of the acting
subject is our technical score, the completeness of the action motion. How the action and its scene
go together has no counterpart and is kept as a column. Prompts are not in the file.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from statistics import fmean
from typing import Any

from ..manifest import read_video
from ..readers import Row, RowFault, read_rows
from ..scales import Scale
from . import Adapter, Options
from ._piped import Prompts

COLUMNS = {"technical": "subject", "motion": "completeness", "interaction": "interaction"}


def read(source: Path, options: Options) -> Iterator[Row]:
    """Yields a row per video; with `mean_overall` the mean of the three, as the authors combine."""
    prompts = Prompts(options.prompts)
    needed = ("filename", *COLUMNS.values())
    for number, values in read_rows(source, required=needed, aliases=False):
        video = read_video(number, values, "filename")
        row: dict[str, Any] = {"video": video, "prompt": prompts.of(video)}
        row |= {ours: values.get(theirs) for ours, theirs in COLUMNS.items()}
        if options.mean_overall:
            try:
                row["overall"] = fmean(float(row[name]) for name in COLUMNS)
            except (TypeError, ValueError):
                raise RowFault(number, f"row {number}: lacks one of {', '.join(COLUMNS)}") from None
        yield number, row


ADAPTER = Adapter(
    title="GAIA",
    read=read,
    scale=Scale(0, 100),
    reads="MOS.csv, with --prompts",
)

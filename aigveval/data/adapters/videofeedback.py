"""VideoFeedback (arXiv 2406.15252, Apache-2.0): 37.6 k videos, five dimensions on 1-4.

The source is a part of TIGER-Lab/VideoFeedback: its Hub id (`TIGER-Lab/VideoFeedback/annotated`),
a Parquet file of it, or a JSON file `data_annotated.json`. A video is called `ID.mp4`.
Visual quality is our technical score, temporal consistency motion, text-to-video alignment
semantic. Dynamic degree and factual consistency have no counterpart and are kept as columns.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from statistics import fmean

from ..readers import Row, RowFault, lacking, read_rows
from ..scales import Scale
from . import Adapter, Options

SCORES = {
    "technical": "visual quality",
    "motion": "temporal consistency",
    "semantic": "text-to-video alignment",
}
OTHERS = {"dynamic_degree": "dynamic degree", "factual_consistency": "factual consistency"}


def read(source: Path, options: Options) -> Iterator[Row]:
    """Yields a row per video; with `mean_overall` the mean of all five, as VideoScore reports."""
    dimensions = SCORES | OTHERS
    needed = ("id", *dimensions.values())
    for number, values in read_rows(source, required=needed, aliases=False):
        for name in needed:
            if values.get(name) is None:
                raise lacking(number, values, name)
        row = {
            "video": f"{values['id']}.mp4",
            "prompt": values.get("text prompt"),
            **{ours: values[theirs] for ours, theirs in dimensions.items()},
        }
        if options.mean_overall:
            try:
                row["overall"] = fmean(float(row[name]) for name in dimensions)
            except (TypeError, ValueError):
                raise RowFault(number, f"row {number}: a dimension is no number") from None
        yield number, row


ADAPTER = Adapter(
    title="VideoFeedback",
    read=read,
    scale=Scale(1, 4),
    reads="json, parquet, data set folder or Hub id",
)

"""TaobaoVD-GC of the VQualA 2025 challenge GenAI-Bench: five MOS per generated video.

A CSV file has the columns video_name, Prompt, Traditional_MOS, Alignment_MOS, Aesthetic_MOS,
Temporal_MOS and Overall_MOS; that of the test part has none of the scores. Traditional quality
(sharpness, noise, compression) is our technical score, temporal quality motion, alignment semantic.
Aesthetic quality has no counterpart and is kept as a column, on the scale of the data set.

The scale is taken as 1-5, as participants do: IOVQA (third of track I) learns ten times the score
as an integer of 10 to 50. A score beyond it is an error; `--scale` then gives the right one.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from ..readers import Row, lacking, read_rows
from ..scales import Scale
from . import Adapter, Options

COLUMNS = {
    "technical": "traditional_mos",
    "motion": "temporal_mos",
    "semantic": "alignment_mos",
    "overall": "overall_mos",
    "aesthetic": "aesthetic_mos",
}


def read(source: Path, options: Options) -> Iterator[Row]:
    """Yields a row per video."""
    for number, found in read_rows(source, required=(), aliases=False):
        values = {name.lower(): value for name, value in found.items()}
        for name in ("video_name", "prompt"):
            if name not in values:
                raise lacking(number, found, name)
        row = {"video": values["video_name"], "prompt": values["prompt"]}
        row |= {ours: values[theirs] for ours, theirs in COLUMNS.items() if theirs in values}
        yield number, row


ADAPTER = Adapter(
    title="TaobaoVD-GC, VQualA 2025 GenAI-Bench",
    read=read,
    scale=Scale(1, 5),
    reads="csv video_name,Prompt,Traditional_MOS,Alignment_MOS,...",
)

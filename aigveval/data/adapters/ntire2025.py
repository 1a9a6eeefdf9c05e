"""NTIRE 2025 XGC track 2 (arXiv 2506.02875): 34,029 videos of Q-Eval-Video by 11 models.

One MOS per video on 1-5. Two forms: the organisers' JSON, a list of `{video, prompt, gt_score}`
(without the score in the test part), and the text form of AIGVEval's public code, a line
`name.mp4|prompt|mos` (or `name.mp4|prompt`). Generators are not named.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from ..readers import Row, read_rows
from ..scales import Scale
from . import Adapter, Options
from ._piped import read_piped


def read(source: Path, options: Options) -> Iterator[Row]:
    """Yields a row per video; its score is `overall` unless the options say otherwise."""
    score = options.score or "overall"
    if source.suffix.lower() == ".txt":
        for number, name, prompt, mos in read_piped(source):
            yield number, {"video": name, "prompt": prompt, score: mos}
        return
    for number, row in read_rows(source):
        mos = row.get("gt_score", row.get("mos"))
        yield number, {"video": row.get("video"), "prompt": row.get("prompt"), score: mos}


ADAPTER = Adapter(
    title="NTIRE 2025 XGC track 2, Q-Eval-Video",
    read=read,
    scale=Scale(1, 5),
    reads="json {video, prompt, gt_score} or text name|prompt|mos",
)

"""VideoGen-RewardBench of VideoAlign (arXiv 2501.13918): 26.5 k pairs of modern generators.

`videogen-rewardbench.csv` has the columns path_A, path_B, A_model, B_model, prompt, and for VQ
(visual quality), MQ (motion quality), TA (text alignment) and Overall one of A, B, same.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from ..readers import Row, lacking, read_rows
from . import Adapter, Options

SCORES = {
    "technical": ("vq",),
    "motion": ("mq",),
    "semantic": ("ta",),
    "overall": ("overall", "all"),  # the authors' own evaluation says ALL
}


def read(source: Path, options: Options) -> Iterator[Row]:
    """Yields the pairs."""
    for number, found in read_rows(source, required=(), aliases=False):
        values = {name.lower(): value for name, value in found.items()}
        for name in ("path_a", "path_b"):
            if name not in values:
                raise lacking(number, values, name)
        row = {
            "video_a": values["path_a"],
            "video_b": values["path_b"],
            "prompt": values.get("prompt"),
            "generator_a": values.get("a_model"),
            "generator_b": values.get("b_model"),
        }
        for score, names in SCORES.items():
            row[score] = next((values[name] for name in names if values.get(name)), None)
        yield number, row


ADAPTER = Adapter(
    title="VideoGen-RewardBench",
    read=read,
    pairs=True,
    reads="videogen-rewardbench.csv",
)

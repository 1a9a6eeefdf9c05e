"""T2VQA-DB (arXiv 2403.11956): 10,000 videos of 1,000 prompts, one MOS each on 0-100.

A line is `id_variant.mp4|prompt|mos`. Every prompt has each of ten variants once, so a variant is
one model, or one setting of one (there are nine models). It is not known which: the generator is
called `variant 07`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from ..readers import Row
from ..scales import Scale
from . import Adapter, Options
from ._piped import read_piped


def read(source: Path, options: Options) -> Iterator[Row]:
    """Yields a row per video."""
    for number, name, prompt, mos in read_piped(source):
        row = {"video": name, "prompt": prompt, options.score or "overall": mos}
        _, separator, variant = PurePosixPath(name).stem.partition("_")
        if separator:
            row["generator"] = f"variant {variant}"
        yield number, row


ADAPTER = Adapter(
    title="T2VQA-DB",
    read=read,
    scale=Scale(0, 100),
    reads="text name|prompt|mos",
)

"""T2VQA-DB (arXiv 2403.11956): 10,000 videos of 1,000 prompts, one MOS each on 0-100.

A line is `id_variant.mp4|prompt|mos`. There are ten variants of each prompt, by nine models; which
variant is by which model is not told, so the variant is kept and no generator is named.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from ..tables import Row
from . import Options
from .piped import read_piped


def read(source: Path, options: Options) -> Iterator[Row]:
    """Yields a row per video, grouped by the id of its prompt."""
    for number, name, prompt, mos in read_piped(source):
        row = {"video": name, "prompt": prompt, options.score or "overall": mos}
        group, separator, variant = PurePosixPath(name).stem.partition("_")
        if separator:
            row |= {"group": group, "variant": variant}
        yield number, row

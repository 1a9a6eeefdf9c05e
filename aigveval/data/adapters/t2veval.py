"""T2VEval-Bench (arXiv 2501.08545): 148 prompts by 13 models.

Two files go with it: lines `Generator+prompt-slug.mp4,mos`, and lines
`Generator+prompt-slug.mp4|prompt|mos`. The MOS of the public files is that of the overall
impression and reaches from 0.48 to 4.83, so the scale is taken as 0-5.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from ..inputs import VIDEO_SUFFIXES
from ..readers import Row, RowFault, read_lines
from ..scales import Scale
from . import Adapter, Options
from ._piped import Prompts, read_piped


def read(source: Path, options: Options) -> Iterator[Row]:
    """Yields a row per video, grouped by its prompt; prompts of `name,mos` come from a file."""
    for number, name, prompt, mos in _rows(source, Prompts(options.prompts)):
        generator, separator, slug = PurePosixPath(name).stem.partition("+")
        row = {"video": name, "prompt": prompt, options.score or "overall": mos}
        if separator:
            row |= {"generator": generator, "group": slug}
        yield number, row


def _rows(source: Path, prompts: Prompts) -> Iterator[tuple[int, str, str | None, str | None]]:
    first = next(read_lines(source), (0, ""))[1]
    if "|" in first:
        for number, name, prompt, mos in read_piped(source):
            yield number, name, prompt or prompts.of(name), mos
        return
    for number, line in read_lines(source):
        name, _, mos = line.rpartition(",")
        if PurePosixPath(name.strip()).suffix.lower() not in VIDEO_SUFFIXES:  # as of a.mp4;3,5
            raise RowFault(number, f"row {number}: expected name,mos or name|prompt|mos")
        yield number, name.strip(), prompts.of(name.strip()), mos


ADAPTER = Adapter(
    title="T2VEval-Bench",
    read=read,
    scale=Scale(0, 5),
    reads="text name|prompt|mos, or name,mos with --prompts",
)

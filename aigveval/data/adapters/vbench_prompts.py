"""Videos made for VBench (arXiv 2311.17982), with their prompts and without scores.

Either its file of custom prompts, `{"relative/path.mp4": "prompt"}`, or a folder of videos named
after their prompts, `PROMPT-N.mp4`, as its own videos are.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from ..inputs import VIDEO_SUFFIXES
from ..readers import Row, read_rows
from ...errors import ManifestError, as_text
from . import Options


def read(source: Path, options: Options) -> Iterator[Row]:
    """Yields a row per video."""
    if not source.is_dir():
        yield from read_rows(source)
        return
    videos = sorted(p for p in source.rglob("*") if p.suffix.lower() in VIDEO_SUFFIXES)
    if not videos:
        raise ManifestError(f"{as_text(source)}: holds no videos")
    for number, path in enumerate(videos, start=1):
        prompt = re.sub(r"-\d+$", "", path.stem)
        yield number, {"video": path.relative_to(source).as_posix(), "prompt": prompt}

"""AIGVQA-DB of AIGV-Assessor (arXiv 2411.17221): 36,576 videos by 15 models, 0-100.

A JSON Lines file holds the answers to one question: `{"video", "id": "name.mp4->mos",
"conversations"}`. The question says what the MOS is of: static quality is our technical score,
temporal smoothness motion, text-video correspondence semantic. Dynamic degree has no counterpart;
say with the option `score` what it should count as. Paths are absolute ones of the authors'
machine, `.../MODEL/name.mp4`: the last two parts are kept. Prompts are not in the file.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from prompts.rubric import Score

from ..readers import Row, RowFault, read_rows
from ..scales import Scale
from . import Adapter, Options
from ._piped import Prompts

_QUESTIONS: dict[str, Score] = {
    "static quality": "technical",
    "temporal smoothness": "motion",
    "correspondence": "semantic",
}


def read(source: Path, options: Options) -> Iterator[Row]:
    """Yields a row per video, its folder as the generator."""
    prompts = Prompts(options.prompts)
    for number, values in read_rows(source):
        name, arrow, mos = str(values.get("id", "")).rpartition("->")
        if not arrow or not isinstance(values.get("video"), str):
            raise RowFault(number, f'row {number}: expected a video and an id "name.mp4->mos"')
        path = PurePosixPath(values["video"])
        video = PurePosixPath(*path.parts[-2:]).as_posix().lstrip("/")
        row = {
            "video": video,
            "prompt": prompts.of(video),
            "generator": path.parent.name or None,
            options.score or _asked(number, values): mos,
        }
        yield number, row


def _asked(number: int, row: dict[str, Any]) -> Score:
    try:
        question = row["conversations"][0]["value"].lower()
    except (KeyError, IndexError, TypeError, AttributeError):
        question = ""
    for words, score in _QUESTIONS.items():
        if words in question:
            return score
    raise RowFault(
        number,
        f"row {number}: its question names none of {', '.join(_QUESTIONS)}; "
        "say with --score which score it is",
    )


ADAPTER = Adapter(
    title="AIGVQA-DB",
    read=read,
    scale=Scale(0, 100),
    reads="jsonl of one question, with --prompts",
)

"""The zip that NTIRE's challenge on the quality of AI-generated videos takes.

It holds `output.json`, a list of `{"video", "predict_score"}`, and `readme.txt`. The lines of the
readme are those that the organisers' submission pages of the series ask for: runtime, hardware,
extra data, use of an LLM, and a description.
"""

from __future__ import annotations

import json
import math
import re
import zipfile
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from statistics import fmean

from ..data.manifest import read_video, spelling
from ..data.readers import parse_rows, read_lines
from ..errors import InputError, as_text, one_line
from ..files import replaced, writing
from .ratings import RatedClip

SCORES_FILE, README_FILE = "output.json", "readme.txt"
_DATE = (1980, 1, 1, 0, 0, 0)  # the earliest that a zip can hold: equal content, equal bytes
_VIDEO_NAME = re.compile(r"\.\w{2,4}$")


@dataclass(frozen=True, kw_only=True)
class Check:
    """Predictions beside the names that the organisers want, by file name.

    Args:
        scores: name -> score, in the order of the wanted names.
        missing: wanted names without a score, with the reason where it is known.
        extra: names that nobody wants.
        duplicates: names with several scores.
        repeated: names that the list of wanted names has more than once.
    """

    scores: dict[str, float]
    missing: list[str]
    extra: list[str]
    duplicates: list[str]
    repeated: list[str]

    @property
    def is_complete(self) -> bool:
        return not (self.missing or self.extra or self.duplicates or self.repeated)


@dataclass(frozen=True, kw_only=True)
class Readme:
    """What the organisers ask about a submission.

    Args:
        runtime_seconds: for one video, above 0.
        cpu: whether it ran on the CPU; otherwise on a GPU.
        extra_data: whether other data than the challenge's was trained on.
        llm: whether a large language model is part of it.
        description: one line.
    """

    runtime_seconds: float
    cpu: bool
    extra_data: bool
    llm: bool
    description: str

    def __post_init__(self) -> None:
        if not 0.0 < self.runtime_seconds < math.inf:
            raise InputError(f"the runtime must be above 0 seconds, got {self.runtime_seconds:g}")
        if not self.description.strip():
            raise InputError("the description is empty")

    def __str__(self) -> str:
        return "".join(
            f"{line}\n"
            for line in (
                f"runtime per video [s] : {self.runtime_seconds:.3g}",
                f"CPU[1] / GPU[0] : {int(self.cpu)}",
                f"Extra Data [1] / No Extra Data [0] : {int(self.extra_data)}",
                f"LLM [1] / No LLM [0] : {int(self.llm)}",
                f"Other description : {one_line(self.description, limit=2000)}",
            )
        )


def read_names(path: str | Path) -> list[str]:
    """Reads the names of the videos to be scored.

    The file is NTIRE's own (`.txt` with `name`, `name|prompt` or `name|prompt|mos` a line), or a
    manifest.

    Raises:
        InputError: it cannot be read, or a line is not as said.
    """
    if Path(path).suffix.lower() != ".txt":
        rows = parse_rows(path, lambda number, row, _: read_video(number, row))
        return [_name(video) for _, _, video in rows]
    names = []
    for number, line in read_lines(Path(path)):
        name = _name(line.partition("|")[0])
        if not _VIDEO_NAME.search(name):
            got = one_line(repr(line), limit=60)
            raise InputError(f"{as_text(path)}: line {number} begins with no video, got {got}")
        names.append(name)
    if not names:
        raise InputError(f"{as_text(path)}: holds no names")
    return names


def check(
    predictions: Sequence[RatedClip], names: Sequence[str], *, score: str = "overall"
) -> Check:
    """Looks for names that are missing, extra or there twice; scores have the names as wanted."""
    found: dict[str, list[RatedClip]] = {}
    spelt = {spelling(name): name for name in names}  # macOS writes accents otherwise
    for clip in predictions:
        name = _name(clip.video)
        found.setdefault(spelt.get(spelling(name), name), []).append(clip)
    wanted = dict.fromkeys(names)
    scores: dict[str, float] = {}
    missing = []
    for name in wanted:
        values = [clip.scores[score] for clip in found.get(name, []) if score in clip.scores]
        if values:
            scores[name] = values[0]
        else:
            reasons = [clip.error for clip in found.get(name, []) if clip.error]
            missing.append(f"{name} ({reasons[0]})" if reasons else name)
    return Check(
        scores=scores,
        missing=missing,
        extra=[name for name in found if name not in wanted],
        duplicates=[name for name, clips in found.items() if len(clips) > 1],
        repeated=[name for name, times in Counter(names).items() if times > 1],
    )


def mean_seconds(predictions: Iterable[RatedClip]) -> float | None:
    """The mean time that a video took, where the predictions state it."""
    seconds = [clip.seconds for clip in predictions if clip.seconds]
    return fmean(seconds) if seconds else None


def write_zip(path: str | Path, scores: dict[str, float], readme: Readme) -> None:
    """Writes the submission; equal content gives equal bytes.

    Raises:
        InputError: it cannot be written.
    """
    rows = [{"video": name, "predict_score": score} for name, score in scores.items()]
    files = {
        SCORES_FILE: json.dumps(rows, ensure_ascii=False, indent=2, allow_nan=False) + "\n",
        README_FILE: str(readme),
    }
    with (
        writing(path),
        replaced(path) as temporary,
        zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED) as archive,
    ):
        for name, text in files.items():
            member = zipfile.ZipInfo(name, date_time=_DATE)
            member.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(member, text)


def _name(video: str) -> str:
    return PurePosixPath(video.strip().replace("\\", "/")).name

"""Manifests: which videos there are, the prompts they were made from, and what people thought.

One form in every format that `readers` reads: CSV with a header line, JSON (a list of objects, a
single one, or `{path: prompt}` as VBench's custom prompts), JSON Lines, Parquet, a Hugging Face
data set. Columns:

    video      path, relative to the manifest's folder, or absolute
    prompt     text that the video was generated from; empty where unknown
    technical, motion, semantic, overall
               mean opinion scores on a stated scale, by default 1-5; empty where unknown
    technical_rater1, overall_raterA, ...
               what single raters gave, on the same scale
    generator  name of the model that made the video
    group      label of rows that belong together, such as the copies of one source
    split      train, test, ... where one manifest holds several
    weight     in the training loss, above 0; by default 1

Only `video` must be there. `video` and `prompt` may have another name (`path`, `caption`, ...; see
`columns`). Other columns are kept where rows are copied and ignored elsewhere.
"""

from __future__ import annotations

import glob
import math
import os
import re
import unicodedata
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache, partial
from pathlib import Path, PureWindowsPath
from typing import Any

from prompts.rubric import SCORES
from prompts.template import clean

from ..errors import ManifestError, as_text, one_line
from .columns import listed
from .readers import RowFault, lacking, parse_rows, read_rows, url_of, why_missing
from .scales import MOS, Scale

COLUMNS = ("video", "prompt", *SCORES, "generator", "group", "split", "weight")
_RATER = re.compile(rf"({'|'.join(SCORES)})_rater(\w+)")
_PROMPT_HEAD = 16  # characters


@dataclass(frozen=True, kw_only=True, slots=True)
class Clip:
    """One video to assess, which becomes one row of the results.

    Attributes:
        path: File to open; or a folder or a pattern of numbered pictures.
        video: The path as text for people and files; always valid Unicode.
        prompt: Text the video was generated from; None when unknown.
        problem: Why it cannot be assessed, when that is known before opening it.
        frames: In place of the path, frames in memory, as `encoders.FrameSequence` takes them.
        fps: Frame rate of frames or pictures; None where unknown. A file has its own.
    """

    path: Path
    video: str
    prompt: str | None = None
    problem: str | None = None
    frames: Any = field(default=None, compare=False, repr=False)
    fps: float | None = None


def make_clip(path: str | os.PathLike[str], prompt: str | None = None) -> Clip:
    """Makes a clip; a prompt without a visible character counts as none."""
    text = as_text(prompt) if prompt and _says_something(prompt) else None
    return Clip(path=Path(path), video=url_of(path) or as_text(path), prompt=text)


def _says_something(prompt: str) -> bool:
    # A letter or digit near the start settles it without a look at every character.
    return any(map(str.isalnum, prompt[:_PROMPT_HEAD])) or bool(clean(prompt))


def check_exists(clip: Clip) -> Clip:
    """Sets the problem of a clip whose file is missing or cannot be reached."""
    try:
        if os.path.islink(clip.path) and not os.path.exists(clip.path):
            return replace(clip, problem=f"broken link to {as_text(os.readlink(clip.path))}")
        clip.path.stat()
    except FileNotFoundError:
        if not is_pattern(clip.path):
            return replace(clip, problem=why_missing(clip.path))
    except (OSError, ValueError) as error:  # a name with a zero byte is a ValueError
        return replace(clip, problem=one_line(getattr(error, "strerror", None) or error))
    return clip


def is_pattern(path: str | os.PathLike[str]) -> bool:
    """Whether a path is no file, but a pattern of some, as of the pictures of one video."""
    return not os.path.lexists(path) and bool(glob.glob(os.fspath(path)))


def read_manifest(path: str | os.PathLike[str], *, need_prompt: bool = False) -> list[Clip]:
    """Reads the videos of a manifest, one clip per row, in its order; scores are not looked at.

    Raises:
        ManifestError: When it cannot be read, naming the row at fault.
    """

    def parse(number: int, row: Mapping[str, Any], folder: Path) -> Clip:
        video, prompt = read_video(number, row), read_prompt(number, row)
        return check_exists(make_clip(locate(video, folder), prompt))

    required = ("video", "prompt") if need_prompt else ("video",)
    return [clip for _, _, clip in parse_rows(path, parse, required=required)]


def read_prompt_list(path: str | os.PathLike[str]) -> list[str] | None:
    """Reads the prompts of a table that names no videos, as VBench's `VBench_full_info.json`.

    Returns:
        Each prompt once, in the order of the table; None where its first row names a video, or has
        no prompt.

    Raises:
        ManifestError: When a later row has no prompt.
    """
    try:
        for _, row in read_rows(path, required=(), on_fault=lambda fault: None):
            if "video" in row or "prompt" not in row:
                return None
            break
    except ManifestError:  # raised again where it is read for its videos
        return None
    rows = parse_rows(path, lambda number, row, _: read_prompt(number, row), required=("prompt",))
    return list(dict.fromkeys(prompt for _, _, prompt in rows if prompt))


@dataclass(frozen=True, kw_only=True, slots=True)
class ManifestRow:
    """One row of a manifest, checked, with its scores on 1-5.

    Attributes:
        number: Number of the row, as `readers.read_rows` counts.
        video: Path as the manifest gives it.
        path: The file, found from here.
        prompt: The prompt as it is written; None where it has no visible character.
        scores: Scores on 1-5 in the order of `prompts.rubric.SCORES`; NaN where unknown.
        raters: Score -> rater -> rating on 1-5, NaN where unknown; empty without such columns.
        generator, group, split: Labels; None where unknown.
        weight: Weight in the training loss, above 0.
        extra: The columns that have no meaning here.
    """

    number: int
    video: str
    path: str
    prompt: str | None
    scores: tuple[float, ...]
    raters: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    generator: str | None = None
    group: str | None = None
    split: str | None = None
    weight: float = 1.0
    extra: Mapping[str, Any] = field(default_factory=dict)

    def to_record(self, folder: Path) -> dict[str, Any]:
        """Gives the row to be written to a manifest in a folder, scores on 1-5, None where unknown.

        The path of the video becomes relative to that folder, unless it is absolute here, or an
        address.
        """
        video = self.video if _stays(self.video) else path_from(folder, self.path)
        record: dict[str, Any] = {"video": video, "prompt": self.prompt}
        record |= {name: _known(score) for name, score in zip(SCORES, self.scores, strict=True)}
        record |= {name: getattr(self, name) for name in ("generator", "group", "split")}
        record["weight"] = None if self.weight == 1 else self.weight
        for name, ratings in self.raters.items():
            for rater, rating in ratings.items():
                record[f"{name}_rater{rater}"] = _known(rating)
        return record | dict(self.extra)


def iter_manifest(
    source: str | os.PathLike[str],
    *,
    scale: Scale = MOS,
    need_score: bool = False,
    on_fault: Callable[[RowFault], None] | None = None,
) -> Iterator[ManifestRow]:
    """Yields the rows of a manifest, checked, one at a time.

    Args:
        source: File, folder or Hub id; see `readers`.
        scale: The scale that the scores in it are on.
        need_score: Whether a row must have a score.
        on_fault: Gets each row that is wrong, and the reading goes on; by default it ends.

    Raises:
        ManifestError: When the manifest cannot be read, or a row is wrong.
    """
    parse = partial(parse_row, scale=scale, need_score=need_score)
    for _, _, row in parse_rows(source, parse, on_fault=on_fault):
        yield row


def parse_row(
    number: int,
    values: Mapping[str, Any],
    folder: Path,
    *,
    scale: Scale = MOS,
    need_score: bool = False,
) -> ManifestRow:
    """Checks one row of a table and maps its scores onto 1-5.

    Raises:
        RowFault: When a value is not as the module says; names the row.
    """
    video, prompt = read_video(number, values), read_prompt(number, values)
    scores = tuple(_score(number, name, values.get(name), scale) for name in SCORES)
    if need_score and all(map(math.isnan, scores)):
        given = "" if set(SCORES) & set(values) else f"; it has {listed(values)}"
        raise RowFault(number, f"row {number}: none of {', '.join(SCORES)} is known{given}")
    if prompt is None and not math.isnan(scores[SCORES.index("semantic")]):
        raise RowFault(number, f"row {number}: a semantic score needs a prompt")
    raters: dict[str, dict[str, float]] = {}
    extra = {}
    for column, value in values.items():
        if column in COLUMNS:
            continue
        rated = _rater(column)
        if rated:
            raters.setdefault(rated[0], {})[rated[1]] = _score(number, column, value, scale)
        else:
            extra[column] = value
    generator, group, split = (read_label(values, n) for n in ("generator", "group", "split"))
    return ManifestRow(
        number=number,
        video=as_text(video),
        path=_located(video, folder),
        prompt=prompt,
        scores=scores,
        raters=raters,
        generator=generator,
        group=group,
        split=split,
        weight=read_weight(number, values),
        extra=extra,
    )


@lru_cache(maxsize=4096)
def _rater(column: str) -> tuple[str, str] | None:
    found = _RATER.fullmatch(column)
    return (found[1], found[2]) if found else None


def locate(video: str, folder: Path) -> Path:
    """Finds the file that a manifest in a folder names."""
    return Path(_located(video, folder))


def _located(video: str, folder: Path) -> str:
    # As text: a path object for each of a million rows costs more than all the rest.
    start = os.fspath(folder)
    start = "" if start == os.curdir else start
    path = os.path.join(start, video)
    if os.path.lexists(path):
        return path
    if "\\" in video:  # a manifest written on Windows
        posix = os.path.join(start, video.replace("\\", "/"))
        if os.path.lexists(posix):
            return posix
    if not video.isascii():  # a manifest or files written on a Mac, where letters come apart
        for form in ("NFC", "NFD"):
            other = os.path.join(start, unicodedata.normalize(form, video))
            if os.path.lexists(other):
                return other
    # Our own results: relative to where they were made.
    if os.path.lexists(video) or url_of(video):
        return video
    # A table padded with spaces, where no name has them.
    return path if video == (name := video.strip()) else _located(name, folder)


def rebase(video: str, folder: Path, new_folder: Path) -> str:
    """Gives the path of a video for a manifest in another folder; an absolute one, or an address,
    stays."""
    return video if _stays(video) else path_from(new_folder, locate(video, folder))


def _stays(video: str) -> bool:
    return is_absolute(video) or url_of(video) is not None


def is_absolute(video: str) -> bool:
    """Whether a path is absolute here or on Windows."""
    return os.path.isabs(video) or bool(PureWindowsPath(video).anchor)


def spelling(path: str) -> str:
    """A path as most systems write it: macOS stores accents apart from their letters, and Windows
    writes ``\\`` between folders."""
    return unicodedata.normalize("NFC", path).replace("\\", "/")


def path_from(folder: str | os.PathLike[str], path: str | os.PathLike[str]) -> str:
    """Gives the path of a file from a folder, one that leads to it also where links are passed."""
    place, name = os.path.split(path)
    return as_text(Path(_way(os.fspath(folder), place or os.curdir, os.getcwd()), name).as_posix())


@lru_cache(maxsize=4096)
def _way(folder: str, other: str, here: str) -> str:
    """The path from a folder to another; `here` is what both are relative to."""
    way, target = os.path.relpath(other, folder), os.path.realpath(other)
    if os.path.realpath(os.path.join(folder, way)) == target:
        return way
    # `..` behind a link leads to the parent of what it points to.
    return os.path.relpath(target, os.path.realpath(folder))


def read_video(number: int, row: Mapping[str, Any], name: str = "video") -> str:
    """Reads the path in a column of a row."""
    if name not in row:
        raise lacking(number, row, name)
    video = row[name]
    if isinstance(video, Mapping):  # the feature `Video` of Hugging Face data sets
        if video.get("bytes") is not None:
            raise RowFault(
                number,
                f"row {number}: {name} is stored in the table itself; write it to a file "
                "and name that",
            )
        video = video.get("path")
    if not isinstance(video, str) or not video.strip() or "\0" in video:
        got = one_line(repr(video), limit=60)
        raise RowFault(number, f"row {number}: {name} must be a path, got {got}")
    return video


def read_prompt(number: int, row: Mapping[str, Any]) -> str | None:
    """Reads the prompt of a row; None where it is missing or says nothing."""
    prompt = row.get("prompt")
    if prompt is not None and not isinstance(prompt, str):
        got = one_line(repr(prompt), limit=60)
        raise RowFault(number, f"row {number}: prompt must be text or null, got {got}")
    return as_text(prompt) if prompt and _says_something(prompt) else None


def read_weight(number: int, row: Mapping[str, Any]) -> float:
    """Reads the weight of a row, by default 1."""
    weight = _number(number, "weight", row.get("weight"))
    if math.isnan(weight):
        return 1.0
    if not 0 < weight < math.inf:
        raise RowFault(number, f"row {number}: weight must be above 0, got {weight:g}")
    return weight


def read_label(row: Mapping[str, Any], name: str) -> str | None:
    """Reads a label, without spaces around it; None where it is missing or empty."""
    value = row.get(name)
    return None if value is None else as_text(str(value).strip()) or None


def _score(number: int, name: str, value: Any, scale: Scale) -> float:
    score = _number(number, name, value)
    if not math.isnan(score) and not scale.holds(score):
        raise RowFault(number, f"row {number}: {name} {scale.why_not(score)}")
    return scale.to_mos(score)


def _number(number: int, name: str, value: Any) -> float:
    """NaN where nothing is given; but a NaN that is given is an error, as it hides a bug."""
    if value is None or (isinstance(value, str) and not value.strip()):
        return math.nan
    try:
        if isinstance(value, bool) or math.isnan(found := float(value)):
            raise ValueError
    except (TypeError, ValueError, OverflowError):
        got = one_line(repr(value), limit=60)
        raise RowFault(number, f"row {number}: {name} must be a number, got {got}") from None
    return found


def _known(score: float) -> float | None:
    return None if math.isnan(score) else score

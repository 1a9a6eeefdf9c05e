"""What is in a manifest, and what is wrong with it: rows, files, copies, scores, leaks."""

from __future__ import annotations

import math
import os
import posixpath
import unicodedata
from array import array
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from hashlib import blake2b
from itertools import combinations
from pathlib import Path
from typing import Any, Literal

import numpy as np

from prompts.rubric import SCORES

from ..batching import run_batches
from ..errors import as_text, one_line
from .manifest import is_absolute, is_pattern, iter_manifest, read_video, spelling
from .preference_pairs import PAIR_VIDEOS, is_pairs, parse_pair
from .readers import RowFault, parse_rows, part_names, why_missing
from .scales import MOS, Scale

FileCheck = Literal["none", "open", "decode"]

BINS = 13  # centred on the ends of the scale; so means of three ratings lie in their middles
LISTED = 50  # rows, files and copies that are named one by one
MANY_GENERATORS = 1000  # more are counted together, so that memory stays small
OTHERS = "(others)"
_DECODED = 8  # frames, spread over the video


@dataclass(frozen=True, kw_only=True)
class Scores:
    """The known values of one score, on the scale of the manifest.

    Attributes:
        distinct: Number of different values.
        histogram: Part of the data set -> counts in the bins of `bin_edges`.
    """

    count: int
    distinct: int
    mean: float
    std: float
    low: float
    high: float
    histogram: dict[str, list[int]]


@dataclass(kw_only=True)
class Report:
    """What a check found. Lists hold the first `LISTED` findings; counts include all.

    Attributes:
        checked: How far files were read.
        rows: Number of valid rows.
        wrong_rows, wrong: Number of invalid rows, and a line for each.
        videos: Number of different paths.
        missing, unreadable, bad_files: Number of such files, and a line for each.
        repeated, repeats: Number of rows that repeat a video with its prompt, and a line for each.
        copies: All groups of files with the same content, each file with its part.
        copies_across: Number of these groups that lie in several parts.
        absolute, outside: Number of rows whose path is absolute, or leaves the manifest's folder.
        first_absolute, first_outside: The first of each.
        without_prompt, prompts: Number of rows without a prompt, and of different prompts.
        parts, generators: Name -> number of rows.
        generator_means: Generator -> score -> mean.
        raters: Score -> rater -> number of ratings.
        preferences: Score -> `A`, `B`, `same` -> number of pairs.
    """

    sources: list[str]
    scale: Scale
    checked: FileCheck
    pairs: bool = False
    rows: int = 0
    wrong_rows: int = 0
    wrong: list[str] = field(default_factory=list)
    videos: int = 0
    missing: int = 0
    unreadable: int = 0
    bad_files: list[str] = field(default_factory=list)
    repeated: int = 0
    repeats: list[str] = field(default_factory=list)
    copies: list[list[str]] = field(default_factory=list)
    copies_across: int = 0
    absolute: int = 0
    outside: int = 0
    first_absolute: str | None = None
    first_outside: str | None = None
    without_prompt: int = 0
    prompts: int = 0
    parts: dict[str, int] = field(default_factory=dict)
    generators: dict[str, int] = field(default_factory=dict)
    generator_means: dict[str, dict[str, float]] = field(default_factory=dict)
    scores: dict[str, Scores] = field(default_factory=dict)
    raters: dict[str, dict[str, int]] = field(default_factory=dict)
    preferences: dict[str, dict[str, int]] = field(default_factory=dict)
    overlaps: list[Overlap] = field(default_factory=list)

    @property
    def sound(self) -> bool:
        """Whether all rows are right and all files that were looked at can be read."""
        return not (self.wrong_rows or self.missing or self.unreadable)

    def to_dict(self) -> dict[str, Any]:
        """Gives all of it, ready for `json.dumps`."""
        return asdict(self) | {"sound": self.sound}


def check_manifests(
    sources: Sequence[str | os.PathLike[str]],
    *,
    scale: Scale = MOS,
    files: FileCheck = "open",
    workers: int = 2,
    progress: Callable[[], None] = lambda: None,
) -> Report:
    """Checks manifests, of videos or of pairs, row by row.

    Several manifests are parts of one data set: a row without a split belongs to the part that is
    named after its file.

    Args:
        files: `none` leaves files alone, `open` reads each without decoding more than a frame,
            `decode` decodes frames spread over each; both find copies.
        progress: Called after each row.

    Raises:
        ManifestError: When a manifest cannot be read at all.
    """
    report = Report(sources=[as_text(s) for s in sources], scale=scale, checked=files)
    collector = _Collector(report)

    def new_files() -> Iterator[_NamedFile]:
        """Counts the rows, and yields each file that they name once."""
        seen: set[int] = set()
        for source, part_name in zip(sources, part_names(sources), strict=True):
            name = os.path.basename(as_text(source)) if len(sources) > 1 else ""
            for row in _rows(source, name, report):
                part = row.split or part_name or "all"
                collector.add(row, part)
                for video, path in row.videos if files != "none" else ():
                    key = video_key(os.path.abspath(path))
                    if key not in seen:
                        seen.add(key)
                        yield _NamedFile(path, f"{row.where}: {video}", part)
                progress()

    _check_files(new_files(), report, workers=workers)
    collector.finish()
    return report


# ---- files --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _NamedFile:
    path: str  # from here
    where: str  # row and path, as the manifest has them
    part: str


def _check_files(files: Iterable[_NamedFile], report: Report, *, workers: int) -> None:
    """Reads files in threads while they are named, and compares those of the same size."""
    read = _reader(report.checked)

    def size_of(file: _NamedFile) -> int | None:
        """Reads it; None for a pattern of numbered pictures, of which no copies are looked for."""
        size = None if is_pattern(file.path) else os.stat(file.path).st_size
        read(file.path)
        return size

    by_size: dict[int, list[_NamedFile]] = defaultdict(list)
    for outcome in run_batches(files, prepare=size_of, compute=_as_prepared, workers=workers):
        if outcome.error is not None:
            _add_bad_file(report, outcome.item, outcome.error)
        elif outcome.result is not None:
            by_size[outcome.result].append(outcome.item)
    same_size = [file for files in by_size.values() if len(files) > 1 for file in files]
    if not same_size:
        return
    from encoders.wheels import sha256

    groups: dict[str, list[_NamedFile]] = defaultdict(list)
    digests = run_batches(
        same_size,
        prepare=lambda file: sha256(Path(file.path)),
        compute=_as_prepared,
        workers=workers,
    )
    for digest in digests:
        if digest.result is not None:  # otherwise it is gone meanwhile
            groups[digest.result].append(digest.item)
    for group in groups.values():
        if len(group) > 1:
            report.copies.append([f"{file.where} ({file.part})" for file in group])
            report.copies_across += len({file.part for file in group}) > 1


def _as_prepared(batch: Sequence[tuple[_NamedFile, Any]]) -> list[Any]:
    return [found for _, found in batch]


def _add_bad_file(report: Report, file: _NamedFile, error: Exception) -> None:
    if isinstance(error, FileNotFoundError):
        report.missing += 1
        reason = "broken link" if os.path.islink(file.path) else why_missing(file.path)
    else:  # a damaged file can raise anything, and must not end the check
        report.unreadable += 1
        said = error.strerror if isinstance(error, OSError) else getattr(error, "reason", None)
        reason = one_line(said or error)
    _list(report.bad_files, f"{file.where}: {reason}")


def _reader(level: FileCheck) -> Callable[[str], Any]:
    if level == "none":
        return lambda path: None
    from encoders.sampling import uniform
    from encoders.video import FrameRequest, read_frames

    wanted = 1 if level == "open" else _DECODED
    frames = FrameRequest(indices=lambda count, fps: uniform(count, wanted), stream="fast")
    return lambda path: read_frames(path, {"frames": frames})


# ---- rows ---------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class _Row:
    source: str  # its name, if there are several
    number: int
    videos: list[tuple[str, str]]  # as the manifest says, and the path from here
    prompt: str | None
    generators: list[str]
    split: str | None
    scores: tuple[float, ...] = ()
    raters: dict[str, list[str]] = field(default_factory=dict)
    preferences: tuple[str | None, ...] = ()

    @property
    def where(self) -> str:
        return _where(self.source, self.number)


def _where(source: str, number: int) -> str:
    return f"{source} row {number}" if source else f"row {number}"


def _rows(source: str | os.PathLike[str], name: str, report: Report) -> Iterator[_Row]:
    def on_fault(fault: RowFault) -> None:
        report.wrong_rows += 1
        _list(report.wrong, f"{name}: {fault}" if name else str(fault))

    if not is_pairs(source):
        for row in iter_manifest(source, scale=report.scale, on_fault=on_fault):
            yield _Row(
                source=name,
                number=row.number,
                videos=[(row.video, row.path)],
                prompt=row.prompt,
                split=row.split,
                scores=row.scores,
                generators=[row.generator] if row.generator else [],
                raters={
                    score: [rater for rater, given in ratings.items() if not math.isnan(given)]
                    for score, ratings in row.raters.items()
                },
            )
        return
    report.pairs = True
    for number, values, pair in parse_rows(
        source, parse_pair, required=PAIR_VIDEOS, on_fault=on_fault
    ):
        videos = [read_video(number, values, name) for name in PAIR_VIDEOS]
        yield _Row(
            source=name,
            number=number,
            prompt=pair.prompt,
            split=pair.split,
            videos=list(zip(videos, (pair.video_a, pair.video_b))),
            generators=[g for g in (pair.generator_a, pair.generator_b) if g],
            preferences=pair.preferences,
        )


def _count(counts: dict[str, int], name: str) -> None:
    counts[name] = counts.get(name, 0) + 1


def _list(lines: list[Any], line: Any) -> None:
    if len(lines) < LISTED:
        lines.append(line)


class _Collector:
    """Counts what the rows hold; keeps 8 bytes of each score, prompt, video and generator."""

    def __init__(self, report: Report) -> None:
        self.report, self.leaks = report, Leaks()
        self._values: dict[tuple[str, str], array[float]] = {}
        self._sums: dict[tuple[str, str], list[float]] = {}
        self._sources: dict[str, int] = {}
        self._keys = array("Q")  # of a row's videos with its prompt
        self._numbers, self._source_of = array("Q"), array("L")

    def add(self, row: _Row, part: str) -> None:
        report = self.report
        report.rows += 1
        _count(report.parts, part)
        self.leaks.count(part)
        self._add_paths(row, part)
        if row.prompt is None:
            report.without_prompt += 1
        else:
            self.leaks.add(part, "prompts", prompt_key(row.prompt))
        for generator in row.generators:
            known = generator in report.generators or len(report.generators) < MANY_GENERATORS
            _count(report.generators, generator if known else OTHERS)
            self.leaks.add(part, "generators", key_of(generator))
        for name, score in zip(SCORES, row.scores):
            if not math.isnan(score):
                value = report.scale.from_mos(score)
                self._values.setdefault((name, part), array("d")).append(value)
                for generator in row.generators:
                    if generator in report.generators:
                        total = self._sums.setdefault((generator, name), [0, 0.0])
                        total[0] += 1
                        total[1] += value
        for score_name, raters in row.raters.items():
            for rater in raters:
                _count(report.raters.setdefault(score_name, {}), rater)
        for asked, preference in zip(SCORES, row.preferences):
            if preference is not None:
                _count(report.preferences.setdefault(asked, {}), preference)

    def _add_paths(self, row: _Row, part: str) -> None:
        report = self.report
        keys = [video_key(os.path.abspath(path)) for _, path in row.videos]
        for key, (video, _) in zip(keys, row.videos):
            self.leaks.add(part, "videos", key)
            if is_absolute(video):
                report.absolute += 1
                report.first_absolute = report.first_absolute or f"{row.where}: {video}"
            elif ".." in video.replace("\\", "/").split("/"):  # if only on the way
                report.outside += 1
                report.first_outside = report.first_outside or f"{row.where}: {video}"
        self._keys.append(key_of(f"{' '.join(map(str, keys))} {row.prompt}"))
        self._numbers.append(row.number)
        self._source_of.append(self._sources.setdefault(row.source, len(self._sources)))

    def finish(self) -> None:
        report = self.report
        report.videos = self.leaks.distinct("videos")
        report.prompts = self.leaks.distinct("prompts")
        self._find_repeats()
        for what in ("prompts", "generators", "videos"):
            report.overlaps += self.leaks.overlaps(what)
        for name in SCORES:
            parts = {p: np.frombuffer(v) for (n, p), v in self._values.items() if n == name}
            if parts:
                report.scores[name] = _scores(parts, report.scale)
        for (generator, of), (count, total) in self._sums.items():
            report.generator_means.setdefault(generator, {})[of] = total / count

    def _find_repeats(self) -> None:
        _, first, of = np.unique(
            np.frombuffer(self._keys, np.uint64), return_index=True, return_inverse=True
        )
        repeats = np.flatnonzero(first[of] != np.arange(len(of)))
        self.report.repeated, names = len(repeats), list(self._sources)
        for again in repeats[:LISTED].tolist():
            row, earlier = (
                _where(names[self._source_of[position]], self._numbers[position])
                for position in (again, int(first[of[again]]))
            )
            self.report.repeats.append(f"{row} repeats {earlier}")


def bin_edges(scale: Scale) -> np.ndarray:
    """The edges of a histogram's bins, (BINS + 1,)."""
    half = (scale.high - scale.low) / (BINS - 1) / 2
    return np.linspace(scale.low - half, scale.high + half, BINS + 1)


def _scores(parts: dict[str, np.ndarray], scale: Scale) -> Scores:
    values, edges = np.concatenate(list(parts.values())), bin_edges(scale)
    return Scores(
        count=len(values),
        distinct=len(sorted_unique(values)),
        mean=float(values.mean()),
        std=float(values.std()),
        low=float(values.min()),
        high=float(values.max()),
        histogram={part: np.histogram(v, edges)[0].tolist() for part, v in parts.items()},
    )


# ---- what parts share ---------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Overlap:
    """How much of one part occurs in another.

    Attributes:
        what: The kind of thing that is shared, in the plural.
        part: The part with fewer rows.
        other: The part with more rows.
        shared: Number of distinct things of `part` that `other` has too.
        distinct: Number of distinct things of `part`.
    """

    what: str
    part: str
    other: str
    shared: int
    distinct: int

    def __str__(self) -> str:
        return (
            f"{self.shared:,} of {self.distinct:,} distinct {self.what} of {self.part} also occur "
            f"in {self.other}"
        )


def key_of(text: str) -> int:
    """64 bits of a hash, to compare texts without keeping them."""
    return int.from_bytes(
        blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little"
    )


def prompt_key(prompt: str) -> int:
    """The key of a prompt, equal for prompts that differ in case or white space only."""
    return key_of(" ".join(unicodedata.normalize("NFC", prompt).casefold().split()))


def video_key(video: str) -> int:
    """The key of a path, equal for two ways of writing it that need no look at the disk."""
    return key_of(f"video {posixpath.normpath(spelling(video))}")


def place_key(video: str, root: str) -> int:
    """The key of a path from an absolute folder, equal for a relative and an absolute one."""
    return video_key(os.path.join(root, video))


def sorted_unique(values: np.ndarray) -> np.ndarray:
    """The different values, ascending.

    As `numpy.unique`, which keeps a hash table of some hundred bytes per value.
    """
    values = np.sort(values)
    new = np.ones(len(values), bool)
    np.not_equal(values[1:], values[:-1], out=new[1:])
    return values[new]


class Leaks:
    """Counts rows by part and keeps keys of what they hold; 8 bytes each."""

    def __init__(self, parts: Iterable[str] = ()) -> None:
        self.rows: dict[str, int] = dict.fromkeys(parts, 0)
        self._keys: dict[str, dict[str, array[int]]] = {}

    def count(self, part: str) -> None:
        """Counts a row of a part."""
        self.rows[part] = self.rows.get(part, 0) + 1

    def add(self, part: str, what: str, key: int) -> None:
        """Notes that a part has a thing."""
        self._keys.setdefault(what, {}).setdefault(part, array("Q")).append(key)

    def distinct(self, what: str) -> int:
        """How many different things there are over all parts."""
        keys = [np.frombuffer(part, np.uint64) for part in self._keys.get(what, {}).values()]
        return len(sorted_unique(np.concatenate(keys))) if keys else 0

    def overlaps(self, what: str) -> list[Overlap]:
        """What every two parts share, where they do, the smaller seen from the larger."""
        of_part = self._keys.get(what, {})
        unique = {
            part: sorted_unique(np.frombuffer(of_part[part], np.uint64))
            for part in self.rows
            if part in of_part
        }
        found = []
        for a, b in combinations(unique, 2):
            part, other = (a, b) if self.rows[a] < self.rows[b] else (b, a)
            shared = len(np.intersect1d(unique[part], unique[other], assume_unique=True))
            if shared:
                found.append(
                    Overlap(
                        what=what, part=part, other=other, shared=shared, distinct=len(unique[part])
                    )
                )
        return found

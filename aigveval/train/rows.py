"""Training rows: rated clips and preference pairs, as the manifests of a run hold them."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

from prompts import parse, render
from prompts.facts import Fact
from prompts.rubric import SCORES

from ..data.manifest import ManifestRow, iter_manifest
from ..data.preference_pairs import Preference, PreferencePair, is_pairs, read_pairs
from ..data.scales import MOS, Scale
from .config import FitConfig, FitError

_T = TypeVar("_T")

UNKNOWN = (math.nan,) * len(SCORES)

_TARGETS: Mapping[Preference | None, float] = {"A": 1.0, "same": 0.0, "B": -1.0, None: math.nan}


# ---- clips --------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainingRow:
    """A clip with the scores that are known of it, and maybe with answers to learn.

    Attributes:
        video: Path of the file.
        prompt: What it was generated from, or None.
        scores: In the order of ``prompts.rubric.SCORES``, on 1-5; NaN where unknown.
        group: Label of rows that belong together (a ladder source, a prompt), or None.
        generator: Name of the model that made the clip, or None.
        weight: Weight in the loss, above 0.
        answers: Texts in different words; empty where only the scores are known.
        clip_length: In the unit of their times; None where unknown.
        facts: Of the clip, with times in seconds; empty where nothing was measured.
    """

    video: str
    prompt: str | None
    scores: tuple[float, ...]
    group: str | None = None
    generator: str | None = None
    weight: float = 1.0
    answers: tuple[str, ...] = ()
    clip_length: float | None = None
    facts: tuple[Fact, ...] = ()

    @classmethod
    def of(cls, row: ManifestRow, scores: Sequence[float]) -> TrainingRow:
        """The clip of a manifest's row with these scores."""
        return cls(
            video=row.path,
            prompt=row.prompt,
            scores=tuple(scores),
            group=row.group,
            generator=row.generator,
            weight=row.weight,
        )

    def without(self, dimensions: Collection[str]) -> TrainingRow:
        """The row without what its answers and facts say of some dimensions."""
        return replace(
            self,
            answers=tuple(_shortened(text, dimensions) for text in self.answers),
            facts=tuple(fact for fact in self.facts if fact.dimension not in dimensions),
        )


def _shortened(text: str, dimensions: Collection[str]) -> str:
    answer = parse(text)
    kept = [name for name in SCORES if name not in dimensions]
    return text if answer.problems else render(answer.about(kept))


def read_training_manifest(path: str | Path, *, scale: Scale = MOS) -> list[TrainingRow]:
    """Read a manifest whose rows have at least one score each.

    Args:
        path: File, folder or Hub id in the form that `aigveval.data.manifest` describes.
        scale: That its scores are on.

    Raises:
        ManifestError: The file cannot be read, or a row is not as described; names the row.
    """
    rows = iter_manifest(path, scale=scale, need_score=True)
    return [TrainingRow.of(row, row.scores) for row in rows]


# ---- preference pairs ---------------------------------------------------------------------------


def preference_targets(pair: PreferencePair) -> tuple[float, ...]:
    """By the order of `SCORES`: 1 where the first was preferred, -1 the second, 0 neither, NaN."""
    return tuple(_TARGETS[preference] for preference in pair.preferences)


def sides(pair: PreferencePair) -> tuple[TrainingRow, TrainingRow]:
    """The two clips of a pair, as rows without scores."""
    first, second = (
        TrainingRow(
            video=video,
            prompt=pair.prompt,
            scores=UNKNOWN,
            generator=generator,
            weight=pair.weight,
        )
        for video, generator in ((pair.video_a, pair.generator_a), (pair.video_b, pair.generator_b))
    )
    return first, second


def clip_key(row: TrainingRow) -> tuple[str, str | None]:
    """What identifies a clip of preference pairs: each is scored once, whatever pairs it is in."""
    return row.video, row.prompt


# ---- the manifests of a run ---------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Part:
    """The contents of one manifest, of clips or of pairs.

    Attributes:
        path: Of the manifest.
        name: Short and unique, for logs and metrics.
        rows: Rated clips.
        pairs: Preference pairs.
    """

    path: str
    name: str
    rows: list[TrainingRow] = field(default_factory=list)
    pairs: list[PreferencePair] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.rows) + len(self.pairs)

    @property
    def videos(self) -> list[str]:
        """The files of all rows and pairs."""
        both = [video for pair in self.pairs for video in (pair.video_a, pair.video_b)]
        return [row.video for row in self.rows] + both

    @property
    def clips(self) -> list[TrainingRow]:
        """The rows, and each clip of the pairs once; prompts of like length side by side."""
        # A batch of like lengths needs less padding.
        of_pairs = {clip_key(side): side for pair in self.pairs for side in sides(pair)}
        return sorted([*self.rows, *of_pairs.values()], key=lambda row: len(row.prompt or ""))

    def usable(self, digests: Mapping[str, str], *, unscored: Collection[str] = ()) -> Part:
        """Without unreadable videos, and without rows and pairs that have nothing to learn.

        Args:
            digests: Has all videos that can be read.
            unscored: Dimensions without an encoder; ratings of them are left out.

        Raises:
            FitError: Nothing is left.
        """
        hidden = [column for column, name in enumerate(SCORES) if name in unscored]
        rows = [
            replace(row, scores=_without(row.scores, hidden, math.nan))
            for row in self.rows
            if row.video in digests
        ]
        rows = [row for row in rows if not all(map(math.isnan, row.scores)) or row.answers]
        known = [
            (pair, _without(pair.preferences, hidden, None))
            for pair in self.pairs
            if pair.video_a in digests and pair.video_b in digests
        ]
        pairs = [replace(pair, preferences=left) for pair, left in known if any(left)]
        if not rows and not pairs:
            kind = f"{len(self.pairs)} pairs" if self.pairs else f"{len(self.rows)} videos"
            raise FitError(f"{self.path}: none of its {kind} can be used")
        return replace(self, rows=rows, pairs=pairs)

    def without_answers_on(self, dimensions: Collection[str]) -> Part:
        """Without what the answers say of some dimensions."""
        return replace(self, rows=[row.without(dimensions) for row in self.rows])


def _without(values: Sequence[_T], columns: Collection[int], unknown: _T) -> tuple[_T, ...]:
    return tuple(unknown if i in columns else value for i, value in enumerate(values))


def read_parts(
    paths: Sequence[str],
    *,
    scale: Scale,
    read_rows: Callable[..., Sequence[TrainingRow]] = read_training_manifest,
) -> list[Part]:
    """Read manifests of clips or of pairs.

    Args:
        paths: Files, folders or Hub ids, see `aigveval.data.readers`.
        scale: Of the scores in them.
        read_rows: Reads one of clips.

    Raises:
        ManifestError: One cannot be read, or a row is not as it should be.
    """
    parts: list[Part] = []
    for path in paths:
        name = stem = Path(path).stem
        number = len(parts)
        while name in [part.name for part in parts]:
            number += 1
            name = f"{stem}{number}"
        if is_pairs(path):
            parts.append(Part(path=path, name=name, pairs=read_pairs(path)))
        else:
            with scale.hinted(option="`scale: LOW:HIGH` in the config"):
                rows = list(read_rows(path, scale=scale))
            parts.append(Part(path=path, name=name, rows=rows))
    return parts


def check_parts(config: FitConfig, train: Sequence[Part]) -> None:
    """Raise `FitError` where the options and the kinds of manifests exclude each other."""
    if not any(part.pairs for part in train):
        return
    for name in ("ridge", "align_epochs"):
        if getattr(config, name) and not any(part.rows for part in train):
            raise FitError(f"{name} needs rated clips, and there are preference pairs alone")
    if not config.loss.get("pair"):
        raise FitError("there are preference pairs, but the loss has no weight for pair")
    if config.batch_size % 2:
        raise FitError(f"batch_size must be even with preference pairs, got {config.batch_size}")
    if config.group_batches:
        raise FitError("group_batches can't be combined with preference pairs")

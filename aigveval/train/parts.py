"""The manifests of a run: read, encoded, and without what can't be used."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

from ..data.preference_pairs import PreferencePair, is_pairs, read_pairs
from ..data.scales import Scale
from prompts.rubric import SCORES

from .rows import TrainingRow, read_training_manifest
from .config import FitConfig, FitError
from .preferences import distinct_sides

_T = TypeVar("_T")


@dataclass(frozen=True, kw_only=True)
class Part:
    """The contents of one manifest, of clips or of pairs.

    Attributes:
        path: Of the manifest.
        name: Short and of its own, for what is printed and measured.
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
        sides = [video for pair in self.pairs for video in (pair.video_a, pair.video_b)]
        return [row.video for row in self.rows] + sides

    @property
    def clips(self) -> list[TrainingRow]:
        """The rows, and each clip of the pairs once; those of like length side by side."""
        # A batch of like lengths needs less padding.
        clips = self.rows + distinct_sides(self.pairs)
        return sorted(clips, key=lambda row: len(row.prompt or ""))

    def usable(self, digests: Mapping[str, str], *, unscored: Collection[str] = ()) -> Part:
        """Without rows and pairs of videos that can't be read, and that nothing is known of.

        Args:
            digests: Has all videos that can be read.
            unscored: Dimensions that no encoder looks at; what people said of them is left out.

        Raises:
            FitError: Nothing is left.
        """
        hidden = [column for column, name in enumerate(SCORES) if name in unscored]
        rows = [
            replace(row, scores=_without(row.scores, hidden, math.nan))
            for row in self.rows if row.video in digests
        ]
        rows = [
            row for row in rows
            if not all(map(math.isnan, row.scores)) or bool(getattr(row, "answers", None))
        ]
        known = [
            (pair, _without(pair.preferences, hidden, None)) for pair in self.pairs
            if pair.video_a in digests and pair.video_b in digests
        ]
        pairs = [replace(pair, preferences=left) for pair, left in known if any(left)]
        if not rows and not pairs:
            kind = f"{len(self.pairs)} pairs" if self.pairs else f"{len(self.rows)} videos"
            raise FitError(f"{self.path}: none of its {kind} can be used")
        return replace(self, rows=rows, pairs=pairs)


def _without(values: Sequence[_T], columns: Collection[int], unknown: _T) -> tuple[_T, ...]:
    return tuple(unknown if i in columns else value for i, value in enumerate(values))


def read_parts(
    paths: Sequence[str], *, scale: Scale,
    read_rows: Callable[..., Sequence[TrainingRow]] = read_training_manifest,
) -> list[Part]:
    """Read manifests of clips or of pairs.

    Args:
        paths: Files, folders or Hub ids, see `aigveval.data.readers`.
        scale: Of the scores in them.
        read_rows: Reads one of clips.

    Raises:
        aigveval.data.readers.ManifestError: One can't be read, or a row isn't as it should be.
    """
    parts: list[Part] = []
    for path in paths:
        stem = Path(path).stem
        name = stem if stem not in [part.name for part in parts] else f"{stem}{len(parts) + 1}"
        if is_pairs(path):
            parts.append(Part(path=path, name=name, pairs=read_pairs(path)))
        else:
            rows = read_rows(path, scale=scale)
            parts.append(Part(path=path, name=name, rows=list(rows)))
    return parts


def check_parts(config: FitConfig, train: Sequence[Part]) -> None:
    """Raise `FitError` where a config doesn't go with the kinds of manifests that it names."""
    if not any(part.pairs for part in train):
        return
    if config.align_epochs and not any(part.rows for part in train):
        raise FitError("align_epochs needs rated clips, and there are preference pairs alone")
    if not config.loss.get("pair"):
        raise FitError("there are preference pairs, but the loss has no weight for pair")
    if config.batch_size % 2:
        raise FitError(f"batch_size must be even with preference pairs, got {config.batch_size}")
    if config.group_batches:
        raise FitError("group_batches can't be combined with preference pairs")

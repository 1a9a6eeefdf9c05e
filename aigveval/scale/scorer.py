"""Scores as columns beside the paths of videos."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from ..assessment import Assessment
from ..data.manifest import Clip
from ..inference.assessor import Assessor, load
from ..reports.results import csv_columns, to_flat
from .batches import Faults, beside, clips_of, fetched

_TEXTS = ("model", "version", "error", "warnings", "defects", "problems", "evidence", "advice")


class Scorer:
    """Scores the videos that a batch of columns names; for `map_batches` of Ray Data.

    The model is loaded when an object is made, in the process that works, and all that is given
    can be pickled.

    Args:
        model: as of `aigveval.load`.
        prefix: begins the names of the columns that are added.
        make: in place of `aigveval.load`.
        **options: of `aigveval.load`: `device`, `dtype`, `batch_size`, `workers`, `explain`,
            `contributions`.

    Raises:
        ModelError: as `aigveval.load`.
    """

    def __init__(
        self,
        model: str | os.PathLike[str] = "lite",
        *,
        prefix: str = "",
        make: Callable[..., Assessor] = load,
        **options: Any,
    ) -> None:
        self._assessor = _fetching(make(model, **options))
        self._prefix = prefix
        self._faults = Faults("assessed")

    def __call__(self, batch: Mapping[str, Any]) -> dict[str, Any]:
        """Scores a batch.

        Args:
            batch: columns by name, each of b values: `video`, paths or addresses that fsspec reads
                (`s3://bucket/a.mp4`); maybe `prompt` and `fps`; others. For `video` and `prompt`
                there are other names, as in manifests.

        Returns:
            The batch with the columns of a CSV file of results. Numbers are float64, NaN where
            there is none; texts are empty where there is none. `error` says why a video has no
            scores.

        Raises:
            InputError: when no column names videos, or one that is to be added is there.
            AssessmentError: when this object has scored no video yet, and four could not be for
                another reason than the videos.
        """
        tried = list(self._assessor.try_many(clips_of(batch)))
        self._faults.note([outcome.error for outcome in tried])
        rows = [to_flat(self._assessor.row(outcome)) for outcome in tried]
        assessor = self._assessor
        extras = ["familiarity"] + ["explanation", "evidence"] * assessor.explain
        extras += ["contributions"] * (assessor.explain or assessor.contributions)
        names = [name for name in csv_columns(extras) if name not in ("video", "prompt")]
        found = {name: _column(name, [row.get(name) for row in rows]) for name in names}
        return beside(batch, found, self._prefix)


def _column(name: str, values: Sequence[Any]) -> np.ndarray:
    if name in _TEXTS or name.startswith("explanation_"):
        return np.array([value or "" for value in values], dtype=object)
    return np.array([np.nan if value is None else value for value in values], dtype=np.float64)


class ScoreClips:
    """Scores clips in a process of a cluster; see `cluster.run`.

    Args:
        make: gives the assessor.
        name: the field `model` of the rows.
        **options: of `make`.
    """

    def __init__(self, make: Callable[..., Assessor], name: str, **options: Any) -> None:
        self._assessor = _fetching(make(**options))
        self._assessor.name = name

    def __call__(self, clips: Sequence[Clip]) -> Iterator[tuple[Assessment, Exception | None]]:
        """Gives the row of each clip, in order, and the error behind it."""
        for outcome in self._assessor.try_many(clips):
            yield self._assessor.row(outcome), outcome.error


def _fetching(assessor: Assessor) -> Assessor:
    """A copy of an assessor that takes addresses too."""
    assessor = copy.copy(assessor)
    assessor.opened = fetched
    return assessor

"""Encoder tokens as columns beside the paths of videos."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from encoders.base import Encoder as TokenEncoder
from encoders.registry import create_encoder, resolve_name
from encoders.video import VideoError

from ..batching import Outcome, stop_at_our_fault
from ..data.manifest import Clip
from ..errors import reason_of
from ..features.export import FeatureFolder, FeatureRow, Tokens, encode_clips, row_of
from ..model.precision import find_device
from .batches import Faults, beside, clips_of, fetched
from .cluster import Cluster, GivenUp

Choice = tuple[str, Mapping[str, Any]]  # name and options of an encoder


class Encoder:
    """Encodes the videos that a batch of columns names; for `map_batches` of Ray Data.

    The encoder is made when an object is made, in the process that works, and all that is given
    can be pickled.

    Args:
        encoder: name as of `aigveval features`, such as `slowfast` or `motion_slowfast`.
        options: of the encoder.
        pooled: give the mean over the tokens in their place.
        prefix: begins the names of the columns that are added.
        device: as of `aigveval.load`.
        batch_size, workers: as of `aigveval.features.export.encode_clips`.

    Raises:
        EncoderError: when there is no such encoder.
        ModelError: when there is no such device.
        WeightsError: when its weights can be neither found nor fetched.
    """

    def __init__(
        self,
        encoder: str,
        *,
        options: Mapping[str, Any] | None = None,
        pooled: bool = False,
        prefix: str = "",
        device: str | None = None,
        batch_size: int = 1,
        workers: int = 2,
    ) -> None:
        made = create_encoder(resolve_name(encoder), **(options or {}))
        self._shape = (made.spec.num_tokens, made.spec.dim)
        self._encode = partial(
            encode_clips,
            encoders={made.spec.name: made},
            batch_size=batch_size,
            workers=workers,
            device=find_device(device),
            opened=fetched,
        )
        self._pooled, self._prefix = pooled, prefix
        self._faults = Faults("encoded")

    def __call__(self, batch: Mapping[str, Any]) -> dict[str, Any]:
        """Encodes a batch of rows, as `Scorer` has them.

        Returns:
            The batch with `tokens`, float32 (b, k, d), or `pooled` (b, d), where a video that
            can't be encoded has NaN; and `error`, empty where there is none.

        Raises:
            InputError: when no column names videos, or one that is to be added is there.
            AssessmentError: as `Scorer`.
        """
        outcomes = list(self._encode(clips_of(batch)))
        self._faults.note([outcome.error for outcome in outcomes])
        tokens = np.full((len(outcomes), *self._shape), np.nan, np.float32)
        for row, outcome in zip(tokens, outcomes):
            for own in (outcome.result or {}).values():
                row[:] = own.numpy()
        errors = ["" if one.error is None else reason_of(one.error) for one in outcomes]
        name, values = ("pooled", tokens.mean(1)) if self._pooled else ("tokens", tokens)
        columns = {name: values, "error": np.array(errors, dtype=object)}
        return beside(batch, columns, self._prefix)


class EncodeClips:
    """Encodes clips in a process of a cluster; see `Cluster.run`."""

    def __init__(self, choices: Sequence[Choice], **options: Any) -> None:
        made = [create_encoder(name, **own) for name, own in choices]
        self._encoders: dict[str, TokenEncoder] = {one.spec.name: one for one in made}
        self._options = options

    def __call__(
        self, clips: Sequence[Clip]
    ) -> Iterator[tuple[FeatureRow, Tokens | None, Exception | None]]:
        """Gives the row of each clip, in order, its tokens, and the error behind it."""
        for outcome in encode_clips(clips, self._encoders, opened=fetched, **self._options):
            yield row_of(outcome), outcome.result, outcome.error


def features_on_cluster(
    cluster: Cluster,
    clips: Sequence[Clip],
    choices: Sequence[Choice],
    folder: FeatureFolder,
    *,
    batch_size: int = 1,
    workers: int = 2,
) -> Generator[FeatureRow, None, None]:
    """Has clips encoded into a folder, yielding their rows as they come.

    Args:
        cluster: connected.
        clips: with whole paths or addresses, see `batches.for_other_machines`.
        choices: the encoders.
        folder: where the tokens go; on this machine.
        batch_size, workers: as of `encode_clips`.

    Raises:
        UsageError: as `Cluster.run`.
        FeaturesError, AssessmentError: as `extract_features`.
    """
    options = {"batch_size": batch_size, "workers": workers, "device": cluster.device}
    made = partial(EncodeClips, list(choices), **options)

    def outcomes() -> Generator[Outcome[FeatureRow, Tokens], None, None]:
        tokens: Tokens | None
        error: Exception | None
        for number, found in cluster.run(made, clips, ahead=2 * batch_size + workers):
            if isinstance(found, GivenUp):
                clip, tokens = clips[number], None
                error = VideoError(clip.video, found.reason)
                row = row_of(Outcome(item=clip, result=None, error=error, seconds=0.0))
            else:
                row, tokens, error = found
            yield Outcome(item=row, result=tokens, error=error, seconds=row.seconds)

    for outcome in stop_at_our_fault(outcomes(), batch_size=batch_size, deed="encoded"):
        folder.add(outcome.item, outcome.result)
        yield outcome.item

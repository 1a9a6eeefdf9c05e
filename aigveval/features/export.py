"""The tokens of many videos: from clips to a `FeatureFolder`, one row after the other."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Mapping, Sequence

import torch
from torch import Tensor

from encoders.base import Encoder
from encoders.video import VideoError, read_views

from ..inference.batching import run_batches, stop_at_our_fault
from ..data.manifest import Clip, check_exists
from ..errors import reason_of
from .folder import FeatureFolder, FeatureRow, Tokens
from ..model.projector import join_tokens


def extract_features(
    clips: Iterable[Clip],
    encoders: Mapping[str, Encoder],
    folder: FeatureFolder,
    *,
    batch_size: int = 1,
    workers: int = 2,
    device: str | torch.device = "cpu",
) -> Generator[FeatureRow, None, None]:
    """Encode clips into a folder, yielding a row per clip in order, errors included.

    Each clip is decoded once for all encoders. What is written are the tokens that a model sees:
    joined with the clip's prompt where the encoder reads it.

    Args:
        clips: Read lazily.
        encoders: Name to encoder; put into eval mode and moved to `device`.
        folder: Made for these encoders.
        batch_size: Clips per forward pass. With 1 the tokens are those of live scoring bit for
            bit; larger ones differ in the last digits, and pay off on a GPU only.
        workers: Threads that decode and preprocess meanwhile.
        device: Where the encoders run.

    Raises:
        FeaturesError: The folder can't be written.
        AssessmentError: No clip of the first batch gets through, and not because of the clips; see
            `Assessor.score_many`.
    """
    for encoder in encoders.values():
        encoder.eval().to(device)

    def prepare(clip: Clip) -> dict[str, Tensor]:
        problem = clip.problem or check_exists(clip).problem
        if problem:
            raise VideoError(clip.video, problem)
        return read_views(clip.path, encoders)

    @torch.inference_mode()
    def compute(
        batch: Sequence[tuple[Clip, Mapping[str, Tensor]]]
    ) -> list[Tokens | Exception]:
        prompts = [clip.prompt for clip, _ in batch]
        joined = {}
        for name, encoder in encoders.items():
            view = torch.stack([views[name] for _, views in batch]).to(device)
            joined[name] = join_tokens(encoder, encoder.encode(view), prompts).cpu()
        return [_checked({name: joined[name][n] for name in joined}) for n in range(len(batch))]

    outcomes = run_batches(
        clips, prepare=prepare, compute=compute, batch_size=batch_size, workers=workers
    )
    for outcome in stop_at_our_fault(outcomes, batch_size=batch_size, deed="encoded"):
        error = None if outcome.error is None else reason_of(outcome.error)
        row = FeatureRow(
            video=outcome.item.video, prompt=outcome.item.prompt,
            seconds=round(outcome.seconds, 3), error=error,
        )
        folder.add(row, outcome.result)
        yield row


def _checked(tokens: Tokens) -> Tokens | Exception:
    for name, value in tokens.items():
        if not torch.isfinite(value).all():
            return ValueError(f"{name} gave tokens that are not finite")
    return {name: value.contiguous() for name, value in tokens.items()}

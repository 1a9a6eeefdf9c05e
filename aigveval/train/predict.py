"""Scores of many clips from the feature cache, as cross-validation needs them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from encoders.base import Encoder
from prompts.rubric import SCORES

from ..features.cache import FeatureCache, extract
from ..model.modeling import AIGVEvalModel
from ..model.processing import AIGVEvalProcessor
from ..model.projector import pack_features
from .dataset import Collator, QualityDataset
from .rows import TrainingRow


def predict(
    model_folder: str | os.PathLike[str],
    rows: Sequence[TrainingRow],
    cache: FeatureCache,
    *,
    batch_size: int = 32,
    workers: int = 1,
    device: str | torch.device = "cpu",
    progress: bool = True,
) -> NDArray[np.float32]:
    """Score clips with a trained model; what the cache lacks is encoded first.

    Args:
        model_folder: As `FitResult.model`.
        rows: The clips; their own scores are not used.
        cache: Where the features are.
        batch_size: Rows per forward pass.
        workers: Threads that decode videos.
        device: Of encoders and model.
        progress: Show a bar while videos are encoded.

    Returns:
        (n, 4) on 1-5, columns by ``prompts.rubric.SCORES``. NaN for videos that cannot be read,
        and in the semantic column for rows without a prompt.
    """
    processor = AIGVEvalProcessor.from_pretrained(os.fspath(model_folder))
    model = AIGVEvalModel.from_pretrained(os.fspath(model_folder))
    model.load_encoders(processor.encoders)  # with what they were trained to, if they were
    encoders = [cast(Encoder, encoder) for encoder in model.encoders.values()]
    model.encoders = nn.ModuleDict()
    model.to(device)  # type: ignore[arg-type]
    digests = extract(
        [row.video for row in rows], encoders, cache,
        workers=workers, device=device, progress=progress,
    ).digests
    for encoder in encoders:
        encoder.to("cpu")
    # like lengths side by side need less padding
    order = sorted(
        (i for i, row in enumerate(rows) if row.video in digests),
        key=lambda i: len(rows[i].prompt or ""),
    )
    dataset = QualityDataset([[rows[i] for i in order]], digests, encoders, cache)
    collate = Collator(encode_prompts=processor.encode_prompts, pack_features=pack_features)
    result = np.full((len(rows), len(SCORES)), np.nan, dtype=np.float32)
    for start in range(0, len(order), batch_size):
        part = range(start, min(start + batch_size, len(order)))
        batch = collate([dataset[position] for position in part])
        del batch["labels"]
        output = model.score(**{name: value.to(device) for name, value in batch.items()})
        assert output.scores is not None
        result[[order[position] for position in part]] = output.scores.cpu().numpy()
    return result

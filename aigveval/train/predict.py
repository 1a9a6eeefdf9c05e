"""Scores of many clips from the feature cache, as cross-validation needs them."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from encoders.base import Encoder
from encoders.onednn import use_onednn
from prompts.rubric import SCORES

from ..features.cache import FeatureCache, extract
from ..model.base import ScorerModel
from ..model.modeling import AIGVEvalModel
from ..model.processing import AIGVEvalProcessor
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
    use_onednn(model.model.language_model)
    digests = extract(
        [row.video for row in rows],
        encoders,
        cache,
        workers=workers,
        device=device,
        progress=progress,
    ).digests
    for encoder in encoders:
        encoder.to("cpu")
    # like lengths side by side need less padding
    order = sorted(
        (i for i, row in enumerate(rows) if row.video in digests),
        key=lambda i: len(rows[i].prompt or ""),
    )
    dataset = QualityDataset([[rows[i] for i in order]], digests, encoders, cache)
    collate = Collator(encode_prompts=processor.encode_prompts)
    result = np.full((len(rows), len(SCORES)), np.nan, dtype=np.float32)
    if order:
        result[order], _ = score_rows(model, dataset, collate, batch_size=batch_size, device=device)
    return result


def score_rows(
    model: ScorerModel,
    dataset: QualityDataset,
    collate: Callable[..., dict[str, Any]],
    *,
    batch_size: int,
    device: str | torch.device,
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Scores (n, 4) of all rows of a data set, which has some, and their labels (n, 13)."""
    scores, labels = [], []
    for start in range(0, len(dataset), batch_size):
        batch = collate([dataset[i] for i in range(start, min(start + batch_size, len(dataset)))])
        labels.append(batch.pop("labels").numpy())
        found = model.score(**on_device(batch, device)).scores
        assert found is not None
        scores.append(found.float().cpu().numpy())
    return np.concatenate(scores), np.concatenate(labels)


def on_device(batch: Mapping[str, Any], device: str | torch.device) -> dict[str, Any]:
    """A batch with its tensors on a device."""
    return {
        name: value.to(device) if isinstance(value, torch.Tensor) else value
        for name, value in batch.items()
    }

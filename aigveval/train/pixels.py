"""Training rows of a model that sees frames itself: decoded in every epoch, not cached as tokens.

Axis legend: b batch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..features.cache import FeatureCache
from ..model.processing_vlm import VlmProcessor

from .answers import WithAnswers
from .rows import TrainingRow
from .dataset import QualityDataset, labels_of


class VlmDataset(QualityDataset):
    """`QualityDataset` whose items have ``views``, what the model sees of a clip, and no tokens.

    Args:
        rows, digests: See `QualityDataset`.
        cache: Its file digests; nothing else is in it.
        processor: Decodes clips.
        **options: Of `QualityDataset`.
    """

    decodes = True
    kept_items = 8  # a clip's pixels are some 100 MB at the default sizes

    def __init__(
        self, rows: Sequence[Sequence[TrainingRow]], digests: Mapping[str, str],
        cache: FeatureCache, *, processor: VlmProcessor, **options: Any,
    ) -> None:
        super().__init__(rows, digests, [], cache, **options)
        self.processor = processor

    def _read(self, video: str, seed: int) -> dict[str, Tensor]:
        return self.processor.encode_video(video)

    def _blank_views(self) -> dict[str, Tensor]:
        return self.processor.blank()


class VlmAnswerDataset(WithAnswers, VlmDataset):
    """`VlmDataset` whose items have answers."""


@dataclass(frozen=True, kw_only=True)
class VlmCollator:
    """Items of `VlmDataset` to the model's inputs plus ``labels`` (b, 13).

    Attributes:
        encode_prompts: `VlmProcessor.encode_prompts`.
    """

    encode_prompts: Callable[..., Mapping[str, Any]]

    def __call__(self, items: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        prompts, clips = ([item[name] for item in items] for name in ("prompt", "views"))
        labels = torch.tensor(labels_of(items), dtype=torch.float32)
        return {**self.encode_prompts(prompts, clips), "labels": labels}

"""Reusing the KV cache of the prefix that the questions about all clips share.

Up to the first placeholder the question is the same for all clips, and a causal LM's keys and
values there depend on nothing that comes after. So they are computed once, and every batch starts
from a copy of them.

Axis legend: b batch, s sequence.
"""

from typing import Any

import torch
from torch import Tensor
from transformers import Cache

from .base import AIGVEvalOutput, ScorerModel
from .library_internals import cache_of, repeated


class PrefixCache:
    """Calls a model, with the KV cache of the prefix where all rows share one.

    The output is that of `model(**batch)` but for rounding, the cache included if it was asked for.
    LLMs that keep anything but keys and values, as state space models do, compute the prefix too.

    Args:
        model: An `AIGVEvalModel` in eval mode. Its weights must not change any more.
    """

    def __init__(self, model: ScorerModel) -> None:
        self.model = model
        self._kept: tuple[list[int], Cache] | None = None
        self._usable = True

    def __call__(
        self, *, input_ids: Tensor, attention_mask: Tensor, slot_positions: Tensor, **rest: Any
    ) -> AIGVEvalOutput:
        """See `AIGVEvalModel.forward`; all is given by name."""
        start = self._start(input_ids, attention_mask) if self._usable else []
        cache = self._cache(start, input_ids) if start else None
        if cache is not None:
            rest["cache"] = cache
            input_ids, slot_positions = input_ids[:, len(start) :], slot_positions - len(start)
        return self.model(
            input_ids=input_ids,
            attention_mask=attention_mask,
            slot_positions=slot_positions,
            **rest,
        )

    def _start(self, input_ids: Tensor, attention_mask: Tensor) -> list[int]:
        """The tokens that all rows begin with; none where there is padding before them."""
        is_feature = input_ids.eq(self.model.config.feature_token_id)
        length = int(is_feature.int().argmax(1).min()) if len(input_ids) else 0
        start = input_ids[:1, :length]
        shared = bool((input_ids[:, :length] == start).all() and attention_mask[:, :length].all())
        return start[0].tolist() if shared and length else []

    @torch.no_grad()
    def _cache(self, start: list[int], input_ids: Tensor) -> Cache | None:
        """A copy of the start's keys and values for each row."""
        kept = self._kept
        if kept is None or kept[0] != start:
            found = self.model.model(input_ids[:1, : len(start)], use_cache=True)
            kept = self._kept = (start, cache_of(found))
        cache = repeated(kept[1], len(input_ids))  # the model adds to it
        if cache is None:
            self._usable, self._kept = False, None
        return cache

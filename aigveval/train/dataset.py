"""Cached features with their prompts, as batches, and the order of an epoch.

Whatever is random here (order, swapped and dropped prompts) is a function of the seed, the epoch
and the row alone, so that a resumed run sees exactly what an uninterrupted one would have seen.

Axis legend: b batch, k tokens of one encoder, d its width, K tokens of all encoders, D the widest.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from aigveval.data.cache import FeatureCache
from aigveval.fusion import join_tokens
from encoders.base import Encoder
from prompts.rubric import SCORES

from .data import TrainingRow

_SEMANTIC, _OVERALL = SCORES.index("semantic"), SCORES.index("overall")

# Columns of the label tensor: scores (NaN where unknown), weight, group (-1: none), manifest.
WEIGHT, GROUP, SOURCE = len(SCORES), len(SCORES) + 1, len(SCORES) + 2


class QualityDataset(Dataset[dict[str, Any]]):
    """Rows with their cached features; item ``(epoch, i)`` is row i as that epoch sees it.

    Args:
        rows: One list per manifest; its number is the item's ``source``.
        digests: `TrainingRow.video` -> SHA-256, from `aigveval.data.cache.extract`.
        encoders: In the order of the model's config.
        cache: Holds the tokens of every row.
        mismatch_probability: Chance that an epoch shows a row with a prompt of other rows. Its
            semantic score is then drawn from `mismatch_scores`, its overall score is unknown, the
            other two stay. So the model learns to read the prompt.
        mismatch_scores: Lowest and highest semantic score of a wrong prompt.
        prompt_dropout: Chance that an epoch shows a row without its prompt: semantic and overall
            score are then unknown. So the model learns to do without.
        seed: Of these two draws.
    """

    def __init__(
        self,
        rows: Sequence[Sequence[TrainingRow]],
        digests: Mapping[str, str],
        encoders: Sequence[Encoder],
        cache: FeatureCache,
        *,
        mismatch_probability: float = 0.0,
        mismatch_scores: tuple[float, float] = (1.0, 1.5),
        prompt_dropout: float = 0.0,
        seed: int = 0,
    ) -> None:
        self.rows = [row for part in rows for row in part]
        self.sources = [number for number, part in enumerate(rows) for _ in part]
        self.digests, self.encoders, self.cache = digests, list(encoders), cache
        self.mismatch_probability, self.mismatch_scores = mismatch_probability, mismatch_scores
        self.prompt_dropout, self.seed = prompt_dropout, seed
        numbers: dict[str, int] = {}
        self.groups = [
            -1 if row.group is None else numbers.setdefault(row.group, len(numbers))
            for row in self.rows
        ]
        # A prompt that some row gives to the same file or group is no wrong prompt for this one.
        self._own: dict[str | int, set[str]] = {}
        for i, row in enumerate(self.rows):
            for key in (digests[row.video], self.groups[i]):
                if row.prompt and key != -1:
                    self._own.setdefault(key, set()).add(row.prompt)
        self._prompts = sorted({row.prompt for row in self.rows if row.prompt})

    def __len__(self) -> int:
        return len(self.rows)

    def tokens(self, index: int, prompt: str | None) -> list[Tensor]:
        """Each encoder's tokens (k, d) of a row's clip, joined with a prompt."""
        row = self.rows[index]
        joined = []
        for encoder in self.encoders:
            stored = self.cache.get(self.digests[row.video], encoder)
            if stored is None:
                raise RuntimeError(
                    f"{row.video}: the cached tokens of {encoder.spec.name} are gone or damaged; "
                    "start again to compute them"
                )
            with torch.no_grad():
                joined.append(join_tokens(encoder, stored[None], [prompt])[0])
        return joined

    def __getitem__(self, key: int | tuple[int, int]) -> dict[str, Any]:
        epoch, index = key if isinstance(key, tuple) else (None, key)
        row = self.rows[index]
        prompt, scores = row.prompt, list(row.scores)
        if epoch is not None and prompt is not None:
            random = np.random.default_rng((self.seed, epoch, index))
            draw = random.random()
            if draw < self.mismatch_probability:
                wrong = self._wrong_prompt(index, random)
                if wrong is not None:
                    prompt = wrong
                    scores[_SEMANTIC] = float(random.uniform(*self.mismatch_scores))
                    scores[_OVERALL] = math.nan
            elif draw < self.mismatch_probability + self.prompt_dropout:
                prompt = None
                scores[_SEMANTIC] = scores[_OVERALL] = math.nan
        return {
            "tokens": self.tokens(index, prompt), "prompt": prompt, "scores": scores,
            "weight": row.weight, "group": self.groups[index], "source": self.sources[index],
        }

    def _wrong_prompt(self, index: int, random: np.random.Generator) -> str | None:
        own = self._own.get(self.digests[self.rows[index].video], set()) | self._own.get(
            self.groups[index], set()
        )
        for _ in range(20):
            prompt = self._prompts[random.integers(len(self._prompts))]
            if prompt not in own:
                return prompt
        return None  # practically all rows are about one prompt


@dataclass(frozen=True, kw_only=True)
class Collator:
    """Items of `QualityDataset` to the model's inputs plus ``labels`` (b, 7).

    Attributes:
        encode_prompts: `AIGVEvalProcessor.encode_prompts`.
        pack_features: `aigveval.fusion.pack_features`, one (b, k, d) per encoder to (b, K, D).
    """

    encode_prompts: Callable[..., Mapping[str, Tensor]]
    pack_features: Callable[..., Tensor]

    def __call__(self, items: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
        features, labels = self.features(items)
        return {
            **self.encode_prompts([item["prompt"] for item in items]),
            "features": features, "labels": labels,
        }

    def features(self, items: Sequence[Mapping[str, Any]]) -> tuple[Tensor, Tensor]:
        """Features (b, K, D) and labels (b, 7) alone."""
        labels = [[*i["scores"], i["weight"], i["group"], i["source"]] for i in items]
        per_encoder = zip(*(item["tokens"] for item in items), strict=True)
        features = self.pack_features([torch.stack(tokens) for tokens in per_encoder])
        return features, torch.tensor(labels, dtype=torch.float32)


class EpochSampler(Sampler[tuple[int, int]]):
    """Keys ``(epoch, row)`` of a shuffled epoch; the Trainer calls `set_epoch`.

    Args:
        groups: (n,) group of each row, -1 for none.
        batch_size: Rows per batch of the loader.
        group_size: Above 1, so many rows of a group at most stand together in a batch, where a
            rank loss inside of groups can compare them. 1: plain shuffling.
        seed: Of the order.
    """

    def __init__(
        self, groups: Sequence[int], *, batch_size: int, group_size: int = 1, seed: int = 0
    ) -> None:
        self.groups, self.seed, self.epoch = list(groups), seed, 0
        self.batch_size, self.group_size = batch_size, min(group_size, batch_size)

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch of the next iteration, from 0."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.groups)

    def __iter__(self) -> Iterator[tuple[int, int]]:
        random = np.random.default_rng((self.seed, self.epoch))
        order = random.permutation(len(self.groups)).tolist()
        if self.group_size > 1:
            order = self._in_groups(order, random)
        return iter([(self.epoch, index) for index in order])

    def _in_groups(self, order: Sequence[int], random: np.random.Generator) -> list[int]:
        members: dict[int, list[int]] = {}
        for index in order:
            label = self.groups[index]
            members.setdefault(label if label >= 0 else -1 - index, []).append(index)
        size = self.group_size
        chunks = [m[i: i + size] for m in members.values() for i in range(0, len(m), size)]
        chunks = [chunks[i] for i in random.permutation(len(chunks))]
        result: list[int] = []
        while chunks:
            # The next of the shuffled chunks that fits into the open batch; else one is split.
            room = self.batch_size - len(result) % self.batch_size
            fits = (i for i, chunk in enumerate(chunks[-64:]) if len(chunk) <= room)
            result.extend(chunks.pop(max(len(chunks) - 64, 0) + next(fits, 0)))
        return result

"""Rated clips and preference pairs as batches, and the order of an epoch.

Tokens of frozen encoders come from the cache. Views of encoders in training, and the frames of a
vision-language model, are decoded in every epoch, in the data loader's workers. Everything random
here (order, swapped and dropped prompts, fragments) depends on the seed, the epoch and the row
alone, so that a resumed run sees exactly what an uninterrupted one would have seen.

Axis legend: b batch, k tokens of one encoder, d its width, K tokens of all encoders, D the widest.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from rich.console import Console
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from encoders.base import Encoder
from encoders.video import VideoError, read_views
from prompts.rubric import SCORES

from ..data.preference_pairs import PreferencePair
from ..features.cache import FeatureCache
from ..model.processing_vlm import VlmProcessor
from ..model.projector import join_tokens, pack_features
from .rows import UNKNOWN, TrainingRow, preference_targets, sides

_SEMANTIC, _OVERALL = SCORES.index("semantic"), SCORES.index("overall")

# Columns of the label tensor (b, 13): scores (NaN where unknown), weight, group (-1: none),
# manifest, row of the data set, preference pair (-1: none), its `preference_targets`.
WEIGHT, GROUP, SOURCE, ROW, PAIR = range(len(SCORES), len(SCORES) + 5)
PREFERENCES = slice(PAIR + 1, PAIR + 1 + len(SCORES))

PADDING = -1  # in place of a row's number: a row without weight


class QualityDataset(Dataset[dict[str, Any]]):
    """Rows with their features; item ``(epoch, i)`` is row i as that epoch sees it.

    Args:
        rows: One list per manifest; its number is the item's ``source``.
        digests: `TrainingRow.video` -> SHA-256, from `aigveval.features.cache.extract`.
        encoders: In the order of the model's config.
        cache: Holds the tokens of every row, of the encoders that are not trained.
        pairs: Each becomes two rows behind the others, `pairs_from` on, without scores.
        trained: Names of encoders whose tokens the model computes: items have their ``views``,
            with other random fragments in each epoch, and zeros for tokens.
        answers: Items have an ``answer``, another wording in each epoch; None where the row has
            none, or where the item shows another prompt than its row's, for which it was not
            written.
        mismatch_probability: Probability that an epoch shows a row with a prompt of other rows.
            Its semantic score is then drawn from `mismatch_scores`, its overall score is unknown,
            the other two stay. So the model learns to read the prompt. A pair then becomes its
            first video with its own prompt, preferred on `semantic` to itself with another's.
            Nothing is swapped where no row (or pair) has a semantic score.
        mismatch_scores: Lowest and highest semantic score of a wrong prompt.
        prompt_dropout: Probability that an epoch shows a row or pair without its prompt: semantic
            and overall score are then unknown. So the model learns to score without a prompt.
        seed: Of all draws.
    """

    kept_items = 512  # that stage grpo may keep in memory

    def __init__(
        self,
        rows: Sequence[Sequence[TrainingRow]],
        digests: Mapping[str, str],
        encoders: Sequence[Encoder],
        cache: FeatureCache,
        *,
        pairs: Sequence[PreferencePair] = (),
        trained: Collection[str] = (),
        answers: bool = False,
        mismatch_probability: float = 0.0,
        mismatch_scores: tuple[float, float] = (1.0, 1.5),
        prompt_dropout: float = 0.0,
        seed: int = 0,
    ) -> None:
        self.rows = [row for part in rows for row in part]
        self.pairs, self.pairs_from = list(pairs), len(self.rows)
        self.rows += [side for pair in self.pairs for side in sides(pair)]
        self.sources = [number for number, part in enumerate(rows) for _ in part]
        self.sources += [len(rows)] * (len(self.rows) - self.pairs_from)
        self.digests, self.encoders, self.cache = digests, list(encoders), cache
        self.trained = {e.spec.name: e for e in self.encoders if e.spec.name in trained}
        self.mismatch_scores, self.prompt_dropout = mismatch_scores, prompt_dropout
        self.seed, self.answers = seed, answers
        rated = any(not math.isnan(row.scores[_SEMANTIC]) for row in self.rows)
        compared = any(pair.preferences[_SEMANTIC] for pair in self.pairs)
        self._mismatch = mismatch_probability * rated, mismatch_probability * compared
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
        self._unreadable: set[str] = set()

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def decodes(self) -> bool:
        """Whether videos are decoded for each item."""
        return bool(self.trained)

    def tokens(self, index: int, prompt: str | None) -> list[Tensor]:
        """Each encoder's tokens (k, d) of a row's clip, joined with a prompt."""
        row = self.rows[index]
        joined = []
        for encoder in self.encoders:
            spec = encoder.spec
            if spec.name in self.trained:
                joined.append(torch.zeros(spec.num_tokens, spec.dim))
                continue
            stored = self.cache.get(self.digests[row.video], encoder)
            if stored is None:
                raise RuntimeError(
                    f"{row.video}: the cached tokens of {spec.name} are gone or damaged; "
                    "start again to compute them"
                )
            with torch.no_grad():
                joined.append(join_tokens(encoder, stored[None], [prompt])[0])
        return joined

    def __getitem__(self, key: int | tuple[int, int]) -> dict[str, Any]:
        epoch, index = key if isinstance(key, tuple) else (None, key)
        padding = index == PADDING
        index = max(index, 0)
        shown = self._shown(epoch, index)
        row = self.rows[shown.row]
        item: dict[str, Any] = {
            "tokens": self.tokens(shown.row, shown.prompt),
            "prompt": shown.prompt,
            "scores": shown.scores,
            "weight": row.weight,
            "group": self.groups[index],
            "source": self.sources[index],
            "row": index,
            "pair": self._pair_of(index),
            "preferences": shown.preferences,
        }
        if self.decodes:
            views = self._views(row.video, self._view_seed(epoch, index))
            padding = padding or views is None
            item["views"] = views or self._blank_views()
        if padding:
            item |= {"scores": [math.nan] * len(SCORES), "weight": 0.0, "group": -1, "pair": -1}
        if self.answers:
            own = self.rows[index]
            texts = own.answers if item["weight"] and shown.prompt == own.prompt else ()
            item["answer"] = texts[((epoch or 0) + index) % len(texts)] if texts else None
            item["facts"] = own.facts
        return item

    def _pair_of(self, index: int) -> int:
        return (index - self.pairs_from) // 2 if index >= self.pairs_from else -1

    def _shown(self, epoch: int | None, index: int) -> _Shown:
        row, pair = self.rows[index], self._pair_of(index)
        known = UNKNOWN if pair < 0 else preference_targets(self.pairs[pair])
        shown = _Shown(index, row.prompt, list(row.scores), list(known))
        if epoch is None or row.prompt is None:
            return shown
        first = index if pair < 0 else self.pairs_from + 2 * pair  # both sides draw the same
        random = np.random.default_rng((self.seed, epoch, first))
        draw, mismatch = random.random(), self._mismatch[pair >= 0]
        if draw < mismatch:
            wrong = self.wrong_prompt(first, random)
            if wrong is None:
                return shown
            if pair < 0:
                shown.prompt = wrong
                shown.scores[_SEMANTIC] = float(random.uniform(*self.mismatch_scores))
                shown.scores[_OVERALL] = math.nan
            else:
                shown.row = first
                shown.prompt = row.prompt if index == first else wrong
                shown.preferences = list(UNKNOWN)
                shown.preferences[_SEMANTIC] = 1.0
        elif draw < mismatch + self.prompt_dropout:
            shown.prompt = None
            for values in (shown.scores, shown.preferences):
                values[_SEMANTIC] = values[_OVERALL] = math.nan
        return shown

    def wrong_prompt(self, index: int, random: np.random.Generator) -> str | None:
        """A prompt of other rows; None where practically all rows have one prompt."""
        own = self._own.get(self.digests[self.rows[index].video], set()) | self._own.get(
            self.groups[index], set()
        )
        for _ in range(20):
            prompt = self._prompts[random.integers(len(self._prompts))]
            if prompt not in own:
                return prompt
        return None

    def _view_seed(self, epoch: int | None, index: int) -> int:
        """As in scoring where there is no epoch; else another one in each."""
        if epoch is None:
            return 0
        return int(np.random.default_rng((self.seed, epoch, index, 1)).integers(2**31))

    def _views(self, video: str, seed: int) -> dict[str, Tensor] | None:
        """None where the file cannot be read: it then has no weight, rather than end a run."""
        try:
            return self._read(video, seed)
        except VideoError as error:
            if video not in self._unreadable:
                self._unreadable.add(video)
                Console(stderr=True).print(
                    f"left out of the training: {error}",
                    style="yellow",
                    markup=False,
                    highlight=False,
                    soft_wrap=True,
                )
            return None

    def _read(self, video: str, seed: int) -> dict[str, Tensor]:
        return read_views(video, self.trained, seed=seed)

    def _blank_views(self) -> dict[str, Tensor]:
        black = torch.zeros(1, 3, 64, 64, dtype=torch.uint8)
        return {name: torch.zeros_like(e.preprocess(black)) for name, e in self.trained.items()}


@dataclass
class _Shown:
    """A row as an epoch sees it."""

    row: int  # whose clip
    prompt: str | None
    scores: list[float]
    preferences: list[float]


class VlmDataset(QualityDataset):
    """`QualityDataset` whose items have ``views``, the frames of a clip as a vision-language model
    takes them, and no tokens. They are decoded in every epoch, not cached.

    Args:
        cache: For the files' digests only.
        processor: Decodes clips.
        rows, digests, **options: See `QualityDataset`.
    """

    decodes = True
    kept_items = 8  # a clip's pixels are some 100 MB at the default sizes

    def __init__(
        self,
        rows: Sequence[Sequence[TrainingRow]],
        digests: Mapping[str, str],
        cache: FeatureCache,
        *,
        processor: VlmProcessor,
        **options: Any,
    ) -> None:
        super().__init__(rows, digests, [], cache, **options)
        self.processor = processor

    def _read(self, video: str, seed: int) -> dict[str, Tensor]:
        return self.processor.encode_video(video)

    def _blank_views(self) -> dict[str, Tensor]:
        return self.processor.blank()


def labels_of(items: Sequence[Mapping[str, Any]]) -> list[list[float]]:
    """The rows of the label tensor, see the top of this file."""
    return [
        [
            *i["scores"],
            i["weight"],
            i["group"],
            i["source"],
            i.get("row", PADDING),
            i.get("pair", -1),
            *i.get("preferences", UNKNOWN),
        ]
        for i in items
    ]


def features_of(items: Sequence[Mapping[str, Any]]) -> tuple[Tensor, Tensor]:
    """Items of `QualityDataset` to features (b, K, D) and labels (b, 13)."""
    per_encoder = zip(*(item["tokens"] for item in items), strict=True)
    features = pack_features([torch.stack(tokens) for tokens in per_encoder])
    return features, torch.tensor(labels_of(items), dtype=torch.float32)


@dataclass(frozen=True, kw_only=True)
class Collator:
    """Items of `QualityDataset` to the model's inputs plus ``labels`` (b, 13)."""

    encode_prompts: Callable[..., Mapping[str, Tensor]]  # of `AIGVEvalProcessor`

    def __call__(self, items: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        features, labels = features_of(items)
        prompts = [item["prompt"] for item in items]
        batch: dict[str, Any] = {
            **self.encode_prompts(prompts),
            "features": features,
            "labels": labels,
        }
        if views := items[0].get("views"):
            batch["views"] = {
                name: torch.stack([item["views"][name] for item in items]) for name in views
            }
            batch["text"] = prompts
        return batch


@dataclass(frozen=True, kw_only=True)
class VlmCollator:
    """Items of `VlmDataset` to the model's inputs plus ``labels`` (b, 13)."""

    encode_prompts: Callable[..., Mapping[str, Any]]  # of `VlmProcessor`

    def __call__(self, items: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        prompts, clips = ([item[name] for item in items] for name in ("prompt", "views"))
        labels = torch.tensor(labels_of(items), dtype=torch.float32)
        return {**self.encode_prompts(prompts, clips), "labels": labels}


class EpochSampler(Sampler[tuple[int, int]]):
    """Keys ``(epoch, row)`` of a shuffled epoch; the Trainer calls `set_epoch`.

    Args:
        groups: (n,) group of each row, -1 for none.
        batch_size: Rows per batch of the loader, of all processes together.
        group_size: Above 1, so many rows of a group at most stand together in a batch, where a
            rank loss inside of groups can compare them. 1: plain shuffling.
        pairs_from: Rows from this one on are sides of pairs, two by two, and stay side by side; so
            that no batch parts them, `batch_size` must be even, and `group_size` 1. None: no pairs.
        multiple_of: The epoch is filled up to a multiple of this with rows of no weight.
        seed: Of the order.
    """

    def __init__(
        self,
        groups: Sequence[int],
        *,
        batch_size: int,
        group_size: int = 1,
        pairs_from: int | None = None,
        multiple_of: int = 1,
        seed: int = 0,
    ) -> None:
        self.groups, self.seed, self.epoch = list(groups), seed, 0
        self.batch_size, self.group_size = batch_size, min(group_size, batch_size)
        self.pairs_from = len(self.groups) if pairs_from is None else pairs_from
        self.padding = -len(self.groups) % multiple_of

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch of the next iteration, from 0."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.groups) + self.padding

    def __iter__(self) -> Iterator[tuple[int, int]]:
        random = np.random.default_rng((self.seed, self.epoch))
        order = random.permutation(self.pairs_from).tolist()
        if self.pairs_from < len(self.groups):
            order = self._with_pairs(order, random)
        elif self.group_size > 1:
            order = self._in_groups(order, random)
        return iter([(self.epoch, index) for index in order + [PADDING] * self.padding])

    def _with_pairs(self, order: Sequence[int], random: np.random.Generator) -> list[int]:
        twos = [[order[i], order[i + 1]] for i in range(0, len(order) - 1, 2)]
        twos += [[i, i + 1] for i in range(self.pairs_from, len(self.groups), 2)]
        mixed = [index for i in random.permutation(len(twos)) for index in twos[i]]
        return mixed + list(order[-1:] if len(order) % 2 else ())

    def _in_groups(self, order: Sequence[int], random: np.random.Generator) -> list[int]:
        members: dict[int, list[int]] = {}
        for index in order:
            label = self.groups[index]
            members.setdefault(label if label >= 0 else -1 - index, []).append(index)
        size = self.group_size
        chunks = [m[i : i + size] for m in members.values() for i in range(0, len(m), size)]
        chunks = [chunks[i] for i in random.permutation(len(chunks))]
        result: list[int] = []
        while chunks:
            # The next of the shuffled chunks that fits into the open batch; else one is split.
            room = self.batch_size - len(result) % self.batch_size
            fits = (i for i, chunk in enumerate(chunks[-64:]) if len(chunk) <= room)
            result.extend(chunks.pop(max(len(chunks) - 64, 0) + next(fits, 0)))
        return result

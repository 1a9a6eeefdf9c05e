"""Writing answers: from the KV cache of a scoring pass to text.

A scoring pass reads the question and the answer's first lines with empty slots. The written answer
has a level word in each slot, so the two are the same up to the first slot: the cache is cut
there, the level words and the detected defects are filled in, and the model writes on. Nothing is
computed twice but the dozen tokens of the levels.

Axis legend: b batch, s sequence.
"""

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import (
    Cache,
    GenerationConfig,
    GenerationMixin,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from encoders.base import seeded
from prompts import ANSWER, SLOT, render_levels
from prompts.facts import Fact, render_facts
from prompts.rubric import Score

from .base import ScorerModel
from .library_internals import CACHE, rows_of, shortened

MAX_NEW_TOKENS = 160  # an answer with two defects has about 70
_MAX_NEW_TOKENS_FACTS = 480  # one with sentences made of facts about 250
# Of a batch. What else is in one is what the model sees of the clips.
_TEXT = ("input_ids", "attention_mask", "slot_positions", "slot_mask", "labels")
# Of a second try. Any other text is welcome, but still a likely one.
_SAMPLING = {"do_sample": True, "temperature": 0.7, "top_p": 0.95, "top_k": 0}


class FeatureGenerationMixin(GenerationMixin):
    """transformers' `generate` for a model whose forward takes `features`, or `pixel_values`."""

    def prepare_inputs_for_generation(
        self, input_ids: Tensor, *, is_first_iteration: bool | None = False, **kwargs: Any
    ) -> dict[str, Any]:
        """Features on the first step only: after it they are in the cache."""
        parent: Any = super()  # its stub wants another class of self
        inputs = parent.prepare_inputs_for_generation(
            input_ids, is_first_iteration=is_first_iteration, **kwargs
        )
        if not is_first_iteration and kwargs.get("use_cache", True):
            for name in ("features", "pixel_values"):
                inputs.pop(name, None)
        # What some versions of transformers add for models of their own.
        known = inspect.signature(self.forward).parameters  # type: ignore[attr-defined]
        return {name: value for name, value in inputs.items() if name in known}


def take_pixel_values(
    backbone: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Hook before a backbone's forward: features may come as `pixel_values`.

    TRL, whose head is fused with the loss, calls the backbone itself, and carries one tensor by
    that name.
    """
    if "pixel_values" in kwargs:
        kwargs["features"] = kwargs.pop("pixel_values")
    return args, kwargs


def generation_config_of(llm: PreTrainedModel) -> GenerationConfig:
    """How an LLM ends its text; its habits of sampling are not taken over."""
    own = llm.generation_config or llm.config
    return GenerationConfig(
        bos_token_id=own.bos_token_id, eos_token_id=own.eos_token_id, pad_token_id=own.pad_token_id
    )


@dataclass(frozen=True, kw_only=True)
class Written:
    """One answer.

    Attributes:
        text: All of it, the lines that were given included.
        finished: Whether the model ended it, rather than the limit.
        num_tokens: How many tokens the model wrote, the one that ends the text included.
        token_ids: These tokens.
    """

    text: str
    finished: bool
    num_tokens: int
    token_ids: tuple[int, ...] = ()


def question_ids(
    batch: Mapping[str, Tensor], tokenizer: PreTrainedTokenizerBase
) -> list[list[int]]:
    """Token ids of each row's question, up to where the answer begins.

    Args:
        batch: As `AIGVEvalProcessor.encode_prompts` gives it, padded on the right.
        tokenizer: The processor's.
    """
    first_label = len(_ids(tokenizer, ANSWER.split(SLOT)[0]))
    ends = (batch["slot_positions"][:, 0] + 1 - first_label).tolist()
    return [row[:end] for row, end in zip(batch["input_ids"].tolist(), ends, strict=True)]


def evidence_of(batch: Mapping[str, Any]) -> dict[str, Any]:
    """What a batch has of the clips, to go with another text."""
    return {name: value for name, value in batch.items() if name not in _TEXT}


def max_new_tokens_of(model: ScorerModel) -> int:
    """Where a model's text is cut that it doesn't end itself."""
    return _MAX_NEW_TOKENS_FACTS if model.config.reads_facts else MAX_NEW_TOKENS


def given_lines(
    model: ScorerModel,
    batch: Mapping[str, Any],
    scores: Sequence[Mapping[Score, float]],
    facts: Sequence[Sequence[Fact]] | None = None,
    *,
    noise: float = 0.0,
) -> list[str]:
    """What the LLM is given of each clip behind the levels: detections, and facts in words.

    Args:
        model: Gives the line of detections, if it has a detector; its config says whether it
            `reads_facts`.
        batch: What it scored.
        scores: Of b clips; unknown ones are absent.
        facts: Of b clips.
        noise: See `ScorerModel.detection_lines`.
    """
    lines = model.detection_lines(batch, scores, noise=noise)
    if not model.config.reads_facts:
        return lines
    known = facts or [()] * len(lines)
    return [f"{line}{render_facts(own)}\n" for line, own in zip(lines, known, strict=True)]


def answer_heads(
    model: ScorerModel,
    batch: Mapping[str, Any],
    scores: Sequence[Mapping[Score, float]],
    facts: Sequence[Sequence[Fact]] | None = None,
) -> list[str]:
    """What the LLM is given of each answer: the levels nearest to the scores, and `given_lines`."""
    lines = given_lines(model, batch, scores, facts)
    return [f"{render_levels(known)}\n{line}" for known, line in zip(scores, lines, strict=True)]


class AnswerWriter:
    """Writes the answers of a batch that has been scored.

    Args:
        model: In eval mode.
        tokenizer: The processor's.
        batch: What `model.score` was given, with `use_cache=True`.
        cache: The KV cache of that pass. It is taken over and cropped; where this is not possible,
            as with LLMs that keep no keys and values, the question is computed again.
        heads: b beginnings of the answers, as of `answer_heads`, each ending its line.

    Attributes:
        prompt_ids: Token ids of each row's question and head: what the model writes on from.
    """

    def __init__(
        self,
        model: ScorerModel,
        tokenizer: PreTrainedTokenizerBase,
        *,
        batch: Mapping[str, Tensor],
        cache: Cache,
        heads: Sequence[str],
    ) -> None:
        self.model, self.tokenizer, self.heads = model, tokenizer, list(heads)
        scored, mask = batch["input_ids"], batch["attention_mask"]
        self.prompt_ids = rows = [
            question + _ids(tokenizer, head)
            for question, head in zip(question_ids(batch, tokenizer), self.heads, strict=True)
        ]
        shared = [_common(row, seen) for row, seen in zip(rows, scored.tolist())]
        width = max(shared)
        # Between what a row shares with the scoring pass and its own levels lies a gap in the
        # mask, as wide as makes the rows end together.
        length = max(len(row) - count for row, count in zip(rows, shared))
        self._input_ids = torch.nn.functional.pad(scored[:, :width], (0, length))
        self._mask = torch.nn.functional.pad(mask[:, :width], (0, length))
        for row, (ids, count) in enumerate(zip(rows, shared)):
            own = ids[count:]
            self._mask[row, count:] = 0
            self._mask[row, -len(own) :] = 1
            self._input_ids[row, -len(own) :] = torch.tensor(own)
        self._seen = evidence_of(batch)
        self._deltas = model.rope_deltas
        self._cache = shortened(cache, scored.shape[1] - width) if model.keeps_all else None

    def write(
        self, rows: Sequence[int], *, max_new_tokens: int = MAX_NEW_TOKENS, seed: int | None = None
    ) -> list[Written]:
        """The answers of some rows, as often as wanted.

        Args:
            rows: Their numbers in the batch.
            max_new_tokens: Where a text is cut that the model doesn't end.
            seed: None for greedy decoding. Else it's sampled, and the same seed gives a row the
                same text whatever rows are written with it.
        """
        if seed is None:
            return self._generate(rows, max_new_tokens, {"do_sample": False}) if rows else []
        device = self._input_ids.device
        written = []
        for row in rows:  # by themselves, because rows would share one stream of random numbers
            with seeded(seed, device=device):
                written += self._generate([row], max_new_tokens, _SAMPLING)
        return written

    def sample(
        self,
        rows: Sequence[int],
        *,
        max_new_tokens: int,
        temperature: float,
        top_p: float,
        seed: int,
    ) -> list[Written]:
        """Answers of some rows, a row as often as it's named, all in one batch.

        Args:
            rows: Their numbers in the batch.
            max_new_tokens: See `write`.
            temperature: Of the sampling.
            top_p: Of the sampling; 1 takes every token into account.
            seed: The same one gives the same rows the same texts.
        """
        how = {"do_sample": True, "temperature": temperature, "top_p": top_p, "top_k": 0}
        with seeded(seed, device=self._input_ids.device):
            return self._generate(rows, max_new_tokens, how)

    @torch.inference_mode()
    def _generate(
        self, rows: Sequence[int], max_new_tokens: int, how: Mapping[str, Any]
    ) -> list[Written]:
        chosen = torch.tensor(rows, device=self._input_ids.device)
        inputs: dict[str, Any] = {"attention_mask": self._mask[chosen]}
        cache = None if self._cache is None else rows_of(self._cache, chosen)
        if cache is None:
            for name, value in self._seen.items():
                inputs[name] = (
                    value[chosen] if isinstance(value, Tensor) else [value[row] for row in rows]
                )
        else:
            inputs[CACHE] = cache  # `generate` adds to it
            if self._deltas is not None:
                self.model.rope_deltas = self._deltas[chosen]
        ends = self._end_ids()
        config = GenerationConfig(
            max_new_tokens=max_new_tokens,
            eos_token_id=ends or None,
            pad_token_id=(ends or [0])[0],
            # where the LLM's vocabulary has room for it
            suppress_tokens=self.model.placeholder_ids,
            **how,
        )
        model: Any = self.model  # as above
        ids = model.generate(self._input_ids[chosen], generation_config=config, **inputs)
        new = ids[:, self._input_ids.shape[1] :].tolist()
        return [self._written(row, tokens, ends) for row, tokens in zip(rows, new)]

    def _written(self, row: int, tokens: list[int], ends: list[int]) -> Written:
        length = next((n for n, token in enumerate(tokens) if token in ends), None)
        text = self.tokenizer.decode(
            tokens[:length], skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        return Written(
            text=self.heads[row] + str(text),
            finished=length is not None,
            num_tokens=len(tokens) if length is None else length + 1,
            token_ids=tuple(tokens if length is None else tokens[: length + 1]),
        )

    def _end_ids(self) -> list[int]:
        own = self.model.generation_config.eos_token_id
        ends = [*(own if isinstance(own, (list, tuple)) else [own]), self.tokenizer.eos_token_id]
        return list(dict.fromkeys(int(end) for end in ends if end is not None))


def _ids(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    return tokenizer(text, add_special_tokens=False).input_ids


def _common(ids: Sequence[int], seen: Sequence[int]) -> int:
    """How many tokens two rows share at their start; at least one of the first is left over."""
    pairs = enumerate(zip(ids[:-1], seen))
    return next((n for n, (a, b) in pairs if a != b), min(len(ids) - 1, len(seen)))

"""The processor: (video, prompt) to tensors.

Axis legend: b batch, s sequence, t frames, h w pixels.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from jinja2 import TemplateError
from torch import Tensor
from transformers import BatchFeature, PreTrainedTokenizerBase, ProcessorMixin

from encoders.base import Encoder
from prompts import ANSWER, LEVELS, SCORES, SLOT, build_messages, clean

from .backbones import load_tokenizer
from .base import known_slots
from .checkpoint import frozen_llm, open_checkpoint
from .config import (
    AIGVEvalConfig,
    ScorerConfig,
    make_encoder,
    prompt_order,
    unscored_dimensions,
)

FEATURE_TOKEN = "<|feature|>"
# Stands for the user's prompt while the chat is rendered; `clean` and chat templates keep it.
PROMPT_MARK = "zqUSERPROMPTqz"


def level_token_ids(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """First token of each level word as it follows a colon, worst level first.

    Raises:
        ValueError: Two words begin with the same token, so that their logits are the same.
    """
    # Tokenized after a colon: SentencePiece would begin a text of its own with a bare "\u2581".
    colon = tokenizer(":", add_special_tokens=False).input_ids
    ids = [
        tokenizer(f": {word}", add_special_tokens=False).input_ids[len(colon)] for word in LEVELS
    ]
    if len(set(ids)) != len(LEVELS):
        raise ValueError(
            f"the tokenizer {tokenizer.name_or_path or type(tokenizer).__name__} gives the level "
            f"words {LEVELS} the first tokens {ids}; they must be distinct"
        )
    return ids


def plain_template(tokenizer: Any) -> str | None:
    """The chat template of a tokenizer or processor: of several that have names the `default` one.

    Raises:
        ValueError: None of several is the default.
    """
    found = getattr(tokenizer, "chat_template", None)
    if not isinstance(found, Mapping):
        return found
    if "default" not in found:
        raise ValueError(
            f"{type(tokenizer).__name__} has the chat templates {', '.join(found)}; one must be "
            "named default"
        )
    return found["default"]


class QuestionProcessor(ProcessorMixin):
    """What our processors share: the question and the slots of its answer as tokens.

    A subclass has `_frame`, and calls `_set_frames` once that can be asked.
    """

    tokenizer: Any

    def _set_frames(self) -> None:
        """Tokenize once what is around the user's prompt, and the answer between its slots."""
        self._frames = {known: self._frame(with_prompt=known) for known in (False, True)}
        self._answer = [self._own(piece) for piece in ANSWER.split(SLOT)[:-1]]

    def _frame(self, *, with_prompt: bool) -> tuple[list[int], list[int]]:
        """Tokens before and after the user's prompt, or of a question without one."""
        raise NotImplementedError

    def _fill_in(self, config: ScorerConfig, found: Mapping[str, Any]) -> None:
        """Set token ids of a config, or compare them if they are set."""
        for field, value in found.items():
            if getattr(config, field) is None:
                setattr(config, field, value)
            elif getattr(config, field) != value:
                raise ValueError(
                    f"the model was made with {field} {getattr(config, field)}, "
                    f"the tokenizer of {config.backbone_name} has {value}"
                )

    def _encode(
        self,
        prompts: Sequence[str | None],
        heads: Sequence[Sequence[int]] | None,
        unscored: Sequence[str],
    ) -> BatchFeature:
        """See `AIGVEvalProcessor.encode_prompts`; `heads` are tokens that each row begins with."""
        if isinstance(prompts, str):
            raise TypeError("prompts must be a list with one prompt per clip, got a string")
        known = [clean(prompt or "") for prompt in prompts]
        rows = [
            self._tokenize(prompt, heads[row] if heads else ()) for row, prompt in enumerate(known)
        ]
        length = max((len(ids) for ids, _ in rows), default=0)
        pad = self.tokenizer.pad_token_id or 0  # any id will do, because padding is masked
        input_ids = torch.full((len(rows), length), pad, dtype=torch.long)
        attention_mask = torch.zeros(len(rows), length, dtype=torch.long)
        for row, (ids, _) in enumerate(rows):
            input_ids[row, : len(ids)] = torch.tensor(ids)
            attention_mask[row, : len(ids)] = 1
        return BatchFeature(
            {
                "input_ids": input_ids,
                "attention_mask": attention_mask,
                "slot_positions": torch.tensor([slots for _, slots in rows], dtype=torch.long),
                "slot_mask": known_slots(known, unscored),
            }
        )

    def _tokenize(self, prompt: str, head: Sequence[int] = ()) -> tuple[list[int], list[int]]:
        """Token ids, and the positions of the last token before each slot, of a clean prompt."""
        before, after = self._frames[bool(prompt)]
        ids = [*head, *before, *self._foreign(prompt), *after]
        slots = []
        for piece in self._answer:
            ids = ids + piece
            slots.append(len(ids) - 1)
        return ids, slots

    def _apply(self, messages: Sequence[Mapping[str, Any]]) -> str:
        """The chat as text, with what the assistant's turn begins with."""
        return self.tokenizer.apply_chat_template(
            messages,
            chat_template=self.chat_template,
            tokenize=False,
            add_generation_prompt=True,
            # The same text on any day, and without the thinking that some models begin with.
            date_string="01 Jan 2025",
            enable_thinking=False,
        )

    def _own(self, text: str) -> list[int]:
        return self.tokenizer(text, add_special_tokens=False).input_ids

    def _foreign(self, prompt: str) -> list[int]:
        """Tokens of a clean prompt, none of them special whatever its text is."""
        if not prompt:
            return []
        ids = self.tokenizer(
            f" {prompt}", add_special_tokens=False, split_special_tokens=True
        ).input_ids
        special = {*self.tokenizer.all_special_ids, *self._placeholder_ids()}
        special -= {self.tokenizer.unk_token_id}
        return [token for token in ids if token not in special]

    def _placeholder_ids(self) -> Sequence[int]:
        raise NotImplementedError


class AIGVEvalProcessor(QuestionProcessor):
    """Tokenizer and encoders' views. Make one with `from_config` or `from_pretrained`.

    Args:
        tokenizer: The LLM's. The placeholder token is added to it.
        entries: Encoders as in `AIGVEvalConfig.encoders`.
        chat_template: Instead of the tokenizer's.
        score_hints: As in `AIGVEvalConfig`.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        entries: Sequence[Mapping[str, Any]] = (),
        chat_template: str | None = None,
        score_hints: bool = True,
    ) -> None:
        super().__init__(tokenizer, chat_template=chat_template or plain_template(tokenizer))
        self.entries = [dict(entry) for entry in entries]
        self.score_hints = score_hints
        tokenizer.add_tokens([FEATURE_TOKEN], special_tokens=True)
        self.feature_token_id = tokenizer.convert_tokens_to_ids(FEATURE_TOKEN)
        self._encoders: dict[str, Encoder] = {}
        self._check_order()
        self._set_frames()

    @classmethod
    def from_config(
        cls, config: AIGVEvalConfig, *, tokenizer: PreTrainedTokenizerBase | None = None
    ) -> "AIGVEvalProcessor":
        """The processor for a config, in which the token ids are filled in.

        Args:
            config: Its `level_token_ids` and `feature_token_id` are set, or compared if they are.
            tokenizer: Instead of the one of `config.llm`.

        Raises:
            ValueError: The tokenizer has no distinct level words, or isn't the config's.
        """
        tokenizer = tokenizer or load_tokenizer(config.llm)
        processor = cls(tokenizer, config.encoders, score_hints=config.score_hints)
        found = {
            "level_token_ids": level_token_ids(processor.tokenizer),
            "feature_token_id": processor.feature_token_id,
        }
        processor._fill_in(config, found)
        return processor

    @classmethod
    def from_pretrained(  # type: ignore[override]
        cls, pretrained_model_name_or_path: str | Path, **kwargs: Any
    ) -> "AIGVEvalProcessor":
        """From a folder or Hub id of a model; its own tokenizer files aren't needed.

        Options are `revision`, `token` and `cache_dir`.
        """
        folder = open_checkpoint(pretrained_model_name_or_path, **kwargs).folder
        config = AIGVEvalConfig.from_pretrained(folder)
        source = folder if (folder / "tokenizer_config.json").is_file() else None
        tokenizer = load_tokenizer(str(source or frozen_llm(folder, config)))
        return cls.from_config(config, tokenizer=tokenizer)

    @property
    def encoders(self) -> dict[str, Encoder]:
        """The encoders by name, made on first use. Share them: `model.load_encoders(...)`."""
        for entry in self.entries:
            if entry["name"] not in self._encoders:
                encoder = make_encoder(entry)
                self._encoders[entry["name"]] = encoder.requires_grad_(False).eval()
        return self._encoders

    def encode_prompts(self, prompts: Sequence[str | None]) -> BatchFeature:
        """The question and the unanswered slots for b prompts, padded on the right.

        A dimension that no encoder looks at has no evidence, and its slot is masked: the overall
        score then judges by what the others show.

        A prompt that is None or empty is unknown, and its semantic slot is masked.

        Returns:
            input_ids and attention_mask (b, s), slot_positions (b, 4) int64, and slot_mask (b, 4)
            bool, the four in the order of `prompts.SCORES`.
        """
        return self._encode(prompts, None, unscored_dimensions(self.entries))

    def encode_video(self, path: str | Path, *, seed: int = 0) -> dict[str, Tensor]:
        """Each encoder's view of a video, without batch axis: decoded once, in one pass.

        Args:
            path: Video file.
            seed: Seed of random crops; the same seed gives the same views.

        Raises:
            encoders.VideoError: The file cannot be read.
        """
        from encoders.video import read_views

        return read_views(path, self.encoders, seed=seed)

    def __call__(
        self,
        *,
        videos: Sequence[str | Path] | None = None,
        prompts: Sequence[str | None] | None = None,
        seed: int = 0,
    ) -> BatchFeature:
        """A batch for the model: `encode_prompts`, and `views` for `model.encode`.

        Args:
            videos: b video files, or None for the text alone.
            prompts: b prompts; by default they're unknown.
            seed: See `encode_video`.
        """
        if prompts is None:
            prompts = [None] * len(videos or ())
        batch = self.encode_prompts(prompts)
        if videos is not None:
            if len(videos) != len(prompts):
                raise ValueError(f"there are {len(prompts)} prompts for {len(videos)} videos")
            views = [self.encode_video(path, seed=seed) for path in videos]
            batch["views"] = {
                name: torch.stack([view[name] for view in views]) for name in self.encoders
            }
        return batch

    def to_dict(self) -> dict[str, Any]:
        """What is saved: the entries, but not the encoders' weights."""
        encoders, self._encoders = self._encoders, {}
        try:
            return super().to_dict()
        finally:
            self._encoders = encoders

    def __getstate__(self) -> dict[str, Any]:
        # Encoders are made in the worker that uses them, rather than sent there.
        return {**self.__dict__, "_encoders": {}}

    def _frame(self, *, with_prompt: bool) -> tuple[list[int], list[int]]:
        text = self._render(self._placeholders(), PROMPT_MARK if with_prompt else None)
        head, _, tail = text.partition(PROMPT_MARK)
        # The space before the prompt is tokenized with it, as tokenizers do with words.
        head = head.rstrip(" ") if with_prompt else head
        # A chat template writes the token that begins a text; plain text needs the tokenizer's.
        begin = self.tokenizer(head, add_special_tokens=self.chat_template is None).input_ids
        end = self._own(tail)
        found = (begin + end).count(self.feature_token_id)
        expected = sum(entry["num_tokens"] for entry in self.entries)
        expected += len(SCORES) * self.score_hints
        if found != expected:
            raise ValueError(f"the question has {found} placeholders, {expected} are needed")
        return begin, end

    def _placeholders(self) -> dict[str, str]:
        runs: dict[str, str] = {}
        for entry in self.entries:
            runs.setdefault(entry["dimension"], "")
            runs[entry["dimension"]] += FEATURE_TOKEN * entry["num_tokens"]
        return runs

    def _render(self, placeholders: Mapping[str, str], prompt: str | None) -> str:
        messages = build_messages(
            placeholders,  # type: ignore[arg-type]
            prompt,
            score_hint=FEATURE_TOKEN if self.score_hints else None,
        )
        if self.chat_template is None:
            return "\n".join(message["content"] for message in messages) + "\n"
        try:
            return self._apply(messages)
        except TemplateError:  # as where a template knows no system role
            both = "\n".join(message["content"] for message in messages)
            return self._apply([{"role": "user", "content": both}])

    def _placeholder_ids(self) -> Sequence[int]:
        token: Any = self.feature_token_id
        return [token]

    def _check_order(self) -> None:
        """Placeholders must come in the order of the entries, as the features do."""
        dimensions = [entry["dimension"] for entry in self.entries]
        if dimensions != sorted(dimensions, key=prompt_order().index):
            raise ValueError(
                f"encoders must be in the order {prompt_order()} of the question, got {dimensions}"
            )

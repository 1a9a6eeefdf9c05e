"""What our models share: four scores out of hidden states, and what is saved of a model.

Axis legend: b batch, s sequence, h width of the LLM, v its vocabulary.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import Cache, PreTrainedModel, PreTrainedTokenizerBase
from transformers.modeling_outputs import CausalLMOutputWithPast

from encoders.bars import no_bars
from .checkpoint import trained_keys
from prompts.rubric import Score
from .generation import AnswerWriter
from .library_internals import CACHE, cache_of
from .scores import score_levels


@dataclass
class AIGVEvalOutput(CausalLMOutputWithPast):
    """What one forward pass gives; the four scores are in the order of `prompts.SCORES`.

    The KV cache, if it was asked for or given, is the field that transformers has for it: `cache`
    since 5.24, `past_key_values` before; `library_internals.cache_of` reads either. Its fields
    `loss`, `hidden_states` and `attentions` stay None.

    Attributes:
        level_logits: (b, 4, 5), worst level first, float32.
        scores: (b, 4) on the 1-5 MOS scale; NaN where `slot_mask` is false.
        stds: (b, 4) standard deviation of the level distribution; NaN likewise.
        logits: (b, s, v) of the next token, float32, at the positions that were asked for.
        last_hidden_state: (b, s, h) if it was asked for.
    """

    level_logits: Tensor | None = None
    scores: Tensor | None = None
    stds: Tensor | None = None
    last_hidden_state: Tensor | None = None


class ScorerModel(PreTrainedModel):
    """A language model, frozen but for its LoRA, whose level words' logits are scores.

    A subclass has `lm_head`, the output embedding, and a forward that ends with `_output`.
    """

    config: Any  # a ScorerConfig
    main_input_name = "input_ids"
    supports_gradient_checkpointing = True
    # The LLM itself chooses; without these flags transformers would force the slow one upon it.
    _supports_sdpa = _supports_flash_attn = _supports_flex_attn = True
    # What a model with M-RoPE keeps of the pass that filled a cache: (b, 1), how far positions are
    # off the tokens' numbers. None for all others.
    rope_deltas: Tensor | None = None

    @property
    def keeps_all(self) -> bool:
        """Whether a KV cache, with `rope_deltas`, is all that the model needs to go on."""
        return True

    @property
    def placeholder_ids(self) -> list[int]:
        """Tokens that stand for what the model sees, and that it must never write."""
        raise NotImplementedError

    def trained_keys(self) -> set[str]:
        """Keys of the state dict that training changes, and that are saved."""
        return trained_keys(self)

    def sign_lines(
        self, batch: Mapping[str, Any], scores: Sequence[Mapping[Score, float]], *,
        noise: float = 0.0,
    ) -> list[str]:
        """What is told of each clip of a batch, beside its scores, before an answer is written.

        Args:
            batch: As `forward` takes it.
            scores: Of the b clips; a sign is told no graver than its dimension's score allows.
            noise: Standard deviation of noise on standardised features, as in training.

        Returns:
            b lines as of `prompts.render_signs`, each with its end; empty where a model tells none.
        """
        return [""] * len(batch["input_ids"])

    def answer_writer(
        self, tokenizer: PreTrainedTokenizerBase, *, batch: Mapping[str, Any], cache: Cache,
        heads: Sequence[str],
    ) -> AnswerWriter:
        """What writes the answers of a batch that was scored; see `AnswerWriter`."""
        return AnswerWriter(self, tokenizer, batch=batch, cache=cache, heads=heads)

    def init_weights(self) -> None:
        """Nothing: the LLM comes with its weights, and what is trained initialises itself."""

    def _output(
        self,
        found: Any,
        *,
        slot_positions: Tensor | None,
        slot_mask: Tensor | None,
        logits_to_keep: int | None,
        use_cache: bool,
        output_last_hidden_state: bool,
    ) -> AIGVEvalOutput:
        """What the LLM gave, with the scores and logits that were asked for; see `forward`."""
        hidden = found.last_hidden_state
        level_logits = scores = stds = logits = None
        if slot_positions is not None:
            level_logits = self._level_logits(hidden, slot_positions)
            scores, stds = score_levels(level_logits)
            if slot_mask is not None:
                scores = scores.masked_fill(~slot_mask.bool(), math.nan)
                stds = stds.masked_fill(~slot_mask.bool(), math.nan)
        if slot_positions is None or logits_to_keep is not None:
            kept = hidden[:, -logits_to_keep:] if logits_to_keep else hidden
            logits = self._scaled(self.lm_head(kept).float())
        return AIGVEvalOutput(
            level_logits=level_logits,
            scores=scores,
            stds=stds,
            logits=logits,
            last_hidden_state=hidden if output_last_hidden_state else None,
            **{CACHE: cache_of(found) if use_cache else None},
        )

    def _level_logits(self, hidden: Tensor, slot_positions: Tensor) -> Tensor:
        """(b, s, h) and (b, 4) to (b, 4, 5): five rows of the output embedding at four places."""
        rows = torch.arange(len(hidden), device=hidden.device).unsqueeze(1)
        ids = self.config.level_token_ids
        bias = getattr(self.lm_head, "bias", None)
        logits = nn.functional.linear(
            hidden[rows, slot_positions].float(),
            self.lm_head.weight[ids].float(),
            None if bias is None else bias[ids].float(),
        )
        return self._scaled(logits)

    def _scaled(self, logits: Tensor) -> Tensor:
        """What some LLMs do to the logits of their head."""
        text_config = self.config.get_text_config()  # Cohere, Granite and Gemma 2, in this order
        logits = logits * (getattr(text_config, "logit_scale", None) or 1.0)
        logits = logits / (getattr(text_config, "logits_scaling", None) or 1.0)
        if cap := getattr(text_config, "final_logit_softcapping", None):
            logits = cap * torch.tanh(logits / cap)
        return logits

    @torch.inference_mode()
    def score(self, **batch: Any) -> AIGVEvalOutput:
        """`forward` without gradients, dropout or noise, whatever mode the model is in."""
        training = self.training
        self.eval()
        try:
            return self(**batch)
        finally:
            self.train(training)

    def save_pretrained(  # type: ignore[override]
        self, save_directory: str | Path, **kwargs: Any
    ) -> None:
        """Write the config, and of the weights those that are trained.

        Args:
            save_directory: Folder to write into.
            **kwargs: Options of `PreTrainedModel.save_pretrained`.
        """
        state, trained = kwargs.pop("state_dict", None) or self.state_dict(), self.trained_keys()
        kwargs["state_dict"] = {key: value for key, value in state.items() if key in trained}
        with no_bars():
            super().save_pretrained(save_directory, save_original_format=False, **kwargs)
        # The LLM's own, which is taken over when the model is made.
        Path(save_directory, "generation_config.json").unlink(missing_ok=True)

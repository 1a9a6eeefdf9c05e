"""What our models share: from level logits to four scores, and which weights are saved.

Axis legend: b batch, s sequence, h width of the LLM, v its vocabulary.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.modeling_outputs import CausalLMOutputWithPast

from encoders.pretrained import no_bars
from encoders.weights import same_permissions
from prompts import clean
from prompts.rubric import LEVEL_WEIGHTS, MAX_SCORE, MIN_SCORE, SCORES
from prompts.rubric import Score as ScoreName

from ..assessment import Score, Scores
from .checkpoint import ENCODER_PREFIX, WEIGHTS
from .library_internals import CACHE, cache_of, is_lora


def level_probabilities(level_logits: Tensor) -> Tensor:
    """Softmax over the five level words, worst first, in float32: (..., 5) to (..., 5)."""
    return level_logits.float().softmax(dim=-1)


def score_levels(level_logits: Tensor) -> tuple[Tensor, Tensor]:
    """Expectation and standard deviation of the level distribution on the 1-5 MOS scale.

    As Q-Align (arXiv 2312.17090) and AIGVEval (arXiv 2506.04715) read a score, with "excellent"
    as 5 (AIGVEval's public code has it as 1) and no temperature.

    Args:
        level_logits: (..., 5), worst level first.

    Returns:
        Scores within 1-5 and standard deviations within 0-2, both float32 of shape (...).
    """
    if level_logits.shape[-1] != len(LEVEL_WEIGHTS):
        raise ValueError(
            f"level_logits must end in {len(LEVEL_WEIGHTS)} levels, got {tuple(level_logits.shape)}"
        )
    probabilities = level_probabilities(level_logits)
    weights = torch.tensor(LEVEL_WEIGHTS, device=level_logits.device)
    # Rounding can leave the expectation a hair outside of the scale.
    score = (probabilities * weights).sum(-1).clamp(MIN_SCORE, MAX_SCORE)
    variance = (probabilities * (weights - score.unsqueeze(-1)).square()).sum(-1)
    # sqrt has no finite gradient at 0; a distribution that sharp has a spread of 0 anyway.
    return score, variance.clamp_min(1e-12).sqrt()


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
        familiarity: (b,) percentile 0-100 of how near a clip's evidence is to what the model
            learnt from; None without a calibration, as the next.
        half_widths: (b, 4) of the 80 % intervals, in points.
        logits: (b, s, v) of the next token, float32, at the positions that were asked for.
        last_hidden_state: (b, s, h) if it was asked for.
    """

    level_logits: Tensor | None = None
    scores: Tensor | None = None
    stds: Tensor | None = None
    familiarity: Tensor | None = None
    half_widths: Tensor | None = None
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
        """Placeholder tokens of features or pixels, which the model must never write."""
        raise NotImplementedError

    def trained_keys(self) -> set[str]:
        """Keys of the state dict that training changes, and that are saved.

        Projectors (with their statistics) and what stands beside them, the LoRA, and trained
        encoders as far as they are in the model.
        """
        own = [f"{ENCODER_PREFIX}{name}." for name in self.config.trained_encoders]
        parts = "projectors", "detector", "calibration", "likeness", "local_expert", "hint_curve"
        prefixes = (*(f"model.{part}." for part in parts), *own)
        return {
            key
            for key in self.state_dict()
            if key.startswith(prefixes) or (is_lora(key) and not key.startswith(ENCODER_PREFIX))
        }

    def load_trained(self, state: dict[str, Tensor], *, source: Path) -> None:
        """Copy trained weights into the model: all of them, and nothing else.

        Args:
            state: Of `checkpoint.read_trained`, without those of encoders.
            source: Their folder, for messages.

        Raises:
            ValueError: Keys are missing, unknown or of another shape; the message names them.
        """
        expected = self.state_dict()
        trained = self.trained_keys()
        check_state(state, {key: expected[key] for key in trained}, source=source)
        self.load_state_dict(state, strict=False)

    def detection_lines(
        self,
        batch: Mapping[str, Any],
        scores: Sequence[Mapping[ScoreName, float]],
        *,
        noise: float = 0.0,
    ) -> list[str]:
        """The line that the LLM reads of each clip's detected defects before it writes an answer.

        Args:
            batch: As `forward` takes it.
            scores: Of the b clips; no detection is graver than its dimension's score allows.
            noise: Standard deviation of noise on standardised features, as in training.

        Returns:
            b lines as of `prompts.render_detections`, each with its end; empty for a model without
            a detector.
        """
        return [""] * len(batch["input_ids"])

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
        """The LLM's output with the scores and logits that were asked for; see `forward`."""
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
        with torch.autocast(hidden.device.type, enabled=False):  # scores need all their digits
            logits = nn.functional.linear(
                hidden[rows, slot_positions].float(),
                self.lm_head.weight[ids].float(),
                None if bias is None else bias[ids].float(),
            )
        return self._scaled(logits)

    def _scaled(self, logits: Tensor) -> Tensor:
        """What some LLMs do to the logits of their head."""
        text_config = self.config.get_text_config()
        # Cohere, Falcon-H1, Granite and Gemma 2, in this order
        logits = logits * (getattr(text_config, "logit_scale", None) or 1.0)
        logits = logits * (getattr(text_config, "lm_head_multiplier", None) or 1.0)
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
        folder = Path(save_directory)
        # The LLM's own, which is taken over when the model is made.
        (folder / "generation_config.json").unlink(missing_ok=True)
        if (folder / "config.json").is_file():  # the main process has written it
            same_permissions(folder.glob("*.safetensors"), like=folder / "config.json")


def known_slots(prompts: Sequence[str | None], unscored: Sequence[str]) -> Tensor:
    """Which of the scores there are, bool (b, 4): one of alignment only with a prompt.

    Args:
        prompts: b prompts; None or empty where unknown.
        unscored: Dimensions without a score.
    """
    mask = torch.ones(len(prompts), len(SCORES), dtype=torch.bool)
    mask[:, SCORES.index("semantic")] = torch.tensor(
        [bool(clean(prompt or "")) for prompt in prompts], dtype=torch.bool
    )
    for dimension in unscored:
        mask[:, SCORES.index(dimension)] = False
    return mask


def name_scores(output: AIGVEvalOutput, known: Tensor) -> list[Scores | Exception]:
    """The named scores of each row; a number that is no score is that row's error.

    Args:
        output: Of the model, b rows.
        known: (b, 4) which scores there are.
    """
    assert output.scores is not None and output.stds is not None
    rows = zip(output.scores.tolist(), output.stds.tolist(), known.tolist())
    found = [_named(*row) for row in rows]
    if output.familiarity is None or output.half_widths is None:
        return found
    trust = zip(found, output.familiarity.tolist(), output.half_widths.tolist())
    return [row if isinstance(row, Exception) else _with_trust(row, *rest) for row, *rest in trust]


def _named(
    scores: Sequence[float], stds: Sequence[float], known: Sequence[bool]
) -> Scores | Exception:
    try:
        return {
            # Five decimals: what comes after them is rounding noise and differs between machines.
            name: Score(round(score, 5), round(std, 5)) if is_known else None
            for name, score, std, is_known in zip(SCORES, scores, stds, known)
        }
    except ValueError as error:
        return error


def _with_trust(scores: Scores, familiarity: float, half_widths: Sequence[float]) -> Scores:
    """Scores with intervals, as far as these lie on the scale."""
    for name, half in zip(SCORES, half_widths):
        if (score := scores[name]) is not None and math.isfinite(half):
            low, high = max(MIN_SCORE, score.score - half), min(MAX_SCORE, score.score + half)
            scores[name] = replace(score, low=round(low, 5), high=round(high, 5))
    return scores | {"familiarity": round(familiarity, 1)}


def check_state(
    state: Mapping[str, Tensor], expected: Mapping[str, Tensor], *, source: Path
) -> None:
    """Compare the weights of a folder with those that its config asks for.

    Raises:
        ValueError: Keys are missing, unknown or of another shape; the message names them.
    """
    shapes = [
        f"{key} {tuple(value.shape)} instead of {tuple(expected[key].shape)}"
        for key, value in state.items()
        if key in expected and value.shape != expected[key].shape
    ]
    problems = {
        "missing": _listed(set(expected) - set(state)),
        "unknown": _listed(set(state) - set(expected)),
        "of another shape": _listed(shapes),
    }
    if text := "; ".join(f"{what}: {keys}" for what, keys in problems.items() if keys):
        raise ValueError(f"{source / WEIGHTS} doesn't fit its config; {text}")


def _listed(keys: Iterable[str], *, most: int = 10) -> str:
    names = sorted(keys)
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more

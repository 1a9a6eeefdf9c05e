"""The model: encoder tokens, projected into the LLM's embeddings; four scores in one forward pass.

Laid out as transformers' LLaVA: `model` (projectors and language model) and `lm_head`. The LLM and
the encoders are frozen; projectors and LoRA are what's trained and what `save_pretrained` writes,
and encoders that were chosen to be trained with them.

Axis legend: b batch, K feature tokens, D their width, s sequence, h width of the LLM.
"""

import copy
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any, cast

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import Cache, PreTrainedModel

from encoders.base import Encoder, full_float32
from encoders.weights import same_permissions
from prompts import Detection, render_detections
from prompts.consistency import highest_severity
from prompts.rubric import MIN_SCORE, SCORES, Score

from .backbones import check_llm, inject_lora, load_llm, save_llm
from .base import AIGVEvalOutput, ScorerModel, check_state
from .checkpoint import (
    frozen_llm,
    open_checkpoint,
    read_trained,
    split_encoders,
    with_saved_weights,
    with_trained_weights,
)
from .config import AIGVEvalConfig, check_encoder, make_encoder, rename_weights
from .generation import FeatureGenerationMixin, generation_config_of, take_pixel_values
from .library_internals import cache_argument, expect_missing, is_lora
from .projector import (
    AIGVEvalBackbone,
    ScoreHints,
    join_tokens,
    pack_features,
    unpack_features,
)

# Options of `push_to_hub` that `save_pretrained` takes too, as in transformers.
_PUSH_OPTIONS = (
    "repo_id",
    "commit_message",
    "commit_description",
    "private",
    "token",
    "revision",
    "create_pr",
    "tags",
)
_BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)


class FeatureEncoding:
    """What a model with `encoders` does with them."""

    config: AIGVEvalConfig
    model: ScoreHints
    encoders: nn.ModuleDict
    encoder_weights: Path | None = None  # folder of a merged checkpoint
    encoder_states: Mapping[str, dict[str, Tensor]] = {}  # what encoders were trained to

    @property
    def device(self) -> torch.device:
        raise NotImplementedError

    def load_encoders(
        self, encoders: Mapping[str, Encoder] | None = None, *, strict: bool = True
    ) -> None:
        """Put the encoders in, frozen; those that were trained get the weights of that.

        Args:
            encoders: Name to encoder, as `AIGVEvalProcessor.encoders`; by default made anew.
            strict: Refuse an encoder whose fingerprint is not the one that the model was trained
                with; else it's a warning.

        Raises:
            ValueError: An encoder's tokens are not those that the config describes.
            ModelError: An encoder is of another package, which isn't here.
        """
        for entry in self.config.encoders:
            name = entry["name"]
            encoder = encoders[name] if encoders else make_encoder(entry)
            check_encoder(entry, encoder, strict=strict)
            encoder = with_saved_weights(encoder, self.encoder_weights)
            encoder = with_trained_weights(encoder, self.encoder_states.get(name))
            self.encoders[name] = encoder.to(self.device).requires_grad_(False).eval()

    @torch.no_grad()
    def encode(
        self, views: Mapping[str, Tensor], text: Sequence[str | None] | None = None
    ) -> Tensor:
        """Views (b, ...) of each encoder, and the b prompts, to features (b, K, D)."""
        if not self.encoders:
            self.load_encoders()
        with full_float32(self.device):
            tokens = {
                name: cast(Encoder, encoder).encode(views[name].to(self.device))
                for name, encoder in self.encoders.items()
            }
        return self.join(tokens, text)

    @torch.no_grad()
    def join(
        self, tokens: Mapping[str, Tensor], text: Sequence[str | None] | None = None
    ) -> Tensor:
        """Text-free tokens (b, m, e) of each encoder, as cached, and b prompts to (b, K, D)."""
        if not self.encoders:
            self.load_encoders()
        return pack_features(
            [
                join_tokens(cast(Encoder, encoder), tokens[name].to(self.device), text)
                for name, encoder in self.encoders.items()
            ]
        )

    @torch.no_grad()
    def detections(
        self,
        batch: Mapping[str, Any],
        scores: Sequence[Mapping[Score, float]],
        *,
        noise: float = 0.0,
    ) -> list[list[Detection]]:
        """What the detector finds in each clip, the likeliest first; times are in tenths of it.

        Args:
            batch: With `features` and `slot_mask`, as `forward` takes them.
            scores: Of the b clips; no detection is graver than its dimension's score allows.
            noise: Standard deviation of noise on standardised features, as in training.
        """
        tokens = self.model.standardised(batch["features"].to(self.device))
        if noise:
            tokens = [part + noise * torch.randn_like(part) for part in tokens]
        assert self.model.detector is not None
        found = self.model.detector.detect(tokens, batch["slot_mask"])
        return [
            [_bounded(one, known) for one in detections]
            for detections, known in zip(found, scores, strict=True)
        ]


class AIGVEvalModel(ScorerModel, FeatureEncoding, FeatureGenerationMixin):
    """Scores AI-generated videos, and writes about them; see the module's docstring.

    Args:
        config: With `level_token_ids` and `feature_token_id`, which
            `AIGVEvalProcessor.from_config(config)` fills in.
        llm: A causal LM to build upon, instead of loading `config.llm`. It's taken over: frozen,
            and LoRA layers are put into it.

    Raises:
        ValueError: The config lacks the token ids, or doesn't fit the LLM.
    """

    config_class = AIGVEvalConfig
    config: AIGVEvalConfig
    base_model_prefix = "model"

    def __init__(self, config: AIGVEvalConfig, llm: PreTrainedModel | None = None) -> None:
        super().__init__(config)
        if config.level_token_ids is None or config.feature_token_id is None:
            raise ValueError("no token ids; AIGVEvalProcessor.from_config(config) fills them in")
        llm = load_llm(config.llm) if llm is None else llm
        check_llm(llm, config)
        llm.requires_grad_(False)
        self.model = AIGVEvalBackbone(config, cast(PreTrainedModel, llm.base_model))
        self.model.register_forward_pre_hook(take_pixel_values, with_kwargs=True)
        self.lm_head = llm.get_output_embeddings()
        self.generation_config = generation_config_of(llm)
        if config.lora is not None:
            inject_lora(self.model.language_model, config.lora, name=config.llm)
        # For a resumed training run too, whose checkpoint the Trainer loads.
        self.register_load_state_dict_pre_hook(_rename_weights)
        self.encoders = nn.ModuleDict()
        self._no_split_modules = getattr(llm, "_no_split_modules", None)
        self.post_init()
        expect_missing(self, set(self.state_dict()) - self.trained_keys())

    @property
    def placeholder_ids(self) -> list[int]:
        return [cast(int, self.config.feature_token_id)]

    def get_input_embeddings(self) -> nn.Module:
        return self.model.language_model.get_input_embeddings()

    @torch.no_grad()
    def detection_lines(
        self,
        batch: Mapping[str, Any],
        scores: Sequence[Mapping[Score, float]],
        *,
        noise: float = 0.0,
    ) -> list[str]:
        if self.model.detector is None:
            return super().detection_lines(batch, scores)
        found = self.detections(batch, scores, noise=noise)
        return [render_detections(*row) + "\n" for row in zip(found, scores, strict=True)]

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        features: Tensor | None = None,
        slot_positions: Tensor | None = None,
        slot_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        views: Mapping[str, Tensor] | None = None,
        text: Sequence[str | None] | None = None,
        output_last_hidden_state: bool = False,
        cache: Cache | None = None,
        use_cache: bool = False,
        logits_to_keep: int | None = None,
        pixel_values: Tensor | None = None,
        return_dict: bool = True,
        past_key_values: Cache | None = None,
    ) -> AIGVEvalOutput:
        """Score a batch, or give the logits of the next tokens, as `generate` asks for.

        Args:
            input_ids: (b, s), with K placeholders in each row.
            attention_mask: (b, s), 1 for text and features, 0 for padding anywhere. With a cache
                it covers what's in there too.
            features: (b, K, D) as `encode` or `pack_features` gives them. With a cache that
                has them already they are left out, and so are the placeholders.
            slot_positions: (b, 4) positions whose next token is a level word; None for no scores.
            slot_mask: (b, 4), false where there's no score to give, as for the alignment with
                an unknown prompt.
            position_ids: (b, s); by default counted along the attention mask.
            views: (b, ...) of some encoders, as in training them: their tokens are made here, with
                gradients, and take their place in the features.
            text: The b prompts, for encoders in `views` that read them.
            output_last_hidden_state: Return the hidden states too.
            cache: The KV cache of the tokens before; this pass extends it.
            use_cache: Return the cache.
            logits_to_keep: At how many of the last positions logits are wanted, 0 for all. By
                default none where there are slots, else all.
            pixel_values: `features`, under the name by which TRL carries them.
            return_dict: For `generate`; there's no other form.
            past_key_values: `cache`, as transformers called it before 5.24.

        Raises:
            ValueError: Features are absent, or placeholders and features don't match.
        """
        features = pixel_values if features is None else features
        cache = past_key_values if cache is None else cache
        past = 0 if cache is None else cache.get_seq_length()
        if features is None and not past:
            raise ValueError("forward needs features, or the cache of a pass that had them")
        if features is not None and views:
            features = self._with_tokens(features, views, text)
        if past:
            if attention_mask is None:
                attention_mask = input_ids.new_ones(len(input_ids), past + input_ids.shape[1])
            if position_ids is None:
                position_ids = (attention_mask.long().cumsum(1) - 1).clamp_min(0)
                position_ids = position_ids[:, -input_ids.shape[1] :]
        found = self.model(
            input_ids,
            attention_mask,
            features,
            position_ids,
            use_cache=use_cache,
            **cache_argument(self.model.language_model, cache),
        )
        output = self._output(
            found,
            slot_positions=slot_positions,
            slot_mask=slot_mask,
            logits_to_keep=logits_to_keep,
            use_cache=use_cache,
            output_last_hidden_state=output_last_hidden_state,
        )
        if slot_positions is not None and features is not None and not self.training:
            output.familiarity, output.half_widths = self.model.trusted(features)
        return output

    def _with_tokens(
        self, features: Tensor, views: Mapping[str, Tensor], text: Sequence[str | None] | None
    ) -> Tensor:
        """Features (b, K, D) with the tokens of these views in their encoders' places."""
        parts = unpack_features(features, self.config.feature_shapes)
        for number, entry in enumerate(self.config.encoders):
            if (name := entry["name"]) in views:
                encoder = cast(Encoder, self.encoders[name])
                parts[number] = join_tokens(encoder, encoder.encode(views[name]), text)
        return pack_features(parts)

    def train(self, mode: bool = True) -> "AIGVEvalModel":
        """As in torch, but frozen encoders stay in eval mode: their tokens never change.

        So do the batch norms of encoders in training, whose statistics of a few clips would be
        noise, and would make a clip's score depend on what else is in its batch.
        """
        super().train(mode)
        self.encoders.eval()
        for encoder in self.encoders.values():
            if mode and any(parameter.requires_grad for parameter in encoder.parameters()):
                encoder.train()
                for module in encoder.modules():
                    if isinstance(module, _BATCH_NORMS):
                        module.eval()
        return self

    def set_trained_encoders(self, encoders: Mapping[str, Encoder]) -> None:
        """Take copies of these encoders in, to be trained and saved with the rest."""
        for name, encoder in encoders.items():
            self.encoders[name] = copy.deepcopy(encoder).requires_grad_(True)
        self.config.trained_encoders = [
            e["name"]
            for e in self.config.encoders
            if e["name"] in {*self.config.trained_encoders, *encoders}
        ]

    def set_feature_stats(self, encoder: str, mean: Tensor, std: Tensor) -> None:
        """Fix an encoder's standardisation; call it once, with statistics of the training data.

        Args:
            encoder: Name of an encoder, or of a dimension that has just one.
            mean: (d,) mean over clips and tokens.
            std: (d,) standard deviation. A feature that doesn't vary is only centred.
        """
        entries = self.config.encoders
        names = [e["name"] for e in entries if encoder in (e["name"], e["dimension"])]
        if len(names) != 1:
            choices = list(self.model.projectors)
            raise ValueError(
                f"expected one of {choices}, or a dimension with just one encoder, got {encoder!r}"
            )
        self.model.projectors[names[0]].set_stats(mean, std)

    def save_pretrained(  # type: ignore[override]
        self,
        save_directory: str | Path,
        *,
        merge: bool = False,
        push_to_hub: bool = False,
        **kwargs: Any,
    ) -> None:
        """Write config, projectors, LoRA, and encoders that were trained.

        Args:
            save_directory: Folder to write into.
            merge: Also write the LLM with its tokenizer (into `llm`) and the encoders' weights
                (into `encoders`), and use those when the folder is loaded.
            push_to_hub: Then upload it, see `push_to_hub`.
            **kwargs: Options of `PreTrainedModel.save_pretrained`, and of `push_to_hub`.
        """
        push_options = {name: kwargs.pop(name) for name in _PUSH_OPTIONS if name in kwargs}
        if self.encoder_states and not self.encoders:
            self.load_encoders()
        super().save_pretrained(save_directory, **kwargs)
        if merge and kwargs.get("is_main_process", True):
            if not self.encoders:
                self.load_encoders()
            self._save_frozen(Path(save_directory))
        if push_to_hub:
            repo_id = push_options.pop("repo_id", Path(save_directory).name)
            self.push_to_hub(repo_id, merge=merge, **push_options)

    def _save_frozen(self, folder: Path) -> None:
        """Write the LLM, its tokenizer and the encoders' weights beside the trained weights."""
        source = self.config.llm
        if self.encoder_weights is not None:  # a merged folder has a tokenizer of its own
            source = frozen_llm(self.encoder_weights.parent, self.config)
        save_llm(self.model.language_model, self.lm_head, source, folder / "llm")
        (folder / "encoders").mkdir(exist_ok=True)
        for name, encoder in self.encoders.items():
            # Copies, because safetensors refuses tensors that share memory.
            state = {key: value.clone().contiguous() for key, value in encoder.state_dict().items()}
            save_file(state, folder / "encoders" / f"{name}.safetensors")
        written = [*folder.glob("llm/*.safetensors"), *folder.glob("encoders/*.safetensors")]
        same_permissions(written, like=folder / "config.json")

    def push_to_hub(self, repo_id: str, **options: Any) -> Any:  # type: ignore[override]
        """Upload the trained weights, the config and a model card to the Hugging Face Hub.

        Args:
            repo_id: `OWNER/NAME`, or `NAME` in your own namespace; made if it isn't there.
            **options: Of `aigveval.hub.publish.push_model`, which also has what it raises.
        """
        # By name, as `aigveval.hub` lies above the models: its cards describe them.
        return import_module("aigveval.hub.publish").push_model(self, repo_id, **options)

    @classmethod
    def from_pretrained(  # type: ignore[override]
        cls,
        pretrained_model_name_or_path: str | Path,
        *,
        config: AIGVEvalConfig | None = None,
        llm: PreTrainedModel | None = None,
        dtype: torch.dtype = torch.float32,
        revision: str | None = None,
        token: str | None = None,
        cache_dir: str | None = None,
    ) -> "AIGVEvalModel":
        """Load a model, in eval mode on the CPU.

        Args:
            pretrained_model_name_or_path: Folder or Hub id. Of weights, only safetensors are read.
            config: Instead of the one that was saved.
            llm: A causal LM to build upon, instead of loading the one that the config names.
            dtype: Type of the LLM's weights.
            revision, token, cache_dir: For the Hub.

        Raises:
            ValueError: Weights are not safetensors, or not exactly those that the model trains.
            OSError: The Hub doesn't give it.
            ModelError: There's no such folder.
        """
        folder = open_checkpoint(
            pretrained_model_name_or_path, revision=revision, token=token, cache_dir=cache_dir
        ).folder
        config = AIGVEvalConfig.from_pretrained(folder) if config is None else config
        state, encoder_states = split_encoders(read_trained(folder), config, source=folder)
        if llm is None:
            four_bit = config.llm_4bit and torch.cuda.is_available()
            llm = load_llm(frozen_llm(folder, config), dtype=dtype, four_bit=four_bit)
        model = cls(config, llm=llm)
        model.encoder_states = encoder_states
        model.name_or_path = str(pretrained_model_name_or_path)
        model.encoder_weights = folder / "encoders"
        model.load_trained(state, source=folder)
        return model.eval()


class HintModel(FeatureEncoding, nn.Module):
    """The scores of an `AIGVEvalModel` without its LLM, which would only read its hints back.

    Args:
        config: With `hints_within`.
        width: h, of the LLM's embeddings.
    """

    def __init__(self, config: AIGVEvalConfig, width: int) -> None:
        super().__init__()
        self.config = config
        self.model = ScoreHints(config, width)
        self.encoders = nn.ModuleDict()

    @property
    def device(self) -> torch.device:
        return self.model.device

    @classmethod
    def from_pretrained(cls, folder: Path) -> "HintModel":
        """Load what it takes of a saved model, in eval mode on the CPU.

        Raises:
            ValueError: Hints may not stand for the model's answer, or its weights aren't complete.
        """
        config = AIGVEvalConfig.from_pretrained(folder)
        if config.hints_within is None:
            raise ValueError(f"{folder}: how near its score hints are to its scores isn't known")
        state, encoder_states = split_encoders(read_trained(folder), config, source=folder)
        state = {name: value for name, value in state.items() if not is_lora(name)}
        positions = [value for name, value in state.items() if name.endswith(".position")]
        model = cls(config, positions[0].shape[1] if positions else 1)
        model.encoder_states, model.encoder_weights = encoder_states, folder / "encoders"
        check_state(state, model.state_dict(), source=folder)
        model.load_state_dict(state)
        return model.eval()

    @torch.no_grad()
    def forward(self, *, features: Tensor, slot_mask: Tensor, **_: Any) -> AIGVEvalOutput:
        """Features (b, K, D) and which of the scores (b, 4) there are to what the LLM would give.

        The standard deviations are those of a belief in the two level words next to a score.
        """
        known = slot_mask[:, SCORES.index("semantic")]
        assert self.model.hint_curve is not None
        scores = self.model.hint_curve(self.model.score_hints(features), known)
        share = scores - scores.floor()
        stds = (share * (1 - share)).sqrt()
        unknown = ~slot_mask.bool()
        familiarity, half_widths = self.model.trusted(features)
        return AIGVEvalOutput(
            scores=scores.masked_fill(unknown, math.nan),
            stds=stds.masked_fill(unknown, math.nan),
            familiarity=familiarity,
            half_widths=half_widths,
        )


def _rename_weights(model: nn.Module, weights: dict[str, Tensor], *_: Any) -> None:
    rename_weights(weights)


def _bounded(detection: Detection, scores: Mapping[Score, float]) -> Detection:
    """A detection whose severity doesn't contradict the score of its dimension."""
    most = highest_severity(scores.get(detection.defect.dimension, MIN_SCORE))
    if detection.defect.severity <= most:
        return detection
    return replace(detection, defect=replace(detection.defect, severity=most))

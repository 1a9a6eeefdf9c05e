"""The vision-language model, which reads the frames itself, as Q-Save does.

Q-Save (arXiv 2511.18825) shows Qwen3-VL a few frames at high resolution and many small ones, and
reads scores and explanation out of one answer. Here any image-text-to-text model of transformers
takes the place of encoders, projectors and LLM; question, slots and answers are those of
`AIGVEvalModel`. Only the LoRA on its language part is trained and saved.

Axis legend: b batch, s sequence, h width of the language part.
"""

import inspect
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from transformers import AutoConfig, Cache, PretrainedConfig, PreTrainedModel
from transformers.utils import ModelOutput

from .backbones import check_llm, inject_lora, load_vlm
from .base import AIGVEvalOutput, ScorerModel
from .checkpoint import open_checkpoint, read_trained
from .config import LORA, ScorerConfig
from .generation import generation_config_of
from .library_internals import cache_argument, can_go_on, expect_missing

DEFAULT_VLM = "Qwen/Qwen3-VL-8B-Instruct"
# Frames and their sizes; Q-Save's own are not public in what we could read.
FRAMES = {"num_slow": 8, "slow_side_px": 768, "num_fast": 32, "fast_side_px": 128}


class VlmConfig(ScorerConfig):
    """Configuration of `VlmModel`.

    Args:
        vlm: A folder or a Hub id of an image-text-to-text model.
        num_slow: Slow frames, evenly spread over the clip.
        slow_side_px: Their longest side is brought down to this; nothing is ever enlarged.
        num_fast: Fast frames, likewise.
        fast_side_px: Their shortest side is brought down to this.
        lora, llm_4bit, level_token_ids, text_config, explains, reads_facts: See `AIGVEvalConfig`;
            the LLM is the language part.
        image_token_id: Id of the placeholder of pictures, by the name that TRL looks for. Filled in
            by the model.
        answer_times: Likewise. The question has the frames' times, so answers can be in seconds.
        **kwargs: Options of `PretrainedConfig`.

    Raises:
        ValueError: An option is out of its range; the message names it.
        TypeError: A mistyped option.
    """

    model_type = "qsave"
    encoders = trained_encoders = ()  # it has none

    def __init__(
        self,
        *,
        vlm: str = DEFAULT_VLM,
        num_slow: int = FRAMES["num_slow"],
        slow_side_px: int = FRAMES["slow_side_px"],
        num_fast: int = FRAMES["num_fast"],
        fast_side_px: int = FRAMES["fast_side_px"],
        lora: dict[str, Any] | None = LORA,
        llm_4bit: bool = False,
        level_token_ids: Sequence[int] | None = None,
        image_token_id: int | None = None,
        text_config: PretrainedConfig | dict[str, Any] | None = None,
        explains: bool = False,
        answer_times: Literal["tenths", "seconds"] = "seconds",
        reads_facts: bool = False,
        **kwargs: Any,
    ) -> None:
        self.vlm = vlm
        self.image_token_id = image_token_id
        self.num_slow, self.slow_side_px = num_slow, slow_side_px
        self.num_fast, self.fast_side_px = num_fast, fast_side_px
        for name, value in self.frames.items():
            if not isinstance(value, int) or value < 1:
                raise ValueError(f"{name} must be a whole number, at least 1, got {value!r}")
        super().__init__(
            lora=lora,
            llm_4bit=llm_4bit,
            level_token_ids=level_token_ids,
            text_config=text_config,
            explains=explains,
            answer_times=answer_times,
            reads_facts=reads_facts,
            **kwargs,
        )

    @property
    def frames(self) -> dict[str, int]:
        """Counts and sizes of frames, as `FRAMES`."""
        return {name: getattr(self, name) for name in FRAMES}

    @property
    def backbone_name(self) -> str:
        return self.vlm


class VlmBackbone(nn.Module):
    """A vision-language model without its head: token ids and frames to the last hidden state."""

    def __init__(self, vlm: PreTrainedModel) -> None:
        super().__init__()
        self.vlm = vlm
        ids = [getattr(vlm.config, f"{kind}_token_id", None) for kind in ("image", "video")]
        self._kind_of = {token: kind for kind, token in enumerate(ids, 1) if token is not None}
        known = inspect.signature(vlm.base_model.forward).parameters
        names = ("mm_token_type_ids", "token_type_ids")  # of Qwen's models, of Gemma's
        self._kinds_name = next((name for name in names if name in known), None)

    @property
    def placeholder_ids(self) -> list[int]:
        """Tokens that stand for pictures and videos."""
        return list(self._kind_of)

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        visuals: Sequence[Mapping[str, Tensor]] | None = None,
        **kwargs: Any,
    ) -> ModelOutput:
        """See `VlmModel.forward`; further arguments go to the vision-language model."""
        return self.vlm.base_model(
            input_ids=input_ids,
            attention_mask=attention_mask,
            **self.inputs(input_ids, visuals),
            **kwargs,
        )

    def inputs(
        self, input_ids: Tensor, visuals: Sequence[Mapping[str, Tensor]] | None
    ) -> dict[str, Tensor]:
        """The rows' frames one after another, and which tokens stand for them."""
        if visuals is None:
            return {}
        inputs = {
            name: torch.cat([row[name].to(input_ids.device) for row in visuals])
            for name in visuals[0]
        }
        if self._kinds_name is not None:
            kinds = torch.zeros_like(input_ids)
            for token, kind in self._kind_of.items():
                kinds.masked_fill_(input_ids == token, kind)
            inputs[self._kinds_name] = kinds
        return inputs


class VlmModel(ScorerModel):
    """Scores AI-generated videos by looking at frames, and writes about them.

    Args:
        config: With `level_token_ids`, which `VlmProcessor.from_config(config)` fills in.
        vlm: An image-text-to-text model to build upon, instead of loading `config.vlm`. It's taken
            over: frozen, and LoRA layers are put into its language part.

    Raises:
        ValueError: The config lacks the token ids, or doesn't fit the model.
    """

    config_class = VlmConfig
    base_model_prefix = "model"

    def __init__(self, config: VlmConfig, vlm: PreTrainedModel | None = None) -> None:
        super().__init__(config)
        if config.level_token_ids is None:
            raise ValueError("no token ids; VlmProcessor.from_config(config) fills them in")
        vlm = load_vlm(config.vlm) if vlm is None else vlm
        check_llm(vlm, config)
        self.model = VlmBackbone(vlm.requires_grad_(False))
        config.image_token_id = getattr(vlm.config, "image_token_id", None)
        self.generation_config = generation_config_of(vlm)
        if config.lora is not None:
            inject_lora(vlm.get_decoder(), config.lora, name=config.vlm)
        self._no_split_modules = getattr(vlm, "_no_split_modules", None)
        self.post_init()
        expect_missing(self, set(self.state_dict()) - self.trained_keys())

    @property
    def vlm(self) -> Any:
        """The vision-language model, head and all."""
        return self.model.vlm

    @property
    def lm_head(self) -> nn.Module:
        return self.vlm.get_output_embeddings()

    @property
    def placeholder_ids(self) -> list[int]:
        return self.model.placeholder_ids

    @property
    def rope_deltas(self) -> Tensor | None:
        return getattr(self.vlm.base_model, "rope_deltas", None)

    @rope_deltas.setter
    def rope_deltas(self, value: Tensor | None) -> None:
        self.vlm.base_model.rope_deltas = value

    @property
    def keeps_all(self) -> bool:
        return can_go_on(self.vlm.base_model)

    def get_input_embeddings(self) -> nn.Module:
        return self.vlm.get_input_embeddings()

    def get_output_embeddings(self) -> nn.Module:
        return self.lm_head

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        visuals: Sequence[Mapping[str, Tensor]] | None = None,
        slot_positions: Tensor | None = None,
        slot_mask: Tensor | None = None,
        output_last_hidden_state: bool = False,
        cache: Cache | None = None,
        use_cache: bool = False,
        logits_to_keep: int | None = None,
        return_dict: bool = True,
        past_key_values: Cache | None = None,
    ) -> AIGVEvalOutput:
        """Score a batch, or give the logits of the next tokens.

        Args:
            input_ids: (b, s), with the placeholders of each row's frames.
            attention_mask: (b, s), 1 for what counts, 0 for padding anywhere.
            visuals: Of each row, the frames as `VlmProcessor.encode_video` gives them. Not with
                a cache, which has them already.
            slot_positions, slot_mask, output_last_hidden_state, cache, use_cache, logits_to_keep,
                return_dict, past_key_values: See `AIGVEvalModel.forward`.

        Raises:
            ValueError: Frames are absent, or don't match the placeholders.
        """
        cache = past_key_values if cache is None else cache
        if visuals is None and cache is None:
            raise ValueError("forward needs visuals, or the cache of a pass that had them")
        found = self.model(
            input_ids,
            attention_mask,
            visuals,
            use_cache=use_cache,
            **cache_argument(self.vlm.base_model, cache),
        )
        return self._output(
            found,
            slot_positions=slot_positions,
            slot_mask=slot_mask,
            logits_to_keep=logits_to_keep,
            use_cache=use_cache,
            output_last_hidden_state=output_last_hidden_state,
        )

    def generate(
        self,
        input_ids: Tensor,
        *,
        visuals: Sequence[Mapping[str, Tensor]] | None = None,
        **options: Any,
    ) -> Any:
        """`generate` of the vision-language model, which continues from its own cache."""
        return self.vlm.generate(input_ids, **self.model.inputs(input_ids, visuals), **options)

    @classmethod
    def from_pretrained(  # type: ignore[override]
        cls,
        pretrained_model_name_or_path: str | Path,
        *,
        config: VlmConfig | None = None,
        vlm: PreTrainedModel | None = None,
        dtype: torch.dtype | None = None,
        revision: str | None = None,
        token: str | None = None,
        cache_dir: str | None = None,
    ) -> "VlmModel":
        """Load a model, in eval mode on the CPU.

        Args:
            pretrained_model_name_or_path: Folder or Hub id. Of weights, only safetensors are read.
            config: Instead of the one that was saved.
            vlm: A model to build upon, instead of loading the one that the config names.
            dtype: Type of its frozen weights; by default that of its files.
            revision, token, cache_dir: For the Hub.

        Raises:
            ValueError: Weights are not safetensors, or not exactly those that the model trains.
            OSError: The Hub doesn't give it.
            ModelError: There's no such folder.
        """
        folder = open_checkpoint(
            pretrained_model_name_or_path, revision=revision, token=token, cache_dir=cache_dir
        ).folder
        config = VlmConfig.from_pretrained(folder) if config is None else config
        state = read_trained(folder)
        if vlm is None:
            four_bit = config.llm_4bit and torch.cuda.is_available()
            vlm = load_vlm(config.vlm, dtype=dtype, four_bit=four_bit)
        model = cls(config, vlm=vlm)
        model.name_or_path = str(pretrained_model_name_or_path)
        model.load_trained(state, source=folder)
        return model.eval()


AutoConfig.register(VlmConfig.model_type, VlmConfig, exist_ok=True)

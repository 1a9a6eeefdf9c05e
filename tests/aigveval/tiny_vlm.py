"""Qwen3-VL with random weights and its processor, small enough to be made in every test."""

import torch
from transformers import (
    PreTrainedTokenizerFast,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
    Qwen3VLProcessor,
)
from transformers.models.qwen2_vl.image_processing_qwen2_vl import Qwen2VLImageProcessor
from transformers.models.qwen3_vl.video_processing_qwen3_vl import Qwen3VLVideoProcessor

from aigveval.model.modeling_vlm import VlmConfig, VlmModel
from aigveval.model.processing_vlm import VlmProcessor

from tests.aigveval.tiny_llm import make_tokenizer

VISION = ["<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>"]
TEMPLATE = (
    "{% for m in messages %}{{'<|im_start|>' + m['role'] + '\n'}}{% for part in m['content'] %}"
    "{% if part['type'] == 'text' %}{{part['text']}}"
    "{% else %}{{'<|vision_start|><|' + part['type'] + '_pad|><|vision_end|>'}}{% endif %}"
    "{% endfor %}{{'<|im_end|>\n'}}{% endfor %}"
    "{% if add_generation_prompt %}{{'<|im_start|>assistant\n'}}{% endif %}"
)
FRAMES = {"num_slow": 2, "slow_side_px": 96, "num_fast": 6, "fast_side_px": 32}


def make_vision_tokenizer() -> PreTrainedTokenizerFast:
    """That of the tiny LLM, with Qwen3-VL's tokens for pictures."""
    tokenizer = make_tokenizer()
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>", *VISION]})
    return tokenizer


def make_vlm_processor() -> Qwen3VLProcessor:
    sizes = {"shortest_edge": 32 * 32, "longest_edge": 256 * 256}
    return Qwen3VLProcessor(
        image_processor=Qwen2VLImageProcessor(patch_size=16, size=sizes),
        tokenizer=make_vision_tokenizer(),
        video_processor=Qwen3VLVideoProcessor(size=sizes),
        chat_template=TEMPLATE,
    )


def make_vlm(**text_options) -> Qwen3VLForConditionalGeneration:
    """Two layers of width 32 over a vision tower of two, always with the same weights."""
    tokenizer = make_vision_tokenizer()
    ids = dict(
        zip(
            ("vision_start_token_id", "vision_end_token_id", "image_token_id", "video_token_id"),
            tokenizer.convert_tokens_to_ids(VISION),
        )
    )
    torch.manual_seed(0)
    return Qwen3VLForConditionalGeneration(
        Qwen3VLConfig(
            text_config={
                "vocab_size": len(tokenizer),
                "hidden_size": 32,
                "intermediate_size": 64,
                "num_hidden_layers": 2,
                "num_attention_heads": 4,
                "num_key_value_heads": 2,
                "head_dim": 8,
                "initializer_range": 0.3,
                "max_position_embeddings": 4096,
                "rope_parameters": {
                    "rope_type": "default",
                    "rope_theta": 10000.0,
                    "mrope_section": [2, 1, 1],
                    "mrope_interleaved": True,
                },
                "eos_token_id": tokenizer.eos_token_id,
                **text_options,
            },
            vision_config={
                "depth": 2,
                "hidden_size": 32,
                "intermediate_size": 48,
                "num_heads": 2,
                "patch_size": 16,
                "out_hidden_size": 32,
                "num_position_embeddings": 64,
                "deepstack_visual_indexes": [0],
                "initializer_range": 0.3,
            },
            **ids,
        )
    ).eval()


def make_vlm_model(**options) -> tuple[VlmModel, VlmProcessor]:
    """A model whose LoRA is different from zero, in eval mode."""
    config = VlmConfig(**{"vlm": "tiny", **FRAMES, **options})
    processor = VlmProcessor.from_config(config, inner=make_vlm_processor())
    model = VlmModel(config, vlm=make_vlm())
    torch.manual_seed(1)
    for parameter in model.parameters():
        if parameter.requires_grad:  # LoRA's B starts as zero
            torch.nn.init.normal_(parameter, std=0.3)
    return model.eval(), processor


def save_vlm(folder) -> str:
    """Model and processor as on the Hub, for what loads them by name."""
    make_vlm().save_pretrained(folder)
    make_vlm_processor().save_pretrained(folder)
    return str(folder)

"""A tokenizer, an LLM and encoders small enough to be made in every test."""

import numpy as np
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from aigveval.model.config import AIGVEvalConfig
from aigveval.model.modeling import AIGVEvalModel
from aigveval.model.processing import AIGVEvalProcessor
from encoders.base import Dimension, Encoder, EncoderSpec

SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
CHATML = (
    "{% for m in messages %}{{'<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n'}}"
    "{% endfor %}{% if add_generation_prompt %}{{'<|im_start|>assistant\n'}}{% endif %}"
)


def make_tokenizer(*, merges: bool = True) -> PreTrainedTokenizerFast:
    """Byte-level BPE that knows the level words, or only bytes."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=320 if merges else len(SPECIAL) + 256,
        special_tokens=SPECIAL,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([" bad poor fair good excellent"] * 20, trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<|im_end|>",
        pad_token="<|im_end|>",
        unk_token="<|endoftext|>",
        additional_special_tokens=["<|im_start|>"],
    )
    fast.chat_template = CHATML
    return fast


def make_llm(*, tied: bool = True, **options) -> LlamaForCausalLM:
    """Two layers of width 32, always with the same weights."""
    torch.manual_seed(0)
    config = LlamaConfig(
        **{
            "vocab_size": len(make_tokenizer()),  # the placeholder lies beyond
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "max_position_embeddings": 4096,
            "tie_word_embeddings": tied,
            "initializer_range": 0.3,
            **options,
        }
    )
    return LlamaForCausalLM(config).eval()


class MeanColour(Encoder):
    """Mean colour of each frame; a text-reading one adds the length of the prompt."""

    def __init__(
        self, *, name: str, dimension: Dimension, num_tokens: int, dim: int, reads_text=False
    ) -> None:
        super().__init__()
        self.reads_text = reads_text
        self.spec = EncoderSpec(
            name=name,
            dimension=dimension,
            num_tokens=num_tokens,
            dim=dim,
            stream="slow",
            size=8,
            mean=(0.0,) * 3,
            std=(255.0,) * 3,
            time_steps=num_tokens,
        )
        generator = torch.Generator().manual_seed(dim)
        self.register_buffer("weight", torch.randn(3, dim, generator=generator))

    def frame_indices(self, num_frames: int, fps: float) -> np.ndarray:
        return np.unique(np.linspace(0, num_frames - 1, self.spec.num_tokens).astype(np.int64))

    def preprocess(self, frames: Tensor, *, seed: int = 0) -> Tensor:
        colour = frames.float().mean((2, 3)) / 255
        return colour[torch.arange(self.spec.num_tokens).clamp_max(len(colour) - 1)]

    def encode(self, view: Tensor) -> Tensor:
        return view @ self.weight

    def join(self, tokens: Tensor, text=None) -> Tensor:
        if not self.reads_text or text is None:
            return tokens
        return tokens + tokens.new_tensor([len(prompt) for prompt in text])[:, None, None]

    def options(self) -> dict:
        return {"reads_text": self.reads_text}


def make_encoders() -> dict[str, Encoder]:
    """One per dimension, of different k and d, in the order of the question."""
    made = (
        MeanColour(name="look", dimension="semantic", num_tokens=3, dim=7, reads_text=True),
        MeanColour(name="flow", dimension="motion", num_tokens=4, dim=5),
        MeanColour(name="crisp", dimension="technical", num_tokens=2, dim=11),
    )
    return {encoder.spec.name: encoder for encoder in made}


def make_config(**options) -> AIGVEvalConfig:
    return AIGVEvalConfig.from_encoders(
        list(make_encoders().values()), **{"llm": "tiny", "projector_hidden": 16, **options}
    )


def make_model(*, llm=None, **options) -> tuple[AIGVEvalModel, AIGVEvalProcessor]:
    """A model whose trained parts are all different from zero, in eval mode."""
    config = make_config(**options)
    processor = AIGVEvalProcessor.from_config(config, tokenizer=make_tokenizer())
    model = AIGVEvalModel(config, llm=make_llm() if llm is None else llm)
    torch.manual_seed(1)
    for parameter in model.parameters():
        if parameter.requires_grad:  # LoRA's B starts as zero
            torch.nn.init.normal_(parameter, std=0.3)
    return model.eval(), processor


def make_batch(processor: AIGVEvalProcessor, config: AIGVEvalConfig, prompts, *, seed=0) -> dict:
    """Random features, zero where the padding is, with the text of the prompts."""
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(
        len(prompts), config.num_features, config.feature_dim, generator=generator
    )
    return {"features": features, **processor.encode_prompts(prompts)}

"""What is frozen: any causal LM or vision-language model by name or path, or the embedded SmolLM2.

The embedded one comes out of a wheel.
"""

import copy
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import (
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    AutoProcessor,
    AutoTokenizer,
    BitsAndBytesConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    ProcessorMixin,
)

from encoders.pretrained import is_repository, no_bars, reason_of
from encoders.weights import WeightsError, build_once, fetch

from ..errors import one_line
from .config import ALL_LINEAR, EMBEDDED_LLM, ScorerConfig
from .library_internals import LINEAR, without_lora

# Raise the number when `_convert` changes what it writes: the folder in the cache is named so.
_CONVERTED = f"{EMBEDDED_LLM}-float32-1"
_VLM = "vision-language model"
_OPTION = {"LLM": "llm", _VLM: "vlm"}  # of a config
_ARTICLE = {"LLM": "an", _VLM: "a"}


def llm_folder(name_or_path: str) -> str:
    """What `from_pretrained` is given: the embedded LLM's converted folder, else the argument.

    Raises:
        encoders.weights.WeightsError: The embedded LLM cannot be fetched or converted.
    """
    if name_or_path != EMBEDDED_LLM:
        return name_or_path
    # The GGUF is fetched inside of the build: once converted, it isn't needed any more.
    return str(build_once(_CONVERTED, _convert))


def load_llm(
    name_or_path: str, *, dtype: torch.dtype = torch.float32, four_bit: bool = False
) -> PreTrainedModel:
    """A causal LM in eval mode, on the CPU or, in 4 bits, on the current GPU.

    Args:
        name_or_path: `smollm2-135m-instruct`, a folder or a Hub id. Code from the Hub is never run.
        dtype: Type of the weights. On a CPU float32 is the fastest.
        four_bit: Linear layers in NF4 with double quantisation, as in QLoRA (arXiv 2305.14314);
            they compute in `dtype`.

    Raises:
        encoders.weights.WeightsError: It's neither here nor to be had.
        ValueError: `four_bit`, without a CUDA GPU or bitsandbytes.
    """
    folder = llm_folder(name_or_path)
    options = _four_bit(dtype) if four_bit else {}
    with no_bars(), _one_line_errors(name_or_path, "LLM", "a causal LM"):
        return AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, **options).eval()


def load_vlm(
    name_or_path: str, *, dtype: torch.dtype | None = None, four_bit: bool = False
) -> PreTrainedModel:
    """A vision-language model, as `load_llm` gives an LLM.

    Args:
        name_or_path: Folder or Hub id of what transformers calls an image-text-to-text model.
        dtype: Type of the weights; by default that of its files, which for the large ones is
            bfloat16: half the memory of float32.
        four_bit: See `load_llm`.

    Raises:
        encoders.weights.WeightsError: It's neither here nor to be had.
        ValueError: `four_bit`, without a CUDA GPU or bitsandbytes.
    """
    options = _four_bit(dtype or torch.bfloat16) if four_bit else {}
    with no_bars(), _one_line_errors(name_or_path, _VLM, "an image-text-to-text model"):
        return AutoModelForImageTextToText.from_pretrained(
            name_or_path, dtype=dtype or "auto", **options
        ).eval()


def load_vlm_processor(name_or_path: str) -> ProcessorMixin:
    """The processor that belongs to `load_vlm(name_or_path)`."""
    with _one_line_errors(name_or_path, _VLM, "a processor of images and text"):
        processor = AutoProcessor.from_pretrained(name_or_path)
        if not isinstance(processor, ProcessorMixin):
            raise ValueError(f"it has a {type(processor).__name__} alone")
        return processor


def _four_bit(dtype: torch.dtype) -> dict[str, Any]:
    check_four_bit()
    return {
        "quantization_config": BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=dtype,
        ),
        "device_map": {"": torch.cuda.current_device()},
    }


def check_four_bit() -> None:
    """Raise `ValueError` where an LLM cannot be loaded in 4 bits."""
    if not torch.cuda.is_available():
        raise ValueError("an LLM in 4 bits needs a CUDA GPU, and there is none")
    if find_spec("bitsandbytes") is None:
        raise ValueError("an LLM in 4 bits needs bitsandbytes: pip install bitsandbytes")


def load_tokenizer(name_or_path: str) -> PreTrainedTokenizerBase:
    """The tokenizer that belongs to `load_llm(name_or_path)`."""
    folder = llm_folder(name_or_path)
    with _one_line_errors(name_or_path, "LLM", "a causal LM"):
        return AutoTokenizer.from_pretrained(folder)


@contextmanager
def _one_line_errors(name: str, what: str, kind: str) -> Iterator[None]:
    """Say what is missing, from where, and what to do, as transformers' errors do at length."""
    try:
        yield
    except (OSError, ValueError) as error:
        if Path(name).is_dir():
            message = f"{name}: cannot be loaded as {kind} ({reason_of(error)})"
        elif is_repository(name) or not set(name) & {"/", "\\"}:
            message = (
                f"{name}: the {what} is not on this machine, and the Hugging Face Hub doesn't give "
                f"it ({reason_of(error)}); where the Hub is reached, run `hf download {name} "
                f"--local-dir FOLDER`, and give that folder as {_OPTION[what]}"
            )
        else:
            message = f"{name}: no such folder of {_ARTICLE[what]} {what}"
        raise WeightsError(message) from error


def check_llm(llm: PreTrainedModel, config: ScorerConfig) -> None:
    """Make sure that an LLM can carry a model of this config, and note its own config there.

    Args:
        llm: A causal LM, or a vision-language model, whose language part counts.
        config: Of the model.

    Raises:
        ValueError: It's no causal LM, or not the one that the config was saved with.
    """
    name, own = config.backbone_name, llm.config.get_text_config()
    head = llm.get_output_embeddings()
    if llm.base_model is llm or head is None:
        raise ValueError(f"{name}: {type(llm).__name__} is not a causal LM")
    if max(config.level_token_ids or [0]) >= len(head.weight):
        raise ValueError(
            f"{name}: level_token_ids {config.level_token_ids} go beyond "
            f"the LLM's {len(head.weight)} tokens"
        )
    if config.text_config is None:
        config.text_config = copy.deepcopy(own)
        config.text_config.name_or_path = ""  # may be a path of this machine
        vars(config.text_config).pop("quantization_config", None)  # `llm_4bit` says it
    wanted: Any = config.text_config
    for field in ("model_type", "hidden_size", "num_hidden_layers", "vocab_size"):
        expected = getattr(wanted.get_text_config(), field, None)
        found = getattr(own, field, None)
        if expected != found:
            raise ValueError(
                f"{name}: the model was made for an LLM of {field} {expected}, this one has {found}"
            )


def inject_lora(language_model: PreTrainedModel, lora: Mapping[str, Any], *, name: str) -> None:
    """Put LoRA layers (arXiv 2106.09685) into the linear layers that `target_modules` names.

    Args:
        language_model: Frozen, in any type. The layers that are put in are float32, so that small
            steps of the optimizer aren't lost.
        lora: As `AIGVEvalConfig.lora`.
        name: Of the LLM, for messages.

    Raises:
        ValueError: A name is not that of a linear layer, or of one that can't have a LoRA; the
            message has those there are.
    """
    from peft import LoraConfig, inject_adapter_in_model

    linear = [key for key, module in language_model.named_modules() if isinstance(module, LINEAR)]
    targets = lora["target_modules"]
    if targets == ALL_LINEAR:
        targets = sorted({key.rsplit(".", 1)[-1] for key in linear})
    missing = [
        target for target in targets if not any(f".{key}".endswith(f".{target}") for key in linear)
    ]
    if missing:
        raise ValueError(
            f"lora target_modules {missing} are not in {name}, whose linear layers are "
            f"{sorted({key.rsplit('.', 1)[-1] for key in linear})}"
        )
    config = LoraConfig(
        r=lora["r"],
        lora_alpha=lora["alpha"],
        lora_dropout=lora["dropout"],
        target_modules=list(targets),
        use_dora=lora["use_dora"],
        use_rslora=lora["use_rslora"],
        fan_in_fan_out=any(isinstance(module, LINEAR[1:]) for module in language_model.modules()),
    )
    try:
        inject_adapter_in_model(config, language_model)
    except ValueError as error:  # PEFT refuses some layers of Mamba's
        raise ValueError(
            f"lora target_modules {lora['target_modules']} do not suit {name}; name some of "
            f"{sorted({key.rsplit('.', 1)[-1] for key in linear})}: {one_line(error)}"
        ) from error
    for parameter in language_model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()


def save_llm(
    language_model: PreTrainedModel, lm_head: nn.Module, name_or_path: str, folder: Path
) -> None:
    """Write a frozen LLM, which may carry LoRA layers, as it was before they were put in.

    Args:
        language_model: The causal LM's base model.
        lm_head: Its output embedding.
        name_or_path: Where the LLM came from; its tokenizer is copied along.
        folder: Folder to write into.

    Raises:
        ValueError: The LLM is in 4 bits.
    """
    if getattr(language_model, "is_quantized", False) or getattr(
        language_model.config, "quantization_config", None
    ):
        raise ValueError(f"{name_or_path} is in 4 bits, from which the LLM cannot be written whole")
    with torch.device("meta"):
        whole = AutoModelForCausalLM.from_config(language_model.config)
    prefix = whole.base_model_prefix
    plain = without_lora(language_model, like=whole.base_model)
    state: dict[str, Tensor] = {f"{prefix}.{key}": value for key, value in plain.items()}
    if not language_model.config.tie_word_embeddings:
        state.update({f"lm_head.{key}": value for key, value in lm_head.state_dict().items()})
    with no_bars():
        whole.save_pretrained(folder, state_dict=state)
    load_tokenizer(name_or_path).save_pretrained(folder)


def _convert(folder: Path) -> None:
    """GGUF to float32 safetensors. Read straight, the GGUF takes 20 s at every start."""
    gguf = next(fetch(EMBEDDED_LLM).rglob("*.gguf"))
    print(f"converting {EMBEDDED_LLM} (once, about 30 s)", file=sys.stderr)
    with no_bars():
        tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
        llm = AutoModelForCausalLM.from_pretrained(
            gguf.parent, gguf_file=gguf.name, dtype=torch.float32
        )
        # The weights are plain floats now, but what comes from a GGUF isn't saved by transformers.
        config = copy.deepcopy(llm.config)
        vars(config).pop("quantization_config", None)
        plain = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
        plain.load_state_dict(llm.state_dict())
        plain.generation_config = llm.generation_config
        plain.save_pretrained(folder)
        tokenizer.save_pretrained(folder)

"""The number type of an LLM or vision-language model: float32, or bfloat16 to save memory and time.

Encoders, projectors and LoRA are always float32, and so are the logits that scores are made of.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, get_args

if TYPE_CHECKING:
    import torch
    from transformers import PretrainedConfig

DtypeName = Literal["auto", "float32", "bfloat16"]
LARGE_LLM = 10**9  # parameters from which on `auto` saves memory


def choose_dtype(
    wanted: DtypeName, text_config: PretrainedConfig | None, device: torch.device
) -> torch.dtype:
    """The type that was asked for, or by `auto` the one that suits LLM and device.

    `auto` is bfloat16 for an LLM of `LARGE_LLM` parameters and more on a GPU that computes in it,
    else float32.

    Args:
        wanted: Name of the type.
        text_config: The LLM's own config; None where it isn't known, which `auto` takes for small.
        device: Where the model will be.

    Raises:
        ValueError: There's no such name.
    """
    import torch

    if wanted not in get_args(DtypeName):
        raise ValueError(f"dtype must be one of {', '.join(get_args(DtypeName))}, got {wanted!r}")
    if wanted != "auto":
        return torch.float32 if wanted == "float32" else torch.bfloat16
    large = text_config is not None and has_bfloat16(device) and count(text_config) >= LARGE_LLM
    return torch.bfloat16 if large else torch.float32


def has_bfloat16(device: torch.device) -> bool:
    """Whether it's a GPU (of CUDA or ROCm) whose own arithmetic has bfloat16."""
    import torch

    if device.type != "cuda":
        return False
    with torch.cuda.device(device):
        return torch.cuda.is_bf16_supported(including_emulation=False)


def count(text_config: PretrainedConfig) -> int:
    """Parameters of an LLM without its head, from its config alone."""
    import torch
    from transformers import AutoModel

    with torch.device("meta"):
        return sum(value.numel() for value in AutoModel.from_config(text_config).parameters())


def label(name: str, dtype: torch.dtype) -> str:
    """A model's name in rows: with the type, unless it's float32, as scores differ by it."""
    kind = str(dtype).removeprefix("torch.")
    return name if kind == "float32" else f"{name} ({kind})"

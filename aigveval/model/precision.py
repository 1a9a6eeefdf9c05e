"""The device, and the number type of an LLM or vision-language model: float32, or bfloat16 to save
memory and time.

Encoders, projectors and LoRA are always float32, and so are the logits that scores are made of.
`fast` leaves the LLM out where a model's score hints may stand for it (see `modeling.HintModel`);
else, on CPUs, it adds LoRA to the LLM's weights, and has only products of matrices in bfloat16.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, get_args

from ..errors import ModelError, one_line

if TYPE_CHECKING:
    import torch
    from transformers import PretrainedConfig

DtypeName = Literal["auto", "float32", "bfloat16", "fast"]
LARGE_LLM = 10**9  # parameters from which on `auto` saves memory


def choose_dtype(
    wanted: DtypeName, text_config: PretrainedConfig | None, device: torch.device
) -> torch.dtype:
    """The type that was asked for, or by `auto` the one that suits LLM and device.

    `auto` is bfloat16 for an LLM of `LARGE_LLM` parameters and more on a GPU that computes in it,
    else float32. `fast` is float32 on a CPU, where `is_fast` says what becomes of it, and bfloat16
    elsewhere.

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
    if wanted == "fast":
        return torch.float32 if device.type == "cpu" else torch.bfloat16
    if wanted != "auto":
        return torch.float32 if wanted == "float32" else torch.bfloat16
    large = text_config is not None and has_bfloat16(device) and count(text_config) >= LARGE_LLM
    return torch.bfloat16 if large else torch.float32


def is_fast(wanted: DtypeName, device: torch.device) -> bool:
    """Whether products of matrices are to be bfloat16 on this CPU: if asked, and if quicker."""
    from encoders.onednn import bfloat16_is_quick

    return wanted == "fast" and device.type == "cpu" and bfloat16_is_quick()


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


def label(name: str, dtype: torch.dtype, *, fast: bool = False) -> str:
    """A model's name in rows: with the type, unless it's float32, as scores differ by it."""
    kind = "fast" if fast else str(dtype).removeprefix("torch.")
    return name if kind == "float32" else f"{name} ({kind})"


def find_device(device: str | torch.device | None) -> torch.device:
    """Gives the device of that name; without one, `cuda` if there is one, else `cpu`.

    Raises:
        ModelError: when there is no such device, or it cannot be used.
    """
    import torch

    if device is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        chosen = torch.device(device)
        torch.empty(0, device=chosen)
    except (RuntimeError, AssertionError) as error:
        here = ["cpu", *(f"cuda:{index}" for index in range(torch.cuda.device_count()))]
        if str(device) in here or (str(device) == "cuda" and len(here) > 1):  # taken, or full
            why = one_line(str(error).partition("\n")[0])
            raise ModelError(f"the device {str(device)!r} cannot be used: {why}") from None
        # torch's own words go on about every back end it knows
        raise ModelError(f"no device {str(device)!r} here; there are {', '.join(here)}") from None
    return chosen

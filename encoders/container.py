"""A video file as its packets tell it: frame times, keyframes, damage, and what it is not.

Nothing is decoded here but the first frame, so this costs milliseconds (reading the file).
"""

import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import av
import numpy as np

from .animation import webp_durations

MAX_LOST = 0.1  # share of frames that may be missing before the file counts as broken
_MAX_PIXELS = 2**27  # per frame; a 16K frame has about as many, beyond lies a forged header
_DEFAULT_FPS = 25.0  # of a single frame or a stream without any clock, as FFmpeg assumes
_STILL_BRANDS = ("avif", "heic", "heix", "mif1")
NO_FILE = "a URL, and files are needed: download it and give its path"
_URL = re.compile(r"(?P<scheme>[a-z][a-z0-9+.-]+):/{1,2}(?=[^/])", re.IGNORECASE)
_TEXT_ART = ("adf", "bin", "idf", "tty", "xbin")  # FFmpeg plays text files, by their suffix


class VideoError(Exception):
    """A file that can't be read as a video.

    Attributes:
        path: The file, as it was asked for.
        reason: What is wrong with it, in words for its owner.
    """

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(path, reason)  # both in args, so that it can be pickled
        self.path = path
        self.reason = reason

    def __str__(self) -> str:
        """`path: reason`, always one line."""
        return " ".join(f"{self.path}: {self.reason}".splitlines())


@dataclass(frozen=True, kw_only=True)
class VideoIndex:
    """What the packets tell without decoding them; frames in display order."""

    times: np.ndarray  # seconds, ascending, starting at 0
    fps: float
    last_seconds: float  # how long the last frame lasts
    pts: np.ndarray | None  # time stamps that identify frames; None where they can't
    keys: np.ndarray  # positions of keyframes
    clean: bool  # every packet is well formed
    objection: str | None  # why decord must not read it
    threads: bool = True  # whether a decoder with several threads tells of all damage
    webp: bool = False  # animated WebP, which FFmpeg can't decode

    def position(self, pts: int | None) -> int:
        """Which frame is on the screen at a time stamp."""
        if self.pts is None or pts is None:
            return 0
        return max(0, int(np.searchsorted(self.pts, pts, "right")) - 1)


def inspect(path: str) -> VideoIndex:
    """Everything that decides how to read the file, from its packets and its first frame."""
    _check_file(path)
    durations = webp_durations(path)
    if durations is not None and len(durations) > 1:
        return _animated_webp(durations)
    with open_file(path) as container:
        stream = video_stream(path, container)
        codec, kind = stream.codec_context, container.format.name
        if kind in _TEXT_ART:
            raise VideoError(path, "a text file, not a video")
        check_size(path, codec.width, codec.height)
        packets: list[tuple[int | None, int, bool]] = []
        head: list[Any] = []
        nal_bytes = _nal_length_size(codec.name, codec.extradata)
        clean = True
        for packet in read_packets(container, stream):
            if packet is None or packet.is_discard or _is_hidden(codec.name, packet):
                continue
            if packet.is_corrupt:
                clean = False
                continue
            if not packets:
                head = _flushed(packet)
            packets.append((packet.pts, packet.duration or 0, packet.is_keyframe))
            if nal_bytes and clean:
                clean = _well_formed(bytes(packet), nal_bytes)
        if not packets:
            raise VideoError(path, "holds no frames")
        found = len(packets)
        announced = max(found, _announced(kind, stream))
        if announced - found > MAX_LOST * announced:
            raise VideoError(path, f"truncated: only {found} of its {announced} frames are there")
        still = kind.endswith("_pipe") or kind in ("image2", "gif", "apng")
        if found == 1 and (still or container.metadata.get("major_brand") in _STILL_BRANDS):
            raise VideoError(path, "a still image, not a video")
        order = sorted(range(found), key=lambda i: (packets[i][0] is not None, packets[i][0] or 0))
        pts = np.array([packets[i][0] or 0 for i in order], np.int64)
        timed = packets[order[0]][0] is not None and bool((np.diff(pts) > 0).all())
        # AVI stamps packets in the order of decoding: right as a clock, wrong as names of frames.
        named = timed and kind != "avi"
        rate = float(stream.average_rate or stream.guessed_rate or 0) or _DEFAULT_FPS
        times = (pts - pts[0]) * float(stream.time_base) if timed else np.arange(found) / rate
        fps = (found - 1) / float(times[-1]) if found > 1 else rate
        if abs(fps / rate - 1) < 0.005:  # the same, but for time stamps rounded to milliseconds
            fps = rate
        keys = np.array([rank for rank, i in enumerate(order) if packets[i][2]], np.int64)
        return VideoIndex(
            times=times,
            fps=fps,
            last_seconds=packets[order[-1]][1] * float(stream.time_base) or 1 / fps,
            pts=pts if named else None,
            keys=keys,
            clean=clean and announced == found,
            objection=_objection(kind, codec, head, bool(nal_bytes and clean and named)),
            threads=codec.name != "hevc",  # damaged HEVC differs from run to run, without a word
        )


def _animated_webp(durations: list[float]) -> VideoIndex:
    ends = np.cumsum(durations)
    rate = len(durations) / ends[-1] if ends[-1] else _DEFAULT_FPS
    times = np.append(0.0, ends[:-1]) if ends[-1] else np.arange(len(durations)) / rate
    return VideoIndex(
        times=times, fps=float(rate), last_seconds=durations[-1], pts=None,
        keys=np.zeros(1, np.int64), clean=True, objection="animated WebP", webp=True,
    )


def _objection(kind: str, codec: Any, head: list[Any], sound: bool) -> str | None:
    """Why decord must not read a stream, or None: it is one on which decord was found right."""
    if not any(name in kind for name in ("mov", "matroska")):
        return f"the container {kind}"
    if codec.name != "h264":
        return f"the codec {codec.name}"
    if not sound or not head:
        return "damaged or unusual packets"
    frame = head[0]
    if frame.format.name not in ("yuv420p", "yuvj420p"):
        return f"the pixel format {frame.format.name}"
    if min(frame.width, frame.height) < 32 or frame.width % 2 or frame.height % 2:
        return f"the size {frame.width}x{frame.height}"
    return "a stored rotation" if quarter_turns(frame) else None


def as_url(path: str) -> str | None:
    """The address that stands in place of a file's path; None for a path.

    `Path` makes one slash of the two, which are given back.
    """
    found = _URL.match(path)
    if found is None or os.path.lexists(path):
        return None
    return f"{found['scheme']}://{path[found.end():]}"


def _check_file(path: str) -> None:
    try:
        mode = os.stat(path).st_mode
        if stat.S_ISDIR(mode):
            raise VideoError(path, "a folder, not a video")
        if not stat.S_ISREG(mode):  # opening a pipe or a device could wait for ever
            raise VideoError(path, "not a regular file")
        with open(path, "rb") as file:
            if not file.read(1):
                raise VideoError(path, "an empty file")
    except FileNotFoundError:
        if url := as_url(path):
            raise VideoError(url, NO_FILE) from None
        reason = "a broken link" if os.path.islink(path) else "no such file"
        raise VideoError(path, reason) from None
    except PermissionError:
        raise VideoError(path, "no permission to read it") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise VideoError(path, f"can't be opened ({reason})") from None


def missing_part(path: str) -> str | None:
    """Why FFmpeg may have refused a file that begins like an MP4; None for other files."""
    try:
        with open(path, "rb") as file:
            head = file.read(8)
    except OSError:
        return None
    return "truncated or damaged, its MP4 index is missing" if head[4:] == b"ftyp" else None


def open_file(path: str) -> Any:
    # An absolute path can't be mistaken for a URL, and playlists can't reach the network.
    return av.open(os.path.abspath(path), options={"protocol_whitelist": "file"})


def video_stream(path: str, container: Any) -> Any:
    stream = container.streams.best("video")
    if stream is None or av.stream.Disposition.attached_pic in stream.disposition:
        raise VideoError(path, "holds no video, only " + (
            "audio" if container.streams.audio else "other data"
        ))
    if stream.codec_context is None:
        raise VideoError(path, "its video codec is unknown")
    return stream


def check_size(path: str, width: int, height: int) -> None:
    if width * height > _MAX_PIXELS:
        raise VideoError(path, f"its frames of {width}x{height} pixels are too large")


def _announced(kind: str, stream: Any) -> int:
    """Frames that the container's own index promises; 0 where there is no such index."""
    if "mov" in kind:  # the entries, not the header's count: an edit list may leave frames out
        return len(getattr(stream, "index_entries", ()))
    return stream.frames if kind == "avi" else 0


def _is_hidden(codec_name: str, packet: Any) -> bool:
    """VP8 stores reference frames that are never shown as packets (RFC 6386, 9.1)."""
    return codec_name.startswith(("vp8", "libvpx")) and not bytes(packet)[0] >> 4 & 1


def _nal_length_size(codec_name: str, extradata: bytes | None) -> int:
    """Bytes of the length before each H.264 unit (avcC of ISO 14496-15); 0 for other layouts."""
    if codec_name != "h264" or not extradata or len(extradata) < 7 or extradata[0] != 1:
        return 0
    return (extradata[4] & 3) + 1


def _well_formed(data: bytes, length_size: int) -> bool:
    """Whether H.264 units fill the packet exactly and its first slice starts a picture."""
    place, first_slice = 0, False
    while place < len(data):
        start = place + length_size
        place = start + int.from_bytes(data[place:start], "big")
        if not start < place <= len(data) or data[start] & 128 or not data[start] & 31:
            return False
        if not first_slice and data[start] & 31 in (1, 5):
            # The slice's first field, a variable-length number, is 0: a single 1 bit.
            if start + 1 >= place or not data[start + 1] & 128:
                return False
            first_slice = True
    return first_slice


def read_packets(container: Any, stream: Any) -> Iterator[Any]:
    """The stream's packets, then None, which flushes a decoder.

    A file that breaks off ends like any other: what is missing shows in the index.
    """
    try:
        for packet in container.demux(stream):
            if packet.size:
                yield packet
    except av.FFmpegError:
        pass
    yield None


def _flushed(packet: Any) -> list[Any]:
    try:
        return packet.decode() + packet.stream.decode(None)
    except av.FFmpegError:
        return []


def quarter_turns(frame: Any) -> int:
    """Quarter turns counter-clockwise that make the frame upright."""
    return round(getattr(frame, "rotation", 0) / 90) % 4

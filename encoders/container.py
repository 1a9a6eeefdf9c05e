"""A video file as its packets tell it: frame times, keyframes, damage, and what it is not.

Nothing is decoded here but the first frame, so this costs milliseconds (reading the file). Only
where packets lie before the first keyframe is decoded up to it, as nothing else tells which of
them can be shown.
"""

import io
import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from functools import partial
from typing import Any, BinaryIO, NamedTuple

import av
import numpy as np
from PIL import ExifTags, Image

from .display import FIELDS_APART, Look, is_turned, transfer_of
from .packets import (
    FieldPairs,
    Packet,
    display_order,
    find_joins,
    flushed,
    from_first_key,
    is_hidden,
    nal_length_size,
    read_packets,
    well_formed,
)
from .sampling import times_shown

MAX_LOST = 0.1  # share of frames that may be missing before the file counts as broken
_MAX_PIXELS = 2**27  # per frame; a 16K frame has about as many, beyond lies a forged header
DEFAULT_FPS = 25.0  # of a single frame or a stream without any clock, as FFmpeg assumes
_STILL_BRANDS = ("avif", "heic", "heix", "mif1")
NO_FILE = "a URL, and files are needed: download it and give its path"
_URL = re.compile(r"(?P<scheme>[a-z][a-z0-9+.-]+):/{1,3}(?=[^/])", re.IGNORECASE)
_TEXT_ART = ("adf", "bin", "idf", "tty", "xbin")  # FFmpeg plays text files, by their suffix
_NO_VIDEO = {  # by how they begin, in lower case
    b"#extm3u": "a playlist: download the video that it lists",
    b"version https://git-lfs": "a Git LFS pointer: `git lfs pull` fetches the video",
    b"<!doctype html": "a web page",
    b"<html": "a web page",
    b"<?xml": "a text in XML, as servers answer with instead of a file",
    b'{"': "a text in JSON, as servers answer with instead of a file",
    b"pk\x03\x04": "an archive: unpack it",
    b"\x1f\x8b": "an archive: unpack it",
}
_NO_HEADER = (".yuv", ".rgb")  # FFmpeg must be told their size
_GIF_EXTENSION, _GIF_PICTURE = b"!", b","  # how a block begins
_UNTIMED = 0.1  # seconds that a frame of an animation is shown that says none
_CLOCK_MAY_JUMP = 0x200  # AVFMT_TS_DISCONT: containers that stay valid when cut up and joined
_NO_CLOCK = ("mpegvideo", "m4v")  # raw streams whose times FFmpeg makes up, MPEG-1's with a gap
_FASTEST = 300  # frames per second that a raw stream is believed
_FIELD_ORDERS = (2, 3, 4, 5)  # AVFieldOrder: all but unknown and progressive
_ALPHA_DECODERS = {"vp8": "libvpx", "vp9": "libvpx-vp9"}  # FFmpeg's own leave it out
_MOST_OBLONG = 8.0  # a pixel ratio beyond is forged
_SQUARE = 0.01  # a pixel ratio nearer to 1 can't be seen
# Titles may be in any encoding, and don't matter; PyAV asks no longer what to do with such.
_ANY_TITLE: dict[str, Any] = (
    {} if int(av.__version__.split(".")[0]) > 18 else {"metadata_errors": "ignore"}
)


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


class ReaderFault(VideoError):
    """A file that wasn't read because of the software: a library of another version, say.

    One file may be odd enough to bring this about; where no file can be read, none is to blame.
    """


@dataclass(frozen=True, kw_only=True)
class VideoIndex:
    """What the packets tell without decoding them; frames in display order."""

    times: np.ndarray  # seconds, ascending, starting at 0
    fps: float
    last_seconds: float  # how long the last frame lasts
    objection: str | None  # why decord must not read it
    pts: np.ndarray | None = None  # time stamps that identify frames; None where they can't
    keys: np.ndarray = field(default_factory=lambda: np.zeros(1, np.int64))  # places of keyframes
    clean: bool = True  # every packet is well formed
    threads: bool = True  # whether a decoder with several threads tells of all damage
    skips: bool = False  # whether a decoder can leave out frames that no other refers to
    pillow: bool = False  # an animation that FFmpeg can't decode
    skipped: int = 0  # frames at the start that can't be shown, as what they hang on is missing
    look: Look = Look()
    warnings: tuple[str, ...] = ()

    def steady(self) -> tuple[np.ndarray, np.ndarray]:
        """The frames in even steps of time, as they are seen: which one, and since when, each (n,).

        A frame that is shown for longer than usual is there several times; see `times_shown`.
        """
        shown = np.append(np.diff(self.times), self.last_seconds)
        counts = times_shown(shown)
        places = np.repeat(np.arange(len(counts)), counts)
        if len(places) == len(counts):
            return places, self.times
        step = np.arange(len(places)) - np.repeat(np.cumsum(counts) - counts, counts)
        return places, self.times[places] + step * (shown / counts)[places]

    def position(self, pts: int | None) -> int:
        """Which frame is on the screen at a time stamp."""
        if self.pts is None or pts is None:
            return 0
        return max(0, int(np.searchsorted(self.pts, pts, "right")) - 1)


class _Scan(NamedTuple):
    packets: list[Packet]  # of frames that are shown, in the order of the file
    first: bytes  # what the first of them holds, of MJPEG alone
    head: list[Any]  # what it decodes to by itself
    clean: bool  # every one is well formed
    units: bool  # whether that was looked at, inside of H.264
    joins: list[int]  # where recordings begin behind the first
    after_edit: bool  # whether packets before them are decoded, but not shown
    seconds: tuple[int, int]  # packets of a frame's second field alone: shown, hidden by an edit


def inspect(path: str) -> VideoIndex:
    """Everything that decides how to read the file, from its packets and its first frame."""
    _check_file(path)
    durations = pillow_durations(path)
    if durations is not None and len(durations) > 1:
        return _animated(durations)
    with open_file(path) as container:
        stream = video_stream(path, container)
        codec, kind = stream.codec_context, container.format.name
        if kind in _TEXT_ART:
            raise VideoError(path, "a text file, not a video")
        check_size(path, codec.width, codec.height)
        scan = _scan(container, stream)
        found = len(scan.packets)
        if not found:
            raise VideoError(path, "holds no frames")
        announced, stored = _announced(path, kind, stream)
        if announced:
            announced, stored = announced - scan.seconds[0], stored - sum(scan.seconds)
        lost = max(0, announced - found)
        if lost > MAX_LOST * announced:
            raise VideoError(path, f"truncated: only {_share(found, announced)} there")
        still = kind.endswith("_pipe") or kind in ("image2", "gif", "apng")
        if found == 1 and (still or container.metadata.get("major_brand") in _STILL_BRANDS):
            raise VideoError(path, "a still image, not a video")
        look, warnings = _look(path, stream, scan)
        if lost:
            warnings.append(f"truncated: {_share(lost, announced)} missing")
        if announced < stored:
            warnings.append(f"cut: {_share(announced, stored)} shown")
        # AVI stamps packets in the order of decoding: right as a clock, wrong as names of frames.
        by_time = kind != "avi"
        packets, joins = scan.packets, scan.joins
        if by_time and not scan.after_edit:
            end = joins[0] if joins else found
            packets = from_first_key(packets[:end], partial(_first_shown, path)) + packets[end:]
        skipped = found - len(packets)
        if skipped:
            joins = [place - skipped for place in joins]
            frames = "frame" if skipped == 1 else f"{skipped} frames"
            warnings.append(f"begins inside a GOP: first {frames} skipped")
        if joins:
            warnings.append("time stamps jump: frames in the order of the file")
        has_clock = packets[0].pts is not None and kind not in _NO_CLOCK
        rate = _rate(stream, has_clock=has_clock)
        unit = float(stream.time_base)
        order, pts = display_order(packets, joins, unit, rate)
        timed = packets[order[0]].pts is not None and bool((np.diff(pts) > 0).all())
        named = timed and by_time and not joins
        even = np.arange(len(order)) / rate
        times = (pts - pts[0]) * unit if timed and has_clock else even
        fps = (len(order) - 1) / float(times[-1]) if len(order) > 1 else rate
        # MP4 keeps how long it is from one packet to the next, in the order of decoding.
        last = packets[-1 if "mov" in kind else order[-1]]
        if abs(fps / rate - 1) < 0.005:  # the same, but for time stamps rounded to milliseconds
            fps = rate
        if announced != stored:
            objection: str | None = "an edit list"
        elif skipped:
            objection = "a beginning inside a GOP"
        else:
            sound = scan.units and scan.clean and named
            objection = _objection(kind, codec, scan.head, sound, look)
        return VideoIndex(
            times=times,
            fps=fps,
            last_seconds=last.duration * unit or 1 / fps,
            pts=pts if named else None,
            keys=np.array([rank for rank, i in enumerate(order) if packets[i].key], np.int64),
            clean=scan.clean and not lost,
            objection=objection,
            threads=codec.name != "hevc",  # damaged HEVC differs from run to run, without a word
            # HEVC's may be referred to by layers above. To deinterlace takes a frame's neighbours.
            skips=codec.name == "h264" and named and not look.interlaced,
            skipped=skipped,
            look=look,
            warnings=tuple(warnings),
        )


def _rate(stream: Any, *, has_clock: bool) -> float:
    """Frames per second, as a container or, in a raw stream, its parameter sets state it."""
    rates = [stream.average_rate, stream.guessed_rate]
    if not has_clock:  # whose average is FFmpeg's default, which it also guesses for high rates
        rates = [stream.codec_context.framerate, *rates[::-1]]
        # Beyond it's the tick of a clock that doesn't run evenly.
        rates = [rate for rate in rates if rate and rate <= _FASTEST]
    return float(next(filter(None, rates), 0)) or DEFAULT_FPS


def _scan(container: Any, stream: Any) -> _Scan:
    """What the packets tell, those left out that no player shows."""
    codec = stream.codec_context
    packets: list[Packet] = []
    begin, head = b"", list[Any]()
    nal_bytes = nal_length_size(codec.name, codec.extradata)
    pairs, seconds = FieldPairs(codec.name, codec.extradata), [0, 0]
    clean, after_edit, hidden = True, False, False
    for packet in read_packets(container, stream):
        if packet is None or is_hidden(codec.name, packet):
            continue
        second = pairs.completed_by(packet)
        if second:
            seconds[hidden] += 1
        else:
            hidden = packet.is_discard  # by an edit list
        if hidden:
            after_edit = after_edit or not packets
            continue
        if not packets:
            begin = bytes(packet) if codec.name == "mjpeg" else b""
            head = flushed(packet)
        found = Packet(
            packet.pts, packet.dts, packet.duration or 0, packet.is_keyframe, packet.is_corrupt
        )
        if second:
            first = packets[-1]
            packets[-1] = first._replace(
                duration=first.duration + found.duration, corrupt=first.corrupt or found.corrupt
            )
        else:
            packets.append(found)
        clean = clean and not packet.is_corrupt
        if nal_bytes and clean:
            clean = well_formed(bytes(packet), nal_bytes)
    jumpy = bool(container.format.flags & _CLOCK_MAY_JUMP)
    # There a gap makes the packet before it look corrupt, and the last may be cut off.
    packets = [
        packet
        for place, packet in enumerate(packets, 1)
        if not packet.corrupt or (jumpy and place < len(packets))
    ]
    joins = find_joins(packets, float(stream.time_base)) if jumpy else []
    shown, cut = seconds
    return _Scan(packets, begin, head, clean, bool(nal_bytes), joins, after_edit, (shown, cut))


def _look(path: str, stream: Any, scan: _Scan) -> tuple[Look, list[str]]:
    """What the stream's frames need before they look right, and what to say of it."""
    warnings = []
    codec, shape = stream.codec_context, Fraction(stream.sample_aspect_ratio or 1)
    fields = getattr(codec, "field_order", 0) in _FIELD_ORDERS  # only newer PyAV tells
    fields = fields or any(scan.seconds) or any(frame.interlaced_frame for frame in scan.head)
    ratio = float(shape)
    if abs(ratio - 1) < _SQUARE:
        ratio = 1.0
    elif not 1 / _MOST_OBLONG <= ratio <= _MOST_OBLONG:
        warnings.append(f"pixels of {_ratio(shape)} taken as square")
        ratio = 1.0
    else:
        warnings.append(f"pixels of {_ratio(shape)} shown in their shape")
    if fields and codec.name in FIELDS_APART and all(f.interlaced_frame for f in scan.head):
        warnings.append("interlaced: each field shown as a frame")
        ratio /= 2
    transfer = transfer_of(codec)
    if transfer == "bt2020":
        warnings.append("BT.2020 colours shown as BT.709")
    elif transfer:
        warnings.append(f"HDR ({transfer.upper()}) shown as SDR")
    alpha = _alpha_decoder(codec) if stream.metadata.get("alpha_mode") == "1" else None
    # Uncompressed pixels of 32 bits have a byte to spare there, which players don't look at.
    opaque = codec.name == "rawvideo" and stream.container.format.name == "avi"
    look = Look(
        pixel_ratio=ratio,
        transfer=transfer,
        interlaced=fields,
        alpha=alpha,
        opaque=opaque,
        exif=_exif_orientation(path, codec.name, scan.first),
    )
    check_size(path, *look.size(codec.width, codec.height))
    return look, warnings


def _exif_orientation(path: str, codec_name: str, first: bytes) -> int | None:
    """How EXIF says that the pictures of MJPEG, by its first, or an APNG are turned."""
    if codec_name not in ("mjpeg", "apng"):
        return None
    try:
        with Image.open(io.BytesIO(first) if codec_name == "mjpeg" else path) as picture:
            found = picture.getexif().get(ExifTags.Base.Orientation)
    except Exception:  # damaged, in any way
        return None
    return found if isinstance(found, int) else None


def _alpha_decoder(codec: Any) -> str | None:
    """The decoder that also gives transparency, where there is one; it knows 8 bits only."""
    name = _ALPHA_DECODERS.get(codec.name)
    deep = codec.format is None or any(part.bits != 8 for part in codec.format.components)
    return name if name in av.codecs_available and not deep else None


def _ratio(shape: Fraction) -> str:
    return f"{shape.numerator}:{shape.denominator}"


def _share(count: int, total: int) -> str:
    return f"{count} of its {total} frames {'is' if count == 1 else 'are'}"


def _first_shown(path: str, start: int) -> set[int]:
    """Time stamps of the sound frames that a decoder gives, up to the first not before `start`."""
    shown: set[int] = set()
    with open_file(path) as container:
        stream = video_stream(path, container)
        stream.thread_type = "NONE"
        for packet in read_packets(container, stream):
            try:
                frames = stream.decode(packet)
            except av.FFmpegError:
                continue
            for frame in frames:
                if frame.pts is not None and not frame.is_corrupt:
                    shown.add(frame.pts)
                    if frame.pts >= start:
                        return shown
    return shown


def _animated(durations: list[float]) -> VideoIndex:
    ends = np.cumsum(durations)
    return VideoIndex(
        times=np.append(0.0, ends[:-1]),
        fps=float(len(durations) / ends[-1]),
        last_seconds=durations[-1],
        objection="an animation that Pillow reads",
        pillow=True,
    )


def _objection(kind: str, codec: Any, head: list[Any], sound: bool, look: Look) -> str | None:
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
    if is_turned(frame):
        return "a stored rotation"
    if look.transfer:
        return "colours other than BT.709's"
    if look.interlaced:
        return "interlaced frames"
    return None if look.pixel_ratio == 1 else "pixels that aren't square"


def as_url(path: str) -> str | None:
    """The address that stands in place of a file's path; None for a path.

    `Path` makes one slash of the two, or of the three of `file:///`, which are given back.
    """
    found = _URL.match(path)
    if found is None or os.path.lexists(path):
        return None
    slashes = "///" if found["scheme"].lower() == "file" else "//"
    return f"{found['scheme']}:{slashes}{path[found.end() :]}"


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


def why_refused(path: str) -> str | None:
    """Why FFmpeg may have refused a file, by how it begins; None where that tells nothing."""
    try:
        with open(path, "rb") as file:
            head = file.read(64).removeprefix(b"\xef\xbb\xbf").lstrip()
    except OSError:
        return None
    if head[4:8] == b"ftyp":
        return "truncated or damaged, its MP4 index is missing"
    if path.lower().endswith(_NO_HEADER):
        return "raw pixels, and nothing says their size: convert it to Y4M"
    return next((what for start, what in _NO_VIDEO.items() if head.lower().startswith(start)), None)


def open_file(path: str) -> Any:
    # An absolute path can't be mistaken for a URL, and playlists can't reach the network.
    return av.open(
        os.path.abspath(path),
        container_options={"protocol_whitelist": "file"},
        **_ANY_TITLE,
    )


def video_stream(path: str, container: Any) -> Any:
    stream = container.streams.best("video")
    if stream is None or av.stream.Disposition.attached_pic in stream.disposition:
        raise VideoError(
            path, "holds no video, only " + ("audio" if container.streams.audio else "other data")
        )
    if stream.codec_context is None:
        raise VideoError(path, "its video codec is unknown")
    return stream


def check_size(path: str, width: int, height: int) -> None:
    if width * height > _MAX_PIXELS:
        raise VideoError(path, f"its frames of {width}x{height} pixels are too large")


def _announced(path: str, kind: str, stream: Any) -> tuple[int, int]:
    """Frames that the container's own index promises, and that it holds; 0 without an index.

    The two differ where an edit list leaves frames out, as after a cut without encoding.
    """
    if "mov" in kind:
        entries = getattr(stream, "index_entries", ())
        return sum(not entry.is_discard for entry in entries), stream.frames or len(entries)
    if kind != "avi":
        return 0, 0
    # Its header counts time slots: an empty one goes on showing the frame before.
    frames = len(getattr(stream, "index_entries", ())) if _riff_is_whole(path) else 0
    frames = frames or stream.frames
    return frames, frames


def _riff_is_whole(path: str) -> bool:
    """Whether a file is one RIFF chunk, with its end; a long AVI has several."""
    with open(path, "rb") as file:
        head = file.read(8)
    rest = os.path.getsize(path) - 8 - int.from_bytes(head[4:], "little")
    return head[:4] == b"RIFF" and 0 <= rest < 8


def pillow_durations(path: str) -> list[float] | None:
    """How long each frame is shown, in seconds, of an animation that FFmpeg can't decode.

    None for any other file. A frame that says 0 stays for 0.1 s, as in browsers and in FFmpeg.
    """
    with open(path, "rb") as file:
        head = file.read(13)
        if _is_webp(head):
            return [seconds or _UNTIMED for seconds in _webp_durations(file)] or None
        if head[:4] == b"GIF8":
            file.seek(_gif_palette(head[10]), 1)
            return [_UNTIMED] * _count_untimed(file) or None
    return None


def _is_webp(head: bytes) -> bool:
    return head[:4] == b"RIFF" and head[8:12] == b"WEBP"


def _webp_durations(file: BinaryIO) -> Iterator[float]:
    """Of an animated WebP; a frame that the end of the file cuts off does not count.

    Source: https://developers.google.com/speed/webp/docs/riff_container
    """
    file.seek(12)
    while len(chunk := file.read(8)) == 8:
        size = int.from_bytes(chunk[4:], "little")
        size += size % 2
        body = file.read(min(size, 16))
        if chunk[:4] == b"ANMF" and len(body) == 16:
            # 3 bytes each: x, y, width - 1, height - 1, milliseconds
            yield int.from_bytes(body[12:15], "little") / 1000
        file.seek(size - len(body), 1)


def _count_untimed(file: BinaryIO) -> int:
    """Frames of a GIF none of which has a graphic control extension; 0 if one has.

    Pillow writes it so when it's told no duration. FFmpeg looks for those extensions, and takes
    all for one frame.

    Source: https://www.w3.org/Graphics/GIF/spec-gif89a.txt
    """
    count = 0
    while (kind := file.read(1)) in (_GIF_EXTENSION, _GIF_PICTURE):
        if kind == _GIF_PICTURE:
            head = file.read(9)
            file.seek(_gif_palette(head[-1]) + 1 if len(head) == 9 else 0, 1)
        elif file.read(1) == b"\xf9":
            return 0
        while size := file.read(1):
            if size == b"\0":
                count += kind == _GIF_PICTURE
                break
            file.seek(size[0], 1)
    return count


def _gif_palette(flags: int) -> int:
    """Bytes of the palette that a head announces."""
    return 3 << (flags & 7) + 1 if flags & 128 else 0


def is_animated_webp(path: str) -> bool:
    """Whether a file is an animated WebP; False too for one that can't be opened."""
    try:
        with open(path, "rb") as file:
            return _is_webp(file.read(12)) and any(True for _ in _webp_durations(file))
    except OSError:
        return False

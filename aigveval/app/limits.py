"""What a clip from outside may be, and what is said of one that is more."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import av
from PIL import Image

from encoders.container import VideoError, check_size, open_file, pillow_durations, video_stream
from encoders.packets import FieldPairs, read_packets

MEGABYTE = 10**6
MOST_CHARACTERS = 10_000  # of a prompt
# Text that makes FFmpeg open other files: playlists, and lists of files to be joined.
_ELSEWHERE = ("hls", "concat", "dash", "imf", "sdp", "rtsp", "rtp", "sap", "vobsub", "image2")


class Refused(Exception):
    """A request that isn't served; the message is one line, `status` that of the HTTP answer."""

    def __init__(self, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Bounds of one clip, and of what waits.

    Args:
        size_bytes: of its file.
        seconds: of its duration.
        frames: that it may have.
        pixels: of one frame.
        waiting: clips that may wait for the model.
        folder_bytes: of all uploads that there are at a time.
        idle_seconds: how long a client may send nothing while its request is read.

    Raises:
        ValueError: when one isn't above 0.
    """

    size_bytes: int = 500 * MEGABYTE
    seconds: float = 600.0
    frames: int = 36_000
    pixels: int = 4096 * 2304
    waiting: int = 256
    folder_bytes: int = 8_000 * MEGABYTE
    idle_seconds: float = 30.0

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not value > 0:
                raise ValueError(f"{name} must be above 0, got {value}")

    def check_size(self, size_bytes: int) -> None:
        """Raises `Refused` when a file is larger than allowed."""
        if size_bytes > self.size_bytes:
            most = f"{self.size_bytes / MEGABYTE:g} MB"
            raise Refused(f"the file is larger than {most}, the limit here", 413)

    def check_clip(self, path: Path) -> None:
        """Looks at a file's packets, without decoding, no further than the limits go.

        A file that is no video passes: to say so is the engine's part.

        Raises:
            Refused: it is more than allowed, or a list of other files.
        """
        name = str(path)
        self.check_size(path.stat().st_size)
        durations = pillow_durations(name)
        if durations is not None:
            self._check_length(len(durations), sum(durations))
            try:
                with Image.open(path) as picture:
                    size = picture.size
            except Exception:  # Pillow's errors are of many kinds
                return
            self._check_frame(*size)
            return
        if _lists_files(path):
            raise Refused("a list of other files, not a video", 422)
        try:
            with open_file(name) as container:
                if container.format.name in _ELSEWHERE:
                    raise Refused("a list of other files, not a video", 422)
                stream = video_stream(name, container)
                codec = stream.codec_context
                check_size(name, codec.width, codec.height)
                self._check_frame(codec.width, codec.height)
                first = last = None
                count, pairs = 0, FieldPairs(codec.name, codec.extradata)
                for packet in read_packets(container, stream):
                    if packet is None or pairs.completed_by(packet) or packet.is_discard:
                        continue
                    count += 1
                    time = packet.pts if packet.pts is not None else packet.dts
                    if time is not None:
                        seconds = float(time * packet.time_base)
                        first = seconds if first is None else min(first, seconds)
                        last = seconds if last is None else max(last, seconds)
                    self._check_length(count, 0.0 if last is None else last - (first or 0.0))
        except (VideoError, av.FFmpegError, ValueError, OSError):
            return

    def _check_frame(self, width: int, height: int) -> None:
        if width * height > self.pixels:
            found = f"frames of {width}x{height} pixels"
            raise Refused(f"{found}; the limit here is {self.pixels}", 413)

    def _check_length(self, frames: int, seconds: float) -> None:
        if frames > self.frames:
            raise Refused(f"more than {self.frames} frames, the limit here", 413)
        if seconds > self.seconds:
            raise Refused(f"longer than {self.seconds:g} seconds, the limit here", 413)


def _lists_files(path: Path) -> bool:
    """Whether FFmpeg would take it for a playlist: told by its first bytes, before it looks."""
    with open(path, "rb") as file:
        head = file.read(4096).lstrip(b"\xef\xbb\xbf \t\r\n")
    return head.startswith((b"#EXTM3U", b"ffconcat", b"v=0", b"<?xml")) or b"<MPD" in head

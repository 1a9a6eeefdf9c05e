"""The decoders behind `encoders.video`: PyAV, and decord for those who insist.

PyAV can leave out what nobody asked for. Of an H.264 clip of eight seconds the encoders want about
every third frame, and half of the others are such that no other frame refers to: those are never
decoded.
"""

import os
from collections import deque
from collections.abc import Container, Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import Any, Literal

import av
import cv2
import numpy as np
import torch
from torch import Tensor

from .base import Stream
from .container import MAX_LOST, VideoError, VideoIndex, check_size, open_file, video_stream
from .cpu import available_cpus
from .display import FIELDS_APART, deinterlaced, flattened, to_rgb
from .library_internals import decord_errors
from .packets import read_packets
from .resizing import reduced

Backend = Literal["auto", "decord", "av"]

_MIN_JUMP = 48  # frames; a seek refills the decoder, which costs about that many
_MAX_SKIP = 64  # frames; decord gives 128 signs of the end, and loops for ever behind them
_THREADS = min(4, available_cpus())  # a frame-threaded decoder holds a frame per thread


class Recount(Exception):
    """Decoding gave fewer frames than there are packets: the indices must be asked for again."""

    def __init__(self, num_frames: int) -> None:
        super().__init__(num_frames)
        self.num_frames = num_frames


class Sink:
    """Takes each wanted frame once, at full size, and keeps it in the sizes asked for."""

    def __init__(
        self, path: str, slow_max_side_px: int, fast_short_side_px: int, *, quick: bool = False
    ) -> None:
        self.path, self.quick = path, quick
        self.width = self.height = 0
        self.warnings: set[str] = set()
        self._limits = {"slow": slow_max_side_px, "fast": fast_short_side_px}
        self._arrays: dict[tuple[Stream, bytes], np.ndarray | None] = {}
        self._slots: dict[int, list[tuple[tuple[Stream, bytes], int]]] = {}

    def want(self, stream: Stream, indices: np.ndarray) -> None:
        key = (stream, indices.tobytes())
        if key not in self._arrays:
            self._arrays[key] = None
            for slot, position in enumerate(indices.tolist()):
                self._slots.setdefault(position, []).append((key, slot))

    def positions(self) -> list[int]:
        return sorted(self._slots)

    def warned(self, rgb: np.ndarray, warnings: Iterable[str]) -> np.ndarray:
        """The picture; what is to be said of it is kept."""
        self.warnings.update(warnings)
        return rgb

    def put(self, position: int, rgb: np.ndarray) -> None:
        """Store one frame, (h, w, 3) uint8; a second time replaces the first."""
        if not self.width:
            self.height, self.width = rgb.shape[:2]
        elif rgb.shape[:2] != (self.height, self.width):
            self.warnings.add("sizes differ: frames brought to that of the first")
        small: dict[str, np.ndarray] = {}
        for key, slot in self._slots[position]:
            stream, count = key[0], len(key[1]) // 8
            if stream not in small:
                size = self._size(stream)
                if size != rgb.shape[1::-1]:
                    rgb = np.ascontiguousarray(rgb)  # a turned frame is a view
                    resized = reduced(rgb, *size, quick=self.quick)
                else:
                    resized = rgb
                small[stream] = resized
            array = self._arrays[key]
            if array is None:
                height, width, _ = small[stream].shape
                array = np.empty((count, 3, height, width), np.uint8)
                self._arrays[key] = array
            # Not in torch: its copies wait for OpenMP threads, for long on a busy machine. NumPy's
            # take six times as long.
            cv2.split(small[stream], list(array[slot]))

    def pixels(self) -> dict[tuple[Stream, bytes], Tensor]:
        """uint8 (t, 3, h, w) by stream and indices."""
        return {key: torch.from_numpy(array) for key, array in self._arrays.items()}

    def _size(self, stream: Stream) -> tuple[int, int]:
        side = (max if stream == "slow" else min)(self.width, self.height)
        scale = min(1.0, self._limits[stream] / side)
        return max(1, round(self.width * scale)), max(1, round(self.height * scale))


def decode(
    path: str, index: VideoIndex, sink: Sink, backend: Backend
) -> Literal["decord", "av", "pillow"]:
    """Give the sink its frames; returns the backend that did.

    Raises:
        VideoError: Too much of the file is damaged, or `backend` insists on one that fails.
        Recount: The file has fewer frames than the index says.
    """
    wanted = sink.positions()
    if index.pillow and backend == "auto":
        for position, rgba in zip(wanted, pillow_frames(path, wanted), strict=True):
            sink.put(position, sink.warned(*flattened(rgba)))
        return "pillow"
    if backend == "decord":
        if index.objection:
            raise VideoError(path, f"decord can't be trusted with {index.objection}")
        try:
            _decode_decord(path, len(index.times), wanted, sink)
            return "decord"
        except Exception as error:  # whatever it is
            raise VideoError(path, f"decord can't read it ({type(error).__name__})") from error
    # Damage is repaired differently by every layout of threads: a second try with one thread, and
    # of all frames, gives the same pixels on every machine.
    lost, damaged = 0, not index.clean
    if not damaged:
        threads = _THREADS if index.threads and not _logs() else 1
        jumps = _jumps(wanted, index)
        lost, damaged = _decode_av(path, index, sink, threads, jumps=jumps, skip=index.skips)
    if damaged:
        lost, _ = _decode_av(path, index, sink, 1)
    if lost > MAX_LOST * len(wanted):
        raise VideoError(
            path, f"corrupt: {lost} of the {len(wanted)} wanted frames can't be decoded"
        )
    if lost:
        sink.warnings.add(
            f"damaged: {lost} of the {len(wanted)} wanted frames replaced by the one before"
        )
    return "av"


def _jumps(wanted: list[int], index: VideoIndex) -> dict[int, int]:
    """Wanted frame to the keyframe to jump to before it, where that skips enough frames."""
    if index.pts is None or not index.clean:
        return {}
    jumps, position = {}, 0
    for frame in wanted:
        # bwdif also wants the frame before
        start = frame - 1 if index.look.interlaced else frame
        key = int(np.searchsorted(index.keys, start, "right")) - 1
        if key >= 0 and index.keys[key] - position >= _MIN_JUMP:
            jumps[frame] = int(index.keys[key])
        position = frame + 1
    return jumps


def _decode_decord(path: str, num_frames: int, wanted: list[int], sink: Sink) -> None:
    """Decode from the start up to the last wanted frame; raises whatever decord raises.

    decord seeks on its own when it skips over a keyframe, by decoding time instead of display
    time, which lands on wrong frames. So the frame before each keyframe is read, not skipped.
    """
    import decord

    errors, _ = decord_errors(os.path.dirname(decord.__file__))
    before = len(errors)
    reader = decord.VideoReader(os.path.abspath(path), num_threads=_THREADS)
    try:
        if len(reader) != num_frames:
            raise ValueError(f"decord counts {len(reader)} frames instead of {num_frames}")
        keys = deque(sorted(reader.get_key_indices()))
        position = 0
        for frame in wanted:
            while position < frame:
                _check_heard(errors, before)
                while keys and keys[0] <= position:
                    keys.popleft()
                stop = min(frame, position + _MAX_SKIP, keys[0] - 1 if keys else frame)
                if stop > position:
                    reader.skip_frames(stop - position)
                    position = stop
                else:
                    reader.next()
                    position += 1
            rgb = reader.next().asnumpy()
            _check_heard(errors, before)
            if rgb.ndim != 3:
                raise ValueError(f"decord gives an array of shape {rgb.shape}")
            sink.put(frame, rgb)
            position += 1
    finally:
        del reader  # here, not whenever the exception is forgotten: it ends decord's thread


def _check_heard(errors: list[int], before: int) -> None:
    if len(errors) > before:
        raise ValueError("decord met damage")


def _logs() -> bool:
    """Whether FFmpeg's messages go to Python, as older versions of torchvision have it.

    A thread of the decoder that has one then waits for Python's lock, and who frees the decoder
    holds it while he waits for the thread: PyAV hangs, unless there is one thread alone.
    """
    return av.logging.get_level() is not None


def _decode_av(
    path: str,
    index: VideoIndex,
    sink: Sink,
    threads: int,
    *,
    jumps: Mapping[int, int] = MappingProxyType({}),
    skip: bool = False,
) -> tuple[int, bool]:
    """One pass over the wanted frames; a missing one is replaced by the one shown before it.

    Args:
        path, index, sink: As of `decode`.
        threads: Of the decoder.
        jumps: See `_jumps`.
        skip: Leave out the frames that nobody wants and no other frame refers to.

    Returns:
        How many wanted frames were missing, and whether the decoder met any damage, or fields
        where frames were left out that are needed to deinterlace.
    """
    pending = deque(sink.positions())
    wanted = frozenset(pending) if skip else None
    lost, damaged, seen, shown = 0, False, 0, None
    with open_file(path) as container:
        stream = video_stream(path, container)
        codec = _decoder(stream, index.look.alpha)
        codec.thread_type = "AUTO" if threads > 1 else "NONE"
        codec.thread_count = threads
        while pending:
            if pending[0] in jumps:
                assert index.pts is not None
                container.seek(int(index.pts[jumps[pending[0]]]), stream=stream)
                if codec.is_open:
                    codec.flush_buffers()  # one that isn't the stream's own isn't told of the jump
            first = pending[0]
            frames = _frames(container, stream, codec, index, wanted)
            if codec.name not in FIELDS_APART:
                frames = deinterlaced(frames, sink.warnings)
            for frame in frames:
                if frame is None:
                    damaged = True
                    continue
                if index.pts is None:
                    if index.skipped and not seen and frame.is_corrupt:
                        continue
                    position = seen
                elif frame.pts is not None and frame.pts < index.pts[0]:
                    continue  # before the first frame that can be shown
                else:
                    position = index.position(frame.pts)
                seen += 1
                damaged = damaged or frame.is_corrupt
                while pending and pending[0] < position:
                    lost += 1
                    _put_av(path, pending.popleft(), shown or frame, index, sink)
                if pending and pending[0] == position:
                    _put_av(path, pending.popleft(), frame, index, sink)
                shown = frame
                if not pending or (pending[0] in jumps and pending[0] != first):
                    break
            else:
                break
    if pending and index.pts is None and 0 < seen < len(index.times):
        raise Recount(seen)
    if shown is None:
        raise VideoError(path, "none of its frames can be decoded")
    lost += len(pending)
    for position in pending:
        _put_av(path, position, shown, index, sink)
    return lost, damaged or lost > 0


def _decoder(stream: Any, alpha: str | None) -> Any:
    """The stream's own decoder, or the one that also decodes its transparency."""
    if alpha is None:
        return stream.codec_context
    codec: Any = av.CodecContext.create(alpha, "r")
    codec.extradata = stream.codec_context.extradata
    return codec


def _frames(
    container: Any, stream: Any, codec: Any, index: VideoIndex, wanted: Container[int] | None
) -> Iterator[Any]:
    """Decoded frames in display order; None in place of damage.

    Frames that no other refers to may be missing, unless they're wanted, or all are (None).
    """
    for packet in read_packets(container, stream):
        if wanted is not None:
            needed = packet is None or packet.pts is None or index.position(packet.pts) in wanted
            codec.skip_frame = "DEFAULT" if needed else "NONREF"
        try:
            for frame in codec.decode(packet):
                # To deinterlace it takes its neighbours, which may have been left out.
                yield None if wanted is not None and frame.interlaced_frame else frame
        except av.FFmpegError:
            yield None


def _put_av(path: str, position: int, frame: Any, index: VideoIndex, sink: Sink) -> None:
    check_size(path, *index.look.size(frame.width, frame.height))
    try:
        shown = to_rgb(frame, index.look)
    except MemoryError:  # which may be FFmpeg's, too
        raise
    except av.FFmpegError as error:
        kind = f"{frame.format.name}, matrix {int(frame.colorspace)}"
        raise VideoError(path, f"FFmpeg can't convert its colours ({kind})") from error
    sink.put(position, sink.warned(*shown))


def pillow_frames(path: str, positions: list[int]) -> Iterator[np.ndarray]:
    """Frames of an animation at ascending positions, by Pillow, each (h, w, 4) uint8 RGBA.

    Raises:
        VideoError: Pillow can't read the file, of which any damage is reason enough.
    """
    from PIL import Image

    try:
        with Image.open(path) as image:
            for position in positions:
                image.seek(position)
                yield np.array(image.convert("RGBA"))  # a copy that may be written to
    except (OSError, EOFError) as error:
        raise VideoError(path, "truncated or damaged") from error

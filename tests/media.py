"""Makers of sound, odd and broken media files, small and quick, from nothing but PyAV and Pillow.

`write_video` draws a scene whose frames can be told apart: a smooth texture that moves, a red
patch in the top left corner, and a grey patch in the bottom right one whose level tells the
frame's number (`frame_number` reads it back). Every other maker takes a path, writes one file
there and returns the path; `MAKERS` names those that stand for one class of bad or odd input.
"""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
from PIL import Image

_LEVELS = 25  # distinct grey levels of the frame marker; numbers repeat after that many


def scene(index: int, *, width: int = 96, height: int = 64, seed: int = 0) -> np.ndarray:
    """Frame `index` of the test scene as (h, w, 3) uint8 RGB."""
    rng = np.random.default_rng(seed)
    texture = cv2.resize(
        rng.integers(0, 256, (9, 17, 3), dtype=np.uint8),
        (2 * width, height),
        interpolation=cv2.INTER_CUBIC,
    )
    frame = np.roll(texture, -index, axis=1)[:, :width].copy()
    mark = max(2, min(width, height) // 4)
    frame[:mark, :mark] = (220, 30, 30)
    frame[-mark:, -mark:] = 10 * (index % _LEVELS) + 5
    return frame


def frame_number(rgb: np.ndarray) -> int:
    """The number of a scene's frame (modulo 25), from its (h, w, 3) picture at any size."""
    height, width = rgb.shape[:2]
    mark = max(2, min(width, height) // 4)
    patch = rgb[-max(1, mark * 3 // 4) : -max(1, mark // 4), -max(1, mark * 3 // 4) : -1]
    return round((float(patch.mean()) - 5) / 10)


def write_video(
    path: Path,
    *,
    num_frames: int = 24,
    width: int = 96,
    height: int = 64,
    fps: int = 24,
    codec: str = "libx264",
    pix_fmt: str = "yuv420p",
    gop: int = 12,
    rotation: int = 0,
    times: Sequence[int] | None = None,
    faststart: bool = False,
    seed: int = 0,
    options: dict[str, str] | None = None,
    pixel_ratio: Fraction | None = None,
    metadata: dict[str, str] | None = None,
    pictures: Iterable[np.ndarray | av.VideoFrame] | None = None,
    colours: dict[str, int] | None = None,
) -> Path:
    """Encode the scene; the container follows the suffix of `path`.

    Args:
        width: Displayed width in pixels; `height` likewise.
        rotation: Degrees counter-clockwise, a multiple of 90, by which a player must turn the
            stored picture; it is stored turned the other way.
        times: Time stamp of each frame in milliseconds; even spacing without.
        faststart: Put the MP4's index before its data.
        pixel_ratio: Width of a pixel in its heights.
        metadata: Of the container.
        pictures: Frames in place of the scene's: as stored, or arrays of RGB or RGBA.
        colours: Attributes of the encoder, such as `color_trc`.
    """
    if pictures is None:
        pictures = (scene(i, width=width, height=height, seed=seed) for i in range(num_frames))
    pictures = list(pictures)

    def encode() -> Path:
        return _encode(
            path,
            pictures,
            size=(width, height),
            fps=fps,
            codec=codec,
            pix_fmt=pix_fmt,
            gop=gop,
            rotation=rotation,
            times=times,
            faststart=faststart,
            options=options,
            pixel_ratio=pixel_ratio,
            metadata=metadata,
            colours=colours,
        )

    failed = []  # kept, as the next try would get the same memory again, and fail alike
    for _ in range(8):
        # Once in some thousand times PyAV can't write what its own libx265 has made, and once in
        # a while not the next time either.
        try:
            return encode()
        except av.error.PatchWelcomeError as error:
            failed.append(error)
    raise failed[0]


@contextmanager
def scheduled_as_before() -> Iterator[None]:
    """SVT-AV1 makes its caller's thread real-time where it may, as for root: for good, with all
    processes that it then starts. Two of them on two cores keep everything else waiting."""
    if not hasattr(os, "sched_getscheduler"):
        yield
        return
    before = os.sched_getscheduler(0), os.sched_getparam(0)
    try:
        yield
    finally:
        if before != (os.sched_getscheduler(0), os.sched_getparam(0)):
            os.sched_setscheduler(0, *before)


def _encode(
    path: Path,
    pictures: Sequence[np.ndarray | av.VideoFrame],
    *,
    size: tuple[int, int],
    fps: int,
    codec: str,
    pix_fmt: str,
    gop: int,
    rotation: int,
    times: Sequence[int] | None,
    faststart: bool,
    options: dict[str, str] | None,
    pixel_ratio: Fraction | None,
    metadata: dict[str, str] | None,
    colours: dict[str, int] | None,
) -> Path:
    flags = {"movflags": "faststart"} if faststart else {}
    with scheduled_as_before(), av.open(str(path), "w", options=flags) as container:
        stream = container.add_stream(codec, rate=fps)
        stored = size[::-1] if rotation % 180 else size
        stream.width, stream.height, stream.pix_fmt = *stored, pix_fmt
        stream.codec_context.gop_size = gop
        stream.codec_context.thread_count = 1
        if times is not None:
            stream.codec_context.time_base = stream.time_base = Fraction(1, 1000)
        if pixel_ratio is not None:
            stream.codec_context.sample_aspect_ratio = pixel_ratio
        for name, value in (colours or {}).items():
            setattr(stream.codec_context, name, value)
        container.metadata.update(metadata or {})
        quality = {"crf": "10", "preset": "veryfast"} if codec == "libx264" else {}
        stream.options = {**quality, **(options or {})}
        if rotation:
            stream.set_display_rotation(rotation)
        for index, picture in enumerate(pictures):
            if isinstance(picture, av.VideoFrame):
                frame = picture
            else:
                picture = np.ascontiguousarray(np.rot90(picture, -rotation // 90))
                kind = "rgba" if picture.shape[-1] == 4 else "rgb24"
                frame = av.VideoFrame.from_ndarray(picture, kind)
            if times is not None:
                frame.pts, frame.time_base = times[index], Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def remuxed(
    source: Path, path: Path, *, start: int = 0, first: int = 0, faststart: bool = False
) -> Path:
    """A video's packets in another file, as tools copy them that don't encode.

    Args:
        source: Even frame rate.
        start: Frames before the new time 0. An MP4 or MOV gets an edit list that hides them.
        first: Packets left out at the beginning.
    """
    flags = {"movflags": "faststart"} if faststart else {}
    with av.open(str(source)) as old, av.open(str(path), "w", options=flags) as new:
        video = old.streams.video[0]
        stream = new.add_stream_from_template(video)
        shift = round(start / video.average_rate / video.time_base)
        packets = [packet for packet in old.demux(video) if packet.size]
        for packet in packets[first:]:
            packet.pts, packet.dts, packet.stream = packet.pts - shift, packet.dts - shift, stream
            new.mux(packet)
    return path


def interlaced(path: Path, num_frames: int = 24, **options: Any) -> Path:
    """Frames of two fields, the lower one first, as encoders have it that aren't told."""
    options.setdefault("options", {"flags": "+ilme+ildct"})
    return write_video(path, pictures=map(woven, range(num_frames)), **options)


def woven(index: int) -> np.ndarray:
    """Frame `index` of `interlaced`, as stored."""
    frame = moving_bar(2 * index + 1)
    frame[1::2] = moving_bar(2 * index)[1::2]
    return frame


def moving_bar(field: int) -> np.ndarray:
    """A bar with soft edges that moves by two pixels a field, (64, 96, 3) uint8."""
    place = (np.arange(96) - 2 * field) % 96
    level = 40 + 170 * np.clip(np.minimum(place - 20, 60 - place) / 3, 0, 1)
    return np.broadcast_to(level[:, None], (64, 96, 3)).astype(np.uint8).copy()


def field_pictures(
    path: Path, num_frames: int = 24, *, whole: int = 0, reordered: bool = False
) -> Path:
    """H.264 as broadcasts have it (PAFF): each field in a packet of its own, with its own time.

    25 frames per second, samples stored as they are: none of PyAV's encoders makes such streams.

    Args:
        path: `.h264` has no times.
        whole: Every so many frames, one is a single picture; none with 0.
        reordered: Store every third frame before the one that it's shown behind.
    """
    shown = list(range(num_frames))
    if reordered:
        for first in range(1, num_frames - 1, 2):
            shown[first : first + 2] = first + 1, first
    packets = []  # decoding time in fields, display time likewise, length likewise, units
    for place, index in enumerate(shown):
        fields = (None,) if whole and place % whole == 0 else (0, 1)
        for field in fields:
            data = _pcm_picture(scene(index), place, index, field)
            late = field or 0
            packets.append((2 * place + late - 2, 2 * index + late, 3 - len(fields), data))
    raw = path.with_suffix(".h264")
    raw.write_bytes(b"".join(data for *_, data in packets))
    if path == raw:
        return path
    with av.open(str(raw)) as old, av.open(str(path), "w") as new:
        stream = new.add_stream_from_template(old.streams.video[0])
        for dts, pts, duration, data in packets:
            packet = av.Packet(data)
            packet.stream, packet.time_base = stream, Fraction(1, 50)
            packet.dts, packet.pts, packet.duration = dts, pts, duration
            packet.is_keyframe = data[4] == 0x67
            new.mux(packet)
    return path


def _pcm_picture(rgb: np.ndarray, place: int, index: int, field: int | None) -> bytes:
    """A frame or one field of it as an H.264 access unit of I_PCM macroblocks.

    Args:
        rgb: The frame, sides in whole macroblocks, of a field too.
        place, index: Of the frame in the order of decoding, and of display.
        field: 0 for the top one, 1 for the bottom one.
    """
    height, width, _ = rgb.shape
    planes = av.VideoFrame.from_ndarray(rgb, "rgb24").reformat(format="yuv420p").to_ndarray()
    planes = planes.reshape(-1).clip(16)  # no zeros, which would need emulation prevention
    luma, chroma = np.split(planes, [height * width])
    u, v = chroma.reshape(2, height // 2, width // 2)
    rows = slice(field, None, None if field is None else 2)
    y, u, v = luma.reshape(height, width)[rows], u[rows], v[rows]
    blocks = [
        y[t : t + 16, s : s + 16].tobytes()
        + u[t // 2 : t // 2 + 8, s // 2 : s // 2 + 8].tobytes()
        + v[t // 2 : t // 2 + 8, s // 2 : s // 2 + 8].tobytes()
        for t in range(0, len(y), 16)
        for s in range(0, width, 16)
    ]

    def golomb(value: int) -> str:
        return f"{value + 1:0{2 * (value + 1).bit_length() - 1}b}"

    def unit(kind: int, bits: str, end: bytes = b"") -> bytes:
        bits += "0" * (-len(bits) % 8)
        return bytes((0, 0, 0, 1, kind)) + int(bits, 2).to_bytes(len(bits) // 8, "big") + end

    data = b""
    first = place == 0 and not field
    if first:
        size = golomb(width // 16 - 1) + golomb(height // 32 - 1)
        clock = f"1{1:032b}{50:032b}1" + "000"  # 50 fields per second
        depth = "11" + 4 * golomb(0) + golomb(1) + golomb(2)  # one frame may be reordered
        usage = "0000" + clock + depth
        sequence = f"{77:08b}{0:08b}{40:08b}" + 3 * golomb(0) + golomb(4) + golomb(2) + "0" + size
        emulated = unit(0x67, sequence + "00101" + usage + "1")
        data += emulated[:5] + emulated[5:].replace(b"\0\0\1", b"\0\0\3\1")
        data += unit(
            0x68, 2 * golomb(0) + "00" + 3 * golomb(0) + "000" + 3 * golomb(0) + "100" + "1"
        )
    header = golomb(0) + golomb(7) + golomb(0) + f"{place % 16:04b}"
    header += "0" if field is None else f"1{field}"
    header += (
        golomb(0) * first + f"{(2 * index + (field or 0)) % 256:08b}" + ("00" if first else "0")
    )
    header += golomb(0) + golomb(1) + golomb(25)  # no deblocking; the first macroblock's kind
    return data + unit(0x65 if first else 0x61, header, b"\x0d\0".join(blocks) + b"\x80")


def sound(path: Path) -> Path:
    """A plain H.264 MP4."""
    return write_video(path)


def missing(path: Path) -> Path:
    """Nothing at all."""
    return path


def empty(path: Path) -> Path:
    """A file of no bytes."""
    path.touch()
    return path


def random_bytes(path: Path) -> Path:
    """Noise named like a video."""
    path.write_bytes(np.random.default_rng(0).bytes(20_000))
    return path


def text_file(path: Path) -> Path:
    """Words named like a video."""
    path.write_text("not a video\n" * 100)
    return path


def folder(path: Path) -> Path:
    """A folder named like a video."""
    path.mkdir()
    return path


def broken_link(path: Path) -> Path:
    """A link to nowhere."""
    path.symlink_to(path.with_name("nowhere.mp4"))
    return path


def good_link(path: Path) -> Path:
    """A link to a sound video."""
    path.symlink_to(write_video(path.with_name(f"target_of_{path.name}")))
    return path


def unreadable(path: Path) -> Path:
    """A sound video without read permission; root can read it all the same."""
    write_video(path).chmod(0)
    return path


def truncated_without_index(path: Path) -> Path:
    """An MP4 cut before the index at its end: a download that broke off."""
    data = write_video(path).read_bytes()
    path.write_bytes(data[: data.index(b"moov") - 100])
    return path


def truncated_half(path: Path, share: float = 0.5) -> Path:
    """An MP4 whose index is there and announces more data than the file holds."""
    data = write_video(path, num_frames=48, faststart=True).read_bytes()
    start = data.index(b"mdat") + 4
    path.write_bytes(data[: start + int(share * (len(data) - start))])
    return path


def corrupt_middle(path: Path, share: float = 0.2) -> Path:
    """An MP4 with noise over the middle of its data."""
    data = bytearray(write_video(path, num_frames=48, faststart=True).read_bytes())
    start = data.index(b"mdat") + 4
    size = int(share * (len(data) - start))
    begin = start + (len(data) - start - size) // 2
    data[begin : begin + size] = np.random.default_rng(0).bytes(size)
    path.write_bytes(bytes(data))
    return path


def flipped_bits(path: Path, count: int = 12) -> Path:
    """An MP4 with single bits flipped all over its data; the packets stay well formed."""
    data = bytearray(write_video(path, num_frames=48, faststart=True).read_bytes())
    start = data.index(b"mdat") + 4
    with av.open(str(path)) as container:
        packets = [(p.pos, p.size) for p in container.demux(video=0) if p.size > 200]
    assert packets and packets[0][0] >= start
    rng = np.random.default_rng(1)
    for _ in range(count):
        position, size = packets[rng.integers(len(packets))]
        data[position + int(rng.integers(size // 2, size))] ^= 1 << int(rng.integers(8))
    path.write_bytes(bytes(data))
    return path


def audio_only(path: Path) -> Path:
    """An MP4 with a second of silence and no video stream."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=16_000)
        for start in range(0, 16_000, 1024):
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
            frame.rate, frame.pts = 16_000, start
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def png(path: Path) -> Path:
    """A still image, whatever it is called."""
    Image.fromarray(scene(0)).save(path, format="PNG")
    return path


def one_frame(path: Path) -> Path:
    """An MP4 of one frame."""
    return write_video(path, num_frames=1)


def tiny(path: Path) -> Path:
    """A video of 16 x 16 pixels."""
    # without a loss, as x264 spoils so small a picture now and then
    return write_video(path, width=16, height=16, options={"crf": "0"})


def odd_444(path: Path) -> Path:
    """An odd size, which only 4:4:4 allows."""
    return write_video(path, width=97, height=61, pix_fmt="yuv444p")


def ten_bit(path: Path) -> Path:
    """Ten bits per sample."""
    return write_video(path, pix_fmt="yuv420p10le")


def hevc(path: Path) -> Path:
    """H.265."""
    options = {"x265-params": "log-level=none:pools=none:crf=6"}
    return write_video(path, codec="libx265", options=options)


def av1(path: Path) -> Path:
    """AV1 in MP4."""
    return write_video(path, codec="libsvtav1", num_frames=12, options={"preset": "8", "crf": "5"})


def animation(path: Path, num_frames: int = 12, duration: int | list[int] = 100) -> Path:
    """An animated GIF, PNG or WebP, after the suffix; `duration` in ms, of each frame or of all."""
    kind = {".gif": "GIF", ".png": "PNG", ".webp": "WEBP"}[path.suffix]
    frames = [Image.fromarray(scene(index)) for index in range(num_frames)]
    # Pillow merges equal neighbours only, and these differ.
    frames[0].save(path, format=kind, save_all=True, append_images=frames[1:], duration=duration)
    return path


VARIABLE_TIMES_MS = tuple(40 * i if i < 12 else 440 + 120 * (i - 11) for i in range(24))
# Which frame is shown in each twenty-fifth of a second.
VARIABLE_SHOWN = (*range(11), *(i for i in range(11, 23) for _ in range(3)), 23)


def variable_frame_rate(path: Path) -> Path:
    """25 frames per second, and from the twelfth frame on a third of that."""
    return write_video(path, times=VARIABLE_TIMES_MS)


def rotated(path: Path, degrees: int = 90) -> Path:
    """A phone's clip: stored lying, with a note to turn it by `degrees` counter-clockwise."""
    return write_video(path, rotation=degrees)


def huge(path: Path) -> Path:
    """One 8K frame."""
    return write_video(
        path, num_frames=1, width=7680, height=4320, codec="mpeg4", options={"qscale": "8"}
    )


# Class of input -> (suffix, maker, whether it can be read). Permissions and links are apart,
# because root and some file systems know neither.
MAKERS: dict[str, tuple[str, Callable[[Path], Path], bool]] = {
    "sound": (".mp4", sound, True),
    "missing": (".mp4", missing, False),
    "empty": (".mp4", empty, False),
    "random_bytes": (".mp4", random_bytes, False),
    "text_file": (".mp4", text_file, False),
    "folder": (".mp4", folder, False),
    "truncated_without_index": (".mp4", truncated_without_index, False),
    "truncated_half": (".mp4", truncated_half, False),
    "audio_only": (".mp4", audio_only, False),
    "png": (".png", png, False),
    "png_named_mp4": (".mp4", png, False),
    "one_frame": (".mp4", one_frame, True),
    "tiny": (".mp4", tiny, True),
    "odd_444": (".mp4", odd_444, True),
    "ten_bit": (".mp4", ten_bit, True),
    "hevc": (".mp4", hevc, True),
    "av1": (".mp4", av1, True),
    "gif": (".gif", animation, True),
    "apng": (".png", animation, True),
    "webp": (".webp", animation, True),
    "variable_frame_rate": (".mp4", variable_frame_rate, True),
    "rotated": (".mp4", rotated, True),
    "huge": (".mp4", huge, True),
}

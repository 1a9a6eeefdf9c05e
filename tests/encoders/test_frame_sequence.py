"""Frames in memory, and numbered pictures: the same as a lossless file of them."""

import os
import struct
import warnings
import zlib
from fractions import Fraction
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from encoders.frame_sequence import FrameSequence, FramesError, clips_of, frame_files
from encoders.video import FrameRequest, VideoError, read_frames, read_video

from .reading import read
from tests import media

COUNT, FPS = 9, 12
FRAMES = np.stack([media.scene(n) for n in range(COUNT)])  # uint8 (9, 64, 96, 3)
FLOATS = FRAMES.astype(np.float32) / 255
FIRST = FRAMES.transpose(0, 3, 1, 2)
PICTURES = [Image.fromarray(frame) for frame in FRAMES]
FORMS = {
    "uint8": FRAMES,
    "uint8, colours first": FIRST,
    "float32": FLOATS,
    "float64": FRAMES / 255,
    "float16": FLOATS.astype(np.float16),
    "float32 of another order of bytes": FLOATS.astype(FLOATS.dtype.newbyteorder()),
    "read-only, backwards in memory": np.broadcast_to(FRAMES[::-1], FRAMES.shape)[::-1],
    "tensor": torch.tensor(FRAMES),
    "tensor, colours first": torch.tensor(FIRST),
    "tensor that learns": torch.tensor(FLOATS).permute(0, 3, 1, 2).requires_grad_(),
    "tensor in float64": torch.tensor(FRAMES / 255),
    "pictures": PICTURES,
    "opaque pictures": [picture.convert("RGBA") for picture in PICTURES],
    "tuple of arrays": tuple(FRAMES),
    "list of arrays, colours first": list(FIRST),
    "list of tensors": list(torch.tensor(FLOATS)),
}


@pytest.fixture(scope="module")
def lossless(tmp_path_factory):
    path = tmp_path_factory.mktemp("lossless") / "clip.mkv"
    return media.write_video(path, codec="ffv1", pix_fmt="bgr0", fps=FPS, pictures=FRAMES)


@pytest.mark.parametrize("form", FORMS)
def test_frames_are_those_of_a_lossless_file(form, lossless):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = read_video(FrameSequence(pictures=FORMS[form], fps=FPS), fast_short_side_px=40)
    expected = read_video(lossless, fast_short_side_px=40)
    for name in ("slow", "fast"):
        ours, theirs = found.stream(name), expected.stream(name)
        assert torch.equal(ours.pixels, theirs.pixels)
        np.testing.assert_allclose(ours.timestamps_seconds, theirs.timestamps_seconds, atol=1e-3)
    for name in ("num_frames", "fps", "width", "height", "warnings"):
        assert getattr(found.info, name) == getattr(expected.info, name), name
    assert found.info.duration_seconds == pytest.approx(COUNT / FPS)
    assert (found.info.path, found.info.backend) == ("frames", "memory")


def test_bfloat16():
    pixels, _, _ = read(FrameSequence(pictures=torch.tensor(FLOATS).bfloat16()))
    assert np.abs(pixels.astype(int) - FRAMES).max() <= 1  # it has eight bits


def test_a_lone_frame_is_a_clip():
    pixels, info, _ = read(FrameSequence(pictures=FRAMES[:1]))
    assert np.array_equal(pixels, FRAMES[:1]) and info.duration_seconds == 1 / 25


def test_frames_that_nobody_wants_are_not_looked_at():
    frames = FLOATS.copy()
    frames[1:] = np.nan
    first = FrameRequest(indices=lambda count, fps: np.zeros(1, np.int64), stream="slow")
    _, found = read_frames(FrameSequence(pictures=frames), {"first": first})
    assert np.array_equal(found["first"].pixels[0].permute(1, 2, 0).numpy(), FRAMES[0])


@pytest.mark.parametrize("palette", [False, True])
def test_a_transparent_picture_lies_on_white(palette):
    clear = Image.new("RGBA", (8, 8), (200, 0, 0, 0))
    clear = clear.quantize() if palette else clear
    pixels, info, _ = read(FrameSequence(pictures=[clear, clear]))
    assert (pixels == 255).all() and info.warnings == ("transparent: shown on white",)


def test_lab_has_a_channel_a_and_no_transparency():
    _, info, _ = read(FrameSequence(pictures=[Image.new("LAB", (8, 8))] * 2))
    assert not info.warnings


def test_pictures_of_another_size_are_brought_to_that_of_the_first():
    pixels, info, _ = read(FrameSequence(pictures=[PICTURES[0], PICTURES[1].resize((48, 32))]))
    assert pixels.shape == (2, 64, 96, 3)
    assert info.warnings == ("sizes differ: frames brought to that of the first",)


SWAP = " (if it is meant as (3, t, h, w): x.swapaxes(-4, -3))"
EXPECTED = "expected (t, h, w, 3) or (t, 3, h, w), or a list of pictures, got "


@pytest.mark.parametrize(
    ("pictures", "reason"),
    [
        (FRAMES[0], f"{EXPECTED}(64, 96, 3)"),
        (FRAMES[None], f"{EXPECTED}(1, 9, 64, 96, 3)"),
        (FRAMES[..., :1], f"{EXPECTED}(9, 64, 96, 1)"),
        (torch.zeros(3, 9, 64, 96), f"{EXPECTED}(3, 9, 64, 96){SWAP}"),
        (np.zeros((3, 9, 64, 96)), f"{EXPECTED}(3, 9, 64, 96){SWAP}"),
        (torch.zeros(4, 9, 64, 96), f"{EXPECTED}(4, 9, 64, 96)"),
        (FRAMES[:, :0], f"{EXPECTED}(9, 0, 96, 3)"),
        (list(FRAMES[..., 0]), f"{EXPECTED}a list of (64, 96)"),
        (list(FRAMES[:, :0]), f"{EXPECTED}a list of (0, 96, 3)"),
        ([1, 2], f"{EXPECTED}a list of int"),
        (PICTURES[0], f"{EXPECTED}Image"),
        (7, f"{EXPECTED}int"),
        (FRAMES.astype(np.int64), "expected uint8, or floats in 0..1, got int64"),
        (torch.tensor(FRAMES).int(), "expected uint8, or floats in 0..1, got int32"),
        (FRAMES > 3, "expected uint8, or floats in 0..1, got bool"),
        (FRAMES[:0], "no frames"),
        ([], "no frames"),
    ],
)
def test_other_shapes_and_types(pictures, reason):
    with pytest.raises(FramesError) as caught:
        FrameSequence(pictures=pictures, name="mine")
    assert str(caught.value) == f"mine: {reason}"
    assert isinstance(caught.value, ValueError) and isinstance(caught.value, VideoError)


@pytest.mark.parametrize("make", [np.array, torch.tensor])
@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda x: 255 * x, "0..255 (if they are meant as 0..255: x / 255)"),
        (lambda x: 2 * x - 1, "-1..1 (if they are meant as -1..1: x / 2 + 0.5)"),
        (lambda x: 1.1 * x, "0..1.1 (if a decoder overshot: x.clip(0, 1))"),
        (lambda x: 1.1 * x - 0.1, "-0.1..1 (if a decoder overshot: x.clip(0, 1))"),
        (lambda x: 1000 * x - 500, "-500..500"),
        (lambda x: x / 0, "NaN or infinity"),
    ],
)
def test_other_ranges(make, change, reason):
    frame = np.zeros((4, 4, 3), np.float32)
    frame[0] = 1
    with np.errstate(all="ignore"):
        pictures = make(np.stack([change(frame)] * 2))
    with pytest.raises(FramesError) as caught:
        read(FrameSequence(pictures=pictures))
    assert str(caught.value) == f"frames: expected floats in 0..1, got {reason} in frame 0"


def test_pictures_of_more_bits():
    deep = Image.fromarray(np.zeros((4, 4), np.uint16))
    with pytest.raises(FramesError, match="^frames: pictures must have 8 bits, got mode I;16$"):
        read(FrameSequence(pictures=[deep, deep]))


@pytest.mark.parametrize("fps", [0, -1.0, float("nan"), float("inf"), "8", True])
def test_rates_that_are_none(fps):
    with pytest.raises(FramesError, match="^frames: fps must be a number above 0, got "):
        FrameSequence(pictures=FRAMES, fps=fps)


@pytest.mark.parametrize("fps", [np.float32(12), np.int64(12), Fraction(12)])
def test_rates_of_numpy_and_fractions(fps):
    index = FrameSequence(pictures=FRAMES, fps=fps).index
    assert index.times.dtype == np.float64
    assert type(index.fps) is type(index.last_seconds) is float  # as JSON takes it
    assert index.times[-1] == pytest.approx((COUNT - 1) / 12)


def test_clips_of_a_batch():
    several = [FRAMES, FRAMES[:4]]
    assert [len(clip) for clip in clips_of(several)] == [9, 4]
    assert clips_of(FRAMES[None]).shape == (1, *FRAMES.shape)
    assert clips_of(torch.zeros(2, 4, 3, 8, 8)).shape == (2, 4, 3, 8, 8)
    for frames in ([PICTURES, PICTURES], FRAMES[None], torch.tensor(FIRST)[None]):
        assert clips_of(SimpleNamespace(frames=frames)) is frames
    for one in (FRAMES, PICTURES, list(FRAMES), "clip.mp4", ["a.mp4"], [], 3):
        assert clips_of(one) is None


def forged(header):
    """The header of a PNG with its check sum, as of a picture of 10^10 pixels."""
    header = struct.pack(">II", 100_000, 100_000) + header[8:13]
    return header + struct.pack(">I", zlib.crc32(b"IHDR" + header))


class TestNumberedPictures:
    @pytest.fixture
    def folder(self, tmp_path):
        folder = tmp_path / "frames"
        folder.mkdir()
        for number, picture in enumerate(PICTURES):
            picture.save(folder / f"clip-{number + 3}.png")  # 3 to 11: not in the order of names
        (folder / "about.txt").write_text("not a picture")
        (folder / ".hidden.png").touch()
        return folder

    @pytest.mark.parametrize("pattern", ["", "*.png", "clip-*"])
    def test_are_a_video(self, folder, pattern):
        pixels, info, times = read(folder / pattern)
        assert np.array_equal(pixels, FRAMES)
        assert (info.path, info.backend) == (os.fspath(folder / pattern), "pillow")
        np.testing.assert_allclose(times, np.arange(COUNT) / 25)

    def test_have_the_rate_that_is_given(self, folder):
        assert read(FrameSequence.open(folder, 8))[1].duration_seconds == COUNT / 8

    @pytest.mark.parametrize("other", ["thumb.png", "other-1.png", "clip-1.jpg"])
    def test_other_names_make_it_no_video(self, folder, other):
        PICTURES[0].save(folder / other)
        assert frame_files(os.fspath(folder)) is None
        with pytest.raises(VideoError, match="a folder, not a video$"):
            read(folder)

    @pytest.mark.parametrize("orientation", range(1, 9))
    def test_are_turned_as_viewers_turn_them(self, orientation, tmp_path):
        camera = Image.Exif()
        camera[0x0112] = orientation
        for number, picture in enumerate(PICTURES[:2]):
            picture.save(tmp_path / f"{number}.png", exif=camera)
        frame = FRAMES[0].swapaxes(0, 1) if orientation > 4 else FRAMES[0]
        rows = -1 if orientation in (3, 4, 7, 8) else 1
        columns = -1 if orientation in (2, 3, 6, 7) else 1
        assert np.array_equal(read(tmp_path)[0][0], frame[::rows, ::columns])

    def test_damaged_exif_turns_nothing(self, tmp_path):
        for number, picture in enumerate(PICTURES[:2]):
            picture.save(tmp_path / f"{number}.png", exif=b"Exif\0\0nothing")
        assert np.array_equal(read(tmp_path)[0], FRAMES[:2])

    def test_one_picture_is_no_video(self, tmp_path):
        PICTURES[0].save(tmp_path / "1.png")
        assert frame_files(os.fspath(tmp_path)) is None

    @pytest.mark.parametrize(
        "damage",
        [
            lambda data: b"",
            lambda data: data[: len(data) // 2],
            lambda data: data[:11] + b"\5" + data[12:],  # a header of 5 bytes
            lambda data: data[:16] + forged(data[16:29]) + data[33:],
        ],
    )
    def test_a_damaged_one_is_named(self, folder, damage):
        file = folder / "clip-5.png"
        file.write_bytes(damage(file.read_bytes()))
        with pytest.raises(VideoError) as caught:
            read(folder)
        assert str(caught.value).startswith(f"{folder}: clip-5.png can't be read (")
        assert "\n" not in str(caught.value)

    def test_a_line_break_in_the_path(self, folder):
        folder = folder.rename(folder.with_name("two\nlines"))
        assert np.array_equal(read(folder)[0], FRAMES)

    def test_a_file_with_signs_of_a_pattern_in_its_name(self, tmp_path):
        path = media.write_video(tmp_path / "clip[1].mp4", num_frames=3)
        assert read(path)[1].num_frames == 3

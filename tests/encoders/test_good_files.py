"""Good files of odd kinds: the frames that a player shows of them are read."""

import struct
from fractions import Fraction

import av
import numpy as np
import pytest
from PIL import Image, ImageOps

from encoders.video import FrameRequest, read_frames

from .reading import numbers, read, reason
from tests import media

LATE = FrameRequest(indices=lambda n, fps: np.array([5, 22]), stream="slow")
X265 = {"x265-params": "log-level=none:pools=none:crf=6"}


class TestEditLists:
    """Files cut without encoding them anew: frames before the cut are stored, but not shown."""

    @pytest.fixture(scope="class", params=["libx264", "libx265"])
    @classmethod
    def source(cls, request, tmp_path_factory):
        options = {"libx264": {"bf": "3"}, "libx265": X265}[request.param]
        path = tmp_path_factory.mktemp("source") / "a.mp4"
        return media.write_video(path, codec=request.param, num_frames=48, gop=24, options=options)

    @pytest.mark.parametrize("suffix", [".mp4", ".mov"])
    @pytest.mark.parametrize("start", [1, 10, 23])
    def test_what_is_hidden_does_not_count(self, source, suffix, start, tmp_path):
        path = media.remuxed(source, tmp_path / f"a{suffix}", start=start)
        pixels, info, times = read(path)
        assert numbers(pixels) == [i % 25 for i in range(start, 48)]
        assert info.warnings == (f"cut: {48 - start} of its 48 frames are shown",)
        assert info.backend == "av"
        np.testing.assert_allclose(times, np.arange(48 - start) / 24, atol=1e-3)
        whole = read(source)[0][start:]
        assert np.array_equal(pixels, whole)
        assert reason(path, backend="decord") == "decord can't be trusted with an edit list"

    def test_matroska_has_none_and_shows_all(self, source, tmp_path):
        pixels, info, _ = read(media.remuxed(source, tmp_path / "a.mkv", start=10))
        assert numbers(pixels) == [i % 25 for i in range(48)] and not info.warnings

    @pytest.mark.parametrize("suffix", [".mp4", ".mov"])
    def test_a_cut_file_that_broke_off_is_still_found(self, source, suffix, tmp_path):
        path = media.remuxed(source, tmp_path / f"a{suffix}", start=10, faststart=True)
        data = path.read_bytes()
        start = data.index(b"mdat") + 4
        path.write_bytes(data[: start + (len(data) - start) * 6 // 10])
        found = int(reason(path).split()[2])
        assert 5 < found < 34
        assert reason(path) == f"truncated: only {found} of its 38 frames are there"

    def test_an_edit_that_hides_both_ends(self, tmp_path):
        """As phones trim: the end is cut off in the list alone."""
        path = media.write_video(tmp_path / "a.mp4", num_frames=48, options={"bf": "0"})
        data = bytearray(path.read_bytes())
        place = data.index(b"elst") + 12  # behind version, flags and the count of entries
        length, start = struct.unpack_from(">Ii", data, place)
        assert (length, start) == (2000, 0)
        with av.open(str(path)) as opened:
            unit = opened.streams.video[0].time_base
        struct.pack_into(">Ii", data, place, 500, round(Fraction(30, 24) / unit))
        path.write_bytes(data)
        pixels, info, _ = read(path)
        assert numbers(pixels) == [i % 25 for i in range(30, 42)]
        assert info.warnings == ("cut: 12 of its 48 frames are shown",)
        assert info.duration_seconds == pytest.approx(0.5)

    def test_a_long_one_is_jumped_through_to_the_same_frames(self, tmp_path):
        source = media.write_video(tmp_path / "a.mp4", num_frames=700, gop=60)
        path = media.remuxed(source, tmp_path / "b.mp4", start=37)
        pixels, _, _ = read(path)
        wanted = [0, 100, 101, 300, 662]
        request = FrameRequest(indices=lambda n, fps: np.array(wanted), stream="slow")
        frames = read_frames(path, {"a": request})[1]["a"].pixels.permute(0, 2, 3, 1).numpy()
        assert np.array_equal(frames, pixels[wanted])

    def test_real_ones(self, data_dir):
        for name, count, stored in (("22", 122, 290), ("25", 152, 182)):
            path = data_dir / "modern" / f"real_Video{name}_Real.mp4"
            info, _ = read_frames(
                path,
                {"a": FrameRequest(indices=lambda n, fps: np.array([0, n - 1]), stream="fast")},
            )
            assert info.num_frames == count
            assert info.warnings == (f"cut: {count} of its {stored} frames are shown",)


class TestInsideAGop:
    """Recordings that begin between two keyframes."""

    @pytest.mark.parametrize(
        ("codec", "options"),
        [("libx264", {"bf": "2"}), ("libx265", X265), ("mpeg2video", {"b": "4M", "bf": "2"})],
    )
    @pytest.mark.parametrize("suffix", [".ts", ".mkv"])
    def test_the_first_frames_are_skipped(self, codec, options, suffix, tmp_path):
        source = media.write_video(
            tmp_path / f"a{suffix}", codec=codec, num_frames=48, gop=24, options=options
        )
        path = media.remuxed(source, tmp_path / f"b{suffix}", first=9)
        with av.open(str(path)) as opened:
            keys = [p.pts for p in opened.demux(video=0) if p.size and p.is_keyframe]
        with av.open(str(source)) as opened:
            stamps = sorted(p.pts for p in opened.demux(video=0) if p.size)
        pixels, info, times = read(path)
        assert len(pixels) <= len(stamps) - 9
        assert numbers(pixels) == [i % 25 for i in range(48 - len(pixels), 48)]
        assert keys and len(pixels) == 24
        assert info.warnings == ("begins inside a GOP: first 15 frames skipped",)
        assert times[0] == 0
        assert np.array_equal(pixels, read(source)[0][-24:])

    def test_the_first_frame_is_skipped(self, tmp_path):
        source = media.write_video(tmp_path / "a.ts", num_frames=16, gop=8, options={"bf": "0"})
        pixels, info, _ = read(media.remuxed(source, tmp_path / "b.ts", first=7))
        assert (len(pixels), info.warnings) == (8, ("begins inside a GOP: first frame skipped",))

    def test_a_stream_cut_anywhere(self, tmp_path):
        source = media.write_video(tmp_path / "a.ts", num_frames=48, gop=24)
        data = source.read_bytes()
        for packets in (40, 60):
            (tmp_path / "b.ts").write_bytes(data[188 * packets :])
            pixels, info, _ = read(tmp_path / "b.ts")
            assert numbers(pixels) == [i % 25 for i in range(24, 48)]
            assert info.warnings[0].startswith("begins inside a GOP: first ")

    @pytest.mark.parametrize(
        ("codec", "options"),
        [
            ("libx264", {"x264-params": "open-gop=1:bframes=3:b-adapt=0:keyint=24"}),
            ("libx265", {"x265-params": X265["x265-params"] + ":open-gop=1:b-adapt=0"}),
        ],
    )
    def test_frames_that_lean_on_the_group_before(self, codec, options, tmp_path):
        source = media.write_video(
            tmp_path / "a.mkv", codec=codec, num_frames=72, gop=24, options=options
        )
        with av.open(str(source)) as opened:
            packets = [packet for packet in opened.demux(video=0) if packet.size]
        first = [i for i, packet in enumerate(packets) if packet.is_keyframe][1]
        leading = sum(p.pts < packets[first].pts for p in packets[first:])
        assert leading
        path = media.remuxed(source, tmp_path / "b.mkv", first=first)
        pixels, info, _ = read(path)
        assert info.warnings == (f"begins inside a GOP: first {leading} frames skipped",)
        count = len(packets) - first - leading
        assert numbers(pixels) == [i % 25 for i in range(72 - count, 72)]

    def test_a_raw_stream(self, tmp_path):
        source = media.write_video(tmp_path / "a.h264", num_frames=48, gop=24)
        data = source.read_bytes()
        units = [i for i in range(len(data)) if data[i : i + 3] == b"\0\0\1"]
        (tmp_path / "b.h264").write_bytes(data[units[10] :])
        pixels, info, _ = read(tmp_path / "b.h264")
        assert numbers(pixels) == [i % 25 for i in range(24, 48)]
        assert info.warnings[0].startswith("begins inside a GOP: first ")

    def test_a_bit_by_bit_refresh(self, tmp_path):
        """No frame is whole by itself: the decoder says when the picture is."""
        source = media.write_video(
            tmp_path / "a.ts",
            num_frames=96,
            gop=24,
            options={"x264-params": "intra-refresh=1:keyint=24:bframes=0", "crf": "10"},
        )
        path = media.remuxed(source, tmp_path / "b.ts", first=30)
        pixels, info, _ = read(path)
        assert 20 < len(pixels) < 60
        assert numbers(pixels) == [i % 25 for i in range(96 - len(pixels), 96)]
        assert info.warnings == (f"begins inside a GOP: first {66 - len(pixels)} frames skipped",)

    def test_no_keyframe_at_all(self, tmp_path):
        source = media.write_video(tmp_path / "a.ts", num_frames=30, gop=60)
        path = media.remuxed(source, tmp_path / "b.ts", first=9)
        assert reason(path) == "none of its frames can be decoded"


class TestFieldPictures:
    """Interlaced H.264 whose fields are pictures of their own, as broadcasts have it."""

    @pytest.mark.parametrize(
        ("suffix", "whole", "reordered"),
        [
            (".ts", 0, False),
            (".ts", 5, False),
            (".m2ts", 0, True),
            (".mkv", 5, True),
            (".mp4", 0, False),
            (".mov", 5, True),
            (".h264", 0, False),
        ],
    )
    def test_two_fields_are_one_frame(self, suffix, whole, reordered, tmp_path):
        path = media.field_pictures(tmp_path / f"a{suffix}", whole=whole, reordered=reordered)
        pixels, info, times = read(path)
        assert numbers(pixels) == list(range(24))
        assert np.abs(pixels[7].astype(int) - media.scene(7)).mean() < 6
        assert info.warnings == ("interlaced: deinterlaced",)
        assert info.fps == pytest.approx(25)
        assert info.duration_seconds == pytest.approx(24 / 25, abs=2e-3)
        np.testing.assert_allclose(times, np.arange(24) / 25, atol=2e-3)
        some = read_frames(path, {"a": LATE})[1]["a"].pixels.permute(0, 2, 3, 1).numpy()
        assert np.array_equal(some, pixels[[5, 22]])

    def test_one_whose_packets_have_both(self, tmp_path):
        """As mkvmerge writes them."""
        source = media.field_pictures(tmp_path / "a.mkv")
        with av.open(str(source)) as old, av.open(str(tmp_path / "b.mkv"), "w") as new:
            stream = new.add_stream_from_template(old.streams.video[0])
            packets = [packet for packet in old.demux(video=0) if packet.size]
            for first, second in zip(packets[::2], packets[1::2], strict=True):
                packet = av.Packet(bytes(first) + bytes(second))
                packet.stream, packet.time_base = stream, first.time_base
                packet.dts, packet.pts, packet.duration = first.dts, first.pts, 40
                packet.is_keyframe = first.is_keyframe
                new.mux(packet)
        assert np.array_equal(read(tmp_path / "b.mkv")[0], read(source)[0])

    def test_an_edit_list_hides_both(self, tmp_path):
        source = media.field_pictures(tmp_path / "a.mp4")
        path = media.remuxed(source, tmp_path / "b.mp4", start=20)  # in fields
        pixels, info, _ = read(path)
        assert numbers(pixels) == list(range(10, 24)) and info.num_frames == 14
        assert info.warnings == ("cut: 14 of its 24 frames are shown", "interlaced: deinterlaced")

    @pytest.mark.parametrize("pix_fmt", ["yuv420p", "yuv444p"])
    def test_pictures_of_mixed_blocks_are_whole(self, pix_fmt, tmp_path):
        """MBAFF; its parameter sets have all that those of field pictures may have."""
        options = {"x264-params": "interlaced=1:cqm=jvt:bframes=3:ref=6"}
        path = media.write_video(tmp_path / "a.ts", pix_fmt=pix_fmt, options=options)
        pixels, info, _ = read(path)
        assert numbers(pixels) == list(range(24))
        assert info.warnings == ("interlaced: deinterlaced",)

    def test_a_field_that_is_missing(self, tmp_path):
        whole = media.field_pictures(tmp_path / "a.mkv")
        pixels, info, times = read(media.remuxed(whole, tmp_path / "b.mkv", first=1))
        assert info.num_frames == len(times) == 24


class TestJoined:
    """Recordings laid end to end, so that the clock jumps."""

    @pytest.mark.parametrize("start", [-12, -500, 0, 20])
    @pytest.mark.parametrize("suffix", [".ts", ".mpg"])
    def test_frames_in_the_order_of_the_file(self, suffix, start, tmp_path):
        codec = {"codec": "mpeg2video", "options": {"b": "4M"}} if suffix == ".mpg" else {}
        parts = []
        for name in "ab":
            whole = media.write_video(tmp_path / f"{name}{suffix}", seed=ord(name), **codec)
            path = tmp_path / f"{name}2{suffix}"
            parts.append(media.remuxed(whole, path, start=-600 + (start if name == "b" else 0)))
        joined = tmp_path / f"joined{suffix}"
        joined.write_bytes(parts[0].read_bytes() + parts[1].read_bytes())
        pixels, info, times = read(joined)
        assert info.num_frames == 48 and info.fps == pytest.approx(24, rel=0.01)
        assert numbers(pixels) == 2 * list(range(24))
        np.testing.assert_allclose(times, np.arange(48) / 24, atol=0.05)
        assert info.warnings == ("time stamps jump: frames in the order of the file",)
        expected = np.concatenate([read(part)[0] for part in parts])
        assert np.array_equal(pixels, expected)

    def test_the_second_part_begins_inside_a_gop(self, tmp_path):
        first = media.write_video(tmp_path / "a.ts", gop=24)
        second = media.remuxed(first, tmp_path / "b.ts", first=5)
        (tmp_path / "c.ts").write_bytes(
            first.read_bytes() + second.read_bytes() * 2 + first.read_bytes()
        )
        pixels, info, times = read(tmp_path / "c.ts")
        assert numbers(pixels[:24]) == list(range(24))
        assert numbers(pixels[-24:]) == list(range(24))
        assert (np.diff(times) > 0).all()


class TestGapsInAvi:
    """AVI has a slot for every tick of its clock; an empty one repeats the frame before."""

    def make(self, path):
        times = [1000 * (i if i < 12 else i + 20) // 24 for i in range(24)]
        return media.write_video(path, times=times, codec="mpeg4", options={"qscale": "3"}), times

    def test_empty_slots_are_no_missing_frames(self, tmp_path):
        path, expected = self.make(tmp_path / "a.avi")
        with av.open(str(path)) as opened:
            assert opened.streams.video[0].frames > 1500
        pixels, info, times = read(path)
        shown = numbers(pixels)
        # AVI doesn't say how long the last one is shown: for as long as frames are on average.
        assert shown == [*range(11), *[11] * 21, *range(12, 24), 23] and info.warnings == ()
        first = [shown.index(number) for number in range(24)]
        np.testing.assert_allclose(times[first], np.array(expected) / 1000, atol=1e-3)

    def test_a_file_that_broke_off_is_still_found(self, tmp_path):
        for path in (
            self.make(tmp_path / "a.avi")[0],
            media.write_video(tmp_path / "b.avi", num_frames=48),
        ):
            data = path.read_bytes()
            start = data.index(b"movi")
            path.write_bytes(data[: start + (data.rindex(b"idx1") - start) // 2])
            assert reason(path).startswith("truncated: only ")


class TestRawStreams:
    """Without a container, and so without a clock: the rate is what the stream states."""

    @pytest.mark.parametrize(
        ("suffix", "codec", "fps", "options"),
        [
            (".h264", "libx264", 24, {}),
            (".h264", "libx264", 240, {}),
            (".hevc", "libx265", 240, X265),
            (".m1v", "mpeg1video", 24, {"b": "4M"}),
            (".m1v", "mpeg1video", 30, {"b": "4M", "bf": "2"}),
            (".m2v", "mpeg2video", 25, {"b": "4M"}),
        ],
    )
    def test_frames_are_as_far_apart_as_it_says(self, suffix, codec, fps, options, tmp_path):
        path = tmp_path / f"a{suffix}"
        media.write_video(path, codec=codec, fps=fps, options=options)
        pixels, info, times = read(path)
        assert numbers(pixels) == list(range(24)) and info.warnings == ()
        assert info.fps == pytest.approx(fps)
        np.testing.assert_allclose(times, np.arange(24) / fps, atol=1e-6)
        assert info.duration_seconds == pytest.approx(24 / fps)

    def test_the_tick_of_a_clock_is_no_rate(self, tmp_path):
        """As H.264 of a variable frame rate has it."""
        path = media.variable_frame_rate(tmp_path / "a.h264")
        with av.open(str(path)) as opened:
            assert opened.streams.video[0].codec_context.framerate > 500
        pixels, info, _ = read(path)
        assert numbers(pixels) == list(range(24)) and info.fps == pytest.approx(25)


class TestFramesThatStay:
    """Encoders that leave out what equals the frame before, or show a frame for longer."""

    TIMES = [40 * i if i <= 10 else 40 * (i + 29) for i in range(20)]  # one stays for 1.2 s

    def make(self, path):
        if path.suffix == ".mkv":
            return media.write_video(path, num_frames=20, times=self.TIMES, fps=25)
        return media.animation(
            path, num_frames=20, duration=[1200 if i == 10 else 40 for i in range(20)]
        )

    @pytest.mark.parametrize("suffix", [".gif", ".png", ".webp", ".mkv"])
    def test_such_a_frame_is_there_for_as_long(self, suffix, tmp_path):
        path = self.make(tmp_path / f"a{suffix}")
        pixels, info, times = read(path)
        assert numbers(pixels) == [*range(10), *[10] * 30, *range(11, 20)]
        np.testing.assert_allclose(times, np.arange(49) / 25, atol=2e-3)
        assert info.num_frames == 49 and info.fps == pytest.approx(25, rel=2e-3)
        assert info.duration_seconds == pytest.approx(49 / 25, abs=2e-3)
        request = FrameRequest(indices=lambda n, fps: np.array([0, 12, 38, 48]), stream="slow")
        found = read_frames(path, {"a": request})[1]["a"]
        assert found.indices.tolist() == [0, 12, 38, 48]
        some = found.pixels.permute(0, 2, 3, 1).numpy()
        assert np.array_equal(some, pixels[[0, 12, 38, 48]])


class TestAnimationsWithoutTimes:
    """A frame that doesn't say how long it's shown stays for a tenth of a second."""

    def save(self, path, **options):
        first, *others = (Image.fromarray(media.scene(index)) for index in range(8))
        first.save(path, save_all=True, append_images=others, **options)
        return path

    def test_gif_as_pillow_writes_it_if_told_nothing(self, tmp_path):
        path = self.save(tmp_path / "a.gif")
        assert b"\x21\xf9\x04" not in path.read_bytes()
        pixels, info, times = read(path)
        assert numbers(pixels) == list(range(8)) and info.warnings == ()
        assert info.backend == "pillow" and info.fps == pytest.approx(10)
        assert info.duration_seconds == pytest.approx(0.8)
        np.testing.assert_allclose(times, np.arange(8) / 10)
        data = path.read_bytes()
        path.write_bytes(data[: len(data) // 2])
        assert 2 <= read(path)[1].num_frames <= 4

    def test_gif_of_one_frame(self, tmp_path):
        Image.fromarray(media.scene(0)).save(tmp_path / "a.gif")
        assert reason(tmp_path / "a.gif") == "a still image, not a video"

    @pytest.mark.parametrize(("suffix", "first_ms"), [(".gif", 0), (".webp", 0), (".webp", 50)])
    def test_frames_of_no_duration(self, suffix, first_ms, tmp_path):
        path = self.save(tmp_path / f"a{suffix}", duration=[first_ms] + [0] * 7)
        pixels, info, times = read(path)
        assert numbers(pixels) == list(range(8))
        first = first_ms / 1000 or 0.1
        np.testing.assert_allclose(times, np.append(0, first + np.arange(7) / 10))
        assert info.duration_seconds == pytest.approx(first + 0.7)


TITLE = "视频".encode("gbk") + b"\xe9\xe8\xff\xfe"


@pytest.mark.parametrize("suffix", [".avi", ".mp4", ".mov", ".mkv"])
def test_metadata_in_any_encoding(suffix, tmp_path):
    path = media.write_video(
        tmp_path / f"a{suffix}", metadata={"title": "ABCDEFGH", "comment": "IJKLMNOP"}
    )
    expected = read(path)[0]
    data = path.read_bytes()
    assert b"ABCDEFGH" in data and len(TITLE) == 8
    path.write_bytes(data.replace(b"ABCDEFGH", TITLE).replace(b"IJKLMNOP", b"\xff" * 8))
    pixels, info, _ = read(path)
    assert np.array_equal(pixels, expected) and not info.warnings


def test_frames_with_what_pyav_has_no_name_for(tmp_path):
    """FFmpeg hands on the EXIF of each picture, in MJPEG of cameras and in APNG."""
    camera = Image.Exif()
    camera[0x010F] = "make"
    first, *others = (Image.fromarray(media.scene(index)) for index in range(8))
    path = tmp_path / "a.png"
    first.save(path, save_all=True, append_images=others, duration=100, exif=camera)
    pixels, info, _ = read(path)
    assert numbers(pixels) == list(range(8)) and info.warnings == ()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_pictures_are_turned_and_mirrored_as_their_exif_says(orientation, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = orientation
    pictures = [Image.fromarray(media.scene(index)) for index in range(4)]
    pictures[0].save(
        tmp_path / "a.png", save_all=True, append_images=pictures[1:], duration=100, exif=exif
    )
    stream = b""
    for picture in pictures:
        picture.save(tmp_path / "one.jpg", quality=95, subsampling=0, exif=exif)
        stream += (tmp_path / "one.jpg").read_bytes()
    (tmp_path / "a.mjpeg").write_bytes(stream)
    with Image.open(tmp_path / "one.jpg") as last:
        expected = np.asarray(ImageOps.exif_transpose(last)).astype(int)
    for name in ("a.png", "a.mjpeg"):
        pixels, info, _ = read(tmp_path / name)
        assert info.num_frames == 4 and info.warnings == ()
        assert pixels.shape[1:] == expected.shape
        assert np.abs(pixels[3].astype(int) - expected).mean() < 4


def test_what_is_damaged_or_missing_is_said(tmp_path):
    _, info, _ = read(media.truncated_half(tmp_path / "a.mp4", share=0.99))
    missing = 48 - info.num_frames
    assert info.warnings[0] == f"truncated: {missing} of its 48 frames are missing"
    _, info, _ = read(media.truncated_half(tmp_path / "b.mp4", share=0.998))
    assert info.warnings == ("truncated: 1 of its 48 frames is missing",)


def test_a_stream_that_comes_to_light_late_is_left_out(tmp_path):
    """As one wrong bit makes it in a transport stream, whose packets have the number of theirs."""
    path = media.write_video(tmp_path / "a.ts", num_frames=48)
    data, video = bytearray(path.read_bytes()), (0x41, 0x00)  # first packet of a frame, stream 256
    last = [i for i in range(0, len(data), 188) if tuple(data[i + 1 : i + 3]) == video][-1]
    data[last + 2] ^= 64
    path.write_bytes(data)
    pixels, info, _ = read(path)
    assert len(pixels) == info.num_frames == 47


def test_an_ordinary_file_has_no_warnings(tmp_path):
    for name in ("sound", "hevc", "rotated", "ten_bit", "gif", "webp", "variable_frame_rate"):
        suffix, make, _ = media.MAKERS[name]
        assert read(make(tmp_path / f"{name}{suffix}"))[1].warnings == ()

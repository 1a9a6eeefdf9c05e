"""Good files of odd kinds: what a player shows of them is what is read."""

import struct
from fractions import Fraction

import av
import numpy as np
import pytest
from PIL import Image

from encoders import container, display
from encoders.video import FrameRequest, VideoError, read_frames
from tests import media

X265 = {"x265-params": "log-level=none:pools=none:crf=6"}


def every(n, fps):
    return np.arange(n)


def read(path, **options):
    """All frames, (t, h, w, 3), with what is known of them and their times."""
    info, frames = read_frames(
        path, {"a": FrameRequest(indices=every, stream="slow")}, **options
    )
    found = frames["a"]
    return found.pixels.permute(0, 2, 3, 1).numpy(), info, found.timestamps_seconds


def numbers(pixels):
    return [media.frame_number(frame) for frame in pixels]


def reason(path, **options):
    with pytest.raises(VideoError) as caught:
        read(path, **options)
    return caught.value.reason


class TestEditLists:
    """Files cut without encoding them anew: frames before the cut are stored, but not shown."""

    @pytest.fixture(scope="class", params=["libx264", "libx265"])
    def source(self, request, tmp_path_factory):
        options = {"libx264": {"bf": "3"}, "libx265": X265}[request.param]
        path = tmp_path_factory.mktemp("source") / "a.mp4"
        return media.write_video(
            path, codec=request.param, num_frames=48, gop=24, options=options
        )

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
                path, {"a": FrameRequest(indices=lambda n, fps: np.array([0, n - 1]),
                                         stream="fast")},
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

    def test_a_stream_cut_anywhere(self, tmp_path):
        source = media.write_video(tmp_path / "a.ts", num_frames=48, gop=24)
        data = source.read_bytes()
        for packets in (40, 60):
            (tmp_path / "b.ts").write_bytes(data[188 * packets:])
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
        units = [i for i in range(len(data)) if data[i: i + 3] == b"\0\0\1"]
        (tmp_path / "b.h264").write_bytes(data[units[10]:])
        pixels, info, _ = read(tmp_path / "b.h264")
        assert numbers(pixels) == [i % 25 for i in range(24, 48)]
        assert info.warnings[0].startswith("begins inside a GOP: first ")

    def test_a_bit_by_bit_refresh(self, tmp_path):
        """No frame is whole by itself: the decoder says when the picture is."""
        source = media.write_video(
            tmp_path / "a.ts", num_frames=96, gop=24,
            options={"x264-params": "intra-refresh=1:keyint=24:bframes=0", "crf": "10"},
        )
        path = media.remuxed(source, tmp_path / "b.ts", first=30)
        pixels, info, _ = read(path)
        assert 20 < len(pixels) < 60
        assert numbers(pixels) == [i % 25 for i in range(96 - len(pixels), 96)]
        assert info.warnings == (
            f"begins inside a GOP: first {66 - len(pixels)} frames skipped",
        )

    def test_no_keyframe_at_all(self, tmp_path):
        source = media.write_video(tmp_path / "a.ts", num_frames=30, gop=60)
        path = media.remuxed(source, tmp_path / "b.ts", first=9)
        assert reason(path) == "none of its frames can be decoded"


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
        (tmp_path / "c.ts").write_bytes(first.read_bytes() + second.read_bytes() * 2
                                        + first.read_bytes())
        pixels, info, times = read(tmp_path / "c.ts")
        assert numbers(pixels[:24]) == list(range(24))
        assert numbers(pixels[-24:]) == list(range(24))
        assert (np.diff(times) > 0).all()


class TestGapsInAvi:
    """AVI has a slot for every tick of its clock; an empty one repeats the frame before."""

    def make(self, path):
        times = [1000 * (i if i < 12 else i + 20) // 24 for i in range(24)]
        return media.write_video(
            path, times=times, codec="mpeg4", options={"qscale": "3"}
        ), times

    def test_empty_slots_are_no_missing_frames(self, tmp_path):
        path, expected = self.make(tmp_path / "a.avi")
        with av.open(str(path)) as opened:
            assert opened.streams.video[0].frames > 1500
        pixels, info, times = read(path)
        assert numbers(pixels) == list(range(24)) and info.warnings == ()
        np.testing.assert_allclose(times, np.array(expected) / 1000, atol=1e-3)

    def test_a_file_that_broke_off_is_still_found(self, tmp_path):
        for path in (self.make(tmp_path / "a.avi")[0],
                     media.write_video(tmp_path / "b.avi", num_frames=48)):
            data = path.read_bytes()
            start = data.index(b"movi")
            path.write_bytes(data[: start + (data.rindex(b"idx1") - start) // 2])
            assert reason(path).startswith("truncated: only ")


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


def see_through(hidden, *, alpha=0, num_frames=6):
    """The scene in the left half; a hidden colour, more or less transparent, in the right one."""
    for index in range(num_frames):
        picture = np.full((64, 96, 4), 255, np.uint8)
        picture[..., :3] = media.scene(index)
        picture[:, 48:] = (*hidden, alpha)
        yield picture


class TestTransparency:
    ENCODED = {
        "prores": (".mov", "prores_ks", "yuva444p10le", {"profile": "4444"}, 12),
        "png": (".mov", "png", "rgba", {}, 0),
        "qtrle": (".mov", "qtrle", "argb", {}, 0),
        "ffv1": (".mkv", "ffv1", "bgra", {}, 0),
        "vp9": (".webm", "libvpx-vp9", "yuva420p", {"b": "4M"}, 25),
        "vp8": (".webm", "libvpx", "yuva420p", {"auto-alt-ref": "0", "b": "4M"}, 25),
    }

    def make(self, name, path, **options):
        suffix, codec, pix_fmt, encoder, tolerance = self.ENCODED[name]
        path = media.write_video(
            path.with_suffix(suffix), codec=codec, pix_fmt=pix_fmt, options=encoder,
            pictures=see_through(**options),
        )
        return path, tolerance

    @pytest.mark.parametrize("name", ENCODED)
    def test_shown_on_white_whatever_is_hidden(self, name, tmp_path):
        found = []
        for hidden in ((255, 0, 0), (0, 0, 255)):
            path, tolerance = self.make(name, tmp_path / "a", hidden=hidden)
            pixels, info, _ = read(path)
            assert info.warnings == ("transparent: shown on white",)
            assert pixels[:, :, 56:].min() >= 255 - tolerance // 4
            for index, frame in enumerate(pixels):
                gap = np.abs(frame[:, :40].astype(int) - media.scene(index)[:, :40])
                assert gap.mean() <= tolerance
            found.append(pixels)
        if not tolerance:
            assert np.array_equal(*found)

    @pytest.mark.parametrize("name", ["png", "prores"])
    def test_half_transparent(self, name, tmp_path):
        path, _ = self.make(name, tmp_path / "a", hidden=(200, 40, 40), alpha=128)
        mixed = read(path)[0][2, 32, 80]
        expected = np.array([200, 40, 40]) * 128 / 255 + 127
        np.testing.assert_allclose(mixed, expected, atol=1 if name == "png" else 4)

    @pytest.mark.parametrize("name", ENCODED)
    def test_an_opaque_one_is_as_ever(self, name, tmp_path):
        path, _ = self.make(name, tmp_path / "a", hidden=(9, 200, 30), alpha=255)
        pixels, info, _ = read(path)
        assert not info.warnings
        with av.open(str(path)) as opened:
            plain = [frame.to_ndarray(format="rgb24") for frame in opened.decode(video=0)]
        if name.startswith("vp"):  # by another decoder, whose chroma may be off by a little
            assert np.abs(pixels.astype(int) - np.stack(plain)).max() <= 2
        else:
            assert np.array_equal(pixels, np.stack(plain))

    @pytest.mark.parametrize("kind", ["PNG", "WEBP"])
    def test_animated_pictures(self, kind, tmp_path):
        found = []
        for hidden in ((255, 0, 0), (0, 0, 255)):
            frames = [Image.fromarray(frame) for frame in see_through(hidden)]
            path = tmp_path / f"{hidden[0]}.{kind.lower()}"
            frames[0].save(path, format=kind, save_all=True, append_images=frames[1:],
                           duration=100, **({"lossless": True, "exact": True,
                                             "minimize_size": False} if kind == "WEBP" else {}))
            pixels, info, _ = read(path)
            assert info.warnings == ("transparent: shown on white",)
            assert (pixels[:, :, 48:] == 255).all()
            for index, frame in enumerate(pixels):
                assert np.array_equal(frame[:, :48], media.scene(index)[:, :48])
            found.append(pixels)
        assert np.array_equal(*found)

    def test_gif(self, tmp_path):
        frames = []
        for index in range(6):
            picture = Image.fromarray(media.scene(index)).quantize(64)
            shown = np.array(picture)
            shown[:, 48:] = 200  # a colour of the palette that no scene has
            frames.append(Image.fromarray(shown))
            frames[-1].putpalette(picture.getpalette() + [255, 0, 0] * (256 - 64))
        frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:], duration=100,
                       transparency=200, disposal=2)
        pixels, info, _ = read(tmp_path / "a.gif")
        assert len(pixels) == 6 and info.warnings == ("transparent: shown on white",)
        assert (pixels[:, :, 48:] == 255).all()
        gap = np.abs(pixels[3, :, :48].astype(int) - media.scene(3)[:, :48])
        assert gap.mean() < 20  # 64 colours


PQ = {"color_trc": 16, "color_primaries": 9, "colorspace": 9, "color_range": 1}
HLG = {**PQ, "color_trc": 18}


def pq_code(light):
    """SMPTE ST 2084, equations 5.1 and 5.2, of cd/m2."""
    power = (np.asarray(light) / 10000) ** (2610 / 16384)
    return ((3424 / 4096 + 2413 / 128 * power) / (1 + 2392 / 128 * power)) ** (2523 / 32)


def patches(colours):
    """A frame of 10 bits with a patch 16 pixels wide for each RGB code value in 0..1."""
    frame = av.VideoFrame(16 * len(colours), 32, "yuv444p10le")
    red, blue = 0.2627, 0.0593
    coded = np.repeat(np.asarray(colours, float), 16, 0)
    y = coded @ (red, 1 - red - blue, blue)
    u, v = (coded[:, 2] - y) / (2 - 2 * blue), (coded[:, 0] - y) / (2 - 2 * red)
    for plane, row in zip(frame.planes, (64 + 876 * y, 512 + 896 * u, 512 + 896 * v)):
        line = np.zeros(plane.line_size // 2, np.uint16)
        line[: len(row)] = np.rint(row)
        plane.update(np.tile(line, (plane.height, 1)).tobytes())
    return frame


def shown(path, colours, attributes, **options):
    """What is read of patches: (n, 3), and what is said of it."""
    options = {"codec": "ffv1", "pix_fmt": "yuv444p10le", **options}
    media.write_video(
        path, width=16 * len(colours), height=32, colours=attributes,
        pictures=(patches(colours) for _ in range(2)), **options,
    )
    pixels, info, _ = read(path)
    return pixels[1, 16, 8::16].astype(int), info


class TestHdr:
    def test_light_below_the_highlights_stays(self, tmp_path):
        """Up to 90 cd/m2 the roll-off changes nothing: white is 203, gamma 2.4."""
        light = np.array([0.0, 1, 10, 50, 90])
        found, info = shown(tmp_path / "a.mkv", [[code] * 3 for code in pq_code(light)], PQ)
        expected = 255 * (light / 203) ** (1 / 2.4)
        assert np.abs(found - expected[:, None]).max() <= 1.5
        assert info.warnings == ("HDR (PQ) shown as SDR",)

    def test_highlights_are_rolled_off(self, tmp_path):
        light = np.array([50.0, 100, 203, 400, 700, 1000, 4000, 10000])
        found, _ = shown(tmp_path / "a.mkv", [[code] * 3 for code in pq_code(light)], PQ)
        grey = found[:, 1]
        assert (np.diff(grey[:5]) >= 4).all()  # all of it can be told apart
        assert grey[5:].tolist() == [255, 255, 255]
        # ITU-R BT.2390 worked by hand for 203 cd/m2: 0.738 of the peak's code, 159 cd/m2
        assert abs(grey[2] - 255 * (159 / 203) ** (1 / 2.4)) <= 2

    def test_hlg_is_like_pq_of_the_same_light(self, tmp_path):
        """ITU-R BT.2408: 75 % of HLG and 58 % of PQ are both 203 cd/m2, 38 % are 26 cd/m2."""
        hlg, info = shown(tmp_path / "a.mkv", [[0.75] * 3, [0.38] * 3, [1.0] * 3], HLG)
        pq, _ = shown(tmp_path / "b.mkv", [[code] * 3 for code in pq_code([203, 26, 1000])], PQ)
        assert np.abs(hlg - pq).max() <= 3
        assert info.warnings == ("HDR (HLG) shown as SDR",)

    def test_colours_of_bt709_come_back(self, tmp_path):
        """Its primaries lie inside of BT.2020; here at 60 cd/m2 of the brightest channel."""
        to_bt2020 = np.linalg.inv(
            [[1.6605, -0.5876, -0.0728], [-0.1246, 1.1329, -0.0083], [-0.0182, -0.1006, 1.1187]]
        )
        colours = np.array([[1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 0.5, 0.2]]) * 60
        light = np.maximum(colours @ to_bt2020.T, 0)
        found, _ = shown(tmp_path / "a.mkv", pq_code(light), PQ)
        assert np.abs(found - 255 * (colours / 203) ** (1 / 2.4)).max() <= 6

    def test_what_bt709_lacks_is_clipped(self, tmp_path):
        found, _ = shown(tmp_path / "a.mkv", [[pq_code(50), 0, 0], [0, pq_code(50), 0]], PQ)
        assert found[0].argmax() == 0 and found[0, 1:].max() <= 40
        assert found[1].argmax() == 1 and found[1, ::2].max() <= 40

    def test_bt2020_without_hdr(self, tmp_path):
        greys = [[0.0] * 3, [0.25] * 3, [0.6] * 3, [1.0] * 3]
        found, info = shown(tmp_path / "a.mkv", [*greys, [0.5, 0.2, 0.2]], {**PQ, "color_trc": 14})
        assert np.abs(found[:4] - 255 * np.array(greys)).max() <= 1
        assert found[4, 0] > 0.5 * 255 + 10 and found[4, 1] < 0.2 * 255  # the wider gamut's red
        assert info.warnings == ("BT.2020 colours shown as BT.709",)

    @pytest.mark.parametrize(
        ("suffix", "codec", "options"),
        [
            (".mp4", "libx265", {"x265-params": "log-level=none:pools=none:lossless=1"}),
            (".mp4", "libsvtav1", {"preset": "8", "crf": "1"}),
            (".mp4", "libx264", {"qp": "1"}),
        ],
    )
    def test_in_the_files_that_people_have(self, suffix, codec, options, tmp_path):
        greys = [[code] * 3 for code in pq_code([10, 50, 1000, 1000, 50, 10])]
        plain, _ = shown(tmp_path / "a.mkv", greys, PQ)
        found, info = shown(
            tmp_path / f"a{suffix}", greys, PQ, codec=codec, pix_fmt="yuv420p10le", options=options
        )
        assert info.warnings == ("HDR (PQ) shown as SDR",) and info.backend == "av"
        assert np.abs(found - plain).max() <= 6

    def test_eight_bits_too_and_never_by_decord(self, tmp_path):
        path = media.write_video(tmp_path / "a.mp4", colours=HLG)
        assert read(path)[1].warnings == ("HDR (HLG) shown as SDR",)
        said = reason(path, backend="decord")
        assert said == "decord can't be trusted with colours other than BT.709's"


def combs(frame):
    """How far each line is from those above and below it."""
    frame = frame[4:-4].astype(float)
    return np.abs(frame[1:-1] - (frame[:-2] + frame[2:]) / 2).mean()


class TestInterlaced:
    @pytest.mark.parametrize(
        ("suffix", "options"),
        [
            (".mp4", {}), (".mkv", {}), (".ts", {}),
            (".mpg", {"codec": "mpeg2video", "options": {"flags": "+ilme+ildct", "b": "5M"}}),
        ],
    )
    def test_deinterlaced(self, suffix, options, tmp_path):
        path = media.interlaced(tmp_path / f"a{suffix}", **options)
        pixels, info, times = read(path)
        assert info.warnings == ("interlaced: deinterlaced",)
        assert (info.num_frames, info.backend) == (24, "av")
        np.testing.assert_allclose(times, np.arange(24) / 24, atol=2e-3)
        for index in range(1, 23):
            stored, upright = media.woven(index), media.moving_bar(2 * index)
            assert combs(pixels[index]) < 0.25 * combs(stored)
            gaps = [np.abs(p.astype(float) - upright).mean() for p in (pixels[index], stored)]
            assert gaps[0] < 0.6 * gaps[1]
        assert np.array_equal(pixels, read(path)[0])

    def test_never_by_decord(self, tmp_path):
        path = media.interlaced(tmp_path / "a.mp4")
        said = reason(path, backend="decord")
        assert said == "decord can't be trusted with interlaced frames"

    def test_jumps_give_the_same_frames(self, tmp_path):
        path = media.interlaced(tmp_path / "a.mp4", 500, gop=50)
        pixels, _, _ = read(path)
        wanted = [0, 99, 100, 101, 250, 402, 499]
        request = FrameRequest(indices=lambda n, fps: np.array(wanted), stream="slow")
        frames = read_frames(path, {"a": request})[1]["a"].pixels.permute(0, 2, 3, 1).numpy()
        assert np.array_equal(frames, pixels[wanted])

    def test_where_only_a_part_is(self, tmp_path):
        plain = media.write_video(
            tmp_path / "a.ts", pictures=(media.moving_bar(2 * i) for i in range(24))
        )
        fields = media.interlaced(tmp_path / "b.ts")
        fields2 = media.remuxed(fields, tmp_path / "b2.ts", start=-24)
        (tmp_path / "c.ts").write_bytes(plain.read_bytes() + fields2.read_bytes())
        pixels, info, _ = read(tmp_path / "c.ts")
        assert len(pixels) == 48 and "interlaced: deinterlaced" in info.warnings
        assert np.array_equal(pixels[:24], read(plain)[0])
        assert combs(pixels[30]) < 0.25 * combs(media.woven(6))

    def test_frames_of_another_size_on_the_way(self, tmp_path):
        """Each size is filtered by itself, and none is lost."""
        first, second = media.interlaced(tmp_path / "a.ts"), tmp_path / "b.ts"
        pictures = (np.tile(media.woven(index), (1, 2, 1)) for index in range(24))
        media.write_video(
            second, pictures=pictures, width=192, options={"flags": "+ilme+ildct"}
        )
        (tmp_path / "c.ts").write_bytes(first.read_bytes() + second.read_bytes())
        pixels, info, _ = read(tmp_path / "c.ts")
        assert pixels.shape == (48, 64, 96, 3) and "interlaced: deinterlaced" in info.warnings
        assert np.array_equal(pixels[:24], read(first)[0])
        assert all(combs(pixels[24 + i]) < 0.5 * combs(media.woven(i)) for i in range(1, 23))

    def test_gaps_pass(self):
        assert list(display.deinterlaced([None, None], set())) == [None, None]


class TestPixelShape:
    @pytest.mark.parametrize(
        ("ratio", "size"),
        [
            (Fraction(4, 3), (128, 64)), (Fraction(2, 1), (192, 64)), (Fraction(1, 2), (96, 128)),
            (Fraction(8, 9), (96, 72)), (Fraction(1, 1), (96, 64)),
        ],
    )
    @pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".ts"])
    def test_shown_in_its_display_shape(self, suffix, ratio, size, tmp_path):
        path = media.write_video(tmp_path / f"a{suffix}", pixel_ratio=ratio)
        pixels, info, _ = read(path)
        assert (info.width, info.height) == size == pixels.shape[2:0:-1]
        assert numbers(pixels) == list(range(24)) if ratio == 1 else len(pixels) == 24
        if ratio != 1:
            said = f"pixels of {ratio.numerator}:{ratio.denominator} shown in their shape"
            assert info.warnings == (said,) and info.backend == "av"
        else:
            assert not info.warnings

    def test_a_turned_one(self, tmp_path):
        path = media.write_video(tmp_path / "a.mp4", pixel_ratio=Fraction(2, 1), rotation=90)
        info = read(path)[1]  # stored with 64 x 96 pixels, each as wide as two are high
        assert (info.width, info.height) == (96, 128)

    def test_hardly_and_impossibly_oblong_pixels_are_square(self, tmp_path):
        _, info, _ = read(media.write_video(tmp_path / "a.mp4", pixel_ratio=Fraction(200, 201)))
        assert (info.width, info.height, info.warnings) == (96, 64, ())
        _, info, _ = read(media.write_video(tmp_path / "b.mp4", pixel_ratio=Fraction(60, 1)))
        assert (info.width, info.height) == (96, 64)
        assert info.warnings == ("pixels of 60:1 taken as square",)

    def test_no_way_around_the_limit_of_size(self, tmp_path, monkeypatch):
        path = media.write_video(tmp_path / "a.mp4", pixel_ratio=Fraction(2, 1))
        monkeypatch.setattr(container, "_MAX_PIXELS", 96 * 64)
        assert reason(path) == "its frames of 192x64 pixels are too large"


def test_what_is_damaged_or_missing_is_said(tmp_path):
    _, info, _ = read(media.truncated_half(tmp_path / "a.mp4", share=0.99))
    missing = 48 - info.num_frames
    assert info.warnings[0] == f"truncated: {missing} of its 48 frames are missing"


def test_an_ordinary_file_has_no_warnings(tmp_path):
    for name in ("sound", "hevc", "rotated", "ten_bit", "gif", "webp", "variable_frame_rate"):
        suffix, make, _ = media.MAKERS[name]
        assert read(make(tmp_path / f"{name}{suffix}"))[1].warnings == ()

"""Files that need something to look right: transparency, HDR, fields, pixels that aren't square."""

from fractions import Fraction

import av
import cv2
import numpy as np
import pytest
from PIL import Image

from encoders import container, decoding, display
from encoders.video import FrameRequest, read_frames

from .reading import numbers, read, reason
from tests import media


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
            path.with_suffix(suffix),
            codec=codec,
            pix_fmt=pix_fmt,
            options=encoder,
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

    def test_uncompressed_avi_has_none(self, tmp_path):
        """Programs that write it leave zeros in the fourth byte of a pixel."""
        frames = list(see_through((0, 0, 255), alpha=0))
        options = {"codec": "rawvideo", "pix_fmt": "bgra"}
        pixels, info, _ = read(media.write_video(tmp_path / "a.avi", pictures=frames, **options))
        assert np.array_equal(pixels, [frame[..., :3] for frame in frames])
        assert info.warnings == ()

    @pytest.mark.parametrize("kind", ["PNG", "WEBP"])
    def test_animated_pictures(self, kind, tmp_path):
        found = []
        for hidden in ((255, 0, 0), (0, 0, 255)):
            frames = [Image.fromarray(frame) for frame in see_through(hidden)]
            path = tmp_path / f"{hidden[0]}.{kind.lower()}"
            frames[0].save(
                path,
                format=kind,
                save_all=True,
                append_images=frames[1:],
                duration=100,
                **(
                    {"lossless": True, "exact": True, "minimize_size": False}
                    if kind == "WEBP"
                    else {}
                ),
            )
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
        frames[0].save(
            tmp_path / "a.gif",
            save_all=True,
            append_images=frames[1:],
            duration=100,
            transparency=200,
            disposal=2,
        )
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
        path,
        width=16 * len(colours),
        height=32,
        colours=attributes,
        pictures=(patches(colours) for _ in range(2)),
        **options,
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


@pytest.mark.parametrize("transfer", [1, 16])
def test_a_matrix_that_ffmpeg_does_not_know(transfer, tmp_path):
    """As ICtCp, with light as in BT.709 or PQ: the file is sound, and any colours would be false."""
    colours = {"colorspace": 14, "color_trc": transfer}
    path = media.write_video(tmp_path / "a.mp4", colours=colours)
    assert reason(path) == "FFmpeg can't convert its colours (yuv420p, matrix 14)"


class TestInterlaced:
    @pytest.mark.parametrize(
        ("suffix", "options"),
        [
            (".mp4", {}),
            (".mkv", {}),
            (".ts", {}),
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

    @pytest.mark.parametrize("suffix", [".mp4", ".ts"])
    def test_hevc_gives_each_field_as_a_picture(self, suffix, tmp_path):
        """Which has nothing to deinterlace, and half of the lines."""
        scenes = [media.scene(index) for index in range(24)]
        path = media.write_video(
            tmp_path / f"a{suffix}",
            pictures=[scene[index % 2 :: 2] for index, scene in enumerate(scenes)],
            height=32,
            codec="libx265",
            options={"x265-params": "interlace=tff:log-level=none:pools=none:crf=6"},
        )
        with av.open(str(path)) as opened:
            frames = list(opened.decode(video=0))
        assert all(frame.interlaced_frame for frame in frames)
        pixels, info, times = read(path)
        assert (info.num_frames, info.width, info.height) == (24, 96, 64)
        assert info.warnings == ("interlaced: each field shown as a frame",)
        np.testing.assert_allclose(times, np.arange(24) / 24, atol=1e-4)
        stretched = [
            cv2.resize(frame.to_ndarray(format="rgb24"), (96, 64), interpolation=cv2.INTER_CUBIC)
            for frame in frames
        ]
        assert np.array_equal(pixels, stretched)
        assert numbers(pixels) == list(range(24))

    @pytest.mark.parametrize("threads", [1, 4])
    @pytest.mark.parametrize("num_frames", [1, 2, 3, 5])
    def test_short_clips(self, num_frames, threads, tmp_path, monkeypatch):
        """All frames come out once the decoder has all packets, and then without a unit of time."""
        monkeypatch.setattr(decoding, "_THREADS", threads)
        pixels, info, times = read(media.interlaced(tmp_path / "a.mp4", num_frames))
        assert info.num_frames == len(pixels) == num_frames
        assert info.warnings == ("interlaced: deinterlaced",)
        np.testing.assert_allclose(times, np.arange(num_frames) / 24, atol=1e-4)
        for index, shown in enumerate(pixels):
            near = [np.abs(shown - media.moving_bar(2 * n).astype(float)).mean() for n in range(6)]
            assert np.argmin(near) == index
            if num_frames > 1:  # a lone one has no neighbours to be deinterlaced by
                assert combs(shown) < 0.5 * combs(media.woven(index))

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
        media.write_video(second, pictures=pictures, width=192, options={"flags": "+ilme+ildct"})
        (tmp_path / "c.ts").write_bytes(first.read_bytes() + second.read_bytes())
        pixels, info, _ = read(tmp_path / "c.ts")
        assert pixels.shape == (48, 64, 96, 3) and "interlaced: deinterlaced" in info.warnings
        assert "sizes differ: frames brought to that of the first" in info.warnings
        assert np.array_equal(pixels[:24], read(first)[0])
        assert all(combs(pixels[24 + i]) < 0.5 * combs(media.woven(i)) for i in range(1, 23))

    def test_gaps_pass(self):
        assert list(display.deinterlaced([None, None], set())) == [None, None]


class TestPixelShape:
    @pytest.mark.parametrize(
        ("ratio", "size"),
        [
            (Fraction(4, 3), (128, 64)),
            (Fraction(2, 1), (192, 64)),
            (Fraction(1, 2), (96, 128)),
            (Fraction(8, 9), (96, 72)),
            (Fraction(1, 1), (96, 64)),
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

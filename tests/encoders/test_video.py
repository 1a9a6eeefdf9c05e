import os
import pickle
import struct
import sys
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest
import torch

from encoders import container, decoding, video
from encoders.fragments import sample_fragments
from encoders.resizing import repeat_to
from encoders.sampling import uniform
from encoders.video import FrameRequest, Frames, VideoError, read_frames, read_video, views_of

from .reading import read
from tests import media


def numbers(pixels):
    """Which frames of the test scene a tensor (t, 3, h, w) shows."""
    return [media.frame_number(frame.permute(1, 2, 0).numpy()) for frame in pixels]


def every(n, fps):
    return np.arange(n)


def reason(path, **options):
    with pytest.raises(VideoError) as caught:
        read_video(path, **options)
    assert caught.value.path == os.fspath(path)
    assert str(caught.value) == f"{path}: {caught.value.reason}"
    return caught.value.reason


READABLE = {  # class of input -> (backend, frames)
    "sound": ("av", 24),
    "one_frame": ("av", 1),
    "hevc": ("av", 24),
    "variable_frame_rate": ("av", 48),  # 24 of which the later ones are shown for longer
    "tiny": ("av", 24),
    "odd_444": ("av", 24),
    "ten_bit": ("av", 24),
    "av1": ("av", 12),
    "gif": ("av", 12),
    "apng": ("av", 12),
    "webp": ("pillow", 12),
    "rotated": ("av", 24),
    "huge": ("av", 1),
}
REASONS = {
    "missing": "no such file",
    "empty": "an empty file",
    "random_bytes": "not a readable video (Invalid data found when processing input)",
    "text_file": "not a readable video (Invalid data found when processing input)",
    "folder": "a folder, not a video",
    "truncated_without_index": "not a readable video (truncated or damaged, its MP4 index is missing)",
    "audio_only": "holds no video, only audio",
    "png": "a still image, not a video",
    "png_named_mp4": "a still image, not a video",
}


@pytest.mark.parametrize("name", media.MAKERS)
def test_every_class_of_input_is_read_rightly_or_refused_in_one_line(name, tmp_path, capfd):
    suffix, make, readable = media.MAKERS[name]
    path = make(tmp_path / f"clip{suffix}")
    capfd.readouterr()  # what the encoders printed
    if readable:
        backend, num_frames = READABLE[name]
        clip = read_video(path)
        assert (clip.info.backend, clip.info.num_frames) == (backend, num_frames)
        held = name == "variable_frame_rate"
        shown = media.VARIABLE_SHOWN if held else range(num_frames)
        assert numbers(clip.fast.pixels) == [shown[i] for i in clip.fast.indices]
        assert numbers(clip.slow.pixels) == [shown[i] for i in clip.slow.indices]
        assert clip.fast.pixels.dtype == torch.uint8
        assert clip.info.fps > 0 and clip.info.duration_seconds > 0
    elif name in REASONS:
        assert reason(path) == REASONS[name]
    else:
        assert name == "truncated_half"
        assert reason(path).startswith("truncated: only ")
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"\xef\xbb\xbf#EXTM3U\nfirst.ts\n", "a playlist: download the video that it lists"),
        (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n",
            "a Git LFS pointer: `git lfs pull` fetches the video",
        ),
        (b"\n<!DOCTYPE html>\n<title>404</title>", "a web page"),
        (b"PK\3\4\x14\0", "an archive: unpack it"),
        (
            b'<?xml version="1.0"?>\n<Error><Code>AccessDenied</Code></Error>',
            "a text in XML, as servers answer with instead of a file",
        ),
        (b'{"error": 404}', "a text in JSON, as servers answer with instead of a file"),
    ],
)
def test_what_stands_in_for_a_video_is_named(content, what, tmp_path):
    (tmp_path / "a.mp4").write_bytes(content)
    assert reason(tmp_path / "a.mp4") == f"not a readable video ({what})"


def test_raw_pixels_have_no_size(tmp_path):
    (tmp_path / "a_96x64.YUV").write_bytes(bytes(96 * 64 * 3 // 2 * 4))
    what = "raw pixels, and nothing says their size: convert it to Y4M"
    assert reason(tmp_path / "a_96x64.YUV") == f"not a readable video ({what})"


@pytest.mark.parametrize("url", ["https://example.com/a.mp4", "s3://bucket/a.mp4", "hf://a/b.mp4"])
def test_a_url_is_told_to_be_none(url):
    for given in (url, Path(url)):  # a path has one slash of the two
        with pytest.raises(VideoError) as caught:
            read_video(given)
        assert str(caught.value) == (
            f"{url}: a URL, and files are needed: download it and give its path"
        )


def test_streams_of_a_plain_clip(tmp_path):
    clip = read_video(media.write_video(tmp_path / "a.mp4", width=400, height=300, num_frames=48))
    assert clip.info.num_frames == 48 and clip.info.fps == 24.0
    assert (clip.info.width, clip.info.height, clip.info.duration_seconds) == (400, 300, 2.0)
    assert clip.slow.pixels.shape == (8, 3, 300, 400)
    assert clip.fast.pixels.shape == (32, 3, 224, 299)
    assert clip.slow.indices.tolist() == uniform(48, 8).tolist()
    assert numbers(clip.fast.pixels) == (clip.fast.indices % 25).tolist()
    np.testing.assert_allclose(clip.slow.timestamps_seconds, clip.slow.indices / 24, atol=1e-9)
    assert clip.slow.pixels.is_contiguous()


def test_colours_are_rgb(tmp_path):
    corner = read_video(media.sound(tmp_path / "a.mp4")).slow.pixels[0, :, 4, 4].tolist()
    assert np.abs(np.array(corner) - (220, 30, 30)).max() < 12


def test_slow_stream_is_capped_and_nothing_is_enlarged(tmp_path):
    path = media.write_video(tmp_path / "a.mp4", width=400, height=100)
    clip = read_video(path, slow_max_side_px=200, fast_short_side_px=50)
    assert clip.slow.pixels.shape[2:] == (50, 200)
    assert clip.fast.pixels.shape[2:] == (50, 200)
    assert read_video(path).fast.pixels.shape[2:] == (100, 400)


def test_one_8k_frame_is_brought_down(tmp_path):
    clip = read_video(media.huge(tmp_path / "a.mp4"))
    assert (clip.info.width, clip.info.height) == (7680, 4320)
    assert clip.slow.pixels.shape == (1, 3, 1080, 1920)


@pytest.mark.parametrize("name", ["sound", "variable_frame_rate", "one_frame"])
def test_both_backends_give_the_same_frames(name, tmp_path):
    suffix, make, _ = media.MAKERS[name]
    path = make(tmp_path / f"clip{suffix}")
    first, second = (read_video(path, backend=backend) for backend in ("decord", "av"))
    assert (first.info.backend, second.info.backend) == ("decord", "av")
    for stream in ("slow", "fast"):
        one, two = getattr(first, stream), getattr(second, stream)
        assert one.indices.tolist() == two.indices.tolist()
        assert one.timestamps_seconds.tolist() == two.timestamps_seconds.tolist()
        assert (one.pixels.int() - two.pixels.int()).abs().max() <= 2


def test_a_stream_that_is_none():
    with pytest.raises(ValueError, match=r"^stream must be one of \('slow', 'fast'\), got 'mid'$"):
        FrameRequest(indices=every, stream="mid")
    with pytest.raises(
        TypeError, match=r"^indices must be a function of .*, got array\(\[0, 1\]\)$"
    ):
        FrameRequest(indices=np.arange(2), stream="slow")


def test_frames_that_are_no_path():
    with pytest.raises(TypeError, match=r"or frames as FrameSequence\(pictures=frames\), got nda"):
        read_video(np.zeros((2, 8, 8, 3), np.uint8))


@pytest.mark.parametrize(
    "options", [{"bf": "0"}, {"bf": "3"}, {"x264-params": "open-gop=1:bframes=3"}]
)
@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".avi", ".ts"])
def test_frames_are_in_display_order_over_many_keyframes(suffix, options, tmp_path):
    path = media.write_video(
        tmp_path / f"a{suffix}", num_frames=50, gop=7, options={"preset": "veryfast", **options}
    )
    request = FrameRequest(indices=lambda n, fps: np.arange(1, n, 3), stream="slow")
    info, frames = read_frames(path, {"a": request})
    assert info.num_frames == 50 and info.fps == pytest.approx(24, rel=0.01)
    assert numbers(frames["a"].pixels) == [i % 25 for i in range(1, 50, 3)]
    np.testing.assert_allclose(frames["a"].timestamps_seconds, np.arange(1, 50, 3) / 24, atol=2e-3)


@pytest.mark.parametrize(
    ("suffix", "codec"), [(".webm", "libvpx-vp9"), (".webm", "libvpx"), (".h264", "libx264")]
)
def test_other_containers(suffix, codec, tmp_path):
    options = {"auto-alt-ref": "1", "lag-in-frames": "16"} if codec == "libvpx" else {}
    path = media.write_video(tmp_path / f"a{suffix}", codec=codec, options={**options, "b": "4M"})
    clip = read_video(path)
    assert clip.info.num_frames == 24
    assert numbers(clip.fast.pixels) == list(range(24))


def test_a_raw_stream_has_the_rate_that_it_states(tmp_path):
    path = media.write_video(tmp_path / "a.h264", num_frames=12, fps=24)
    _, info, times = read(path)
    assert info.fps == 24 and info.duration_seconds == pytest.approx(0.5)
    np.testing.assert_allclose(times, np.arange(12) / 24)


def test_variable_frame_rate_keeps_the_stream_s_own_times(tmp_path):
    path = media.variable_frame_rate(tmp_path / "a.mp4")
    info, frames = read_frames(path, {"a": FrameRequest(indices=every, stream="fast")})
    found = frames["a"]
    shown = numbers(found.pixels)
    first = [shown.index(number) for number in range(24)]
    np.testing.assert_allclose(
        found.timestamps_seconds[first], np.array(media.VARIABLE_TIMES_MS) / 1000, atol=1e-6
    )
    # Those that are shown for three times as long are there three times.
    assert shown == list(media.VARIABLE_SHOWN)
    np.testing.assert_allclose(found.timestamps_seconds, np.arange(48) / 25, atol=1e-6)
    assert info.num_frames == 48 and info.fps == pytest.approx(25, rel=1e-3)
    assert info.duration_seconds == pytest.approx(1.92, rel=1e-3)


def test_a_gap_before_the_last_frames_does_not_lengthen_the_last(tmp_path):
    """Which is stored before its neighbours."""
    times = [40 * i if i < 8 else 40 * (i + 11) for i in range(12)]
    options = {"x264-params": "b-adapt=0:bframes=3"}
    path = media.write_video(tmp_path / "a.mp4", num_frames=12, times=times, options=options)
    with av.open(str(path)) as opened:
        stored = [packet for packet in opened.demux(video=0) if packet.size]
    assert max(stored, key=lambda packet: packet.pts) != stored[-1]
    _, info, found = read(path)
    # The frame that stays for 0.48 s counts for as long.
    np.testing.assert_allclose(found, np.arange(23) / 25, atol=1e-3)
    assert info.duration_seconds == pytest.approx(0.92, abs=3e-3)


@pytest.mark.parametrize("degrees", [90, 180, 270])
def test_stored_rotation_is_applied(degrees, tmp_path):
    clip = read_video(media.rotated(tmp_path / "a.mp4", degrees))
    assert (clip.info.width, clip.info.height) == (96, 64)
    assert clip.slow.pixels.shape[2:] == (64, 96)
    assert clip.slow.pixels[0, :, 4, 4].tolist() == pytest.approx([220, 30, 30], abs=12)
    assert numbers(clip.fast.pixels) == list(range(24))


@pytest.mark.parametrize(
    ("matrix", "shown"),
    [
        ((-1, 0, 0, 1), lambda stored: stored[:, ::-1]),
        ((1, 0, 0, -1), lambda stored: stored[::-1]),
        ((0, 1, 1, 0), lambda stored: stored.swapaxes(0, 1)),
        ((0, -1, -1, 0), lambda stored: stored[::-1, ::-1].swapaxes(0, 1)),
    ],
)
def test_stored_mirroring_is_applied(matrix, shown, tmp_path):
    """As front cameras have it."""
    path = media.write_video(tmp_path / "a.mp4", num_frames=3)
    stored = read(path)[0]
    data = bytearray(path.read_bytes())
    xx, xy, yx, yy = (65536 * value for value in matrix)
    # Behind version, flags, three numbers, duration, layers and volume.
    struct.pack_into(">6i", data, data.index(b"tkhd") + 44, xx, xy, 0, yx, yy, 0)
    path.write_bytes(data)
    pixels, info, _ = read(path)
    assert (info.height, info.width) == pixels.shape[1:3]
    assert all(np.array_equal(one, shown(other)) for one, other in zip(pixels, stored, strict=True))
    assert reason(path, backend="decord") == "decord can't be trusted with a stored rotation"


def test_equal_requests_share_one_tensor_and_one_pass(tmp_path, monkeypatch):
    path = media.sound(tmp_path / "a.mp4")
    puts = []
    put = decoding.Sink.put
    monkeypatch.setattr(
        decoding.Sink,
        "put",
        lambda self, position, rgb: (puts.append(position), put(self, position, rgb))[1],
    )
    first, last = [0, 4, 8], [4, 20]
    _, frames = read_frames(
        path,
        {
            "a": FrameRequest(indices=lambda n, fps: np.array(first), stream="slow"),
            "b": FrameRequest(indices=lambda n, fps: np.array(first), stream="slow"),
            "c": FrameRequest(indices=lambda n, fps: np.array(first), stream="fast"),
            "d": FrameRequest(indices=lambda n, fps: np.array(last), stream="slow"),
        },
    )
    assert frames["a"].pixels is frames["b"].pixels
    assert frames["a"].pixels is not frames["c"].pixels
    assert puts == [0, 4, 8, 20]
    assert torch.equal(frames["a"].pixels[1], frames["d"].pixels[0])


def test_a_long_video_is_jumped_through(tmp_path, monkeypatch):
    # Ten minutes at ten frames per second: few of the 6000 frames may be decoded.
    path = media.write_video(
        tmp_path / "a.mp4",
        num_frames=6000,
        fps=10,
        width=32,
        height=32,
        gop=50,
        options={"preset": "ultrafast", "crf": "10"},
    )
    decoded = []
    original = decoding._frames

    def counted(*args):
        for frame in original(*args):
            decoded.append(frame)
            yield frame
            decoded[-1] = None  # the decoder is free to let it go

    monkeypatch.setattr(decoding, "_frames", counted)
    clip = read_video(path)
    assert clip.info.backend == "av"
    assert clip.info.duration_seconds == 600
    assert numbers(clip.fast.pixels) == (clip.fast.indices % 25).tolist()
    assert len(decoded) < 40 * 60
    sequential = read_video(path, backend="decord")
    assert (clip.fast.pixels.int() - sequential.fast.pixels.int()).abs().max() <= 2


@pytest.mark.parametrize("options", [{}, {"x264-params": "open-gop=1:bframes=5:b-pyramid=strict"}])
def test_what_nobody_wants_and_no_frame_refers_to_is_not_decoded(options, tmp_path, monkeypatch):
    path = media.write_video(
        tmp_path / "a.mp4", num_frames=100, options={"preset": "medium", **options}
    )
    inspect, decoded = video.inspect, []
    original = decoding._frames

    def counted(*args):
        for frame in original(*args):
            decoded[-1] += 1
            yield frame

    def everything(name):
        return replace(inspect(name), skips=False)

    monkeypatch.setattr(decoding, "_frames", counted)
    decoded.append(0)
    some = read_video(path, num_fast=16)
    monkeypatch.setattr(video, "inspect", everything)
    decoded.append(0)
    all_of_them = read_video(path, num_fast=16)
    assert 24 <= decoded[0] < 0.8 * decoded[1]
    assert torch.equal(some.fast.pixels, all_of_them.fast.pixels)
    assert torch.equal(some.slow.pixels, all_of_them.slow.pixels)


@pytest.mark.parametrize("level", [None, av.logging.ERROR])
def test_a_decoder_whose_messages_go_to_python_has_one_thread(level, tmp_path, monkeypatch):
    path = media.write_video(tmp_path / "a.mp4", num_frames=30)
    expected, threads = read_video(path), []
    original = decoding._decode_av

    def watched(path, index, sink, count, **options):
        threads.append(count)
        return original(path, index, sink, count, **options)

    monkeypatch.setattr(decoding, "_decode_av", watched)
    monkeypatch.setattr(decoding, "_THREADS", 2)
    monkeypatch.setattr(av.logging, "get_level", lambda: level)
    assert torch.equal(read_video(path).fast.pixels, expected.fast.pixels)
    assert threads == ([2] if level is None else [1])


@pytest.mark.parametrize("count", [12, 30])
def test_damage_is_found_behind_decord_s_back_and_repaired_the_same_every_time(
    count, tmp_path, capfd
):
    path = media.flipped_bits(tmp_path / "a.mp4", count)
    capfd.readouterr()
    clips = [read_video(path, backend=backend) for backend in ("auto", "auto", "av")]
    assert clips[0].info.backend == "av"
    assert all(torch.equal(clips[0].fast.pixels, clip.fast.pixels) for clip in clips[1:])
    assert reason(path, backend="decord") == "decord can't read it (ValueError)"
    assert capfd.readouterr() == ("", "")


def test_much_damage_is_an_error(tmp_path):
    assert reason(media.corrupt_middle(tmp_path / "a.mp4", 0.5)).startswith("corrupt: ")


def test_a_little_missing_at_the_end_is_not_an_error(tmp_path):
    clip = read_video(media.truncated_half(tmp_path / "a.mp4", share=0.99))
    assert 43 < clip.info.num_frames < 48
    assert numbers(clip.fast.pixels) == (clip.fast.indices % 25).tolist()


def test_a_truncated_mp4_says_how_much_is_there(tmp_path):
    path = media.truncated_half(tmp_path / "a.mp4")
    found = int(reason(path).split()[2])
    assert 10 < found < 40
    assert reason(path, backend="av") == f"truncated: only {found} of its 48 frames are there"


def test_a_truncated_webp(tmp_path):
    path = media.MAKERS["webp"][1](tmp_path / "a.webp")
    path.write_bytes(path.read_bytes()[:-5])
    assert reason(path) == "truncated or damaged"


@pytest.mark.parametrize("failure", [RuntimeError("decord fails"), ImportError("no decord")])
def test_insisting_on_decord_says_that_it_fails(failure, tmp_path, monkeypatch):
    def fail(*args, **kwargs):
        raise failure

    monkeypatch.setattr(decoding, "_decode_decord", fail)
    said = reason(media.sound(tmp_path / "a.mp4"), backend="decord")
    assert said == f"decord can't read it ({type(failure).__name__})"


def test_without_decord_installed(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "decord", None)
    assert read_video(media.sound(tmp_path / "a.mp4")).info.backend == "av"


def test_insisting_on_decord_names_what_it_can_t_be_trusted_with(tmp_path):
    path = media.animation(tmp_path / "a.gif")
    assert reason(path, backend="decord") == "decord can't be trusted with the container gif"
    path = media.tiny(tmp_path / "a.mp4")
    assert reason(path, backend="decord") == "decord can't be trusted with the size 16x16"


def test_text_is_not_played_as_a_video(tmp_path):
    (tmp_path / "prompts.txt").write_text("a cat\n" * 100)
    assert reason(tmp_path / "prompts.txt") == "a text file, not a video"


def test_links(tmp_path):
    assert reason(media.broken_link(tmp_path / "a.mp4")) == "a broken link"
    assert read_video(media.good_link(tmp_path / "b.mp4")).info.num_frames == 24


def test_no_permission(tmp_path, monkeypatch):
    path = media.unreadable(tmp_path / "a.mp4")
    if os.access(path, os.R_OK):  # root reads everything

        def refuse(*args, **kwargs):
            raise PermissionError(13, "Permission denied")

        monkeypatch.setattr(container, "open", refuse, raising=False)
    assert reason(path) == "no permission to read it"


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="the system has no named pipes")
def test_a_pipe_is_refused_instead_of_waited_for(tmp_path):
    os.mkfifo(tmp_path / "a.mp4")
    assert reason(tmp_path / "a.mp4") == "not a regular file"


@pytest.mark.parametrize("name", ["with space ü 视频.mp4", "http:x.mp4", "a%03d.mp4", "-i.mp4"])
def test_odd_names(name, tmp_path, monkeypatch):
    media.sound(tmp_path / "plain.mp4").rename(tmp_path / name)
    monkeypatch.chdir(tmp_path)
    assert read_video(name).info.path == name


def test_names_that_can_t_be_files():
    assert "\n" not in str(VideoError("a\nb", "c\r\nd"))
    assert reason("nul\0byte.mp4").startswith("can't be opened (")
    assert reason("x" * 5000).startswith("can't be opened (")


def test_an_exception_of_any_kind_becomes_a_video_error(tmp_path, monkeypatch):
    path = media.sound(tmp_path / "a.mp4")

    def fail(*args, **kwargs):
        raise MemoryError

    def fail_in_ffmpeg(*args):
        raise av.error.MemoryError(12, "Cannot allocate memory")

    monkeypatch.setattr(decoding, "to_rgb", fail_in_ffmpeg)
    assert reason(path) == "needs more memory than there is"
    monkeypatch.setattr(av, "open", fail)
    assert reason(path) == "needs more memory than there is"


def test_a_forged_size_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(container, "_MAX_PIXELS", 96 * 64 - 1)
    assert reason(media.sound(tmp_path / "a.mp4")) == "its frames of 96x64 pixels are too large"


def test_video_error_survives_pickling():
    error = pickle.loads(pickle.dumps(VideoError("a.mp4", "an empty file")))
    assert (error.path, error.reason) == ("a.mp4", "an empty file")
    assert str(error) == "a.mp4: an empty file"


@pytest.mark.parametrize("indices", [[], [3, 2], [1, 1], [-1, 2], [0, 24], [0.0, 1.0], [[0, 1]]])
def test_a_request_for_frames_that_don_t_exist_is_the_caller_s_error(indices, tmp_path):
    path = media.sound(tmp_path / "a.mp4")
    request = FrameRequest(indices=lambda n, fps: np.array(indices), stream="slow")
    with pytest.raises(ValueError, match=r"request 'a': indices must be integers.* in 0\.\.23"):
        read_frames(path, {"a": request})


def test_options_are_checked(tmp_path):
    path = media.sound(tmp_path / "a.mp4")
    with pytest.raises(ValueError) as caught:
        read_video(path, backend="opencv")
    assert str(caught.value) == "backend must be one of 'auto', 'decord', 'av', got 'opencv'"
    with pytest.raises(ValueError, match="^slow_max_side_px must be at least 1, got 0$"):
        read_video(path, slow_max_side_px=0)
    with pytest.raises(ValueError, match="^requests must name at least one request$"):
        read_frames(path, {})


def test_views_are_made_on_the_cpu_whatever_the_default_device_is():
    class Fragments:
        def preprocess(self, frames, *, seed):
            return repeat_to(sample_fragments(frames, aligned=len(frames), seed=seed), 4)

    pixels = torch.randint(256, (3, 3, 300, 320), dtype=torch.uint8)
    clip = Frames(pixels=pixels, indices=np.arange(3), timestamps_seconds=np.arange(3.0))
    expected = views_of({"": clip}, {"": Fragments()})[""]
    with torch.device("meta"):  # stands for any other device
        assert torch.equal(views_of({"": clip}, {"": Fragments()})[""], expected)

"""The feature cache: keys, damage, several writers, and extraction that survives bad files."""

import errno
import os
import threading
from pathlib import Path

import av
import numpy as np
import pytest
import torch

from aigveval.errors import AssessmentError
from aigveval.features.cache import FeatureCache, extract
from encoders import video as video_module
from encoders.base import Encoder, EncoderSpec
from encoders.video import FrameRequest, read_frames
from encoders.wheels import sha256


class MeanColour(Encoder):
    """Tokens of 3 numbers per frame; `scale` is an option that changes them."""

    def __init__(self, name: str = "mean_colour", *, stream: str = "fast", scale: float = 1.0):
        super().__init__()
        self.spec = EncoderSpec(
            name=name,
            dimension="technical",
            num_tokens=2,
            dim=3,
            stream=stream,
            size=8,
            mean=(0.0,) * 3,
            std=(255.0,) * 3,
            time_steps=2,
        )
        self.scale = scale
        self.batches: list[int] = []

    def frame_indices(self, num_frames, fps):
        return np.unique(np.array([0, num_frames - 1], dtype=np.int64))

    def preprocess(self, frames, *, seed=0):
        frames = frames.float() / 255
        return frames[[0, -1]].mean((2, 3))

    def encode(self, view):
        self.batches.append(len(view))
        return view * self.scale

    def options(self):
        return {"scale": self.scale}


def write_video(path: Path, level: int, frames: int = 6) -> Path:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=8)
        stream.width = stream.height = 64
        stream.pix_fmt = "yuv420p"
        for index in range(frames):
            picture = np.full((64, 64, 3), (level + 5 * index) % 256, dtype=np.uint8)
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


@pytest.fixture
def videos(tmp_path):
    return [write_video(tmp_path / f"clip{i}.mp4", 40 * i + 20) for i in range(4)]


def _live(path: Path, encoder: Encoder) -> torch.Tensor:
    request = FrameRequest(indices=encoder.frame_indices, stream=encoder.spec.stream)
    _, frames = read_frames(path, {"x": request})
    return encoder.encode(encoder.preprocess(frames["x"].pixels)[None])[0]


def test_cached_equals_live(tmp_path, videos):
    encoders = [MeanColour(), MeanColour("other", stream="slow", scale=2.0)]
    cache = FeatureCache(tmp_path / "cache")
    report = extract(videos, encoders, cache, progress=False)
    assert report.computed == 4 and not report.errors and not report.notes
    for path in videos:
        assert report.digests[str(path)] == sha256(path)
        for encoder in encoders:
            tokens = cache.get(report.digests[str(path)], encoder)
            assert tokens.dtype == torch.float32 and tokens.shape == (2, 3)
            assert torch.equal(tokens, _live(path, encoder))


@pytest.mark.parametrize("workers, batch_size, expected", [(1, 1, [1] * 4), (2, 3, [3, 1])])
def test_a_file_is_read_once(tmp_path, videos, monkeypatch, workers, batch_size, expected):
    reads = []

    def counted(path, requests):
        reads.append((str(path), len(requests)))
        return read_frames(path, requests)

    monkeypatch.setattr(video_module, "read_frames", counted)
    encoders = [MeanColour(), MeanColour("other", stream="slow")]
    cache = FeatureCache(tmp_path / "cache")
    options = {"workers": workers, "batch_size": batch_size, "progress": False}
    report = extract([*videos, videos[0]], encoders, cache, **options)
    assert sorted(reads) == [(str(path), 2) for path in videos]
    assert encoders[0].batches == expected

    again = extract(videos, encoders, FeatureCache(tmp_path / "cache"), **options)
    assert len(reads) == 4 and again.computed == 0 and again.digests == report.digests

    # one encoder more: only that one is run
    extract(videos, [*encoders, MeanColour("third")], cache, **options)
    assert sorted(reads[4:]) == [(str(path), 1) for path in videos]
    assert encoders[0].batches == expected


def test_the_key_is_content_and_fingerprint(tmp_path, videos):
    cache, encoder = FeatureCache(tmp_path / "cache"), MeanColour()
    extract(videos[:1], [encoder], cache, progress=False)
    copy = tmp_path / "renamed.mp4"
    copy.write_bytes(videos[0].read_bytes())
    assert extract([copy], [encoder], cache, progress=False).computed == 0
    assert extract([copy], [MeanColour(scale=3.0)], cache, progress=False).computed == 1

    before = cache.digest(copy)
    copy.write_bytes(videos[1].read_bytes())
    os.utime(copy, ns=(1, 1))  # another mtime even on a coarse clock
    assert cache.digest(copy) == sha256(videos[1]) != before


@pytest.mark.parametrize(
    "damage, note",
    [
        (lambda data: b"", "unreadable ("),
        (lambda data: data[: len(data) // 2], "unreadable ("),
        (lambda data: data[:-4] + b"\x00\x00\x00\x01", "checksum differs"),
        (
            lambda data: data.replace(b'"format":"2"', b'"format":"9"'),
            "belongs to another file, encoder or format",
        ),
    ],
)
def test_a_damaged_entry_is_computed_again(tmp_path, videos, damage, note):
    cache, encoder = FeatureCache(tmp_path / "cache"), MeanColour()
    digest = extract(videos[:1], [encoder], cache, progress=False).digests[str(videos[0])]
    right, path = cache.get(digest, encoder), cache.entry(digest, encoder)
    data = path.read_bytes()
    assert damage(data) != data
    path.write_bytes(damage(data))

    report = extract(videos[:1], [encoder], cache, progress=False)
    assert report.computed == 1 and not report.errors
    assert len(report.notes) == 1
    assert report.notes[0].startswith(f"{path}: {note}")
    assert report.notes[0].endswith("; computed again")
    assert torch.equal(cache.get(digest, encoder), right)


def test_an_entry_that_cannot_be_opened_is_kept(tmp_path, videos, monkeypatch):
    cache, encoder = FeatureCache(tmp_path / "cache"), MeanColour()
    digest = extract(videos[:1], [encoder], cache, progress=False).digests[str(videos[0])]
    with monkeypatch.context() as patched:
        patched.setattr(Path, "read_bytes", refuse)
        assert cache.get(digest, encoder) is None
    path = cache.entry(digest, encoder)
    assert cache.notes == [f"{path}: unreadable ([Errno 24] Too many open files); computed again"]
    assert cache.get(digest, encoder) is not None


def refuse(path):
    raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))


def test_an_entry_of_an_earlier_format_is_computed_again_without_a_note(tmp_path, videos):
    cache, encoder = FeatureCache(tmp_path / "cache"), MeanColour()
    digest = extract(videos[:1], [encoder], cache, progress=False).digests[str(videos[0])]
    path = cache.entry(digest, encoder)
    data = path.read_bytes()
    path.write_bytes(data.replace(b'"format":"2"', b'"format":"1"'))
    assert cache.get(digest, encoder) is None
    report = extract(videos[:1], [encoder], cache, progress=False)
    assert report.computed == 1 and not report.notes
    assert torch.equal(cache.get(digest, encoder), _live(videos[0], encoder))


def test_bad_files_become_error_rows(tmp_path, videos):
    empty, text, folder = tmp_path / "empty.mp4", tmp_path / "text.mp4", tmp_path / "folder.mp4"
    empty.touch()
    text.write_text("no video at all\n" * 50)
    folder.mkdir()
    url = "https://example.com/a.mp4"
    bad = [empty, text, folder, tmp_path / "absent.mp4", url]
    cache = FeatureCache(tmp_path / "cache")
    report = extract([videos[0], *bad, videos[1]], [MeanColour()], cache, workers=2, progress=False)
    assert set(report.digests) == {str(videos[0]), str(videos[1])}
    assert set(report.errors) == {str(path) for path in bad}
    for path, line in report.errors.items():
        assert line.startswith(f"{path}: ") and "\n" not in line
    assert report.errors[str(bad[3])] == f"{bad[3]}: no such file"
    assert report.errors[url] == (
        f"{url}: a URL, and files are needed: download it and give its path"
    )


class Picky(MeanColour):
    """Fails, or gives NaN, on bright clips."""

    def __init__(self, *, nan: bool) -> None:
        super().__init__("picky")
        self.nan = nan

    def encode(self, view):
        bright = view.mean((1, 2), keepdim=True) > 0.5
        if not self.nan and bright.any():
            raise RuntimeError("too\nbright")
        return torch.where(bright, torch.nan, view)


@pytest.mark.parametrize("nan", [False, True])
def test_a_failing_clip_does_not_take_its_batch_along(tmp_path, videos, nan):
    encoder = Picky(nan=nan)
    cache = FeatureCache(tmp_path / "cache")
    report = extract(videos, [encoder], cache, batch_size=4, progress=False)
    assert set(report.errors) == {str(videos[3])}
    reason = "expected finite tokens (m, e), got shape (2, 3)" if nan else "too bright"
    assert reason in report.errors[str(videos[3])]
    assert set(report.digests) == {str(path) for path in videos[:3]} and report.computed == 3
    assert cache.get(sha256(videos[3]), encoder) is None


def test_a_fault_of_ours_ends_the_run_once(tmp_path, videos):
    class Broken(MeanColour):
        def encode(self, view):
            raise TypeError("no such argument")

    bad = tmp_path / "empty.mp4"
    bad.touch()
    with pytest.raises(AssessmentError) as error:
        extract([bad, *videos], [Broken()], FeatureCache(tmp_path / "cache"), progress=False)
    said = str(error.value)
    assert said.startswith("none of 4 videos could be encoded; something other than the video is")
    assert "TypeError: no such argument" in said and "\n" not in said


def test_a_failed_write_leaves_nothing(tmp_path, videos, monkeypatch):
    cache, encoder = FeatureCache(tmp_path / "cache"), MeanColour()

    def full(source, target):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="No space left") as caught:
        extract(videos, [encoder], cache, progress=False)
    assert caught.value.filename == str(cache.folder)
    assert caught.value.strerror == "features cannot be written: No space left on device"
    assert not [path for path in cache.folder.rglob("*") if path.is_file()]


def test_a_damaged_entry_that_cannot_be_removed_is_no_fault_of_the_video(
    tmp_path, videos, monkeypatch
):
    cache, encoder = FeatureCache(tmp_path), MeanColour()
    extract(videos, [encoder], cache, progress=False)
    entry = cache.entry(cache.digest(videos[0]), encoder)
    entry.write_bytes(b"cut short")

    def refused(*_, **__):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(Path, "unlink", refused)
    monkeypatch.setattr(os, "replace", refused)
    with pytest.raises(OSError, match="features cannot be written: Read-only file system"):
        extract(videos, [encoder], cache, progress=False)
    assert cache.notes[0].startswith(f"{entry}: unreadable (")


def test_writers_at_the_same_time(tmp_path):
    encoder, digest = MeanColour(), "ab" * 32
    tokens = torch.arange(6.0).reshape(2, 3)
    wrong: list[str] = []

    def work():
        cache = FeatureCache(tmp_path / "cache")
        for _ in range(30):
            cache.put(digest, encoder, tokens)
            found = cache.get(digest, encoder)
            if found is None or not torch.equal(found, tokens):
                wrong.extend(cache.notes or ["missing"])

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    names = [path.name for path in (tmp_path / "cache").rglob("*") if path.is_file()]
    assert names == [f"{digest}.safetensors"]


def test_put_refuses_what_is_not_tokens(tmp_path):
    cache = FeatureCache(tmp_path)
    with pytest.raises(ValueError, match=r"expected finite tokens \(m, e\), got shape \(1, 2, 3\)"):
        cache.put("00" * 32, MeanColour(), torch.zeros(1, 2, 3))

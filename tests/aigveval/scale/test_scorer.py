"""The classes for pipelines and what they stand on, without Ray."""

import os
import pickle
import sys
import tempfile
from pathlib import Path

import fsspec
import numpy as np
import pytest

from aigveval.data.manifest import make_clip
from aigveval.errors import AssessmentError, InputError
from aigveval.scale import Encoder, Scorer
from aigveval.scale.batches import clips_of, fetched, for_other_machines
from encoders.registry import EncoderError
from encoders.video import VideoError

from ..engines import tiny_assessor
from . import works
from tests import media


@pytest.fixture(autouse=True)
def temporary(tmp_path, monkeypatch):
    """Where copies of files go."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


@pytest.fixture
def clip(tmp_path):
    path = tmp_path / "a.mp4"
    media.write_video(path, num_frames=4)
    return path


@pytest.fixture
def bucket(clip):
    """The same file in fsspec's memory."""
    system = fsspec.filesystem("memory")
    system.put_file(str(clip), "/bucket/a.mp4")
    yield "memory://bucket/a.mp4"
    system.rm("/bucket", recursive=True)


def batch_of(videos, **columns):
    given = {"video": videos, **columns}
    return {name: np.array(values, dtype=object) for name, values in given.items()}


def make_tiny(model, **options):
    return tiny_assessor(**options)


def test_rows_are_those_of_an_assessor_and_addresses_are_fetched(clip, bucket, temporary):
    options = {"make": make_tiny, "batch_size": 2}
    scorer = Scorer(**pickle.loads(pickle.dumps(options)))
    bad = clip.with_name("bad.mp4")
    bad.write_bytes(b"not a video")
    videos = [str(clip), bucket, f"file://{clip}", str(bad), "memory://bucket/none.mp4", None]
    given = batch_of(videos, caption=["a dog", None, "a dog", "x", "x", "x"], id=list(range(6)))
    found = scorer(given)
    assert list(found)[:3] == ["video", "caption", "id"]
    np.testing.assert_array_equal(found["id"], np.arange(6))
    expected = tiny_assessor().score(clip, "a dog")
    for name in ("overall", "technical", "motion", "semantic"):
        assert found[name].dtype == np.float64
        assert found[name][0] == pytest.approx(getattr(expected, name).score, abs=1e-4)
        assert found[name][2] == pytest.approx(found[name][0], abs=1e-4)
        assert np.isnan(found[name][3:]).all()
    assert np.isnan(found["semantic"][1]) and not np.isnan(found["overall"][1])  # no prompt
    assert found["error"].tolist() == [
        "",
        "",
        "",
        "not a readable video (Invalid data found when processing input)",
        "no such file",
        "no path of a video: None",
    ]
    assert {len(values) for values in found.values()} == {6}
    assert os.listdir(temporary) == []


def test_columns_are_the_same_whatever_a_batch_holds(tmp_path):
    good, bad = tmp_path / "good.mp4", tmp_path / "bad.mp4"
    good.write_text("3.5")
    bad.write_text("unreadable")
    scorer = Scorer(str(tmp_path), make=works.load, prefix="our_")
    found = [scorer(batch_of([str(path)])) for path in (good, bad)]
    assert [(name, values.dtype) for name, values in found[0].items()] == [
        (name, values.dtype) for name, values in found[1].items()
    ]
    assert {"our_overall", "our_overall_low", "our_familiarity", "our_error"} <= set(found[0])
    with pytest.raises(InputError, match="^a batch has a column 'our_error' already; give another"):
        scorer(found[0])
    with pytest.raises(InputError, match=r"^a batch has no column 'video' \(or path, .*has clip$"):
        scorer({"clip": np.array(["a.mp4"], dtype=object)})


def test_a_process_that_never_had_a_success_ends(tmp_path):
    bug, good = tmp_path / "bug.mp4", tmp_path / "good.mp4"
    bug.write_text("bug")
    good.write_text("2")
    one = batch_of([str(bug)] * 3)
    scorer = Scorer(str(tmp_path), make=works.load)
    assert scorer(one)["error"].tolist() == ["RuntimeError: a bug with two lines"] * 3
    with pytest.raises(AssessmentError, match="^none of 6 videos could be assessed; something oth"):
        scorer(one)
    scorer = Scorer(str(tmp_path), make=works.load)
    assert scorer(batch_of([str(good)]))["error"].tolist() == [""]
    for _ in range(3):
        assert scorer(one)["error"].tolist() == ["RuntimeError: a bug with two lines"] * 3


def test_encoder(clip, bucket, temporary):
    given = batch_of([str(clip), bucket, "gone.mp4"])
    found = Encoder("flow", batch_size=2)(given)
    tokens = found["tokens"]
    assert tokens.dtype == np.float32 and tokens.ndim == 3
    np.testing.assert_array_equal(tokens[0], tokens[1])
    assert np.isfinite(tokens[:2]).all() and np.isnan(tokens[2]).all()
    assert found["error"].tolist() == ["", "", "no such file"]
    pooled = Encoder("motion_flow", pooled=True, prefix="flow_")(given)
    np.testing.assert_allclose(pooled["flow_pooled"][:2], tokens[:2].mean(1), rtol=1e-5)
    assert os.listdir(temporary) == []
    with pytest.raises(EncoderError, match="nonsense"):
        Encoder("nonsense")


def test_what_cannot_be_fetched_is_said(monkeypatch, temporary):
    def why(url):
        with pytest.raises(VideoError) as error, fetched(make_clip(url)):
            pass
        return error.value.reason

    assert why("memory://none.mp4") == "no such file"
    assert why("nonsense://a/b.mp4") == (
        "cannot be fetched: ValueError: Protocol not known: nonsense"
    )
    monkeypatch.setitem(sys.modules, "s3fs", None)
    assert why("s3://bucket/a.mp4") == "cannot be fetched: ImportError: Install s3fs to access S3"
    assert os.listdir(temporary) == []


@pytest.mark.parametrize(
    ("protocol", "url", "name"),
    [
        (("http", "https"), f"https://x.org/c/a.gif?to=/b/c&signature={'s' * 300}", "a.gif"),
        (("http", "https"), "https://x.org/?id=3", "x.org"),
        (("s3", "s3a"), "s3://bucket/is it a?.gif", "is it a?.gif"),
        (("s3", "s3a"), f"s3://bucket/{'ü' * 200}.gif", f"{'ü' * 56}.gif"),
    ],
)
def test_a_copy_has_a_name_that_files_may_have(monkeypatch, protocol, url, name):
    class System:
        def get_file(self, path, local):
            assert path == url
            Path(local).write_bytes(b"film")

    System.protocol = protocol
    monkeypatch.setattr(fsspec.core, "url_to_fs", lambda url: (System(), url))
    with fetched(make_clip(url)) as here:
        assert (here.path.name, here.path.read_bytes()) == (name, b"film")


def test_copies_are_gone_after_a_failure_too(bucket, temporary):
    with pytest.raises(RuntimeError), fetched(make_clip(bucket)) as here:
        assert here.path.parent.parent == temporary and here.path.name == "a.mp4"
        raise RuntimeError
    assert os.listdir(temporary) == []


def test_clips_of_a_batch(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    given = {"path": ["a.mp4", 3, "s3://b/c//d.mp4"], "text": ["x", np.nan, ""], "fps": [8, 9, 1.5]}
    one, two, three = clips_of(given)
    assert (one.video, one.prompt, one.fps, one.problem) == ("a.mp4", "x", 8.0, "no such file")
    assert two.problem == "no path of a video: 3" and two.prompt is None
    assert (three.video, three.prompt, three.problem) == ("s3://b/c//d.mp4", None, None)
    [none] = clips_of({"video": ["a.mp4"], "fps": np.array([np.nan])})
    assert none.fps is None
    assert for_other_machines(one, fps=5).path == Path(tmp_path, "a.mp4")
    assert for_other_machines(one, fps=5).fps == 8.0
    assert for_other_machines(none, fps=5).fps == 5
    with pytest.raises(InputError, match="^a batch has"):
        clips_of({"path": ["a"], "file": ["b"]})


def test_cells_that_are_none_are_rows_with_a_problem():
    prompts, rates = [b"x", 3, None, float("nan")], [8, "", "", "x"]
    found = clips_of({"video": list("abcd"), "prompt": prompts, "fps": rates})
    assert [clip.problem for clip in found] == [
        "prompt must be text, got b'x'",
        "prompt must be text, got 3",
        "no such file",
        "fps must be a number, got 'x'",
    ]
    assert [clip.video for clip in found] == list("abcd") and found[2].fps is None
    [clip] = clips_of({"video": ["memory://a.mp4"], "prompt": [3]})
    with fetched(clip) as here:
        assert here.problem == "prompt must be text, got 3"


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        ([{"video": "a.mp4"}], "^a batch must be a dict of columns, got list$"),
        (
            {"video": "a.mp4"},
            "^column 'video' of a batch must have a value for each row, got 'a.mp4'$",
        ),
        ({"video": ["a", "b"], "prompt": "ab"}, "^column 'prompt' of a batch must .*, got 'ab'$"),
        ({"video": ["a", "b"], "fps": [8]}, "^a batch has 2 videos, and 1 of 'fps'$"),
    ],
)
def test_what_is_no_batch_is_named(batch, message):
    with pytest.raises(InputError, match=message):
        clips_of(batch)

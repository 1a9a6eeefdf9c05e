"""A fault that no video gets past ends the run and judges none; a single odd video is a row."""

import json
import os
import pickle
import platform
import weakref
from importlib.metadata import version
from pathlib import Path

import av
import pytest
import torch
from typer.testing import CliRunner

import aigveval
from aigveval import errors, versions
from aigveval.batching import run_batches, stop_at_our_fault
from aigveval.cli.app import app
from aigveval.errors import AssessmentError, ModelError
from aigveval.inference import assessor as assess
from aigveval.inference.assessor import Assessor
from aigveval.reports.results import read_results
from encoders import registry
from encoders.video import VideoError, read_video

from ..engines import TextEngine, tiny_assessor
from ..tiny_llm import MeanColour
from tests import media

VERSIONS = (
    f"aigveval {aigveval.__version__}, Python {platform.python_version()}, "
    f"torch {version('torch')}, transformers {version('transformers')}"
)
CAUSE = "TypeError: got an unexpected keyword argument 'cache'"
FAULT = f"; something other than the video is at fault: {CAUSE} ({VERSIONS}); run `aigveval doctor`"
NEWER = ["av 77.0 (tested up to 18)", "transformers 5.99.0 (tested up to 5.24)"]
SAYS_NEWER = f"; newer than tested: {NEWER[0]}, {NEWER[1]}"
OUT_OF_MEMORY = [
    MemoryError("cannot have 9 GB"),
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9 GiB."),
    RuntimeError("MPS backend out of memory (MPS allocated: 9 GiB)"),
    RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
    RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried 9 GB"),
]


class Broken(TextEngine):
    """Fails at one stage with every clip: while it is prepared, in a batch, or in its own row."""

    def __init__(self, stage: str, error: Exception | None = None) -> None:
        super().__init__()
        self.stage = stage
        self.error = error or TypeError(CAUSE.partition(": ")[2])
        self.asked = 0

    def prepare(self, path):
        found = super().prepare(path)
        if self.stage == "prepare":
            self.asked += 1
            raise self.error
        return found

    def score(self, prepared, prompts, **asked):
        self.asked += len(prepared)
        if self.stage == "row":
            return [self.error] * len(prepared)
        raise self.error


@pytest.fixture
def clips(tmp_path) -> list[Path]:
    for number in range(20):
        (tmp_path / f"{number:02}.mp4").write_text(str(1 + number / 10))
    return sorted(tmp_path.glob("*.mp4"))


def until_end(assessor, items, **options):
    """The rows that come, and the message of the error that ends them."""
    rows = []
    with pytest.raises(AssessmentError) as caught:
        for row in assessor.score_many(items, **options):
            rows.append(row)
    assert isinstance(caught.value.__cause__, Exception)
    return rows, str(caught.value)


class TestScoreMany:
    @pytest.mark.parametrize("stage", ["prepare", "batch", "row"])
    @pytest.mark.parametrize(("size", "count"), [(1, 4), (3, 4), (4, 4), (8, 8)])
    def test_what_hits_the_whole_first_batch_ends_the_run(self, clips, stage, size, count):
        engine = Broken(stage)
        rows, message = until_end(Assessor(engine, name="x"), clips, batch_size=size)
        assert rows == []
        assert message == f"none of {count} videos could be assessed{FAULT}"
        assert engine.asked <= 20  # and not one by one through a whole collection

    def test_collection_smaller_than_a_batch(self, clips):
        rows, message = until_end(Assessor(Broken("batch"), name="x"), clips[:3])
        assert rows == [] and message == f"none of 3 videos could be assessed{FAULT}"
        rows, message = until_end(Assessor(Broken("row"), name="x"), clips[:1])
        assert rows == [] and message == f"the video could not be assessed{FAULT}"

    @pytest.mark.parametrize("size", [1, 3, 8])
    def test_bad_videos_beside_it_keep_their_rows(self, clips, size):
        for number in (0, 2, 3, 5):
            clips[number].write_text("unreadable")
        rows, message = until_end(Assessor(Broken("batch"), name="x"), clips[:7], batch_size=size)
        assert [(row.video, row.error) for row in rows] == [
            (str(clips[number]), "not a video") for number in (0, 2, 3, 5)
        ]
        assert message == f"none of 3 videos could be assessed{FAULT}"

    @pytest.mark.parametrize("size", [1, 3, 8])
    @pytest.mark.parametrize("content", ["bug", "poison", "single poison"])
    def test_odd_videos_among_good_ones_are_rows_in_order(self, clips, size, content):
        for number in (0, 1, 2, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19):
            clips[number].write_text(content)
        clips[3].write_text("unreadable")
        rows = list(Assessor(TextEngine(), name="x").score_many(clips, batch_size=size))
        assert [row.video for row in rows] == list(map(str, clips))
        assert [n for n, row in enumerate(rows) if row.error is None] == [4, 5, 6, 7, 8, 9]
        assert rows[3].error == "not a video" and "Error: " in rows[2].error

    def test_the_encoder_or_the_model_is_broken(self, tmp_path, monkeypatch):
        path = media.write_video(tmp_path / "clip.mp4", num_frames=4)

        def broken(*args, **kwargs):
            raise TypeError(CAUSE.partition(": ")[2])

        for target, name in (("model", "encode"), ("", "run")):
            tiny = tiny_assessor()
            part = getattr(tiny.engine, target) if target else tiny.engine
            monkeypatch.setattr(part, name, broken)
            rows, message = until_end(tiny, [path] * 5)
            assert rows == [] and message == f"none of 5 videos could be assessed{FAULT}"

    def test_the_library_that_reads_files_is_of_another_version(self, tmp_path, monkeypatch):
        monkeypatch.setattr(versions, "newer_than_tested", lambda: NEWER)
        names = [str(tmp_path / f"{letter}.mp4") for letter in "abcde"]
        for name in names:
            media.write_video(name, num_frames=4)
        opened = av.open

        def other(file, *args, **kwargs):
            if Path(file).name in broken:
                raise TypeError("open() got an unexpected keyword argument 'x'")
            return opened(file, *args, **kwargs)

        monkeypatch.setattr(av, "open", other)
        reason = "can't be read (TypeError: open() got an unexpected keyword argument 'x')"
        tiny = tiny_assessor()
        broken = [Path(name).name for name in names]
        rows, message = until_end(tiny, names)
        fault = FAULT.replace(CAUSE, f"ReaderFault: {names[0]}: {reason}")
        fault = fault.replace(VERSIONS, VERSIONS + SAYS_NEWER)
        assert rows == [] and message == f"none of 5 videos could be assessed{fault}"
        with pytest.raises(AssessmentError, match="a.mp4 could not be assessed; something other"):
            tiny.score(names[0])
        broken = ["b.mp4"]
        rows = list(tiny.score_many(names, batch_size=2))
        assert [row.error for row in rows] == [None, reason + SAYS_NEWER, None, None, None]
        with pytest.raises(VideoError) as caught:
            read_video(names[1])
        assert pickle.loads(pickle.dumps(caught.value)).reason == reason

    def test_stopping_early_stops_the_workers(self, clips):
        closed = []

        def outcomes():
            try:
                yield from run_batches(clips, prepare=str, compute=lambda batch: 1 / 0)
            finally:
                closed.append(True)

        given = outcomes()  # one that nobody holds would be closed anyway
        with pytest.raises(AssessmentError):
            list(stop_at_our_fault(given, batch_size=8))
        assert closed == [True]


class TestDeviceFailure:
    """A GPU that failed in the middle of a run fails for all that comes after it."""

    GONE = torch.AcceleratorError("CUDA error: an illegal memory access was encountered")
    CUBLAS = RuntimeError("CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling `cublasSgemm`")

    def failing(self, error, *which):
        contents = {1 + number / 10 for number in which}

        class Failing(TextEngine):
            def score(self, prepared, prompts, **asked):
                if not contents.isdisjoint(prepared):
                    raise error
                return super().score(prepared, prompts, **asked)

        return Assessor(Failing(), name="x", batch_size=1)

    @pytest.mark.parametrize("error", [GONE, CUBLAS])
    def test_ends_the_run_with_what_was_scored(self, clips, error):
        rows, message = until_end(self.failing(error, *range(6, 20)), clips)
        assert [row.error for row in rows] == [None] * 6
        assert message.startswith(
            "the last 4 videos could not be assessed; something other than the video is at fault: "
            f"{type(error).__name__}: CUDA error: "
        )

    def test_some_videos_between_good_ones_are_rows(self, clips):
        rows = list(self.failing(self.GONE, 3, 4, 5, 19).score_many(clips))
        failed = [number for number, row in enumerate(rows) if row.error]
        assert failed == [3, 4, 5, 19] and len(rows) == 20

    def test_other_errors_later_in_a_run_are_rows(self, clips):
        odd = self.failing(RuntimeError("odd"), *range(6, 20))
        rows = list(odd.score_many(clips))
        assert [row.error for row in rows] == [None] * 6 + ["RuntimeError: odd"] * 14

    def test_bad_videos_among_the_last_ones_stay_rows(self, clips):
        def prepare(number):
            if number == 6:
                raise VideoError("6", "not a video")
            return number

        def compute(batch):
            if batch[0][1] > 2:
                raise self.GONE
            return [number for number, _ in batch]

        outcomes = run_batches(range(20), prepare=prepare, compute=compute, batch_size=1)
        given = []
        with pytest.raises(AssessmentError, match="the last 4 videos"):
            for outcome in stop_at_our_fault(outcomes, batch_size=1):
                given.append(outcome.item)
        assert given == [0, 1, 2, 6]


class TestMemory:
    @pytest.mark.parametrize("error", OUT_OF_MEMORY)
    def test_not_even_one_video_fits(self, clips, error):
        rows, message = until_end(Assessor(Broken("batch", error), name="x"), clips)
        assert rows == []
        assert message == (
            "none of 8 videos could be assessed: out of memory, even with one video at a time "
            f"({type(error).__name__}: {error}); close other programs, or take another device or "
            "a smaller model"
        )

    @pytest.mark.parametrize("error", OUT_OF_MEMORY)
    def test_one_that_does_not_fit_is_a_row(self, clips, error):
        class Small(TextEngine):
            def score(self, prepared, prompts, **asked):
                if 1.0 in prepared:
                    raise error
                return super().score(prepared, prompts, **asked)

        rows = list(Assessor(Small(), name="x").score_many(clips))
        assert [row.error for row in rows] == [f"out of memory: {error}"] + [None] * 19

    def test_a_batch_that_does_not_fit_is_scored_one_by_one(self, clips):
        class Small(TextEngine):
            def score(self, prepared, prompts, **asked):
                if len(prepared) > 1:
                    raise MemoryError
                return super().score(prepared, prompts, **asked)

        rows = list(Assessor(Small(), name="x").score_many(clips))
        assert [row.error for row in rows] == [None] * 20

    @pytest.mark.parametrize("stage", ["prepare", "score"])
    def test_what_failed_leaves_no_tensors_behind(self, clips, stage):
        """Not even while outcomes wait for a video that succeeds."""
        left: list[weakref.ref] = []

        class Leaky(TextEngine):
            def work(self, value):
                assert [ref for ref in left if ref() is not None] == []
                tensor = torch.zeros(9)
                left.append(weakref.ref(tensor))
                try:
                    raise KeyError(len(tensor))
                except KeyError:
                    if value < 1.3:
                        raise MemoryError
                return value

            def prepare(self, path):
                value = super().prepare(path)
                return self.work(value) if stage == "prepare" else value

            def score(self, prepared, prompts, **asked):
                if stage == "score":
                    for value in prepared:
                        self.work(value)
                return super().score(prepared, prompts, **asked)

        rows = list(Assessor(Leaky(), name="x", workers=1).score_many(clips, batch_size=1))
        assert [row.error for row in rows] == ["out of memory"] * 3 + [None] * 17


def test_score_of_one_video(clips):
    for stage in ("prepare", "batch", "row"):
        with pytest.raises(AssessmentError) as caught:
            Assessor(Broken(stage), name="x").score(clips[0])
        assert str(caught.value) == f"{clips[0]} could not be assessed{FAULT}"


def test_newer_versions_are_named(clips, monkeypatch):
    monkeypatch.setattr(versions, "newer_than_tested", lambda: NEWER)
    _, message = until_end(Assessor(Broken("batch"), name="x"), clips)
    assert message == f"none of 8 videos could be assessed{FAULT}".replace(
        VERSIONS, VERSIONS + SAYS_NEWER
    )
    clips[2].write_text("bug")
    clips[3].write_text("unreadable")
    rows = list(Assessor(TextEngine(), name="x").score_many(clips))
    assert rows[2].error == "RuntimeError: a bug with two lines" + SAYS_NEWER
    assert rows[3].error == "not a video"


def test_a_library_that_is_missing_is_named(monkeypatch):
    monkeypatch.setattr(errors, "_NAMED", ("no-such-library",))
    assert errors.versions_in_use() == (
        f"aigveval {aigveval.__version__}, Python {platform.python_version()}, no no-such-library"
    )


class TestLoading:
    def broken(self, monkeypatch, error):
        from aigveval.inference import engine

        def load_engine(checkpoint, **options):
            raise error

        monkeypatch.setattr(engine, "load_engine", load_engine)
        with pytest.raises(ModelError) as caught:
            aigveval.load("lite")
        return str(caught.value)

    @pytest.mark.parametrize("kind", [TypeError, AttributeError, ImportError])
    def test_a_library_does_not_fit(self, monkeypatch, kind):
        assert self.broken(monkeypatch, kind("other than it\nwas")) == (
            f"cannot load the model lite: {kind.__name__}: other than it was ({VERSIONS}); "
            "run `aigveval doctor`"
        )

    def test_a_file_of_the_model_is_broken(self, monkeypatch):
        assert self.broken(monkeypatch, ValueError("x is broken")) == (
            "cannot load the model lite: x is broken"
        )
        monkeypatch.setattr(versions, "newer_than_tested", lambda: NEWER)
        assert self.broken(monkeypatch, ValueError("x is broken")) == (
            f"cannot load the model lite: x is broken{SAYS_NEWER}"
        )


class TestCommands:
    @pytest.fixture(autouse=True)
    def folder(self, tmp_path, monkeypatch):
        """Five "videos", and an engine whose `stage` can be broken and mended."""
        monkeypatch.chdir(tmp_path)
        self.engine = Broken("batch")
        monkeypatch.setattr(assess, "row_name", lambda model, **options: model)
        monkeypatch.setattr(assess, "load", lambda name, **_: Assessor(self.engine, name=name))
        for number, name in enumerate("abcde"):
            Path("v", "ab"[number % 2]).mkdir(parents=True, exist_ok=True)
            Path("v", "ab"[number % 2], f"{name}.mp4").write_text(str(2 + number / 10))

    def run(self, *arguments, code):
        result = CliRunner().invoke(app, list(arguments))
        assert result.exit_code == code, result.output
        assert "Traceback" not in result.output
        return result

    @pytest.mark.parametrize("suffix", [".jsonl", ".csv", ".parquet"])
    def test_score_judges_none_and_goes_on_later(self, suffix):
        out = f"r{suffix}"
        result = self.run("score", "v", "--out", out, code=2)
        assert result.stdout == ""
        assert result.stderr == f"error: none of 5 videos could be assessed{FAULT}\n"
        assert not os.path.exists(out)
        self.engine = TextEngine()
        result = self.run("score", "v", "--out", out, "--resume", code=0)
        assert [row.error for row in read_results(out)] == [None] * 5
        assert "5 of 5 videos are in" in result.stdout

    @pytest.mark.parametrize("suffix", [".jsonl", ".csv", ".parquet"])
    def test_earlier_results_are_left_alone(self, suffix):
        out = f"r{suffix}"
        broken, self.engine = self.engine, TextEngine()
        self.run("score", "v", "--out", out, "-q", code=0)
        earlier = Path(out).read_bytes()
        self.engine = broken
        self.run("score", "v", "--out", out, "-q", code=2)
        assert Path(out).read_bytes() == earlier
        Path("v/f.mp4").write_text("4")
        self.run("score", "v", "--out", out, "--resume", "-q", code=2)
        assert Path(out).read_bytes() == earlier

    def test_a_bad_video_keeps_its_row_and_the_others_get_none(self):
        Path("v/a/a.mp4").write_text("unreadable")
        result = self.run("score", "v", "-q", code=2)
        assert result.stderr == f"error: none of 4 videos could be assessed{FAULT}\n"
        assert [(row.video, row.error) for row in read_results("results.jsonl")] == [
            ("v/a/a.mp4", "not a video")
        ]

    def test_resume_scores_what_an_older_version_blamed_on_the_videos(self):
        self.engine = TextEngine()
        self.run("score", "v", "-q", code=0)
        rows = [json.loads(line) for line in Path("results.jsonl").read_text().splitlines()]
        blank = dict.fromkeys(("overall", "technical", "motion", "semantic"))
        for row in rows[1:]:
            row |= {**blank, "error": CAUSE}
        Path("results.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        self.engine = TextEngine()
        result = self.run("score", "v", "--resume", code=0)
        assert result.stderr == "1 of 5 videos are already in results.jsonl\n"
        assert sum(map(len, self.engine.batches)) == 4
        assert [row.error for row in read_results("results.jsonl")] == [None] * 5

    def test_leaderboard(self):
        result = self.run("leaderboard", "v", "-q", code=2)
        assert result.stderr == f"error: none of 5 videos could be assessed{FAULT}\n"
        assert not os.path.exists("leaderboard.jsonl")

    def test_timeline(self, monkeypatch):
        media.write_video(Path("clip.mp4"), num_frames=48)
        tiny = tiny_assessor()
        monkeypatch.setattr(assess, "load", lambda model, **options: tiny)
        score = tiny.engine.score_views
        monkeypatch.setattr(tiny.engine, "score_views", self.engine.score)
        assert self.run("timeline", "clip.mp4", code=2).stderr == (
            f"error: clip.mp4 could not be assessed{FAULT}\n"
        )
        self.engine.stage = "row"
        assert self.run("timeline", "clip.mp4", code=2).stderr == (
            f"error: clip.mp4 could not be assessed from 0 to 2 s{FAULT}\n"
        )
        windows = iter([True])  # the windows are scored, the whole is not
        monkeypatch.setattr(
            tiny.engine,
            "score_views",
            lambda *batch: score(*batch) if next(windows, False) else [self.engine.error],
        )
        assert self.run("timeline", "clip.mp4", code=2).stderr == (
            f"error: clip.mp4 could not be assessed{FAULT}\n"
        )

    def test_features(self, monkeypatch):
        look = {"name": "motion_mean", "dimension": "motion", "num_tokens": 4, "dim": 5}
        monkeypatch.setattr(registry, "_registered", {"motion_mean": lambda: MeanColour(**look)})
        encode = MeanColour.encode

        def broken(self, view):
            raise TypeError(CAUSE.partition(": ")[2])

        monkeypatch.setattr(MeanColour, "encode", broken)
        for name in "abcde":
            media.write_video(Path(f"{name}.mp4"), num_frames=4)
        Path("x.mp4").write_text("no video")
        videos = [f"{name}.mp4" for name in "abcdex"]
        command = ["features", *videos, "--encoder", "motion_mean", "--out", "out"]
        result = self.run(*command, code=2)
        assert result.stderr == f"error: none of 4 videos could be encoded{FAULT}\n"
        assert Path("out/index.jsonl").read_text() == ""
        monkeypatch.setattr(MeanColour, "encode", encode)
        self.run(*command, "--resume", code=1)
        rows = list(map(json.loads, Path("out/index.jsonl").read_text().splitlines()))
        assert [row["error"] is None for row in rows] == [True] * 5 + [False]


def test_video_errors_alone_end_nothing(clips):
    def prepare(path):
        raise VideoError(str(path), "not a video")

    outcomes = run_batches(clips, prepare=prepare, compute=list, batch_size=2)
    assert len(list(stop_at_our_fault(outcomes, batch_size=2))) == 20

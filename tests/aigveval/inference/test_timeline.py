"""Scores along a video."""

import dataclasses
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from aigveval.assessment import SCORE_FIELDS
from aigveval.cli.app import app
from aigveval.errors import AssessmentError
from aigveval.inference import assessor as assess
from aigveval.inference import timeline as module
from aigveval.inference.assessor import Assessor
from aigveval.inference.engine import ModelEngine
from aigveval.inference.timeline import make_timeline, window_spans
from aigveval.reports.plots import plot_timeline
from encoders import video as video_module
from encoders.video import FrameRequest, VideoError, VideoInfo, read_frames, requests_of

from ..engines import tiny_assessor
from ..tiny_llm import make_encoders
from .makers import fake_load
from tests import media


@pytest.mark.parametrize(
    ("duration", "window", "step", "expected"),
    [
        (4.0, 2.0, 1.0, [(0, 2), (1, 3), (2, 4)]),
        (4.0, 2.0, 2.0, [(0, 2), (2, 4)]),
        (4.5, 2.0, 1.0, [(0, 2), (1, 3), (2, 4), (2.5, 4.5)]),
        (4.04, 2.0, 1.0, [(0, 2), (1, 3), (2, 4)]),  # less than a tenth of a step is left
        (0.3, 0.1, 0.1, [(0, 0.1), (0.1, 0.2), (0.2, 0.3)]),  # whatever rounding says
        (2.0, 2.0, 0.5, [(0, 2)]),
        (1.2, 2.0, 0.5, [(0, 1.2)]),
    ],
)
def test_spans(duration, window, step, expected):
    found = window_spans(duration, window_seconds=window, step_seconds=step)
    np.testing.assert_allclose(found, expected)


@pytest.mark.parametrize(
    ("window", "step", "message"),
    [
        (0.0, 1.0, "^window_seconds must be above 0, got 0$"),
        (float("inf"), 1.0, "^window_seconds must be above 0, got inf$"),
        (1.0, 0.0, "^step_seconds must be above 0 and at most window_seconds"),
        (1.0, 1.5, r"at most window_seconds \(1\), as nothing would look at .*, got 1.5$"),
    ],
)
def test_spans_that_make_no_sense(window, step, message):
    with pytest.raises(ValueError, match=message):
        window_spans(4.0, window_seconds=window, step_seconds=step)


def test_frames_of_a_stretch():
    times = np.array([0.0, 0.1, 0.2, 0.3, 1.0, 1.1])  # a frame that lasts 0.7 s
    assert module._frames(times, 0.0, 0.2) == (0, 2)
    assert module._frames(times, 0.1, 0.31) == (1, 4)
    assert module._frames(times, 0.5, 0.9) == (3, 4)  # nothing new: what is on the screen
    assert module._frames(times, 0.9, 1.2) == (3, 6)


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("videos")
    return {
        "even": media.write_video(folder / "even.mp4", num_frames=48),  # 24 fps
        "uneven": media.variable_frame_rate(folder / "uneven.mp4"),
        "short": media.write_video(folder / "short.mp4", num_frames=5),
        "gif": media.animation(folder / "x.gif"),
    }


def by_hand(path, spans):
    """Scores of each stretch, out of all of the video's frames."""
    everything = FrameRequest(indices=lambda count, fps: np.arange(count), stream="slow")
    _, frames = read_frames(path, {"all": everything})
    frames = frames["all"]
    times, encoders = frames.timestamps_seconds, make_encoders()
    views = []
    for start, end in spans:
        inside = np.flatnonzero((times > start + 1e-6) & (times < end - 1e-6))
        first = np.flatnonzero(times <= start + 1e-6)[-1]
        own = np.unique(np.append(inside, first))
        views.append(
            {
                name: e.preprocess(frames.pixels[own[e.frame_indices(len(own), 0.0)]])
                for name, e in encoders.items()
            }
        )
    return tiny_assessor().engine.score_views(views, ["a dog"] * len(views))


@pytest.mark.parametrize("batch", [1, 3, 8])
@pytest.mark.parametrize("name", ["even", "uneven", "gif"])
def test_a_window_is_scored_as_a_clip_of_its_own(videos, monkeypatch, name, batch):
    monkeypatch.setattr(module, "_BATCH", batch)
    done = []
    found = make_timeline(
        tiny_assessor(),
        videos[name],
        prompt="a dog",
        window_seconds=0.5,
        step_seconds=0.2,
        on_window=lambda *numbers: done.append(numbers),
    )
    spans = [(window.start_seconds, window.end_seconds) for window in found.windows]
    assert spans == window_spans(found.duration_seconds, window_seconds=0.5, step_seconds=0.2)
    assert done == [(n + 1, len(spans)) for n in range(len(spans))] and len(spans) > 3
    for window, expected in zip(found.windows, by_hand(videos[name], spans), strict=True):
        for score in SCORE_FIELDS:
            assert window.scores[score].score == pytest.approx(expected[score].score, abs=2e-5)
    assert len({window.scores["overall"].score for window in found.windows}) > 3
    alone = tiny_assessor().score(videos[name], "a dog")
    assert dataclasses.replace(found.clip, seconds=0) == dataclasses.replace(alone, seconds=0)


@pytest.mark.parametrize(
    "setting", [lambda: torch.autocast("cpu", torch.bfloat16), lambda: torch.device("meta")]
)
def test_settings_of_the_caller_change_nothing(videos, setting):
    def scores():
        found = make_timeline(tiny, videos["short"], prompt="a dog", window_seconds=0.1)
        return [*(window.scores for window in found.windows), found.clip.overall]

    tiny = tiny_assessor()
    expected = scores()
    with setting():
        assert scores() == expected


@pytest.mark.parametrize("prompt", [None, "\n ", "\u200b"])  # of no visible character
def test_short_clip_without_prompt(prompt, videos):
    found = make_timeline(
        tiny_assessor(), videos["short"], prompt=prompt, window_seconds=2, step_seconds=1
    )
    (window,) = found.windows
    assert (window.start_seconds, window.end_seconds) == (0, found.duration_seconds)
    assert window.scores["semantic"] is None and found.clip.semantic is None
    assert window.scores["overall"].score == pytest.approx(found.clip.overall.score, abs=2e-5)


def test_the_whole_clip_is_called_as_the_caller_does(videos, monkeypatch):
    monkeypatch.chdir(videos["short"].parent)
    path = f"./{videos['short'].name}"
    assert make_timeline(tiny_assessor(), path).clip.video == path


def test_a_file_is_looked_through_once_whatever_its_length(videos, monkeypatch):
    looked, inspect = [], video_module.inspect

    def counted(path):
        looked.append(path)
        return inspect(path)

    monkeypatch.setattr(video_module, "inspect", counted)
    monkeypatch.setattr(module, "_BATCH", 1)
    found = make_timeline(tiny_assessor(), videos["even"], window_seconds=0.5, step_seconds=0.2)
    assert len(found.windows) > 5 and len(looked) == 2  # for the windows, and for the whole clip


def test_memory_is_bounded():
    def size(width, height):
        info = VideoInfo(
            path="x",
            num_frames=500,
            fps=25,
            width=width,
            height=height,
            duration_seconds=20,
            backend="av",
        )
        return module._batch_size(requests_of(make_encoders()), info)

    assert size(320, 240) == module._BATCH and size(7680, 4320) == 1
    assert 1 < size(2560, 1440) < module._BATCH


def test_what_cannot_be_scored(tmp_path):
    with pytest.raises(VideoError, match="no such file"):
        make_timeline(tiny_assessor(), tmp_path / "gone.mp4")


def test_an_error_ends_the_decoding_of_further_windows(videos, monkeypatch):
    ended, run = [], module.run_batches

    def run_batches(*args, **options):
        try:
            yield from run(*args, **options)
        finally:
            ended.append(True)

    monkeypatch.setattr(module, "run_batches", run_batches)
    monkeypatch.setattr(module, "_views", lambda *_: 1 / 0)
    with pytest.raises(AssessmentError) as kept:  # and its frames with it
        make_timeline(tiny_assessor(), videos["even"], window_seconds=0.5)
    assert ended and kept.value.__traceback__ is not None


def test_a_model_that_explains(videos, monkeypatch):
    assessor = tiny_assessor()
    assessor.engine.model.config.explains = True
    asked = []
    real = ModelEngine.score

    def score(self, clips, prompts, *, explain=False, **options):
        asked.extend([len(clips)] * explain)
        return real(self, clips, prompts, explain=explain, **options)

    monkeypatch.setattr(ModelEngine, "score", score)
    found = make_timeline(assessor, videos["even"], window_seconds=1)
    assert asked == [1] and found.clip.problems  # the clip as a whole; a random model's noise
    assert found.clip.extras == ["explanation", "contributions", "evidence"]
    assert not assessor.explain  # it is as it was


# ---- the command ----


@pytest.fixture
def folder(tmp_path, monkeypatch, videos):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setattr(assess, "load", fake_load())
    os.mkdir("v")
    Path("v/even.mp4").write_bytes(videos["even"].read_bytes())
    Path("text.mp4").write_text("no video")
    return tmp_path


def run(*arguments, code=0):
    result = CliRunner().invoke(app, ["timeline", *arguments])
    assert result.exit_code == code, result.output
    assert "Traceback" not in result.output
    return result


def test_command(folder):
    result = run("v/even.mp4", "--window", "1", "--step", "0.5")
    assert sorted(os.listdir()) == ["even.timeline.csv", "even.timeline.png", "text.mp4", "v"]
    lines = [line.split() for line in result.stdout.splitlines()]
    assert [line[:3] for line in lines if line[1:2] == ["-"]] == [
        ["0.00", "-", "1.00"],
        ["0.50", "-", "1.50"],
        ["1.00", "-", "2.00"],
    ]
    assert any(line[:2] == ["all", "│"] for line in lines)
    assert "the plot is even.timeline.png, the scores are even.timeline.csv" in result.stdout
    assert run("v/even.mp4", "-q", "--plot", "a.svg", "--csv", "b.csv").output == ""
    assert Path("a.svg").read_text().startswith("<?xml") and Path("b.csv").stat().st_size


def test_numbered_pictures_have_the_frame_rate_that_is_given(folder):
    for number in range(8):
        Image.new("RGB", (64, 64), (30 * number, 90, 60)).save(f"v/{number:02}.png")
    result = run("v/*.png", "--fps", "4", "--window", "1", "--step", "1")
    lines = [line.split()[:3] for line in result.stdout.splitlines()]
    assert ["1.00", "-", "2.00"] in lines  # 8 frames last 2 seconds
    assert Path("v.timeline.csv").is_file()
    Path("v.timeline.csv").unlink()
    result = run("v/0[0-3].png", "--fps", "4", "--window", "0.25")  # which is then the step too
    assert len(Path("v.timeline.csv").read_text().splitlines()) == 1 + 4, result.output


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["v/even.mp4", "--fps", "0"], 2, "--fps must be above 0, got 0"),
        (["gone.mp4"], 1, "gone.mp4: no such file"),
        (
            ["https://x.org/a.mp4"],
            1,
            "https://x.org/a.mp4: a URL, and files are needed: download it and give its path",
        ),
        (
            ["text.mp4"],
            1,
            "text.mp4: not a readable video (Invalid data found when processing input)",
        ),
        (["v/even.mp4", "--step", "3"], 2, "--step (3) must be above 0 and at most --window (2)"),
        (
            ["v/even.mp4", "--window", "0"],
            2,
            "--window (0) must be above 0",
        ),
        (["v/even.mp4", "--plot", "a.gif"], 2, "a.gif: a plot is one of .png, .svg, .pdf"),
        (["v/even.mp4", "--csv", "a.txt"], 2, "a.txt: the file of scores is one of .csv"),
        (["v/even.mp4", "--plot", "no/a.png"], 2, "no/a.png: cannot be written, see the folder no"),
    ],
)
def test_errors_are_one_line(folder, arguments, code, message):
    result = run(*arguments, code=code)
    assert (result.stdout, result.stderr) == ("", f"error: {message}\n")
    assert sorted(os.listdir()) == ["text.mp4", "v"]


@pytest.mark.slow
def test_lite_sees_where_a_video_freezes(lite, tmp_path):
    """The shipped model, on a clip whose second half stands still for a while."""
    video = Path(__file__).parents[3] / "examples" / "videos" / "scene_freeze.mp4"
    # instead of an explanation, which takes longer
    contributing = Assessor(lite.engine, name="lite", contributions=True)
    found = make_timeline(contributing, video, window_seconds=1.0, step_seconds=0.5)
    motion = [window.scores["motion"].score for window in found.windows]
    assert max(motion) - min(motion) > 0.5
    assert torch.tensor(motion).isfinite().all()
    plot_timeline(found, tmp_path / "x.png")

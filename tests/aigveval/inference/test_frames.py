"""Frames in memory and numbered pictures, scored as the lossless file of them."""

from threading import current_thread
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from aigveval.assessment import SCORE_FIELDS
from aigveval.inference.timeline import make_timeline
from encoders.frame_sequence import FrameSequence
from encoders.video import VideoError

from ..engines import tiny_assessor
from tests import media

FPS = 8
CLIPS = [np.stack([media.scene(n, seed=s) for n in range(8 + s)]) for s in range(3)]
BATCH = np.stack([clip[:8] for clip in CLIPS])
PROMPTS = ["a dog runs", None, "a cat"]


@pytest.fixture(scope="module")
def assessor():
    return tiny_assessor(contributions=True)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("lossless")
    return [
        media.write_video(
            folder / f"{n}.mkv", codec="ffv1", pix_fmt="bgr0", fps=FPS, pictures=clip[:8]
        )
        for n, clip in enumerate(CLIPS)
    ]


@pytest.fixture(scope="module")
def expected(assessor, files):
    return [assessor.score(file, prompt) for file, prompt in zip(files, PROMPTS)]


def pictures(clip):
    return [Image.fromarray(frame) for frame in clip]


def assert_same(row, other):
    assert row.error is None and row.prompt == other.prompt
    for name in SCORE_FIELDS:
        ours, theirs = getattr(row, name), getattr(other, name)
        if theirs is None:
            assert ours is None
        else:
            assert ours.score == pytest.approx(theirs.score, abs=1e-4)
            assert ours.std == pytest.approx(theirs.std, abs=1e-4)
    assert row.contributions.sum == pytest.approx(other.contributions.sum, abs=1e-4)


@pytest.mark.parametrize(
    "clip",
    [
        BATCH[0],
        torch.tensor(BATCH[0]).permute(0, 3, 1, 2) / 255,
        pictures(BATCH[0]),
        BATCH[:1],
        SimpleNamespace(frames=[pictures(BATCH[0])]),
        FrameSequence(pictures=BATCH[0], name="frames"),
    ],
    ids=["uint8", "tensor", "pictures", "batch of one", "diffusers", "sequence"],
)
def test_one_clip(assessor, expected, clip):
    row = assessor.score(clip, prompt=PROMPTS[0], fps=FPS)
    assert_same(row, expected[0])
    assert row.video == "frames"


@pytest.mark.parametrize(
    "given, message",
    [
        ((BATCH[0], 3), "^prompt must be a text or None, got 3$"),
        ((BATCH[0], ["a"]), r"^prompt must be a text or None, got \['a'\]$"),
        ((None,), "^a video must be a path or frames, got None$"),
        (([],), r"^a video must be a path or frames, got \[\]$"),
        ((3, "a"), "^a video must be a path or frames, got 3$"),
        ((iter(BATCH[0]),), "got <.*iterator.*>; of an iterator make a list$"),
    ],
)
def test_what_is_no_video_or_prompt_is_named(assessor, given, message):
    with pytest.raises(TypeError, match=message):
        assessor.score(*given)


@pytest.mark.parametrize(
    "batch",
    [
        BATCH,
        torch.tensor(BATCH).permute(0, 1, 4, 2, 3) / 255,
        [pictures(clip) for clip in BATCH],
        list(BATCH.astype(np.float32) / 255),
        SimpleNamespace(frames=BATCH.astype(np.float32) / 255),
        SimpleNamespace(frames=torch.tensor(BATCH).permute(0, 1, 4, 2, 3) / 255),
        SimpleNamespace(frames=[pictures(clip) for clip in BATCH]),
        [clip[None] for clip in BATCH],
        [[pictures(clip)] for clip in BATCH],
        [SimpleNamespace(frames=clip[None].astype(np.float32) / 255) for clip in BATCH],
    ],
    ids=[
        "uint8",
        "tensor",
        "pictures",
        "floats",
        "np of diffusers",
        "pt",
        "pil",
        "frames of calls",
        "pil of calls",
        "calls",
    ],
)
def test_batches(assessor, expected, batch):
    rows = list(assessor.score_many(batch, prompts=PROMPTS, fps=FPS))
    assert [row.video for row in rows] == ["frames[0]", "frames[1]", "frames[2]"]
    for row, other in zip(rows, expected, strict=True):
        assert_same(row, other)


def test_items_of_all_kinds_together(assessor, expected, files):
    items = [
        (pictures(BATCH[0]), PROMPTS[0]),
        {"video": BATCH[0], "prompt": PROMPTS[0], "fps": FPS},
        [BATCH[0], PROMPTS[0]],
        (files[0], PROMPTS[0]),
    ]
    for row in assessor.score_many(iter(items)):
        assert_same(row, expected[0])


def test_one_prompt_for_all(assessor):
    rows = assessor.score_many(BATCH, prompts="a dog")
    assert [row.prompt for row in rows] == ["a dog"] * 3
    rows = assessor.score_many([(BATCH[0], "own"), (BATCH[1], None)], prompts="a dog")
    assert [row.prompt for row in rows] == ["own", "a dog"]


def test_bad_frames_are_rows_and_the_others_are_scored(assessor, expected):
    items = [CLIPS[0][0], 255.0 * BATCH[0], BATCH[0], np.zeros((4, 8, 8, 3), int)]
    rows = list(assessor.score_many([(item, PROMPTS[0]) for item in items], fps=FPS))
    assert_same(rows[2], expected[0])
    assert [row.error for row in rows] == [
        "expected (t, h, w, 3) or (t, 3, h, w), or a list of pictures, got (64, 96, 3)",
        "expected floats in 0..1, got 0..6.502e+04 in frame 0",
        None,
        "expected uint8, or floats in 0..1, got int64",
    ]


def test_bad_frames_raise_where_they_are_alone(assessor):
    for frames, message in (
        (BATCH, "^frames: expected one clip, got a batch of 3; score_many takes batches$"),
        (BATCH[0, 0], r"^frames: expected \(t, h, w, 3\) or .*, got \(64, 96, 3\)$"),
        (BATCH[0] * 1.0, r"^frames: expected floats in 0..1, got 0..255 \(if they are .*frame 0$"),
    ):
        with pytest.raises(ValueError, match=message) as caught:
            assessor.score(frames)
        assert isinstance(caught.value, VideoError)
    with pytest.raises(ValueError, match="^frames: fps must be a number above 0, got 0$"):
        assessor.score(BATCH[0], fps=0)


@pytest.mark.parametrize(
    "one",
    [
        BATCH[0],
        torch.zeros(8, 3, 8, 8),
        pictures(BATCH[0]),
        list(BATCH[0]),
        "clip.mp4",
        {"video": "clip.mp4"},
    ],
)
def test_a_clip_is_no_batch(assessor, one):
    advice = "of a mapping make a list" if isinstance(one, dict) else "`score` takes one"
    with pytest.raises(ValueError, match=f"^expected several clips, got a single one; {advice}"):
        next(assessor.score_many(one))


def test_as_many_prompts_as_clips(assessor):
    with pytest.raises(ValueError, match="^there are 2 prompts for 3 clips$"):
        next(assessor.score_many(BATCH, prompts=["a", "b"]))
    rows = assessor.score_many(BATCH, prompts=(prompt for prompt in PROMPTS))
    assert [row.prompt for row in rows] == PROMPTS
    with pytest.raises(ValueError, match="^there are more clips than the 2 prompts$"):
        list(assessor.score_many(iter(BATCH), prompts=["a", "b"]))
    with pytest.raises(ValueError, match="^there are more prompts than the 1 clips$"):
        list(assessor.score_many(iter(BATCH[:1]), prompts=["a", "b"]))


def test_numbered_pictures(assessor, expected, tmp_path):
    folder = tmp_path / "frames"
    folder.mkdir()
    for number, picture in enumerate(pictures(BATCH[0])):
        picture.save(folder / f"{number}.png")
    for path in (folder, folder / "*.png"):
        row = assessor.score(path, PROMPTS[0], fps=FPS)
        assert_same(row, expected[0])
        assert row.video == str(path)
        (many,) = assessor.score_many([{"video": str(path), "prompt": PROMPTS[0], "fps": FPS}])
        assert_same(many, expected[0])


def test_a_timeline(assessor, files, tmp_path):
    ours = make_timeline(assessor, BATCH[0], fps=FPS, window_seconds=0.5, step_seconds=0.25)
    theirs = make_timeline(assessor, files[0], window_seconds=0.5, step_seconds=0.25)
    assert [window.start_seconds for window in ours.windows] == [0, 0.25, 0.5]
    assert ours.duration_seconds == theirs.duration_seconds == 1
    for one, other in zip(ours.windows, theirs.windows, strict=True):
        assert one.scores["overall"].score == pytest.approx(other.scores["overall"].score, abs=1e-4)


def test_explanations_have_the_times_of_the_rate(files):
    assessor = tiny_assessor(explain=True, explains=True)
    assessor.engine.explainer.max_new_tokens, assessor.engine.explainer.attempts = 8, 1
    ours, theirs = assessor.score(BATCH[0], fps=FPS), assessor.score(files[0])
    assert ours.explanation == theirs.explanation and ours.problems == theirs.problems


@pytest.mark.gpu
def test_of_a_tensor_on_a_gpu_only_wanted_frames_leave_it(assessor):
    frames = (torch.tensor(CLIPS[2]) / 255).cuda()
    row, other = assessor.score(frames, "a dog"), assessor.score(CLIPS[2], "a dog")
    assert row.overall.score == pytest.approx(other.overall.score, abs=1e-4)


class OnGpu(torch.Tensor):
    """Frames that a stream of a GPU may still be busy with."""

    is_cuda = True


@pytest.mark.parametrize("as_list", [False, True])
def test_frames_on_a_gpu_are_waited_for_before_threads_read_them(assessor, monkeypatch, as_list):
    waited = []

    def current_stream(device):
        return SimpleNamespace(synchronize=lambda: waited.append((device, current_thread())))

    monkeypatch.setattr(torch.cuda, "current_stream", current_stream)
    clip = torch.tensor(CLIPS[2]).as_subclass(OnGpu)
    (row,) = assessor.score_many([list(clip) if as_list else clip], prompts="a dog")
    assert waited == [(clip.device, current_thread())]
    assert_same(row, assessor.score(CLIPS[2], "a dog"))

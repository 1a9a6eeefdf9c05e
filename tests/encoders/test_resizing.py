"""Frames that two encoders want in one size are resized once, where nothing can change them."""

import numpy as np
import pytest
import torch

from encoders import resizing
from encoders.resizing import each_size_once, reduced, resized
from encoders.video import FrameRequest, read_frames

from .pictures import texture
from tests.media import write_video


@pytest.mark.parametrize("size", [(398, 224), (224, 224), (853, 37), (853, 480)])
def test_a_large_picture_is_reduced_quickly_but_for_one_level_of_few_values(size):
    picture = texture(height=480, width=853)
    exact, quick = reduced(picture, *size), reduced(picture, *size, quick=True)
    apart = np.abs(exact.astype(int) - quick)
    assert exact.shape == quick.shape == (*size[::-1], 3)
    assert apart.max() <= 1 and apart.mean() < 0.02
    assert (apart.max() == 0) == (size == (853, 480))


@pytest.mark.parametrize(
    ("old", "new"), [((512, 512), (224, 224)), ((1280, 720), (320, 180)), ((853, 480), (900, 200))]
)
def test_small_pictures_whole_factors_and_enlarging_stay_as_they_are(old, new):
    picture = texture(width=old[0], height=old[1])
    assert np.array_equal(reduced(picture, *new), reduced(picture, *new, quick=True))


def test_frames_are_read_quickly_where_that_is_asked_for(tmp_path):
    path = write_video(tmp_path / "a.mp4", num_frames=3, width=720, height=480)
    wanted = {"all": FrameRequest(indices=lambda n, fps: np.arange(n), stream="fast")}
    exact, quick = (read_frames(path, wanted, quick=q)[1]["all"].pixels for q in (False, True))
    apart = (exact.int() - quick.int()).abs()
    assert apart.max() == 1 and apart.float().mean() < 0.02
    with each_size_once(quick=True):
        views = resized(exact, 200, 200)
    assert torch.equal(views, resized(exact, 200, 200))  # the frames are small by now
    frames = torch.from_numpy(texture(height=480, width=720)).permute(2, 0, 1)[None].contiguous()
    with each_size_once(quick=True):
        views = resized(frames, 200, 200)
    assert (views.int() - resized(frames, 200, 200).int()).abs().max() == 1


def test_frames_are_resized_once_within_the_block_alone(monkeypatch):
    done = []
    plain = resizing._resized
    monkeypatch.setattr(resizing, "_resized", lambda *args: done.append(args[1:]) or plain(*args))
    frames = torch.arange(2 * 3 * 8 * 8, dtype=torch.uint8).view(2, 3, 8, 8)
    with each_size_once():
        first, second, other = resized(frames, 4, 4), resized(frames, 4, 4), resized(frames, 4, 2)
        copied = resized(frames.clone(), 4, 4)
        first.zero_()  # what a caller does to its own is not seen by the next
        third = resized(frames, 4, 4)
    assert done == [(4, 4), (4, 2), (4, 4)]
    assert torch.equal(second, third) and torch.equal(second, copied)
    assert other.shape == (2, 3, 4, 2)
    frames += 1
    assert not torch.equal(resized(frames, 4, 4), second) and len(done) == 4

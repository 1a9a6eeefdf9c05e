"""Frames that two encoders want in one size are resized once, where nothing can change them."""

import torch

from encoders import resizing
from encoders.resizing import each_size_once, resized


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

"""Reading all of a video's frames, for tests."""

import numpy as np
import pytest

from encoders.video import FrameRequest, VideoError, read_frames

from tests import media


def every(n, fps):
    return np.arange(n)


def read(path, **options):
    """All frames, (t, h, w, 3), with what is known of them and their times."""
    info, frames = read_frames(path, {"a": FrameRequest(indices=every, stream="slow")}, **options)
    found = frames["a"]
    return found.pixels.permute(0, 2, 3, 1).numpy(), info, found.timestamps_seconds


def numbers(pixels):
    return [media.frame_number(frame) for frame in pixels]


def reason(path, **options):
    with pytest.raises(VideoError) as caught:
        read(path, **options)
    return caught.value.reason

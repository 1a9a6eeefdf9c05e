"""From a video file to the encoders' views: decoded once for all of them."""

import os
from collections.abc import Mapping

from torch import Tensor

from .base import Encoder
from .video import FrameRequest, read_frames


def requests_of(encoders: Mapping[str, Encoder]) -> dict[str, FrameRequest]:
    """The frames that each encoder wants, for `read_frames`."""
    return {
        name: FrameRequest(indices=encoder.frame_indices, stream=encoder.spec.stream)
        for name, encoder in encoders.items()
    }


def read_views(
    path: str | os.PathLike[str], encoders: Mapping[str, Encoder], *, seed: int = 0
) -> dict[str, Tensor]:
    """Each encoder's view of a video, without batch axis, under the encoder's key.

    Args:
        path: Video file.
        encoders: At least one.
        seed: Seed of random crops; the same seed gives the same views.

    Raises:
        VideoError: The file can't be read.
    """
    _, frames = read_frames(path, requests_of(encoders))
    return {
        name: encoder.preprocess(frames[name].pixels, seed=seed)
        for name, encoder in encoders.items()
    }

"""Feature encoders for video quality assessment, usable alone.

    from encoders import create_encoder, read_frames, FrameRequest

    encoder = create_encoder("motion_flow")
    request = FrameRequest(indices=encoder.frame_indices, stream=encoder.spec.stream)
    info, frames = read_frames("clip.mp4", {"motion": request})
    tokens = encoder(encoder.preprocess(frames["motion"].pixels)[None])  # (1, 16, 513)
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .base import Encoder, EncoderSpec
from .registry import EncoderError, create_encoder, list_encoders, register_encoder
from .video import FrameRequest, VideoError, VideoInfo, read_frames, read_video
from .weights import WeightsError

if TYPE_CHECKING:
    from .fastvqa import FASTVQA as FASTVQA

__all__ = [
    "FASTVQA",
    "Encoder",
    "EncoderError",
    "EncoderSpec",
    "FrameRequest",
    "VideoError",
    "VideoInfo",
    "WeightsError",
    "create_encoder",
    "list_encoders",
    "read_frames",
    "read_video",
    "register_encoder",
]


def __getattr__(name: str) -> Any:
    if name == "FASTVQA":  # a whole network, for those who ask for it
        return import_module(".fastvqa", __name__).FASTVQA
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

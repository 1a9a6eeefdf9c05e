"""Feature encoders for video quality assessment, usable alone.

    from encoders import create_encoder, read_frames, FrameRequest

    encoder = create_encoder("motion_flow")
    request = FrameRequest(indices=encoder.frame_indices, stream=encoder.spec.stream)
    info, frames = read_frames("clip.mp4", {"motion": request})
    tokens = encoder(encoder.preprocess(frames["motion"].pixels)[None])  # (1, 16, 513)
"""

from .base import Encoder, EncoderSpec
from .fastvqa import FASTVQA
from .registry import EncoderError, create_encoder, list_encoders, register_encoder
from .video import FrameRequest, VideoError, VideoInfo, read_frames, read_video
from .weights import WeightsError

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

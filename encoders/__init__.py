"""Feature encoders for video quality assessment, usable alone.

    from encoders import create_encoder, read_frames, FrameRequest

    encoder = create_encoder("motion_flow")
    request = FrameRequest(indices=encoder.frame_indices, stream=encoder.spec.stream)
    info, frames = read_frames("clip.mp4", {"motion": request})
    tokens = encoder(encoder.preprocess(frames["motion"].pixels)[None])  # (1, 16, 513)
"""

from .base import Encoder as Encoder
from .base import EncoderSpec as EncoderSpec
from .registry import create_encoder as create_encoder
from .registry import list_encoders as list_encoders
from .video import FrameRequest as FrameRequest
from .video import VideoError as VideoError
from .video import VideoInfo as VideoInfo
from .video import read_frames as read_frames
from .video import read_video as read_video
from .weights import WeightsError as WeightsError

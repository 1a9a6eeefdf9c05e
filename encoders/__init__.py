"""Feature encoders for video quality assessment, usable alone.

    from encoders import create_encoder, read_frames, FrameRequest

    encoder = create_encoder("motion_flow")
    request = FrameRequest(indices=encoder.frame_indices, stream=encoder.spec.stream)
    info, frames = read_frames("clip.mp4", {"motion": request})
    tokens = encoder(encoder.preprocess(frames["motion"].pixels)[None])  # (1, 16, 513)

The package root stays light: torch is imported when one of these names is asked for.
"""

from typing import TYPE_CHECKING, Any

from .cpu import configure_openmp

if TYPE_CHECKING:
    from .base import Encoder, EncoderSpec
    from .fastvqa import FASTVQA
    from .frame_sequence import FrameSequence
    from .registry import EncoderError, create_encoder, list_encoders, register_encoder
    from .video import FrameRequest, VideoError, VideoInfo, read_frames, read_video
    from .weights import WeightsError

configure_openmp()  # has no effect once torch is loaded

_HOMES = {
    "base": ("Encoder", "EncoderSpec"),
    "fastvqa": ("FASTVQA",),
    "frame_sequence": ("FrameSequence",),
    "registry": ("EncoderError", "create_encoder", "list_encoders", "register_encoder"),
    "video": ("FrameRequest", "VideoError", "VideoInfo", "read_frames", "read_video"),
    "weights": ("WeightsError",),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [
    "FASTVQA",
    "Encoder",
    "EncoderError",
    "EncoderSpec",
    "FrameRequest",
    "FrameSequence",
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
    if name in _HOME_OF:
        from importlib import import_module

        return getattr(import_module(f".{_HOME_OF[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:  # what an editor offers
    return sorted({*globals(), *__all__})

"""What a process of its own makes of encoders; light, as the process begins with an import of this."""

import gc
from collections.abc import Mapping, Sequence
from functools import cache
from multiprocessing import parent_process
from typing import Any

import torch
from torch import Tensor

from encoders import Encoder, create_encoder

if parent_process() is not None:
    gc.disable()  # of what the encoders import nothing is garbage


def wanted(encoder: Encoder, frames: Tensor) -> Tensor:
    """The frames of a clip that the encoder asks for."""
    return frames[torch.from_numpy(encoder.frame_indices(len(frames), 24.0))]


class Elsewhere(torch.utils.data.Dataset):
    """As a loader uses encoders: views are made in worker processes, some clips for each encoder.

    Beside each view the fingerprint of an encoder that is made there.

    Args:
        encoders: By name.
        options: By name, those that the encoders were made with; none where it is not in there.
        clips: uint8 (t, 3, h, w) each.
    """

    def __init__(
        self,
        encoders: Mapping[str, Encoder],
        options: Mapping[str, dict[str, Any]],
        clips: Sequence[Tensor],
    ) -> None:
        self.encoders, self.options, self.clips = encoders, options, clips

    def __len__(self) -> int:
        return len(self.encoders) * len(self.clips)

    def __getitem__(self, index: int) -> tuple[Tensor, str]:
        number, clip = divmod(index, len(self.clips))
        name = list(self.encoders)[number]
        encoder = self.encoders[name]
        view = encoder.preprocess(wanted(encoder, self.clips[clip]))
        return view, fingerprint(name, tuple(self.options.get(name, {}).items()))


@cache
def fingerprint(name: str, options: tuple[tuple[str, Any], ...]) -> str:
    return create_encoder(name, **dict(options)).fingerprint()

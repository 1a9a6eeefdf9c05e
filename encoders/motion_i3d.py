"""Motion and content from I3D, an action network of Kinetics, and how they go with the prompt.

The only action network whose weights come without a model hub. What it recognises becomes a point
of text space (ConSE, see `encoders.conse`) beside the prompt's: what is done, where `semantic_lite`
says what there is.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from . import i3d, minilm
from .base import EncoderSpec, EvenEncoder, check_frames
from .conse import mixed_points, points_of, points_of_prompts
from .i3d import I3D, NUM_ACTIONS, WIDTHS
from .minilm import TEXT_WIDTH
from .resizing import repeat_to, with_short_side, without_bars

_TEMPERATURES = (0.5, 1.0, 2.0)  # of the posterior's softmax; the last makes the point
_SCALARS = len(_TEMPERATURES) + 4


class MotionI3D(EvenEncoder):
    """Tokens (b, 1, 2 x 384 + 1504 + 7) float32; reads the prompt, which may be absent.

    The token of a clip holds the actions' point in text space, its product with the prompt's, the
    means of the network's features over the clip (480 of its first stage, 1024 of its last), and
    the scalars: similarity of point and prompt at three temperatures, the posterior's entropy and
    peak, the highest logit, and whether there is a prompt. What needs the prompt is zero without.

    Args:
        num_frames: Frames shown to the network, evenly spread, at least 8; a shorter clip repeats
            its nearest frames. The network learnt from 64, at 25 frames a second.
        size: Side of the centre square in pixels, at least 32. The network learnt from 224.
        crop_bars: Look only at what lies between black bars.

    Raises:
        ValueError: An option is out of its range.
        WeightsError: The weights can't be had.
    """

    weights_id = f"{i3d.WEIGHTS_ID} {minilm.WEIGHTS_ID}"
    action_points: Tensor

    def __init__(self, *, num_frames: int = 16, size: int = 160, crop_bars: bool = False) -> None:
        super().__init__()
        for name, value, least in (
            ("num_frames", num_frames, i3d.FEWEST_FRAMES),
            ("size", size, i3d.SMALLEST_PX),
        ):
            if value < least:
                raise ValueError(f"{name} must be at least {least}, got {value}")
        self.num_frames, self.crop_bars = num_frames, crop_bars
        self.spec = EncoderSpec(
            name="motion_i3d",
            dimension="motion",
            num_tokens=1,
            dim=2 * TEXT_WIDTH + sum(WIDTHS) + _SCALARS,
            stream="fast",
            size=size,
            mean=(127.5,),
            std=(127.5,),
            time_steps=0,
        )
        self.network = I3D()
        self.register_buffer("action_points", points_of(i3d.action_names()), persistent=False)

    def options(self) -> dict[str, Any]:
        options: dict[str, Any] = {"num_frames": self.num_frames, "size": self.spec.size}
        return {**options, **({"crop_bars": True} if self.crop_bars else {})}

    def preprocess(self, frames: Tensor, *, seed: int = 0) -> Tensor:
        """uint8 (t, 3, h, w) to uint8 (num_frames, 3, size, size)."""
        check_frames(frames)
        frames = without_bars(frames) if self.crop_bars else frames
        size = self.spec.size
        frames = with_short_side(frames, size)
        top, left = ((length - size) // 2 for length in frames.shape[2:])
        square = frames[:, :, top : top + size, left : left + size]
        return repeat_to(square, self.num_frames).contiguous()

    def encode(self, view: Tensor) -> Tensor:
        """View to the features and the actions' logits, (b, 1, 1504 + 400)."""
        # One by one: the last bit of a result may depend on how many there are at a time.
        return torch.cat([torch.cat(self.network(clip[None]), dim=1) for clip in view])[:, None]

    def join(self, tokens: Tensor, text: Sequence[str] | None = None) -> Tensor:
        """Features and prompts to tokens; an empty prompt or none gives zeros for its parts."""
        features, logits = tokens.split([sum(WIDTHS), NUM_ACTIONS], dim=-1)
        prompt, given = points_of_prompts(text, tokens)
        prompt = prompt[:, None]
        points = [mixed_points(logits, t, self.action_points) for t in _TEMPERATURES]
        posterior = logits.softmax(-1)
        scalars = [
            *((point * prompt).sum(-1) for point in points),
            -(posterior * (posterior + 1e-9).log()).sum(-1),
            posterior.amax(-1),
            logits.amax(-1),
            given[:, None],
        ]
        # Unit vectors of width 384 have entries near 0.05: brought to the scale of the rest.
        point, scale = points[-1], TEXT_WIDTH**0.5
        wide = [point * scale, point * prompt * scale**2]
        return torch.cat([*wide, features, torch.stack(scalars, dim=-1)], dim=-1)

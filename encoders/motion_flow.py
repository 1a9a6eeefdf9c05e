"""Motion quality from optical flow, for a machine without GPU and model hub.

The fast stream's neighbouring frames are compared through DIS flow: how much moves and how
smoothly, what the flow can't explain (morphing, ghosting), flicker, freezes and cuts. Every token
is one stretch of the clip; each also carries the statistics of the whole clip, since whether a
pause is a defect depends on what the rest does.
"""

from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor

from .base import Encoder, EncoderSpec
from .flow_statistics import (
    NUM_CHANGE,
    NUM_GAP,
    NUM_PAIR,
    change_statistics,
    gap_statistics,
    new_flow,
    pair_statistics,
)
from .resizing import repeat_to, with_short_side
from .sampling import uniform

_GAP = 4  # frames between the two frames of the wider comparison
_WIDTH = NUM_PAIR + NUM_GAP + NUM_CHANGE


class MotionFlow(Encoder):
    """Tokens (b, num_tokens, 9 x 57) float32.

    Of the 9 parts of a token, three are the mean, maximum and minimum over its stretch, six the
    mean, standard deviation, 10 % and 90 % quantile, maximum and minimum over the clip.

    Args:
        num_tokens: Stretches that the clip is cut into.
        num_frames: Frames compared at most; a shorter clip gives all of its frames.
        size: Short side in pixels at which flow is computed.
    """

    weights_id = f"opencv-dis-{cv2.__version__.split('.')[0]}"

    def __init__(self, *, num_tokens: int = 16, num_frames: int = 48, size: int = 160) -> None:
        super().__init__()
        self.num_frames = num_frames
        self.spec = EncoderSpec(
            name="motion_flow",
            dimension="motion",
            num_tokens=num_tokens,
            dim=9 * _WIDTH,
            stream="fast",
            size=size,
            mean=(0.0,),
            std=(1.0,),
            time_steps=num_tokens,
        )
        if num_frames < 1 or num_frames % num_tokens:
            raise ValueError(
                "num_frames must be a positive multiple of num_tokens "
                f"({num_tokens}), got {num_frames}"
            )

    def options(self) -> dict[str, Any]:
        return {"num_frames": self.num_frames}

    def frame_indices(self, num_frames: int, fps: float) -> np.ndarray:
        return uniform(num_frames, self.num_frames)

    def preprocess(self, frames: Tensor, *, seed: int = 0) -> Tensor:
        """uint8 (t, 3, h, w) to float32 (num_frames, 57): one row of statistics per time step."""
        if len(frames) == 1:  # a single frame is a clip in which nothing moves
            frames = frames.repeat(2, 1, 1, 1)
        small = with_short_side(frames, self.spec.size).permute(0, 2, 3, 1).contiguous().numpy()
        grays = [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in small]
        estimator: Any = new_flow()  # OpenCV's stub does not know that `calc` may get no flow
        pairs: list[list[float]] = []
        flow: np.ndarray | None = None
        for n in range(len(small) - 1):
            before, flow = flow, estimator.calc(grays[n], grays[n + 1], None)
            pairs.append(pair_statistics(small[n], small[n + 1], flow, before))
        gaps = []
        for start in range(0, max(1, len(grays) - _GAP), _GAP // 2):
            first, second = grays[start], grays[min(start + _GAP, len(grays) - 1)]
            gaps.append(gap_statistics(first, second, estimator.calc(first, second, None)))
        parts = (np.array(pairs), np.array(gaps), change_statistics(grays))
        rows = [repeat_to(torch.from_numpy(part).float(), self.num_frames) for part in parts]
        return torch.cat(rows, dim=1)

    def encode(self, view: Tensor) -> Tensor:
        steps = view.unflatten(1, (self.spec.num_tokens, -1))
        local = [steps.mean(2), steps.amax(2), steps.amin(2)]
        ordered = view.sort(dim=1).values
        low, high = int(0.1 * (view.shape[1] - 1)), int(0.9 * (view.shape[1] - 1))
        clip = [
            view.mean(1), view.std(1), ordered[:, low], ordered[:, high],
            ordered[:, -1], ordered[:, 0],
        ]
        whole = torch.cat(clip, dim=1)[:, None].expand(-1, self.spec.num_tokens, -1)
        return torch.cat([*local, whole], dim=2)

"""Motion quality from SlowFast-R50 (Kinetics-400), as in AIGVEval (arXiv 2506.04715).

Weights: PyTorchVideo's SLOWFAST_8x8_R50.pyth (Apache-2.0).
"""

import os
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from .base import EncoderSpec, EvenEncoder, check_frames, seeded
from .checkpoints import RANDOM, find_checkpoint, load_strict
from .resizing import repeat_to, resized
from .slowfast import ALPHA, FAST_WIDTH, SLOW_WIDTH, SlowFastR50, slow_indices
from .weights import load_torch_file
from .wheels import sha256

FILENAME = "SLOWFAST_8x8_R50.pyth"
SOURCE_URL = f"https://dl.fbaipublicfiles.com/pytorchvideo/model_zoo/kinetics/{FILENAME}"
LICENCE = "Apache-2.0"
Pathways = Literal["fast", "both"]


class MotionSlowFast(EvenEncoder):
    """Tokens (b, num_frames, 256) or, of both pathways, (b, num_frames, 256 + 2048), float32.

    One token per frame: the spatial mean of the last stage's map plus a learned embedding of the
    time step, `position`. It is zero in a checkpoint of Kinetics and trains with the encoder.
    AIGVEval adds the same before its projector; the one that `aigveval`'s projector adds after its
    last linear map is not equal to it, as a GELU lies between. A token sees 18 frames to either
    side.

    With both pathways, each slow step's 2048 channels follow those of the four frames it stands
    for, as SlowFast's own classifier joins the pathways; so all tokens keep one width without
    padding, and every token its time. The fast pathway alone, which is what AIGVEval reads, costs
    a tenth: it never looks at the slow one.

    Frames are squeezed to a square, as AIGVEval does, so that all of the picture is seen. Mean
    and std are the checkpoint's; AIGVEval gives it ImageNet's.

    Args:
        weights: Path of SLOWFAST_8x8_R50.pyth or of the same tensors as .safetensors; None looks
            for it in the folder `checkpoints` of the cache folder.
        pathways: `fast`, or `both` for the slow one too.
        num_frames: Frames of the fast pathway, a multiple of 4; a shorter clip repeats its
            nearest frames.
        size: Side of the input in pixels.

    Raises:
        WeightsError: The checkpoint is not there or not this network's.
        ValueError: An option is out of its range.
    """

    def __init__(
        self,
        *,
        weights: str | os.PathLike[str] | None = None,
        pathways: Pathways = "fast",
        num_frames: int = 32,
        size: int = 224,
    ) -> None:
        super().__init__()
        if pathways not in get_args(Pathways):
            raise ValueError(f"pathways must be one of {get_args(Pathways)}, got {pathways!r}")
        slow_indices(num_frames)  # checks it
        self.pathways, self.num_frames = pathways, num_frames
        self.spec = EncoderSpec(
            name="motion_slowfast",
            dimension="motion",
            num_tokens=num_frames,
            dim=FAST_WIDTH if pathways == "fast" else FAST_WIDTH + SLOW_WIDTH,
            stream="fast",
            size=size,
            mean=(114.75, 114.75, 114.75),  # 0.45 and 0.225 on the 0-1 scale
            std=(57.375, 57.375, 57.375),
            time_steps=num_frames,
        )
        with seeded():
            self.network = SlowFastR50()
        if weights == RANDOM:
            self.weights_id = RANDOM
        else:
            path = find_checkpoint(
                weights, filename=FILENAME, source_url=SOURCE_URL, licence=LICENCE
            )
            load_strict(self.network, load_torch_file(path), file=path)
            self.weights_id = sha256(path)
        # Checked whole above; what no token depends on would only cost memory and time.
        if pathways == "fast":
            self.network.drop_slow()
        else:
            self.network.drop_head()
        self.position = nn.Parameter(torch.zeros(num_frames, self.spec.dim))
        self.requires_grad_(False)

    def options(self) -> dict[str, Any]:
        chosen = {"num_frames": self.num_frames, "pathways": self.pathways, "size": self.spec.size}
        return {**chosen, "weights": RANDOM} if self.weights_id == RANDOM else chosen

    def preprocess(self, frames: Tensor, *, seed: int = 0) -> Tensor:
        """uint8 (t, 3, h, w) to uint8 (num_frames, 3, size, size)."""
        check_frames(frames)
        return repeat_to(resized(frames, self.spec.size, self.spec.size), self.num_frames)

    def encode(self, view: Tensor) -> Tensor:
        pixels = (view.float() - self.spec.mean[0]) / self.spec.std[0]  # alike in all channels
        pixels = pixels.to(self.position.dtype)
        slow, tokens = self.network.features(pixels.transpose(1, 2))
        tokens = tokens.mean((3, 4)).transpose(1, 2)
        if slow is not None:
            steps = slow.mean((3, 4)).transpose(1, 2)
            tokens = torch.cat([tokens, steps.repeat_interleave(ALPHA, dim=1)], dim=2)
        return tokens + self.position

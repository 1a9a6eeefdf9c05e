"""Text-video alignment for a machine without GPU and model hub: ConSE.

A picture's ImageNet posterior makes a point of text space (see `encoders.conse`), to be compared
with the prompt's embedding there. The posterior is EfficientNet-Lite0's.

Plain similarity says as much about how common the prompt's words are among class names as about
the clip. So the prompt's mean similarity to a fixed reference set of clips is taken off.
"""

import hashlib
from collections.abc import Sequence
from functools import lru_cache
from importlib import resources

import torch
import torch.nn.functional as F
from safetensors.torch import load
from torch import Tensor

from . import lite_backbone
from .base import check_frames, undisturbed
from .conse import mixed_points, points_of, points_of_prompts
from .lite_backbone import NUM_CLASSES, LiteEncoder
from .minilm import TEXT_WIDTH, WEIGHTS_ID
from .resizing import repeat_to, resized, without_bars

# Softmax temperatures of the posterior: sharp is right about a clear object, soft about a scene.
_TEMPERATURES = (0.5, 1.0, 2.0)
_REFERENCE = "data/reference_posteriors.safetensors"
_SCALARS = 2 * len(_TEMPERATURES) + 5


class SemanticLite(LiteEncoder):
    """Tokens (b, num_frames, 3 x 384 + 11) float32; needs the prompt.

    A token holds the frame's point in text space, the prompt's, their product, and the scalars:
    similarity and calibrated similarity at three temperatures, similarity to the clip's mean and
    to the frame before, the posterior's entropy and peak, and whether there is a prompt at all.

    Args:
        num_frames: Slow frames, one token each.
        crop_bars: Look only at what lies between black bars.
    """

    def __init__(self, *, num_frames: int = 8, crop_bars: bool = False) -> None:
        width = 3 * TEXT_WIDTH + _SCALARS
        super().__init__("semantic_lite", width, num_frames=num_frames, crop_bars=crop_bars)
        reference, sha256 = reference_posteriors()
        self.weights_id = f"{lite_backbone.WEIGHTS_ID} {WEIGHTS_ID} {sha256}"
        names = points_of(_class_names())
        self.register_buffer("class_points", names, persistent=False)
        with undisturbed(torch.device("cpu")):
            points = [mixed_points(reference, t, names) for t in _TEMPERATURES]
        self.register_buffer("reference_points", torch.stack(points), persistent=False)

    class_points: Tensor
    reference_points: Tensor

    def preprocess(self, frames: Tensor, *, seed: int = 0) -> Tensor:
        """uint8 (t, 3, h, w) to uint8 (num_frames, 3, 224, 224)."""
        check_frames(frames)
        frames = without_bars(frames) if self.crop_bars else frames
        return repeat_to(resized(frames, self.spec.size, self.spec.size), self.num_frames)

    def encode(self, view: Tensor) -> Tensor:
        """View to the ImageNet logits (b, num_frames, 1000)."""
        logits = self.backbone(view.flatten(0, 1))[2]
        return logits.view(len(view), self.num_frames, NUM_CLASSES)

    def join(self, tokens: Tensor, text: Sequence[str] | None = None) -> Tensor:
        """Logits and prompts to tokens; an empty prompt or none gives zeros for its parts."""
        points = [mixed_points(tokens, t, self.class_points) for t in _TEMPERATURES]
        prompt, given = points_of_prompts(text, tokens)
        scalars = []
        for frame_points, reference in zip(points, self.reference_points.to(tokens)):
            usual = prompt @ reference.T
            similarity = torch.einsum("bkd,bd->bk", frame_points, prompt)
            spread = usual.std(1, keepdim=True) + 1e-3
            scalars += [similarity, (similarity - usual.mean(1, keepdim=True)) / spread]
        main = points[-1]
        posterior = tokens.softmax(-1)
        previous = torch.cat([main[:, :1], main[:, :-1]], dim=1)
        scalars += [
            F.cosine_similarity(main, main.mean(1, keepdim=True), dim=-1),
            F.cosine_similarity(main, previous, dim=-1),
            -(posterior * (posterior + 1e-9).log()).sum(-1),
            posterior.amax(-1),
            given[:, None].expand(-1, self.num_frames),
        ]
        repeated = prompt[:, None].expand(-1, self.num_frames, -1)
        # Unit vectors of width 384 have entries near 0.05: brought to the scale of the rest.
        scale = TEXT_WIDTH**0.5
        wide = [main * scale, repeated * scale, main * repeated * scale**2]
        return torch.cat([*wide, torch.stack(scalars, dim=-1)], dim=-1)


@lru_cache(maxsize=1)
def reference_posteriors() -> tuple[Tensor, str]:
    """Mean ImageNet logits (n, 1000) of generated clips, none of which shows a prompt at hand.

    Which clips, `examples/train_lite/make_reference.py` says, which makes the file; its SHA-256
    comes with them.
    """
    content = resources.files(__package__).joinpath(_REFERENCE).read_bytes()
    return load(content)["logits"].float(), hashlib.sha256(content).hexdigest()


def _class_names() -> tuple[str, ...]:
    """Of ImageNet, 1000."""
    from timm.data import ImageNetInfo

    info = ImageNetInfo("imagenet-1k")
    return tuple(str(info.index_to_description(n)) for n in range(NUM_CLASSES))

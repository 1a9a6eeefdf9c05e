"""What each frame shows, to BLIP's ViT (Li et al., ICML 2022), as AIGVEval (arXiv 2506.04715) does.

AIGVEval's weights: `model_large.pth`, BLIP's pretraining on 129 million pictures (BSD-3-Clause).
"""

import math
import os
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .base import check_frames, seeded
from .checkpoints import RANDOM, find_checkpoint, load_strict, read_checkpoint
from .clip_towers import transformers_input
from .frame_encoder import FrameEncoder, PictureInput, as_option
from .pretrained import hub_errors, is_repository, model_folder, state_id
from .resizing import repeat_to
from .sampling import clips
from .weights import WeightsError, load_torch_file

FILENAME = "model_large.pth"
SOURCE_URL = f"https://storage.googleapis.com/sfr-vision-language-research/BLIP/models/{FILENAME}"
LICENCE = "BSD-3-Clause"
_MEAN = tuple(255 * value for value in (0.48145466, 0.4578275, 0.40821073))
_STD = tuple(255 * value for value in (0.26862954, 0.26130258, 0.27577711))
_IMAGENET_MEAN, _IMAGENET_STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
_HEAD_WIDTH = 64  # of every BLIP
_WEIGHTS = ("model*.safetensors", "pytorch_model*.bin")  # of transformers; may be sharded
_PREFIX = "visual_encoder."
# From the published checkpoints' names to those of transformers' `BlipVisionModel`.
_RENAMES = (
    (r"^cls_token$", "embeddings.class_embedding"),
    (r"^pos_embed$", "embeddings.position_embedding"),
    (r"^patch_embed\.proj\.", "embeddings.patch_embedding."),
    (r"^norm\.", "post_layernorm."),
    (r"^blocks\.(\d+)\.norm([12])\.", r"encoder.layers.\1.layer_norm\2."),
    (r"^blocks\.(\d+)\.attn\.qkv\.", r"encoder.layers.\1.self_attn.qkv."),
    (r"^blocks\.(\d+)\.attn\.proj\.", r"encoder.layers.\1.self_attn.projection."),
    (r"^blocks\.(\d+)\.mlp\.", r"encoder.layers.\1.mlp."),
)


class SemanticBlip(FrameEncoder):
    """Tokens (b, num_frames, 1024) float32: the class token of each frame.

    Args:
        weights: Path of `model_large.pth` or another of BLIP's own checkpoints; or a folder made
            by transformers, or a Hub repository, such as `Salesforce/blip-itm-large-coco`, of any
            BLIP model. None looks for `model_large.pth` in the folder `checkpoints` of the cache
            folder.
        num_frames: Slow frames, one token each.
        strict_upstream: As AIGVEval's code prepares frames: consecutive ones (every second, from
            the middle of the clip), squeezed to a square by nearest neighbour, with ImageNet's
            mean and std instead of BLIP's.

    Raises:
        WeightsError: The weights can't be had, are not BLIP's or not complete.
        ValueError: An option is out of its range.
    """

    def __init__(
        self,
        *,
        weights: str | os.PathLike[str] | None = None,
        num_frames: int = 8,
        strict_upstream: bool = False,
    ) -> None:
        super().__init__(num_frames=num_frames)
        weights = as_option(weights)
        self.weights, self.strict_upstream = weights, strict_upstream
        self.network: Any
        if weights == RANDOM:
            self.network, self.picture = _network(width=128, depth=2, size=64)
            self.weights_id = RANDOM
        else:
            self.network, self.picture = _from_anywhere(weights)
            self.weights_id = f"{self.network.config.layer_norm_eps} {state_id(self.network)}"
        if strict_upstream:
            self.picture = replace(self.picture, mean=_IMAGENET_MEAN, std=_IMAGENET_STD)
        self.finish("semantic_blip", self.network.config.hidden_size)

    def frame_indices(self, num_frames: int, fps: float) -> np.ndarray:
        if self.strict_upstream:
            return np.unique(clips(num_frames, self.num_frames, 2, 1))
        return super().frame_indices(num_frames, fps)

    def preprocess(self, frames: Tensor, *, seed: int = 0) -> Tensor:
        """uint8 (t, 3, h, w) to uint8 (num_frames, 3, size, size)."""
        if not self.strict_upstream:
            return super().preprocess(frames, seed=seed)
        check_frames(frames)
        # As `torch.nn.functional.interpolate`: the pixel at the cell's corner, not at its centre.
        size = self.spec.size
        cells = torch.arange(size, device=frames.device)
        rows, columns = (cells * side // size for side in frames.shape[-2:])
        return repeat_to(frames[:, :, rows[:, None], columns], self.num_frames)

    def encode(self, view: Tensor) -> Tensor:
        states = self.network(self.pixels(view)).last_hidden_state
        # Not `pooler_output`, which transformers norms a second time.
        return states[:, 0].unflatten(0, (len(view), -1))


def _network(*, width: int, depth: int, size: int) -> tuple[Any, PictureInput]:
    """BLIP's ViT with seeded random weights, in the sizes of a published checkpoint."""
    from transformers import BlipVisionConfig, BlipVisionModel

    config = BlipVisionConfig(
        hidden_size=width,
        intermediate_size=4 * width,
        num_hidden_layers=depth,
        num_attention_heads=width // _HEAD_WIDTH,
        image_size=size,
        layer_norm_eps=1e-6,
        initializer_range=0.1,  # as it comes, 1e-10, every picture would look alike
    )
    with seeded():
        network = BlipVisionModel(config).eval()
    return network, PictureInput(size=size, mean=_MEAN, std=_STD)


def _from_anywhere(weights: str | None) -> tuple[Any, PictureInput]:
    if weights is None or not is_repository(weights):
        path = find_checkpoint(weights, filename=FILENAME, source_url=SOURCE_URL, licence=LICENCE)
        if path.is_file():
            return _from_checkpoint(path)
        weights = str(path)
    return _from_transformers(weights)


def _from_checkpoint(path: Path) -> tuple[Any, PictureInput]:
    """One of Salesforce's own: beside the ViT it holds text towers and a momentum copy."""
    tensors = {
        name.removeprefix(_PREFIX): value
        for name, value in read_checkpoint(path).items()
        if name.startswith(_PREFIX)
    }
    for pattern, replacement in _RENAMES:
        tensors = {re.sub(pattern, replacement, name): v for name, v in tensors.items()}
    try:
        places, width = tensors["embeddings.position_embedding"].shape[1:]
        patch = tensors["embeddings.patch_embedding.weight"].shape[-1]
    except (KeyError, ValueError):
        raise WeightsError(f"{path}: no checkpoint of BLIP, whose names begin {_PREFIX}") from None
    depth = len({n.split(".")[2] for n in tensors if n.startswith("encoder.layers.")})
    network, picture = _network(width=width, depth=depth, size=math.isqrt(places - 1) * patch)
    load_strict(network, tensors, file=path)
    return network, picture


def _from_transformers(name: str) -> tuple[Any, PictureInput]:
    from transformers import AutoConfig, AutoImageProcessor, BlipVisionConfig, BlipVisionModel

    instead = "where the Hub is reached, download it and give the folder as the option weights"
    folder = model_folder(name, weights=_WEIGHTS, instead=instead)
    with hub_errors(name, instead="give a folder with the files of a BLIP model"):
        kind = AutoConfig.from_pretrained(folder).model_type
        if kind in ("blip", "blip_vision_model"):
            network = BlipVisionModel(BlipVisionConfig.from_pretrained(folder)).eval()
            picture = transformers_input(AutoImageProcessor.from_pretrained(folder))
    if kind not in ("blip", "blip_vision_model"):
        raise ValueError(f"{name}: {kind!r} is no BLIP")
    # Of a whole BLIP, `from_pretrained` would take nothing, and leave the ViT random.
    files = next((found for p in _WEIGHTS if (found := sorted(folder.glob(p)))), [])
    tensors = {key: value for file in files for key, value in load_torch_file(file).items()}
    if kind == "blip":
        prefix = "vision_model."
        tensors = {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
    load_strict(network, tensors, file=folder)
    return network, picture

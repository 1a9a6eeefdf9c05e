"""Technical quality from any picture backbone of timm; by default Swin-T (Liu et al., ICCV 2021).

Code and most weights are Apache-2.0 or MIT; `timm.get_pretrained_cfg(model).license` tells.
"""

import difflib
import os
from typing import Any

import torch
from torch import Tensor

from .base import check_frames, seeded
from .checkpoints import RANDOM, find_checkpoint, load_strict, read_checkpoint
from .fragments import sample_fragments
from .frame_encoder import FrameEncoder, PictureInput, as_option
from .pretrained import ask_hub, hub_errors, state_id
from .resizing import repeat_to
from .weights import WeightsError

DEFAULT_MODEL = "swin_tiny_patch4_window7_224.ms_in1k"


class TechnicalTimm(FrameEncoder):
    """Tokens (b, num_frames, 2 x width) float32: a slow frame as a whole, then as fragments.

    Both are the backbone's pooled features, before its classifier (768 wide for Swin-T). The whole
    frame shows what there is to see, squeezed to a square; the fragments show how cleanly, pixel
    by pixel (FAST-VQA, ECCV 2022).

    Args:
        model: Architecture and tag as timm has them (`timm.list_models()`), or `hf-hub:` and a
            repository.
        weights: None lets timm fetch the tag's. Otherwise the path of a checkpoint that timm or
            a training script with its names wrote; a classifier in it is left out.
        num_frames: Slow frames, one token each.
        grid: Fragments along each side; it divides the backbone's input (224 px, so that 7 gives
            FAST-VQA's fragments of 32 px).

    Raises:
        WeightsError: The weights can't be had or are not this backbone's.
        ValueError: There is no such model, or an option is out of its range.
    """

    def __init__(
        self,
        *,
        model: str = DEFAULT_MODEL,
        weights: str | os.PathLike[str] | None = None,
        num_frames: int = 8,
        grid: int = 7,
    ) -> None:
        super().__init__(num_frames=num_frames)
        weights = as_option(weights)
        self.model, self.weights, self.grid = model, weights, grid
        self.network: Any = _network(model, weights)
        own = RANDOM if weights == RANDOM else state_id(self.network)
        self.weights_id = f"{self.network.pretrained_cfg['architecture']} {own}"
        self.picture = _picture_input(self.network)
        size = self.picture.size
        if grid < 1 or size % grid:
            divisors = [n for n in range(4, 17) if size % n == 0]
            raise ValueError(
                f"grid must divide the {size} px of {model}, as {divisors} do, got {grid}"
            )
        width = getattr(self.network, "head_hidden_size", 0) or self.network.num_features
        self.finish("technical_timm", 2 * width)

    def preprocess(self, frames: Tensor, *, seed: int = 0) -> Tensor:
        """uint8 (t, 3, h, w) to uint8 (num_frames, 2, 3, size, size): whole frame, fragments."""
        check_frames(frames)
        whole = self.picture.resized(frames)
        # Multiples of 8 keep the codec's block grid in phase, so that blocking can be seen.
        mosaic = sample_fragments(
            frames,
            grid=self.grid,
            size=self.picture.size // self.grid,
            aligned=len(frames),
            seed=seed,
            snap=8,
        )
        return repeat_to(torch.stack([whole, mosaic], dim=1), self.num_frames)

    def encode(self, view: Tensor) -> Tensor:
        features = self.network(self.pixels(view))
        return features.reshape(len(view), self.num_frames, -1)


def _network(model: str, weights: str | None) -> Any:
    import timm

    on_hub = model.startswith("hf-hub:")
    if not on_hub and not timm.is_model(model):
        name = model.partition(".")[0]
        near = difflib.get_close_matches(name, timm.list_models(), n=2, cutoff=0.4)
        hint = f"did you mean {' or '.join(near)}?" if near else "see timm.list_models()"
        raise ValueError(f"timm has no model {model!r}; {hint}")
    # Where it has nothing to fetch, timm itself would go on with random weights.
    if weights is None and not on_hub and not timm.models.is_model_pretrained(model):
        raise WeightsError(f"timm has no weights for {model}; give a checkpoint's path as weights")
    instead = "where a model hub is reached, download the file and give its path as weights"
    with hub_errors(model, instead=instead), seeded():
        known = None if on_hub or weights else timm.get_pretrained_cfg(model)
        if known is not None and known.hf_hub_id:
            ask_hub(known.hf_hub_id)
        network: Any = timm.create_model(model, pretrained=weights is None, num_classes=0)
    if weights not in (None, RANDOM):
        published = network.pretrained_cfg
        path = find_checkpoint(
            weights,
            filename="model.safetensors",
            licence=published.get("license") or "unknown",
            source_url=f"https://huggingface.co/{published.get('hf_hub_id')}",
        )
        heads = published.get("classifier") or ()
        heads = [heads] if isinstance(heads, str) else heads
        ignored = [f"{head}." for head in heads]
        load_strict(network, read_checkpoint(path), file=path, ignore=ignored)
    return network.eval()


def _picture_input(network: Any) -> PictureInput:
    from timm.data import resolve_model_data_config

    given = resolve_model_data_config(network)
    channels, height, width = given["input_size"]
    if channels != 3 or height != width:
        raise ValueError(f"an input of {given['input_size']} is not supported, only square RGB")
    return PictureInput(
        size=height,
        interpolation=given["interpolation"],
        mean=tuple(255 * value for value in given["mean"]),
        std=tuple(255 * value for value in given["std"]),
    )

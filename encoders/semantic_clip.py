"""Text-video alignment with CLIP or SigLIP (Radford et al., ICML 2021; Zhai et al., ICCV 2023).

Any model of open_clip, or of transformers as a folder. Each frame's embedding is evidence of what
the clip shows, its similarity with the prompt's of how well that is what was asked for, and its
similarity with its neighbours' of how steadily (as CLIPScore and CLIP-Temp do).
"""

import os
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .base import not_compiled
from .clip_towers import DEFAULT_MODEL, load_towers
from .frame_encoder import FrameEncoder, as_option

_SCALARS = 4
_REMEMBERED = 4096  # prompts; the text tower is the dear part of `join`


class SemanticClip(FrameEncoder):
    """Tokens (b, num_frames x (1 + patch_grid^2) + 1, d) float32; needs the prompt.

    A frame has one token with its embedding and, if asked for, one for each cell of a grid laid
    over the last layer's feature map, row by row. The last token is the prompt's. Embeddings are
    as the model gives them, not normalised. Behind them each token has four scalars:

    - a frame: cosine similarity with the prompt, with the frame before and with the one after
      (1 where there is none), and whether there is a prompt at all;
    - the prompt: the means of these over the clip;
    - a cell: zeros.

    d is 4 plus the embedding's width (768 for ViT-L/14) or, where it is greater, the feature map's
    (1024); what is narrower is padded with zeros. Without a prompt its parts are zero. A prompt
    beyond the model's context (77 tokens, SigLIP 64) is cut.

    Args:
        model: A name of open_clip, a folder made by open_clip or by transformers (CLIP, SigLIP),
            or a Hub repository with such files.
        weights: Where `model` is a name of open_clip: one of its tags or a checkpoint's path. The
            default model has `openai`'s (MIT).
        num_frames: Slow frames.
        patch_grid: Cells along each side of the grid; 0 for none.
        whole: Squeeze the whole frame into the network's square, even where the network was
            trained on the centre (as OpenAI's were), which leaves 44 % out of a 16:9 frame.

    Raises:
        WeightsError: The weights can't be had or are not this model's.
        ValueError: There is no such model, or an option is out of its range.
    """

    places = ("model", "weights")

    def __init__(
        self,
        *,
        model: str | os.PathLike[str] = DEFAULT_MODEL,
        weights: str | os.PathLike[str] | None = None,
        num_frames: int = 8,
        patch_grid: int = 0,
        whole: bool = False,
    ) -> None:
        super().__init__(num_frames=num_frames)
        model, weights = os.fspath(model), as_option(weights)
        if patch_grid < 0:
            raise ValueError(f"patch_grid must be at least 0, got {patch_grid}")
        self.model, self.weights = model, weights
        self.patch_grid, self.whole = patch_grid, whole
        self.towers = load_towers(model, weights)
        self.weights_id = self.towers.weights_id
        self.picture = replace(self.towers.picture, crop=self.towers.picture.crop and not whole)
        size, self._width = self.picture.size, self.towers.width
        if patch_grid:
            with torch.no_grad():
                features = self.towers.image_and_map(torch.zeros(1, 3, size, size))[1]
            if patch_grid > min(features.shape[2:]):
                raise ValueError(
                    f"patch_grid must be at most {min(features.shape[2:])}, the side of the "
                    f"feature map of {model}, got {patch_grid}"
                )
            self._width = max(self._width, features.shape[1])
        self._per_frame = 1 + patch_grid**2
        self._known: dict[tuple[str, str], Tensor] = {}
        width = self._width + _SCALARS
        self.finish("semantic_clip", width, per_frame=self._per_frame, others=1)

    def encode(self, view: Tensor) -> Tensor:
        """View to embeddings and cells of the feature map (b, frames x (1 + cells), d - 4)."""
        pixels = self.pixels(view)
        if not self.patch_grid:
            tokens = self.towers.image(pixels)[:, None]
        else:
            pooled, features = self.towers.image_and_map(pixels)
            cells = F.adaptive_avg_pool2d(features, self.patch_grid).flatten(2).transpose(1, 2)
            tokens = torch.cat([self._padded(pooled[:, None]), self._padded(cells)], dim=1)
        return self._padded(tokens).reshape(len(view), -1, self._width)

    def join(self, tokens: Tensor, text: Sequence[str] | None = None) -> Tensor:
        """Embeddings of frames and b prompts to tokens."""
        prompts = list(text) if text is not None else [""] * len(tokens)
        if len(prompts) != len(tokens):
            raise ValueError(f"{len(tokens)} clips need as many prompts, got {len(prompts)}")
        rows = tokens.unflatten(1, (self.num_frames, self._per_frame))
        frames = rows[:, :, 0, : self.towers.width]
        given = tokens.new_tensor([float(bool(prompt.strip())) for prompt in prompts])[:, None]
        prompt = self._embedded(prompts).to(tokens) * given
        before = torch.cat([frames[:, :1], frames[:, :-1]], dim=1)
        after = torch.cat([frames[:, 1:], frames[:, -1:]], dim=1)
        scalars = [
            F.cosine_similarity(frames, prompt[:, None], dim=-1),
            F.cosine_similarity(frames, before, dim=-1),
            F.cosine_similarity(frames, after, dim=-1),
            given.expand(-1, self.num_frames),
        ]
        of_frames = torch.stack(scalars, dim=-1)
        cells = of_frames.new_zeros(*rows.shape[:2], self._per_frame - 1, _SCALARS)
        of_rows = torch.cat([of_frames[:, :, None], cells], dim=2)
        seen = torch.cat([rows, of_rows.to(rows)], dim=-1).flatten(1, 2)
        asked = torch.cat([self._padded(prompt), of_frames.mean(1).to(prompt)], dim=-1)
        return torch.cat([seen, asked[:, None]], dim=1)

    def _padded(self, rows: Tensor) -> Tensor:
        return F.pad(rows, (0, self._width - rows.shape[-1]))

    @not_compiled
    def _embedded(self, prompts: Sequence[str]) -> Tensor:
        """Embeddings of prompts (b, e); remembered as long as the text tower can't change."""
        device = next(self.towers.parameters()).device
        if torch.is_grad_enabled() and any(p.requires_grad for p in self.towers.parameters()):
            self._known.clear()
            return self._run_text(prompts, device)
        half = torch.is_autocast_enabled(device.type)
        kind = str(torch.get_autocast_dtype(device.type)) if half else "as it is"
        found = {}  # of these prompts: another thread may forget them meanwhile
        for prompt in dict.fromkeys(prompts):
            known = self._known.get((prompt, kind))
            if known is None:
                # Each by itself: its last digits must not depend on which came with it.
                with torch.no_grad():
                    known = self._run_text([prompt], device)[0]
                self._known[prompt, kind] = known
            found[prompt] = known.to(device)
        for oldest in list(self._known)[:-_REMEMBERED]:
            self._known.pop(oldest, None)
        return torch.stack([found[prompt] for prompt in prompts])

    def _run_text(self, prompts: Sequence[str], device: torch.device) -> Tensor:
        tokens = self.towers.tokenize(prompts)
        return self.towers.text(**{name: value.to(device) for name, value in tokens.items()})

    def _apply(self, *args: Any, **kwargs: Any) -> "SemanticClip":  # as of `to` and `half`
        self._known.clear()
        return super()._apply(*args, **kwargs)

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        self._known.clear()
        super()._load_from_state_dict(*args, **kwargs)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_known": {}}

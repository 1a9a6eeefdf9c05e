"""ConSE: what a network recognises, as a point of text space, beside what a prompt asks for.

Norouzi et al., "Zero-Shot Learning by Convex Combination of Semantic Embeddings", ICLR 2014: a
posterior over named classes, as weights, mixes the embeddings of their names. Text space is that
of all-MiniLM-L6-v2 (Apache-2.0).
"""

import hashlib
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor

from .base import not_compiled
from .minilm import WEIGHTS_ID, embed_texts
from .weights import build_once, load_torch_file

_POINTS = "class_points.safetensors"


def mixed_points(logits: Tensor, temperature: float, class_points: Tensor) -> Tensor:
    """Logits (..., n) and the points of n names (n, 384) to unit vectors (..., 384)."""
    posterior = torch.softmax(logits / temperature, dim=-1)
    return F.normalize(posterior @ class_points.to(logits), dim=-1)


@lru_cache(maxsize=4)
def points_of(names: tuple[str, ...]) -> Tensor:
    """Embeddings of names of classes (n, 384); made once, then read from the cache.

    Raises:
        WeightsError: The text encoder can't be had, full disk or no permission.
    """
    digest = hashlib.sha256("\n".join([WEIGHTS_ID, *names]).encode()).hexdigest()[:8]

    def build(folder: Path) -> None:
        save_file({"points": embed_texts(names)}, folder / _POINTS)

    # Kept for all encoders of the process: one that learns may come after one made in this mode.
    with torch.inference_mode(False):
        return load_torch_file(build_once(f"conse-{digest}", build) / _POINTS)["points"]


def points_of_prompts(text: Sequence[str] | None, tokens: Tensor) -> tuple[Tensor, Tensor]:
    """Unit vectors (b, 384) of the prompts of b clips, zero without one; which have one (b,).

    Args:
        text: b prompts, empty where there is none; None where none has one.
        tokens: (b, ...), of the type and on the device that the result is to have.

    Raises:
        ValueError: There aren't b prompts.
    """
    prompts = list(text) if text is not None else [""] * len(tokens)
    if len(prompts) != len(tokens):
        raise ValueError(f"{len(tokens)} clips need as many prompts, got {len(prompts)}")
    given = tokens.new_tensor([float(bool(prompt.strip())) for prompt in prompts])
    points = torch.stack([_embedded(prompt) for prompt in prompts]).to(tokens)
    return points * given[:, None], given


@not_compiled  # texts are nothing to compile
@lru_cache(maxsize=4096)
def _embedded(text: str) -> Tensor:
    return embed_texts([text])[0]

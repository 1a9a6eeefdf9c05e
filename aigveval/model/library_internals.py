"""What we need of other libraries that differs between their versions, or is theirs inside.

All of it stands here, each piece with a way out that is right, if slower. `tests/aigveval/
test_library_internals.py` tries both, and names the library and its version where one fails.
"""

import copy
import inspect
from collections.abc import Iterable
from dataclasses import fields
from typing import Any

import torch
from torch import Tensor, nn
from transformers import Cache, DynamicCache, PreTrainedModel, TrainingArguments
from transformers.modeling_outputs import BaseModelOutputWithPast

from ..versions import newer_than_tested, tested_ranges

try:
    from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

    _PLAIN_LAYERS: tuple[type, ...] = (DynamicLayer, DynamicSlidingWindowLayer)
except ImportError:
    _PLAIN_LAYERS = ()  # no cache is known to be plain then
try:
    from transformers.pytorch_utils import Conv1D

    LINEAR: tuple[type[nn.Module], ...] = (nn.Linear, Conv1D)  # Conv1D is GPT-2's linear layer
except ImportError:
    LINEAR = (nn.Linear,)

# What a newer library does when something that we need of it is gone, or means something else.
_GONE = (AttributeError, IndexError, NotImplementedError, RuntimeError, TypeError, ValueError)


def library(name: str) -> str:
    """A library with its installed version for messages, and whether that is a tested one."""
    one = tested_ranges().get(name)
    version = f"{name} {one.installed}" if one and one.installed else name
    return next((line for line in newer_than_tested() if line.startswith(f"{name} ")), version)


# The KV cache of transformers.

# What transformers calls the KV cache, in its outputs and in `generate`.
CACHE = next(
    name
    for name in ("cache", "past_key_values")
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


def repeated(cache: Any, count: int) -> Cache | None:
    """A new cache, which holds what this one has of its only row `count` times.

    Returns:
        None where it is more than the keys and values of a `DynamicCache`: then there's nothing to
        go on from, and all tokens must be read.
    """
    try:
        if type(cache) is not DynamicCache or not _is_plain(cache):
            return None
        return _copied(cache, count) or _copied_slowly(cache, count)
    except _GONE:
        return None


def _is_plain(cache: DynamicCache) -> bool:
    return bool(len(cache)) and all(type(layer) in _PLAIN_LAYERS for layer in cache.layers)


def _copied(cache: DynamicCache, count: int) -> Cache | None:
    """In a tenth of the time; None where a sliding window has dropped tokens already."""
    try:
        # Its constructor takes what iterating over it gives: keys, values, and a sliding window.
        copied = DynamicCache(
            [
                (keys.expand(count, -1, -1, -1), values.expand(count, -1, -1, -1), *rest)
                for keys, values, *rest in cache
            ]
        )
        layers = range(len(cache))
        same = all(copied.get_seq_length(n) == cache.get_seq_length(n) for n in layers)
        return copied if same and len(copied) == len(cache) else None
    except _GONE:
        return None


def _copied_slowly(cache: DynamicCache, count: int) -> Cache:
    copied = copy.deepcopy(cache)
    copied.batch_repeat_interleave(count)
    return copied


def shortened(cache: Any, count: int) -> Cache | None:
    """A cache without its last `count` tokens, taken over; None where it can't be cut."""
    if cache is None or count == 0:
        return cache
    try:
        before = cache.get_seq_length()
        cache.crop(-count)  # that a positive number is what's left holds for old versions only
        return cache if cache.get_seq_length() == before - count else None
    except _GONE:
        return None


def rows_of(cache: Cache, rows: Tensor) -> Cache | None:
    """A copy of some rows of a cache, (n,); None where they can't be had."""
    try:
        if type(cache) is DynamicCache and _is_plain(cache):  # selecting gives new tensors
            chosen: Cache = copy.copy(cache)
            chosen.layers = [copy.copy(layer) for layer in cache.layers]
        else:
            chosen = copy.deepcopy(cache)
        chosen.batch_select_indices(rows)
        return chosen
    except _GONE:
        return None


def can_go_on(backbone: nn.Module) -> bool:
    """Whether a model's cache and `rope_deltas` are all that it needs; else it must read all again.

    With M-RoPE positions are off the tokens' numbers, and by how much is kept beside the cache.
    """
    return hasattr(backbone, "rope_deltas") or not hasattr(backbone, "get_rope_index")


# LoRA layers as PEFT names them, in a state dict.

_LORA, _FROZEN = ".lora_", ".base_layer."


def is_lora(key: str) -> bool:
    """Whether a key is of a LoRA layer's own weights."""
    return _LORA in key


def without_lora(model: nn.Module, *, like: nn.Module) -> dict[str, Tensor]:
    """The state dict of a model as it was before LoRA layers, if any, were put in.

    `like` has the keys that are expected, and maybe further ones.

    Raises:
        ValueError: The layers are in the weights by now (`merge_lora`); or PEFT has other names
            than those we know, and the message has its version.
    """
    if any(getattr(layer, "merged", False) for layer in model.modules()):
        raise ValueError(
            "this model's LoRA is in the LLM's weights by now, as scoring has it; load the model "
            "by from_pretrained to save it whole"
        )
    state = {
        key.replace(_FROZEN, "."): value
        for key, value in model.state_dict().items()
        if not is_lora(key)
    }
    if unknown := sorted(set(state) - set(like.state_dict())):
        raise ValueError(f"{library('peft')} has LoRA layers with unknown names: {unknown[:3]}")
    return state


def merge_lora(model: nn.Module) -> None:
    """Add what LoRA layers learnt to the frozen weights, for one product each instead of three.

    Scores stay as they are but for rounding; weights of fewer digits than float32 are left alone,
    as it would cost them some. There's no training any more from here.
    """
    if not any(is_lora(name) for name, _ in model.named_parameters()):
        return  # importing PEFT takes seconds
    from peft.tuners.lora import LoraLayer

    for layer in model.modules():
        if isinstance(layer, LoraLayer) and layer.get_base_layer().weight.dtype == torch.float32:
            layer.merge()


# The trainers of transformers and TRL.


def expect_missing(model: PreTrainedModel, keys: Iterable[str]) -> None:
    """Tell transformers' own Trainer that checkpoints lack these keys on purpose.

    When it goes on from one it would list them in a warning; that's all.
    """
    model._keys_to_ignore_on_save = set(keys)


def checkpointing_option(kind: type[TrainingArguments]) -> str:
    """What a class of arguments calls gradient checkpointing; the first name is the newer one."""
    names = {field.name for field in fields(kind)}
    wanted = ("activation_checkpointing", "gradient_checkpointing")
    return next(name for name in wanted if name in names)


def use_one_gpu(arguments: TrainingArguments) -> None:
    """Have a process train on one GPU; the Trainer would give each a copy for every batch.

    Raises:
        RuntimeError: It would still take several; `CUDA_VISIBLE_DEVICES` or torchrun helps.
    """
    if arguments.n_gpu > 1:
        arguments._n_gpu = 1
    if arguments.n_gpu > 1:
        raise RuntimeError(
            f"{library('transformers')} would spread each batch over {arguments.n_gpu} GPUs; set "
            "CUDA_VISIBLE_DEVICES to one of them, or start with torchrun"
        )


def add_reference(trainer: Any, reference: PreTrainedModel, *, beta: float) -> None:
    """Give a `GRPOTrainer` that was made with `beta=0` a reference for the KL divergence.

    By itself TRL would load a whole model. The reference is in eval mode, on the trainer's device,
    and beta the divergence's weight.

    Raises:
        RuntimeError: This TRL keeps its reference elsewhere; the message has its version.
    """
    try:
        from trl.trainer.utils import add_fused_lm_head

        found = (trainer.ref_model, trainer.beta)
        add_fused_lm_head(reference, temperature=trainer.temperature)
    except (ImportError, AttributeError, TypeError) as error:
        raise RuntimeError(
            f"{library('trl')} takes no reference model ({error}); set beta to 0"
        ) from error
    assert found == (None, 0.0)
    trainer.beta = beta
    trainer.ref_model = trainer.accelerator.prepare_model(reference, evaluation_mode=True)

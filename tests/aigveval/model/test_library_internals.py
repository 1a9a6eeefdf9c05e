"""What we need of other libraries beyond their interface; failures name library and version."""

import torch
import transformers
from torch import nn

from aigveval.model.library_internals import CACHE, cache_argument, cache_of
from aigveval.model.base import AIGVEvalOutput


def test_output_carries_the_cache_under_the_name_of_transformers():
    cache = transformers.DynamicCache()
    output = AIGVEvalOutput(scores=torch.zeros(1, 4), **{CACHE: cache})
    message = f"transformers {transformers.__version__}"
    assert cache_of(output) is output[CACHE] is cache, message
    assert list(output) == [CACHE, "scores"], message  # `generate` looks with `in`
    assert cache_of(AIGVEvalOutput(scores=torch.zeros(1, 4))) is None, message


class Newer(nn.Module):
    def forward(self, input_ids, cache=None):
        pass


class Older(nn.Module):
    def forward(self, input_ids, past_key_values=None):
        pass


class Any(nn.Module):
    def forward(self, input_ids, **kwargs):
        pass


def test_cache_goes_in_by_the_name_that_the_model_has():
    cache = transformers.DynamicCache()
    assert cache_argument(Newer(), cache) == {"cache": cache}
    assert cache_argument(Older(), cache) == {"past_key_values": cache}
    assert cache_argument(Any(), cache) == {CACHE: cache}
    assert cache_argument(Any(), None) == {}

"""The fixed reference set that text-video similarity is calibrated with.

`data/reference_posteriors.safetensors` holds the mean ImageNet logits of generated clips
(examples/train_lite says which and makes the file). A prompt's similarity to these clips, none
of which shows it, tells how high its similarity is to anything.
"""

import hashlib
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources

from safetensors.torch import load
from torch import Tensor

_FILE = "data/reference_posteriors.safetensors"


@dataclass(frozen=True)
class Reference:
    """Logits float32 (n, 1000) of n clips, and the file's hash."""

    logits: Tensor
    sha256: str


@lru_cache(maxsize=1)
def reference_posteriors() -> Reference:
    """The reference set of the package."""
    content = resources.files(__package__).joinpath(_FILE).read_bytes()
    return Reference(load(content)["logits"].float(), hashlib.sha256(content).hexdigest())

"""Many machines: scoring and encoding on a Ray cluster, and as classes for pipelines of one's own.

    from aigveval.scale import Scorer
    clips = ray.data.read_parquet("clips.parquet")  # video, prompt
    scored = clips.map_batches(
        Scorer, batch_size=32, compute=ray.data.ActorPoolStrategy(size=8), num_cpus=0.99
    )

Nothing here imports Ray until work is to be done on a cluster.

May import `inference`, `reports`, `features`, `data`, `model`, `encoders`, `prompts` and the
leaves of the root.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .encoder import Encoder
    from .scorer import Scorer

__all__ = ["Encoder", "Scorer"]

_HOME_OF = {"Encoder": "encoder", "Scorer": "scorer"}


def __getattr__(name: str) -> Any:
    if name in _HOME_OF:
        from importlib import import_module

        return getattr(import_module(f".{_HOME_OF[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

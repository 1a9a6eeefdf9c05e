"""How good an AI-generated video is to a human viewer, where it fails and why.

    import aigveval
    assessor = aigveval.load("lite")
    print(assessor.score("clip.mp4", prompt="a dog runs on the beach").overall)

The package root stays light: torch and transformers are imported when `load` is called. It only
lets OpenMP's threads sleep while they wait, which must be said before torch is loaded.
"""

import os
from typing import TYPE_CHECKING, Any

try:
    from encoders.cpu import configure_openmp
except ImportError as error:
    import encoders

    if str(encoders.__file__).startswith(os.path.dirname(os.path.dirname(__file__))):
        raise
    # Somebody's own, such as a folder of that name where Python was started.
    raise ImportError(
        f"aigveval needs the package `encoders` that comes with it, but before it on sys.path is "
        f"{encoders.__file__}: start Python in another folder, or give that one another name"
    ) from error

from .versions import __version__

if TYPE_CHECKING:
    from .assessment import Assessment, Assessments, Score
    from .inference.assessor import Assessor, load
    from .inference.reward import VideoReward

configure_openmp()

__all__ = ["Assessment", "Assessments", "Assessor", "Score", "VideoReward", "load", "__version__"]

_HOME_OF = {
    "Assessment": "assessment",
    "Assessments": "assessment",
    "Score": "assessment",
    "Assessor": "inference.assessor",
    "VideoReward": "inference.reward",
    "load": "inference.assessor",
}


def __getattr__(name: str) -> Any:
    if name in _HOME_OF:
        from importlib import import_module

        return getattr(import_module(f".{_HOME_OF[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:  # what an editor offers
    return sorted({*globals(), *__all__})

"""What several commands share: what scores mean, what columns may be called, options' checks."""

from __future__ import annotations

import math

from ..data.columns import ALIASES
from ..errors import InputError

SCALE = """\
Scores are on the scale of mean opinion scores: 1 bad, 2 poor, 3 fair, 4 good, 5 excellent. Each is
the mean of the model's belief over these five words, and the number after ± is that belief's
standard deviation: the larger, the less sure the model is.

- **technical**: how sharp, clean and free of artefacts the frames are.
- **motion**: how smooth, steady and natural the movement is.
- **semantic**: how well the video shows what its prompt asks for; needs a prompt.
- **overall**: how good the video is to a viewer, all things considered.

A model that has no encoder for one of the first three gives no score for it, and judges overall
by what the others show.
"""

COLUMN_NAMES = " ".join(
    f"Instead of `{name}` a column may be called {', '.join(f'`{other}`' for other in others)}."
    for name, others in ALIASES.items()
)


def check_fps(fps: float | None) -> None:
    """Fails where `--fps` is no frame rate.

    Raises:
        InputError: when it is not above 0.
    """
    if fps is not None and not 0 < fps < math.inf:
        raise InputError(f"--fps must be above 0, got {fps:g}")

"""What several commands share: options, their checks, what scores mean, what columns are called."""

import math
from pathlib import Path
from typing import Annotated, Optional

import typer

from ..data.columns import ALIASES
from ..errors import InputError
from ..model.precision import DtypeName

SCALE = """\
Scores are on the scale of mean opinion scores: 1 bad, 2 poor, 3 fair, 4 good, 5 excellent. Each is
the mean of the model's belief over these five words. In brackets stands its 80 % interval, where
the model has them, as `lite` has; else the number after ± is that belief's standard deviation: the
larger, the less sure the model is.

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

Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Show nothing but errors.")]
ModelName = Annotated[str, typer.Option(help="`lite`, a folder, or a Hugging Face Hub id.")]
Device = Annotated[
    Optional[str], typer.Option(help="`cpu`, `cuda`, `cuda:1`; by default a GPU if there is one.")
]
Dtype = Annotated[
    DtypeName,
    typer.Option(
        "--dtype",
        "--precision",
        help="Number type of the LLM. `auto`: bfloat16 for 1B parameters and more on a GPU that "
        "has it, else float32. `fast`: products in bfloat16 on a CPU that is quick at it.",
    ),
]
BatchSize = Annotated[
    int,
    typer.Option(
        min=1, help="Videos computed together; moves scores by < 1e-4 (more in bfloat16)."
    ),
]
Workers = Annotated[int, typer.Option(min=1, help="Threads that decode videos.")]
Fps = Annotated[
    Optional[float],
    typer.Option(help="Frame rate of numbered pictures, by default 25; files have their own."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print everything as JSON, and nothing else.")]
Prompt = Annotated[
    Optional[str], typer.Option(help="Text that all the videos were generated from.")
]
Report = Annotated[
    Optional[Path], typer.Option(metavar="FILE", help="Writes an HTML page with plots and clips.")
]
Tables = Annotated[
    Optional[list[Path]],
    typer.Option(
        metavar="FILE",
        help="Writes the tables: `.json` (everything), `.md`, `.tex` or `.txt`; repeatable.",
    ),
]
Inputs = Annotated[
    Optional[list[str]],
    typer.Argument(metavar="INPUTS...", help="Files, folders, patterns, manifests."),
]


def check_fps(fps: Optional[float]) -> None:
    """Fails where `--fps` is no frame rate.

    Raises:
        InputError: when it is not above 0.
    """
    if fps is not None and not 0 < fps < math.inf:
        raise InputError(f"--fps must be above 0, got {fps:g}")

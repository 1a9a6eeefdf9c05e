"""What several commands share: options, their checks, what scores mean, what columns are called."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, Optional

import typer

from ..data.columns import ALIASES
from ..errors import InputError
from ..model.precision import DtypeName

if TYPE_CHECKING:
    from ..scale.cluster import Cluster

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
        "has it, else float32. `fast`: without the LLM where a model may, as `lite` may; else "
        "products in bfloat16 on a CPU that is quick at it.",
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
    typer.Argument(metavar="INPUTS...", help="Files, folders, patterns, manifests, lists."),
]


EngineName = Literal["local", "ray"]
Engine = Annotated[
    EngineName,
    typer.Option(
        help="`ray`: the processes of a Ray cluster, which also take addresses such as "
        "`s3://bucket/a.mp4`. Needs `pip install 'aigveval[ray]'`."
    ),
]
Address = Annotated[
    Optional[str],
    typer.Option(
        metavar="HOST:PORT|auto",
        help="Ray cluster; `auto` is the one of this machine. By default what RAY_ADDRESS says, "
        "else one is started on this machine.",
    ),
]
Processes = Annotated[
    Optional[int],
    typer.Option(min=1, help="On a Ray cluster; by default one for each free GPU, or CPU."),
]


def cluster_of(
    engine: EngineName,
    *,
    address: Optional[str],
    processes: Optional[int],
    device: Optional[str],
    workers: int,
) -> Optional[Cluster]:
    """Gives the cluster to work on, not connected yet; None for this machine.

    Options of a cluster without one are an `InputError`.
    """
    if engine == "local":
        if address is not None or processes is not None:
            raise InputError("--address and --processes are of --engine ray")
        return None
    from ..scale.cluster import Cluster

    return Cluster(address=address, processes=processes, device=device, threads=workers)


def check_fps(fps: Optional[float]) -> None:
    """Raises `InputError` where `--fps` is not above 0."""
    if fps is not None and not 0 < fps < math.inf:
        raise InputError(f"--fps must be above 0, got {fps:g}")

"""`aigveval fit`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from aigveval.terminal import one_line_errors, silence_libraries


def fit(
    config: Annotated[Path, typer.Argument(metavar="CONFIG.yaml", help="Options of the training.")],
) -> None:
    """Trains a model on videos with known scores.

    The YAML file names the manifests to train and validate on and the folder to write to; see
    `aigveval.train.fit_config.FitConfig` for all options. A run that was stopped goes on when it
    is started again.

    Example: `aigveval fit config.yaml`
    """
    with one_line_errors():
        silence_libraries()
        from aigveval.train.fit import main as run

        run(config)

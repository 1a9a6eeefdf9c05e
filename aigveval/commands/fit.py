"""`aigveval fit`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Optional

import typer

from aigveval.terminal import one_line_errors, silence_libraries

FIT_HELP = """\
Trains a model on videos with known scores.

The YAML file names the manifests to train and validate on and the folder to write to; see
`aigveval.train.fit_config.FitConfig` for all options. `preset: clip-qwen` takes over the options of
a preset; `aigveval presets` lists them. A run that was stopped goes on when it is started again.

Examples:

- `aigveval fit config.yaml`
- `aigveval fit config.yaml --encoder motion=slowfast`
- `aigveval fit config.yaml --encoder technical=fastvqa:variant=dover --encoder semantic=none`
"""


def fit(
    config: Annotated[Path, typer.Argument(metavar="CONFIG.yaml", help="Options of the training.")],
    encoder: Annotated[
        Optional[list[str]],
        typer.Option(
            metavar="NAME",
            help="Encoder, as for `features`; may be repeated. It takes the place of those that "
            "CONFIG has of its dimension. `motion=none`: look at no motion, and do not score it.",
        ),
    ] = None,
) -> None:
    with one_line_errors():
        silence_libraries()
        from aigveval.encoder_choice import apply_choices, parse_choice
        from aigveval.train.fit import main as run
        from aigveval.train.fit_config import read_fit_config

        options = read_fit_config(config)
        if encoder:
            choices = [parse_choice(text) for text in encoder]
            options = replace(options, encoders=apply_choices(options.encoders, choices))
        run(options)

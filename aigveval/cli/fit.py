"""`aigveval fit`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Optional

import typer

from ..errors import InputError

FIT_HELP = """\
Trains a model on videos with known scores, or on pairs of which one is preferred; and, in stages, \
to explain its scores.

The YAML file names the manifests to train and validate on (see `aigveval data`), the folder to
write to and one for cached features, and any other option; `--print-config` shows them all, and
`aigveval.train.config.FitConfig` explains them. `preset: clip-qwen` takes over the options of a
preset; `aigveval presets` lists them. The folder `examples/configs` of the project has a file for
each public data set.

`stage: sft` learns scores and answers together, from the files of `aigveval cot` or from manifests
with labels of defects; `grpo` goes on from there by reinforcement learning on sampled answers;
`sft2` is sft with the best of these besides. A list `stages` in CONFIG runs them one after the
other (`aigveval.train.stages`, `examples/stages/qsave_stages_lite.yaml`).

A run that was stopped, by Ctrl-C, a kill or a cluster, goes on when the same command is given
again, to the same result. TensorBoard shows it: `tensorboard --logdir RUN`.

Examples:

- `aigveval fit config.yaml`
- `aigveval fit config.yaml --from lite --set epochs=3 --set lora_learning_rate=1e-4`
- `aigveval fit config.yaml --set lora.r=16 --print-config`
- `aigveval fit config.yaml --encoder technical=fastvqa:variant=dover --encoder semantic=none`
- `torchrun --nproc-per-node 4 -m aigveval fit config.yaml` on four GPUs
"""


def fit(
    config: Annotated[Path, typer.Argument(metavar="CONFIG.yaml", help="Options of the training.")],
    base: Annotated[
        Optional[str],
        typer.Option(
            "--from",
            metavar="MODEL",
            help="Go on from this model: `lite`, a folder or a Hub id. Its LLM, encoders and LoRA "
            "take the place of those in the file.",
        ),
    ] = None,
    encoder: Annotated[
        Optional[list[str]],
        typer.Option(
            metavar="NAME",
            help="Encoder, as for `features`; may be repeated. It takes the place of those that "
            "CONFIG has of its dimension. `motion=none`: look at no motion, and do not score it.",
        ),
    ] = None,
    changes: Annotated[
        Optional[list[str]],
        typer.Option(
            "--set",
            metavar="NAME=VALUE",
            help="Another value for an option, or for a field as `lora.r`; may be repeated.",
        ),
    ] = None,
    print_config: Annotated[
        bool, typer.Option("--print-config", help="Show all options with their values, and stop.")
    ] = False,
) -> None:
    try:
        config.open().close()
    except OSError as error:  # told before the imports, which take seconds
        raise InputError(f"{config}: {error.strerror}") from None
    from ..train.stages import read_stages, run_stages, write_fit_config
    from .encoder_choice import apply_choices, parse_choice

    first, *others = read_stages(config, changes=changes or (), base=base)
    if encoder:
        choices = [parse_choice(text) for text in encoder]
        first = replace(first, encoders=apply_choices(first.encoders, choices))
    stages = [first, *others]
    if print_config:
        typer.echo("---\n".join(map(write_fit_config, stages)), nl=False)
        return
    run_stages(stages)

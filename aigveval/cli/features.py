"""`aigveval features`."""

from __future__ import annotations

import contextlib
from collections.abc import Generator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, Optional

import typer

from .console import (
    INTERRUPTED,
    command_again,
    native_stderr_silenced,
    print_errors,
    say,
    video_progress,
)
from .options import (
    Address,
    Device,
    Engine,
    Inputs,
    Processes,
    Prompt,
    Quiet,
    Workers,
    cluster_of,
)

if TYPE_CHECKING:
    from ..features.export import FeatureRow

FEATURES_HELP = """\
Writes what encoders see in videos, for models of your own.

INPUTS are video files, folders, patterns and manifests, as for `aigveval score`.

An encoder is named in full (`motion_slowfast`) or without its dimension (`slowfast`,
`motion=slowfast`), options behind a colon: `slowfast:pathways=both,weights=/data/SLOWFAST.pyth`.
`aigveval presets` lists them. A video is decoded once for all.

Examples:

- `aigveval features clips --encoder slowfast --out features`
- `aigveval features clips --encoder semantic=lite --prompts prompts.csv --out features`
- `aigveval features clips --encoder motion_flow --encoder technical_lite --out features --resume`

DIR then holds `index.jsonl` (a row per video: video, prompt, file, row, seconds, error),
`encoders.json` (spec, options and fingerprint of each encoder), and in `tokens` the float32 tokens
(k, d): a safetensors file per video with a tensor per encoder, or Arrow files with a column per
encoder. The exit code is 0 when all videos were encoded, 1 when some could not be (each has a row
with its error), 2 when the command could not be carried out.
"""


def features(
    encoder: Annotated[
        list[str], typer.Option(metavar="NAME", help="Encoder, see above; may be repeated.")
    ],
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder to write; made if missing.")],
    inputs: Inputs = None,
    token_format: Annotated[
        Literal["safetensors", "arrow"], typer.Option("--format", help="Files of the tokens.")
    ] = "safetensors",
    prompt: Prompt = None,
    prompts: Annotated[
        Optional[Path], typer.Option(metavar="FILE", help="Prompts, as for `aigveval score`.")
    ] = None,
    batch_size: Annotated[
        int, typer.Option(min=1, help="Videos computed together; above 1 only a GPU gains by it.")
    ] = 1,
    workers: Workers = 2,
    device: Device = None,
    engine: Engine = "local",
    address: Address = None,
    processes: Processes = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Keep what DIR already has and encode the others.")
    ] = False,
    quiet: Quiet = False,
) -> None:
    from ..data.inputs import collect
    from ..errors import InputError
    from ..features.export import FeatureFolder, extract_features
    from ..model.precision import find_device
    from .encoder_choice import parse_choice

    if not inputs and prompts is None:
        raise InputError("nothing to encode: name videos, folders or patterns")
    cluster = cluster_of(
        engine, address=address, processes=processes, device=device, workers=workers
    )
    chosen_device = find_device(device if cluster is None else "cpu")
    choices = [parse_choice(text) for text in encoder]
    made = [choice.create() for choice in choices]
    encoders = {one.spec.name: one for one in made}
    if len(encoders) < len(made):
        raise InputError("an encoder is named twice; each DIR holds one version of it")
    found = collect(inputs or [], prompt=prompt, prompts=prompts)
    for note in [] if quiet else found.notes:
        say(f"note: {note}", style="yellow")
    clips = found.clips
    keys = [(clip.video, clip.prompt) for clip in clips]
    with contextlib.ExitStack() as stack:
        folder = FeatureFolder(out, encoders, format=token_format, resume=resume)
        stack.enter_context(folder)
        done = folder.done
        todo = [clip for clip, key in zip(clips, keys) if key not in done]
        if resume and not quiet:
            say(f"{len(keys) - len(todo)} of {len(keys)} videos are already in {out}")
        if cluster is None:
            rows = extract_features(
                todo, encoders, folder, batch_size=batch_size, workers=workers, device=chosen_device
            )
        else:
            from ..scale.batches import for_other_machines
            from ..scale.encoder import features_on_cluster

            with native_stderr_silenced():  # Ray's own words about what it tries
                stack.enter_context(cluster)
            rows = features_on_cluster(
                cluster,
                list(map(for_other_machines, todo)),
                [(choice.name or "", choice.options) for choice in choices],
                folder,
                batch_size=batch_size,
                workers=workers,
            )
        failed, interrupted = _run(rows, len(todo), quiet=quiet)
        folder.finish(keys)
    present = sum(key in folder.done for key in keys)
    if not quiet:
        typer.echo(f"features of {present} of {len(keys)} videos are in {out}")
    print_errors(failed)
    if interrupted:
        say(f"interrupted; go on with: {command_again('--resume')}", style="yellow")
        raise typer.Exit(INTERRUPTED)
    raise typer.Exit(int(bool(failed)))


def _run(
    rows: Generator[FeatureRow, None, None], total: int, *, quiet: bool
) -> tuple[list[FeatureRow], bool]:
    """Encodes the clips; gives those that failed, and whether the user stopped it."""
    failed = []
    with native_stderr_silenced(), video_progress(quiet=quiet) as progress:
        task = progress.add_task("encoding", total=total)
        try:
            for row in rows:
                if row.error is not None:
                    failed.append(row)
                progress.advance(task)
        except KeyboardInterrupt:
            return failed, True
        finally:
            rows.close()
    return failed, False

"""`aigveval app`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from ..errors import InputError
from .console import native_stderr_silenced, say
from .options import BatchSize, Device, Dtype, ModelName, Quiet, Workers

NO_EXTRA = "aigveval app needs what `pip install 'aigveval[app]'` brings"
SERVE_HELP = """\
Opens a page and an HTTP API on this machine, to score clips in a browser.

The page scores clips, with defects on a timeline under the player; compares two of one prompt in
step; scores batches; and opens files of results. `POST /api/score` takes an upload, or the path of
a file in the folder of `--root`, and answers with the row of `results.jsonl`; `/docs` describes it.

Only this machine reaches it, unless `--host` says otherwise. Then `--token` is needed: a browser
gives it once as `http://HOST:PORT/?token=TOKEN`, a program as `Authorization: Bearer TOKEN`. The
connection isn't encrypted: put a proxy with TLS before it where others could listen.

Uploads lie in a folder for temporary files, and go when the server stops.

Examples:

- `aigveval app`
- `aigveval app --root clips --port 8000`
- `AIGVEVAL_TOKEN=... aigveval app --host 0.0.0.0`
"""


def serve(
    root: Annotated[
        Optional[Path],
        typer.Option(metavar="FOLDER", help="Clips that can be chosen, and named by path."),
    ] = None,
    host: Annotated[str, typer.Option(help="Where to listen.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.")] = 7860,
    token: Annotated[
        Optional[str],
        typer.Option(
            envvar="AIGVEVAL_TOKEN",
            help="What others must know; better given as the variable, as options can be seen.",
        ),
    ] = None,
    max_megabytes: Annotated[
        float, typer.Option(min=0.001, help="Size of a clip that is uploaded.")
    ] = 500.0,
    max_seconds: Annotated[float, typer.Option(min=0.1, help="Length of a clip.")] = 600.0,
    model: ModelName = "lite",
    batch_size: BatchSize = 8,
    workers: Workers = 2,
    device: Device = None,
    dtype: Dtype = "auto",
    quiet: Quiet = False,
) -> None:
    try:
        import gradio  # noqa: F401
        import python_multipart  # noqa: F401
        import uvicorn  # noqa: F401
    except ImportError:
        raise InputError(NO_EXTRA) from None
    from ..app import serve as server
    from ..app.limits import MEGABYTE, Limits

    limits = Limits(size_bytes=round(max_megabytes * MEGABYTE), seconds=max_seconds)
    server.check_reach(host, token or None)
    server.check_root(root)
    with server.listen(host, port) as bound:
        from ..inference.assessor import load

        if not quiet:
            say(f"loading {model} ...")
        assessor = load(model, device=device, dtype=dtype, batch_size=batch_size, workers=workers)
        with (
            native_stderr_silenced(),
            server.application(
                assessor,
                root=root,
                token=token or None,
                limits=limits,
                own_machine=server.is_loopback(host),
            ) as app,
        ):
            if not quiet:
                name = f"[{host}]" if ":" in host and "[" not in host else host  # IPv6
                place = f"http://{name}:{bound.getsockname()[1]}"
                typer.echo(f"aigveval is at {place}; Ctrl-C stops it")
            server.serve(app, bound)
        if not quiet:
            say("stopped")

"""The server: the API with the page mounted into it, behind the guard."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")

import gradio as gr
import uvicorn

from ..errors import InputError, as_text
from ..inference.assessor import Assessor
from .api import make_api
from .files import Scratch
from .guard import Guard, is_loopback
from .limits import Limits
from .page import Page, head
from .service import Service

_MOST_CONNECTIONS = 512
_SHORTEST_TOKEN = 8  # characters
_FONT = ("system-ui", "-apple-system", "Segoe UI", "Roboto", "Noto Sans", "sans-serif")


@contextlib.contextmanager
def application(
    assessor: Assessor,
    *,
    root: str | os.PathLike[str] | None = None,
    token: str | None = None,
    limits: Limits | None = None,
    own_machine: bool = True,
    folder: str | os.PathLike[str] | None = None,
) -> Iterator[Guard]:
    """Gives the ASGI application of page and API; uploads are gone at the end.

    Args:
        root: folder whose clips may be chosen and named; None for none.
        token: that each request must bring; None for everybody.
        own_machine: refuse requests for a name that isn't this machine's. Where others reach the
            server it must be False.
        folder: where to keep uploads; by default the system's for temporary files.

    Raises:
        InputError: the root is no folder, or there is no room for uploads.
    """
    limits = Limits() if limits is None else limits
    check_root(root)
    top = None if root is None else Path(root)
    with Scratch(limits, folder) as scratch, Service(assessor, limits=limits) as service:
        os.environ["GRADIO_TEMP_DIR"] = str(scratch.pages_path)
        page = Page(service, scratch, top)
        api = make_api(service, scratch, top)
        page.add_routes(api)
        theme = gr.themes.Default(font=_FONT, font_mono=_FONT)
        try:
            scratch.pages_path.mkdir()
            built = page.build()
        except OSError as error:  # whose file is an example that Gradio copies
            why = error.strerror or error
            what = f"{scratch.path}: no place for uploads: {why}; TMPDIR names another"
            raise InputError(what) from None
        mounted = gr.mount_gradio_app(
            api,
            built.queue(default_concurrency_limit=16, max_size=256, api_open=False),
            path="/",
            theme=theme,
            head=head(),
            footer_links=[],
            max_file_size=limits.size_bytes,
            show_error=False,
            ssr_mode=False,
        )
        yield Guard(mounted, limits=limits, scratch=scratch, token=token, own_machine=own_machine)


def serve(app: Any, bound: socket.socket) -> None:
    """Answers until it is stopped, by Ctrl-C or SIGTERM; what was opened before can be closed."""
    config = uvicorn.Config(
        app,
        log_level="error",
        access_log=False,
        limit_concurrency=_MOST_CONNECTIONS,
        timeout_graceful_shutdown=3,
        server_header=False,
        ws="none",
    )
    logging.getLogger("python_multipart").setLevel(logging.CRITICAL)  # a line for each bad form
    # uvicorn raises the signal that stopped it once more at the end: by default, SIGTERM kills.
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with contextlib.suppress(KeyboardInterrupt):
            uvicorn.Server(config).run(sockets=[bound])
    finally:
        signal.signal(signal.SIGTERM, before)


def check_root(root: str | os.PathLike[str] | None) -> None:
    """Raises `InputError` where the folder of clips is none."""
    if root is not None and not Path(root).is_dir():
        raise InputError(f"{as_text(root)}: not a folder, --root needs one")


def check_reach(host: str, token: str | None) -> None:
    """Raises `InputError` when others could reach a server without a token, or guess the token."""
    if token is not None and len(token) < _SHORTEST_TOKEN:
        raise InputError(f"--token needs at least {_SHORTEST_TOKEN} characters")
    if token is None and not is_loopback(host):
        raise InputError(
            f"--host {host}: others could reach it; give --token, which they must know, too"
        )


def listen(host: str, port: int) -> socket.socket:
    """A socket at an address, of which none is taken twice.

    Raises:
        InputError: the address can't be had.
    """
    try:
        kind, _, _, _, address = socket.getaddrinfo(
            host.strip("[]"), port, type=socket.SOCK_STREAM
        )[0]
        bound = socket.socket(kind, socket.SOCK_STREAM)
    except OSError as error:
        raise InputError(f"can't listen on {host}: {error.strerror or error}") from None
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
    except OSError as error:
        bound.close()
        raise InputError(f"can't listen on {host}:{port}: {error.strerror or error}") from None
    return bound

"""A server in a thread of the tests, as `aigveval app` has it."""

import contextlib
import threading
import time

import pytest

pytest.importorskip("gradio", reason="needs what the extra `app` brings")

import uvicorn

from aigveval.app.limits import Limits
from aigveval.app.serve import application, listen


@contextlib.contextmanager
def running(assessor, *, limits=None, **options):
    """Gives the address of a server, and the folder that its uploads lie in."""
    with (
        listen("127.0.0.1", 0) as bound,
        application(assessor, limits=limits or Limits(), **options) as app,
    ):
        config = uvicorn.Config(app, log_level="error", ws="none", timeout_graceful_shutdown=1)
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [bound]}, daemon=True)
        thread.start()
        while not server.started:
            assert thread.is_alive()
            time.sleep(0.02)
        try:
            yield f"http://127.0.0.1:{bound.getsockname()[1]}", app.scratch.path
        finally:
            server.should_exit = True
            thread.join(20)


def uploads_in(folder):
    """The files of uploads that there are."""
    return [path for path in folder.iterdir() if path.name not in ("lock", "page")]


def until(condition, seconds=10.0):
    """Waits until something holds, and says whether it does."""
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.02)
    return condition()

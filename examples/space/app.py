"""The page of aigveval as a Hugging Face Space, or on this machine: `python app.py`.

A Space is open to everybody who can see it, so no token is asked for unless the Space has a secret
`AIGVEVAL_TOKEN`; a clip may have 100 MB and a minute.
"""

import os

import aigveval
from aigveval.app.limits import MEGABYTE, Limits
from aigveval.app.serve import application, listen, serve

HOST = os.environ.get("GRADIO_SERVER_NAME", "127.0.0.1")  # a Space says 0.0.0.0
PORT = int(os.environ.get("GRADIO_SERVER_PORT", "7860"))
LIMITS = Limits(size_bytes=100 * MEGABYTE, seconds=60, waiting=64, folder_bytes=2000 * MEGABYTE)

with (
    listen(HOST, PORT) as bound,
    application(
        aigveval.load("lite"),
        token=os.environ.get("AIGVEVAL_TOKEN") or None,  # an empty one is none
        limits=LIMITS,
        own_machine=HOST == "127.0.0.1",
    ) as app,
):
    print(f"http://{HOST}:{bound.getsockname()[1]}", flush=True)
    serve(app, bound)

"""Kernels for notebooks that are forks of one process, so that large libraries are imported once.

`python -m tests.kernels SOCKET` listens; what else a notebook imports, and all that is ours, it
imports itself. `COMMAND` is a kernel's command line: it asks for a fork in its own folder and
environment, and ends with it.
"""

import gc
import json
import os
import signal
import socket
import sys

# Without matplotlib, which asks a kernel's environment how to draw when it's imported.
LIBRARIES = (
    "torch, transformers, transformers.models.llama.modeling_llama, peft, timm, cv2, av, pandas, "
    "ipykernel.kernelapp, ipykernel.ipkernel, IPython"
)
ASK = """
import json, os, socket, sys
with socket.socket(socket.AF_UNIX) as server:
    server.connect(sys.argv[1])
    server.sendall(json.dumps([sys.argv[2:], os.getcwd(), dict(os.environ)]).encode() + b"\\n")
    server.recv(1)  # nothing, once the kernel has ended
"""
COMMAND = [sys.executable, "-S", "-c", ASK]


def become_kernel(arguments: list[str], folder: str, environment: dict[str, str]) -> None:
    from ipykernel.kernelapp import main

    os.setsid()
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    sys.path[:0] = ["", *environment.get("PYTHONPATH", "").split(os.pathsep)]
    sys.argv = ["kernel", *arguments]
    gc.set_threshold(50_000)  # much is imported, of which nothing is garbage
    main()


def reap(*_) -> None:
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        pass


def serve(path: str) -> None:
    for library in LIBRARIES.split(", "):
        __import__(library)
    gc.freeze()
    signal.signal(signal.SIGCHLD, reap)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(path)
        server.listen()
        print("ready", flush=True)
        while True:
            asking, _ = server.accept()
            with asking, asking.makefile() as lines:
                asked = json.loads(lines.readline())
                if os.fork() == 0:
                    server.close()
                    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                    become_kernel(*asked)
                    os._exit(0)


if __name__ == "__main__":
    serve(sys.argv[1])

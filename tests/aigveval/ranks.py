"""Trains in two processes that are forks of this one, so that all is imported once.

Reads a line of JSON for each training: a config file and one for all that is said. Answers with the
exit codes.
"""

import gc
import json
import os
import signal
import socket
import sys

from tests.aigveval.fit_command import begin, main  # which has all imported

RANKS = 2
LIMIT_SECONDS = 500


def train(config: str, log: str) -> list[int]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    children = [rank_of(rank, port, config, log) for rank in range(RANKS)]
    return [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]


def rank_of(rank: int, port: int, config: str, log: str) -> int:
    """Forks; the child never comes back, but ends as the command does."""
    child = os.fork()
    if child:
        return child
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(file, 1)
    os.dup2(file, 2)
    os.environ.update(
        RANK=str(rank),
        LOCAL_RANK=str(rank),
        WORLD_SIZE=str(RANKS),
        LOCAL_WORLD_SIZE=str(RANKS),
        MASTER_ADDR="127.0.0.1",
        MASTER_PORT=str(port),
    )
    signal.alarm(LIMIT_SECONDS)  # one that waits for the other for ever is ended
    sys.argv = ["aigveval", "fit", config]
    begin()
    main()
    sys.exit()


if __name__ == "__main__":
    gc.freeze()  # no fork searches what is imported for garbage, which would copy its memory too
    gc.enable()
    for line in sys.stdin:
        print(json.dumps(train(*json.loads(line))), flush=True)

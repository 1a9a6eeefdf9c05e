"""Work on the processes of a Ray cluster, which comes back as it is done.

Each process (an actor of Ray) gets a block of clips at a time and sends back a result for each as
soon as it has it. What a process has not sent when it dies is given to others: so nothing is lost
or comes twice. A clip with which process after process dies is given up.
"""

from __future__ import annotations

import os
import pickle
import socket
import sys
import time
from collections import Counter, deque
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from ..assessment import Assessment
from ..batching import Outcome, stop_at_our_fault
from ..data.manifest import Clip
from ..errors import (
    AssessmentError,
    InputError,
    ModelError,
    UsageError,
    cause_of,
    fatal,
    is_device_failure,
    one_line,
)
from ..versions import __version__

Result = TypeVar("Result")

DEATHS = 3  # processes that a clip may take with it before it is given up
FRUITLESS = 12  # deaths in a row, besides one for each process, that end the run
ROOM_SECONDS = 10.0  # how long to wait for a free CPU: Ray gives those of a past job back late
CONNECT_SECONDS = 10.0
START_SECONDS = 300.0  # how long to wait for a process when none works
_LARGEST_BLOCK = 256  # clips
_CPU = 0.99  # per process, so that some of a machine is left; all taken, Ray's own tasks would hang
_STORE_BYTES = 256 << 20  # of a cluster that is started here; results are small


@dataclass(frozen=True)
class GivenUp:
    """What a clip gets that processes die with, in place of a result: why, in one line."""

    reason: str


class Cluster:
    """A Ray cluster; a context manager, which connects to it, or starts one on this machine.

    Args:
        address: `HOST:PORT`, or `auto` for the one that this machine belongs to. None is what
            `RAY_ADDRESS` says, else one is started on this machine alone.
        processes: how many may work; by default one for each free GPU where the cluster has any
            and `device` isn't `cpu`, else one for each free CPU.
        device: `cpu` or `cuda`; by default `cuda` if the cluster has a GPU.
        threads: that each process decodes with.

    Raises:
        UsageError: when Ray isn't installed or there is no such cluster.
        ModelError: when the cluster has no such device.
    """

    def __init__(
        self,
        *,
        address: str | None = None,
        processes: int | None = None,
        device: str | None = None,
        threads: int = 2,
    ) -> None:
        if device not in (None, "cpu", "cuda"):
            raise InputError(f"on a Ray cluster a device is cpu or cuda, got {device!r}")
        self._address, self._processes, self._threads = address, processes, threads
        self.device = device or "cpu"  # settled when it is connected
        self._asked = device
        self._ours = False  # whether we connected

    def __enter__(self) -> Cluster:
        try:
            import ray
        except ImportError:
            raise UsageError("--engine ray needs Ray: pip install 'aigveval[ray]'") from None
        self._ray = ray
        if not ray.is_initialized():
            self._connect()
            self._ours = True
        has_gpu = ray.cluster_resources().get("GPU", 0) >= 1
        if self._asked == "cuda" and not has_gpu:
            self.__exit__()
            raise ModelError("no machine of the Ray cluster has a GPU")
        self.device = "cuda" if has_gpu and self._asked != "cpu" else "cpu"
        return self

    def __exit__(self, *exception: object) -> None:
        if self._ours:
            self._ray.shutdown()

    def _connect(self) -> None:
        address = self._address or os.environ.get("RAY_ADDRESS")
        _check_answers(address or "")
        options: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
        if address is None:
            os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
            options |= {"include_dashboard": False, "object_store_memory": _STORE_BYTES}
        try:
            self._ray.init(address=address or "local", **options)
        except Exception as error:  # ConnectionError, RuntimeError, ValueError, of gRPC
            where, why = address or "this machine", cause_of(error)
            if "AuthenticationError" in str(error.__cause__):  # a traceback as text
                why = "it wants a token, which RAY_AUTH_MODE=token lets Ray look for"
            raise UsageError(f"no Ray cluster at {where}: {why}") from None

    def _room(self) -> tuple[int, dict[str, float]]:
        """How many processes have room, and what each asks for.

        Raises:
            UsageError: when there is room for none.
        """
        kind = "GPU" if self.device == "cuda" else "CPU"
        until = time.monotonic() + ROOM_SECONDS
        while True:
            free = self._ray.available_resources()
            cpus, gpus = free.get("CPU", 0.0), int(free.get("GPU", 0.0))
            if cpus >= _CPU and (gpus or kind == "CPU"):
                break
            if time.monotonic() > until:
                taken = kind if kind == "GPU" and not gpus else "CPU"
                total = self._ray.cluster_resources().get(taken, 0)
                raise UsageError(
                    f"the {taken}s of the Ray cluster are all taken: of {total:g} "
                    f"{free.get(taken, 0):g} are free; try again when its other jobs have ended"
                )
            time.sleep(0.2)
        if kind == "CPU":
            return self._processes or round(cpus - 0.45), {"num_cpus": _CPU}
        count = self._processes or gpus
        share = min(float(self._threads), _CPU * cpus / min(count, gpus))
        return count, {"num_gpus": 1, "num_cpus": round(share, 2)}

    def call(self, function: Callable[..., Result], *arguments: Any, **options: Any) -> Result:
        """What a function gives where a process would work."""
        needs = self._room()[1]
        task = self._ray.remote(_call).options(max_retries=0, **needs)
        try:
            found = self._ray.get(task.remote(partial(function, *arguments, **options)))
        except self._ray.exceptions.RayError as error:
            raise _no_process(error) from None
        if isinstance(found, _Fatal):
            raise UsageError(found.message)
        return found

    def run(
        self,
        make: Callable[[], Callable[[Sequence[Clip]], Iterator[Result]]],
        clips: Sequence[Clip],
        *,
        ahead: int,
    ) -> Generator[tuple[int, Result | GivenUp], None, None]:
        """Has clips worked on, yielding (number of the clip, its result) as they come.

        Args:
            make: called once in each process; gives what yields a result per clip, in order.
            clips: each gets one result, or is given up.
            ahead: clips that a process may be busy with at once.

        Raises:
            UsageError: when there is no room, `make` fails, or no process lives.
        """
        if not clips:
            return
        ray = self._ray
        count, needs = self._room()
        size = max(ahead, min(_LARGEST_BLOCK, len(clips) // (4 * count)))
        size = max(1, min(size, -(-len(clips) // count)))
        blocks = deque(
            list(range(start, min(start + size, len(clips))))
            for start in range(0, len(clips), size)
        )
        count = min(count, len(blocks))
        worker = ray.remote(_Worker).options(**needs)
        starting: dict[Any, Any] = {}  # promise of its version -> process
        working: dict[Any, tuple[Any, deque[int]]] = {}  # stream -> process, what it has to send
        idle: list[Any] = []
        deaths: Counter[int] = Counter()
        fruitless = 0  # deaths since the last result
        started = False  # whether any process did

        def start() -> None:
            process = worker.remote()
            starting[process.version.remote()] = process

        def died(error: Exception) -> None:
            nonlocal fruitless
            fruitless += 1
            if fruitless > count + (FRUITLESS if started else 0):
                raise _no_process(error) from None
            start()

        try:
            for _ in range(count):
                start()
            while blocks or working:
                while blocks and idle:
                    process, block = idle.pop(), blocks.popleft()
                    stream = process.run.remote(make, [clips[number] for number in block])
                    working[stream] = process, deque(block)
                limit = None if working else START_SECONDS
                done, _ = ray.wait([*starting, *working], timeout=limit)
                if not done:
                    raise UsageError(
                        f"the Ray cluster started no process within {START_SECONDS:g} s"
                    )
                ready = done[0]
                if ready in starting:
                    process = starting.pop(ready)
                    try:
                        _check_version(ray.get(ready))
                        started = True
                        idle.append(process)
                    except ray.exceptions.RayError as error:
                        died(error)
                    continue
                process, left = working[ready]
                try:
                    found = ray.get(next(ready))
                    if isinstance(found, _Fatal):
                        raise UsageError(found.message)
                    fruitless = 0
                    yield left.popleft(), found
                except StopIteration:
                    del working[ready]
                    idle.append(process)
                except ray.exceptions.RayError as error:
                    del working[ready]
                    died(error)
                    later = list(left)[ahead:]  # it had not begun with these
                    if later:
                        blocks.appendleft(later)
                    for number in reversed(list(left)[:ahead]):
                        deaths[number] += 1
                        if deaths[number] < DEATHS:
                            blocks.appendleft([number])
                            continue
                        yield number, GivenUp(f"{DEATHS} processes died with it, one by one")
        finally:
            for process in [*starting.values(), *(one for one, _ in working.values()), *idle]:
                with suppress(Exception):
                    ray.kill(process)

    def score(
        self,
        clips: Sequence[Clip],
        make: Callable[..., Any],
        *,
        name: str,
        batch_size: int,
        workers: int,
        **options: Any,
    ) -> Generator[tuple[int, Assessment], None, None]:
        """Scores clips, yielding (number of the clip, its row) as they come.

        Args:
            clips: with whole paths or addresses, see `batches.for_other_machines`.
            make: gives a process its assessor, with `device` and the options; can be pickled.
            name: the field `model` of the rows.
            batch_size, workers: as of `aigveval.load`.
            **options: of `make`.

        Raises:
            UsageError: as `run`.
            AssessmentError: as `Assessor.score_many`.
        """
        from encoders.container import VideoError

        from .scorer import ScoreClips

        asked = {**options, "device": self.device, "batch_size": batch_size, "workers": workers}
        made = partial(ScoreClips, make, name, **asked)

        def outcomes() -> Generator[Outcome[tuple[int, Assessment], None], None, None]:
            for number, found in self.run(made, clips, ahead=2 * batch_size + workers):
                if isinstance(found, GivenUp):
                    clip = clips[number]
                    row = Assessment.failed(clip.video, clip.prompt, name, found.reason)
                    error: Exception | None = VideoError(row.video, found.reason)
                else:
                    row, error = found
                yield Outcome(item=(number, row), result=None, error=error, seconds=row.seconds)

        for outcome in stop_at_our_fault(outcomes(), batch_size=batch_size):
            yield outcome.item


def _check_answers(address: str) -> None:
    """Ray itself would try for minutes.

    Raises:
        UsageError: when there is a port in the address, and nothing listens there.
    """
    host, colon, port = address.rpartition("://")[2].rpartition(":")
    if not colon or not port.isdigit():
        return
    try:
        socket.create_connection((host, int(port)), timeout=CONNECT_SECONDS).close()
    except (OSError, OverflowError) as error:
        raise UsageError(f"no Ray cluster at {address}: {one_line(error)}") from None


class _Fatal:
    """What keeps a process from working at all, in one line."""

    def __init__(self, error: Exception) -> None:
        failed = fatal(error, "a process of the Ray cluster failed")
        self.message = one_line(failed, limit=700)


class _Worker:
    """A process of the cluster; the model is loaded with the first block."""

    def __init__(self) -> None:
        self._work: Callable[[Sequence[Clip]], Iterator[Any]] | None = None

    def version(self) -> str:
        return __version__

    def run(self, make: Callable[[], Any], clips: Sequence[Clip]) -> Iterator[Any]:
        try:
            self._work = self._work or make()
            for result in self._work(clips):
                _end_if_lost(result[-1])
                yield portable(result)
        except Exception as error:
            _end_if_lost(error)
            yield _Fatal(error)


def _end_if_lost(error: Exception | None) -> None:
    """Ends this process if its GPU failed: it would fail with all clips, and others can try them.

    By the shortest way, as a killed process ends: without CUDA's own clearing up, which may hang.
    """
    if error is not None and is_device_failure(error):
        sys.stderr.write(f"{cause_of(error)}\n")
        sys.stderr.flush()
        os._exit(1)


def portable(result: Any) -> Any:
    """A result whose error, if it ends with one, can be sent to another process."""
    error = result[-1]
    if not isinstance(error, Exception):
        return result
    try:
        copy = pickle.loads(pickle.dumps(error))
    except Exception:  # of a library whose errors can't be pickled
        copy = RuntimeError(cause_of(error))
    return (*result[:-1], copy)


def _call(function: Callable[[], Any]) -> Any:
    try:
        return function()
    except Exception as error:
        return _Fatal(error)


def _check_version(version: str) -> None:
    if version != __version__:
        raise UsageError(
            f"a machine of the Ray cluster has aigveval {version}, this one {__version__}; "
            "install the same on all"
        )


def _no_process(error: Exception) -> AssessmentError:
    return AssessmentError(
        f"the processes of the Ray cluster die ({_last_line(error)}); aigveval has to be installed "
        "on each of its machines, and what it says is in Ray's logs"
    )


def _last_line(error: Exception) -> str:
    """Ray's messages are pages, whose last line is the error itself, or the first its kind."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    found = next((line for line in reversed(lines) if "Error: " in line), None)
    return one_line(found or next(iter(lines), type(error).__name__), limit=160)

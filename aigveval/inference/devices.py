"""One process per device: each loads the model and scores its share of the clips."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Generator, Sequence
from multiprocessing.connection import Connection, wait
from typing import Any, cast

import torch

from encoders.cpu import available_cpus

from ..assessment import Assessment
from ..data.manifest import Clip
from ..errors import AssessmentError, ModelError, UsageError, fatal
from ..model.precision import find_device
from .assessor import Assessor, load


def devices_of(names: str) -> list[str]:
    """The devices behind `all` or a list such as `cuda:0,cuda:2`; each is one process.

    `all` is every GPU that can be seen, or the CPU where there is none.

    Raises:
        ModelError: when one is not there, or they are of several kinds.
    """
    if names == "all":
        return [f"cuda:{number}" for number in range(torch.cuda.device_count())] or ["cpu"]
    listed = [name.strip() for name in names.split(",") if name.strip()]
    if not listed:
        raise ModelError(f"no device in {names!r}: give `all` or a list such as cuda:0,cuda:1")
    found = [find_device(name) for name in listed]
    if len({device.type for device in found}) > 1:
        raise ModelError(f"devices must be of one kind, got {names}")
    return list(map(str, found))


def score_on_devices(
    clips: Sequence[Clip],
    devices: Sequence[str],
    *,
    make: Callable[..., Assessor] = load,
    fps: float | None = None,
    **options: Any,
) -> Generator[tuple[int, Assessment], None, None]:
    """Scores clips on several devices, yielding (number of the clip, its row) as they come.

    Args:
        clips: every n-th goes to the same of n devices.
        devices: one process each, as far as there are clips.
        make: gives a process its assessor, with `device` and the options; can be pickled.
        fps: as of `Assessor.score_many`.
        **options: of `make`.

    Raises:
        UsageError: when a process cannot load the model, or no clip of its share gets through.
        AssessmentError: when a process ends without a word, as one without memory does.
    """
    devices = devices[: len(clips)]
    context = multiprocessing.get_context("spawn")  # CUDA does not survive a fork
    workers: dict[Connection, tuple[str, Any]] = {}
    threads = max(1, available_cpus() // max(1, len(devices)))
    try:
        for number, device in enumerate(devices):
            ours, theirs = context.Pipe(duplex=False)
            share = list(enumerate(clips))[number :: len(devices)]
            asked = {**options, "device": device}
            process = context.Process(
                target=_work, args=(theirs, make, asked, share, fps, threads), daemon=True
            )
            process.start()
            theirs.close()
            workers[ours] = (device, process)
        while workers:
            for ready in wait(list(workers)):
                connection = cast(Connection, ready)
                device, process = workers[connection]
                try:
                    said = connection.recv()
                except EOFError:
                    process.join()
                    code = process.exitcode
                    what = f"the process of {device} ended with {code}; its clips are not scored"
                    raise AssessmentError(what) from None
                if said is None:
                    del workers[connection]
                    process.join()
                elif isinstance(said, UsageError):
                    raise said
                else:
                    yield said
    finally:
        for _, process in workers.values():
            process.kill()


def _work(
    connection: Connection,
    make: Callable[..., Assessor],
    options: dict[str, Any],
    share: Sequence[tuple[int, Clip]],
    fps: float | None,
    threads: int,
) -> None:
    torch.set_num_threads(threads)
    try:
        assessor = make(**options)
        rows = assessor.score_many([clip for _, clip in share], fps=fps)
        for (number, _), row in zip(share, rows, strict=True):
            connection.send((number, row))
        connection.send(None)
    except KeyboardInterrupt:  # the parent has it too
        pass
    except Exception as error:
        connection.send(fatal(error, f"the process of {options['device']} failed"))

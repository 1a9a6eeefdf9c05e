"""Work on many items: the prefetcher, and the bars that say how far it is.

Worker threads decode and prepare items while the caller computes batches:

    items -> [worker threads: prepare] -> [caller's thread: compute, by batches] -> outcomes

At most `2 * batch_size + workers` prepared items are in memory. Threads are enough, because
decoders, resizing and optical flow release the interpreter's lock.

Scoring, feature extraction and the check of files use it.
"""

from __future__ import annotations

import time
import traceback
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from numbers import Integral  # a number of NumPy, too
from typing import Any, Generic, TypeVar

from rich.progress import Progress, ProgressColumn, Task, TaskID, TimeRemainingColumn
from rich.text import Text

from .errors import is_about_the_video, is_device_failure, our_fault

FEWEST = 4  # videos that must fail before all are taken to fail, however small a batch is
_LINE_SECONDS = 600  # between lines that stand for a progress bar

Item = TypeVar("Item")
Prepared = TypeVar("Prepared")
Result = TypeVar("Result")


@dataclass(frozen=True, kw_only=True)
class Outcome(Generic[Item, Result]):
    """What became of one item.

    Attributes:
        item: The item as it was given.
        result: What was computed; None where there is an error.
        error: The exception that kept it from having a result; None where there is one.
        seconds: Wall time of its preparation plus its share of the batch's.
    """

    item: Item
    result: Result | None
    error: Exception | None
    seconds: float


@dataclass(frozen=True)
class Done(Generic[Result]):
    """What `prepare` gives for an item whose result is known already: `compute` is skipped."""

    result: Result


@dataclass(frozen=True)
class _Ready(Generic[Item, Prepared, Result]):
    """An item behind `prepare`: with something to compute, or a result, or an error."""

    item: Item
    seconds: float
    prepared: tuple[Prepared, ...] = ()  # none or one
    result: Result | None = None
    error: Exception | None = None


def run_batches(
    items: Iterable[Item],
    *,
    prepare: Callable[[Item], Prepared | Done[Result]],
    compute: Callable[[Sequence[tuple[Item, Prepared]]], Sequence[Result | Exception]],
    batch_size: int = 8,
    workers: int = 2,
) -> Generator[Outcome[Item, Result], None, None]:
    """Yields one outcome per item, in order, as batches finish.

    An item that fails does not stop the others: what `prepare` raises belongs to that item; when
    `compute` raises for a batch, its items are computed one by one to find the one at fault.

    Args:
        items: Read lazily, a bounded number ahead.
        prepare: Called in worker threads; gives what `compute` needs of an item, or `Done`.
        compute: Called in the caller's thread; gives a result, or an exception, per item.
        batch_size: Items per call of `compute`, at least 1.
        workers: Threads, at least 1.

    Raises:
        TypeError: When `batch_size` or `workers` is no whole number.
        ValueError: When one of them is below 1.
    """
    for name, value in (("batch_size", batch_size), ("workers", workers)):
        if not isinstance(value, Integral):
            raise TypeError(f"{name} must be a whole number, got {value!r}")
        if value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}")
    return _run(iter(items), prepare, compute, batch_size, workers)


def _run(
    items: Iterator[Item],
    prepare: Callable[[Item], Prepared | Done[Result]],
    compute: Callable[[Sequence[tuple[Item, Prepared]]], Sequence[Result | Exception]],
    batch_size: int,
    workers: int,
) -> Generator[Outcome[Item, Result], None, None]:
    def prepare_one(item: Item) -> _Ready[Item, Prepared, Result]:
        start = time.perf_counter()
        try:
            found = prepare(item)
        except Exception as error:
            _forget_locals(error)
            return _Ready(item, time.perf_counter() - start, error=error)
        seconds = time.perf_counter() - start
        if isinstance(found, Done):
            return _Ready(item, seconds, result=found.result)
        return _Ready(item, seconds, prepared=(found,))

    pool = ThreadPoolExecutor(workers, thread_name_prefix="aigveval-prepare")
    pending: deque[Future[_Ready[Item, Prepared, Result]]] = deque()
    waiting: list[_Ready[Item, Prepared, Result]] = []
    in_memory = 2 * batch_size + workers  # a batch to compute and one to get ready meanwhile
    try:
        while True:
            for item in islice(items, in_memory - len(pending) - len(waiting)):
                pending.append(pool.submit(prepare_one, item))
            if not pending:
                break
            waiting.append(pending.popleft().result())
            good = sum(len(ready.prepared) for ready in waiting)
            if good in (0, batch_size) or len(waiting) == 2 * batch_size:
                yield from _finish(waiting, compute)
                waiting = []
        yield from _finish(waiting, compute)
    finally:
        for future in pending:  # `cancel_futures` fails where Python is about to end
            future.cancel()
        pool.shutdown(wait=False)


def _finish(
    waiting: Sequence[_Ready[Item, Prepared, Result]],
    compute: Callable[[Sequence[tuple[Item, Prepared]]], Sequence[Result | Exception]],
) -> Iterator[Outcome[Item, Result]]:
    start = time.perf_counter()
    batch = [(ready.item, prepared) for ready in waiting for prepared in ready.prepared]
    results = iter(_compute_each(batch, compute))
    share = (time.perf_counter() - start) / max(len(batch), 1)
    for ready in waiting:
        result, error, seconds = ready.result, ready.error, ready.seconds
        if ready.prepared:
            computed, seconds = next(results), seconds + share
            if isinstance(computed, Exception):
                error = computed
            else:
                result = computed
        yield Outcome(item=ready.item, result=result, error=error, seconds=seconds)


def _compute_each(
    batch: Sequence[tuple[Item, Prepared]],
    compute: Callable[[Sequence[tuple[Item, Prepared]]], Sequence[Result | Exception]],
) -> Sequence[Result | Exception]:
    if not batch:
        return []
    try:
        return compute(batch)
    except Exception as error:
        _forget_locals(error)
        if len(batch) == 1:
            return [error]
    return [result for pair in batch for result in _compute_each([pair], compute)]


def _forget_locals(error: BaseException) -> None:
    """Frees what the functions that failed were working on, which an error keeps alive.

    Else the tensors of one video that did not fit would leave no memory for the next.
    """
    seen: list[BaseException] = []  # `raise error from error` makes a ring
    link: BaseException | None = error
    while link is not None and not any(link is one for one in seen):
        traceback.clear_frames(link.__traceback__)
        seen.append(link)
        link = link.__cause__ or link.__context__


def stop_at_our_fault(
    outcomes: Generator[Outcome[Item, Result], None, None],
    *,
    batch_size: int,
    deed: str = "assessed",
) -> Generator[Outcome[Item, Result], None, None]:
    """Passes outcomes on, unless what ails the videos is not theirs.

    An error that is no `VideoError`, or a `ReaderFault`, can be about an odd video, or about
    something that no video gets past: a library of another version, a device that is full. So from
    the first one on, outcomes wait until a video succeeds, and are passed on then. If none does in
    a whole batch, of four videos at least, or to the end, the run is over. Once a video succeeded,
    errors other than a device's own are taken to be about the videos. As a GPU that failed fails
    for ever, as many of those one after the other end the run too.

    Args:
        outcomes: Those of `run_batches`; closed at the end.
        batch_size: The size that they were computed with.
        deed: What was to be done to the videos, for the message.

    Raises:
        AssessmentError: instead of outcomes of videos that were never judged. Those of bad videos
            come before.
    """
    waiting: list[Outcome[Item, Result]] = []
    faults: list[Exception] = []
    most, worked = max(batch_size, FEWEST), False
    try:
        for outcome in outcomes:
            error = outcome.error
            if error is None:
                worked = True
                yield from waiting
                yield outcome
                waiting, faults = [], []
                continue
            if is_device_failure(error) if worked else not is_about_the_video(error):
                faults.append(error)
            elif not faults:
                yield outcome
                continue
            waiting.append(outcome)
            if len(faults) == most:
                break
    finally:
        outcomes.close()
    if worked and len(faults) < most:
        yield from waiting
    elif faults:
        yield from (one for one in waiting if one.error not in faults)
        count = len(faults)
        subject = "the video could not be" if count == 1 else f"none of {count} videos could be"
        if worked:
            subject = f"the last {count} videos could not be"
        raise our_fault(faults[0], f"{subject} {deed}") from faults[0]


class Rate(ProgressColumn):
    """How many a second, or how many seconds each.

    Args:
        unit: Name of one.
    """

    def __init__(self, unit: str) -> None:
        super().__init__()
        self.unit = unit

    def render(self, task: Task) -> Text:
        if not task.speed:
            return Text("")
        slow, unit = task.speed < 1, self.unit
        return Text(f"{1 / task.speed:.1f} s/{unit}" if slow else f"{task.speed:.1f} {unit}s/s")


class Bar(Progress):
    """A progress bar whose rate counts from the start: videos come in batches, all at one time.

    Args:
        quiet: Say nothing where the console is no terminal. Else, as in the log of a night, a line
            says every ten minutes how far it is.
    """

    _said = 0.0

    def __init__(self, *columns: str | ProgressColumn, quiet: bool = False, **options: Any) -> None:
        super().__init__(*columns, **options)
        self.in_lines = not quiet and not self.console.is_terminal

    def add_task(self, *args: Any, **kwargs: Any) -> TaskID:
        task = super().add_task(*args, **kwargs)
        self._said = self.get_time()
        self.advance(task, 0)  # the first sample, from which the rate is measured
        return task

    def advance(self, task_id: TaskID, advance: float = 1) -> None:
        super().advance(task_id, advance)
        self._say(task_id)

    def update(self, task_id: TaskID, **changes: Any) -> None:
        super().update(task_id, **changes)
        self._say(task_id)

    def _say(self, task_id: TaskID) -> None:
        now = self.get_time()
        if not self.in_lines or now - self._said < _LINE_SECONDS:
            return
        self._said = now
        task = next(task for task in self.tasks if task.id == task_id)
        done = f"{task.completed:,.0f}"
        told = [done if task.total is None else f"{done} of {task.total:,.0f}"]
        if task.time_remaining is not None:
            for column in self.columns:
                if isinstance(column, Rate):
                    told.append(str(column.render(task)))
                elif isinstance(column, TimeRemainingColumn):
                    told.append(f"{column.render(task)} left")
        told += [note for note in (task.fields.get("note"), task.fields.get("failed")) if note]
        line = Text(f"{task.description}: {', '.join(told)}")
        self.console.print(line, soft_wrap=True)

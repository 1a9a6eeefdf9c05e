"""One model and a queue before it: requests that wait together go through the model together."""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, InvalidStateError
from dataclasses import dataclass, field, replace
from pathlib import Path

from ..assessment import Assessment
from ..batching import stop_at_our_fault
from ..data.manifest import Clip, make_clip
from ..errors import cause_of, is_ours, one_line
from ..inference.assessor import Assessor
from .limits import MOST_CHARACTERS, Limits, Refused


@dataclass(frozen=True, kw_only=True, eq=False)
class Request:
    """A clip that waits for its assessment.

    `answer` is the row, once there is one; an exception where no clip gets through. To cancel it
    takes the clip out of the queue.
    """

    clip: Clip
    explain: bool
    answer: Future[Assessment] = field(default_factory=Future)


class Service(contextlib.AbstractContextManager["Service"]):
    """Scores clips in the order in which they come, in a thread of its own; a context manager.

    While a batch is computed the next clips are decoded; one that comes alone waits for nobody.
    The rows are those of `Assessor.score_many`.

    Args:
        assessor: whose model, batch size and workers are taken.
        limits: of a clip, and of how many may wait.
    """

    def __init__(self, assessor: Assessor, *, limits: Limits | None = None) -> None:
        self.limits = Limits() if limits is None else limits
        self.name = assessor.name
        self.batch_size = assessor.batch_size
        self.explains = assessor.engine.explains
        self._assessors = {
            explain: Assessor(
                assessor.engine,
                name=assessor.name,
                batch_size=assessor.batch_size,
                workers=assessor.workers,
                explain=explain,
            )
            for explain in ([False, True] if self.explains else [False])
        }
        self._waiting: deque[Request] = deque()
        self._changed = threading.Condition()
        self._stopped = False
        self._thread = threading.Thread(target=self._run, name="aigveval-app", daemon=True)
        self._thread.start()

    def submit(
        self, path: Path, prompt: str | None = None, *, name: str, explain: bool = False
    ) -> Request:
        """Puts a clip at the end of the queue; takes as long as a look at its packets.

        Args:
            path: of the file, which must stay until there is an answer.
            name: of the clip, for the field `video` of its row.

        Raises:
            Refused: it is more than the limits allow, the model can't explain, or too many wait.
        """
        if explain and not self.explains:
            raise Refused(f"the model {self.name} was not trained to explain its scores", 422)
        if prompt is not None and len(prompt) > MOST_CHARACTERS:
            raise Refused(f"the prompt has more than {MOST_CHARACTERS} characters", 413)
        self.check_room()
        self.limits.check_clip(path)
        request = Request(clip=replace(make_clip(path, prompt), video=name), explain=explain)
        with self._changed:
            self.check_room()
            self._waiting.append(request)
            self._changed.notify()
        return request

    def check_room(self) -> None:
        """Raises `Refused` when no clip can be taken."""
        if self._stopped:
            raise Refused("the server is stopping", 503)
        if self.waiting >= self.limits.waiting:
            raise Refused("too many clips are waiting, try again later", 503)

    @property
    def waiting(self) -> int:
        """How many clips wait; those that were cancelled take no room."""
        with self._changed:
            self._waiting = deque(one for one in self._waiting if not one.answer.cancelled())
            return len(self._waiting)

    def close(self) -> None:
        """Refuses what waits, and ends the thread when the clips at hand are done."""
        with self._changed:
            self._stopped = True
            waiting = list(self._waiting)
            self._waiting.clear()
            self._changed.notify()
        for request in waiting:
            _fail(request, Refused("the server is stopping", 503))
        self._thread.join(timeout=30)

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._stopped)
                if self._stopped:
                    return
                explain = self._waiting[0].explain
            assessor = self._assessors[explain]
            taken: dict[int, Request] = {}  # by the identity of their clips
            tried = assessor.try_many(self._take(explain, taken))
            outcomes = stop_at_our_fault(tried, batch_size=assessor.batch_size)
            try:
                with contextlib.closing(outcomes):
                    for outcome in outcomes:  # not in order, where some have none
                        request = taken.pop(id(outcome.item))
                        row = assessor.row(outcome)
                        if row.error is not None:  # without the place where the file is kept
                            row = replace(row, error=_named(row.error, request.clip))
                        with contextlib.suppress(InvalidStateError):
                            request.answer.set_result(row)
            except Exception as error:  # of the software; the next clips may fare better
                message = one_line(error) if is_ours(error) else cause_of(error)
                for request in taken.values():
                    _fail(request, Refused(_named(message, request.clip), 500))

    def _take(self, explain: bool, taken: dict[int, Request]) -> Iterator[Clip]:
        """The clips that wait now, and those that come while the ones before are computed."""
        while True:
            with self._changed:
                if not self._waiting or self._waiting[0].explain != explain:
                    return
                request = self._waiting.popleft()
            if request.answer.set_running_or_notify_cancel():
                taken[id(request.clip)] = request
                yield request.clip


def _named(message: str, clip: Clip) -> str:
    return message.replace(str(clip.path), clip.video)


def _fail(request: Request, error: Exception) -> None:
    with contextlib.suppress(InvalidStateError):
        request.answer.set_exception(error)

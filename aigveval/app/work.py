"""What the page asks the service for: many clips at once, with progress, until it is cancelled."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field

from ..assessment import Assessment
from ..data.manifest import Clip
from .limits import Refused
from .service import Request, Service

_TRY_AGAIN_SECONDS = 0.5
_LOOK_SECONDS = 0.2  # whether it was cancelled


@dataclass(eq=False)
class Job:
    """Clips of one click; `cancel` takes those out of the queue that wait."""

    requests: list[Request] = field(default_factory=list)
    cancelled: bool = False

    def cancel(self) -> None:
        """Stops it; clips that the model is at are finished, and nobody hears of them."""
        self.cancelled = True
        for request in self.requests:
            request.answer.cancel()


async def score_all(
    service: Service, clips: Sequence[Clip], *, explain: bool, job: Job
) -> AsyncIterator[tuple[int, Assessment]]:
    """Scores clips, and gives their numbers and rows as they are done.

    Not more than two batches of them wait at a time, so that others get their turn. A clip that is
    refused is a row with an error.
    """
    todo = iter(enumerate(clips))
    pending: dict[asyncio.Future[Assessment], int] = {}

    async def submit(clip: Clip) -> Request:
        while True:
            try:
                return await asyncio.to_thread(
                    service.submit, clip.path, clip.prompt, name=clip.video, explain=explain
                )
            except Refused as refused:
                if refused.status != 503 or job.cancelled:
                    raise
            await asyncio.sleep(_TRY_AGAIN_SECONDS)

    try:
        while not job.cancelled:
            while len(pending) < 2 * service.batch_size:
                number, clip = next(todo, (None, None))
                if number is None or clip is None:
                    break
                try:
                    request = await submit(clip)
                except (Refused, OSError) as error:
                    if job.cancelled:
                        return
                    yield number, failed(service, clip, str(error))
                    continue
                job.requests.append(request)
                pending[asyncio.ensure_future(asyncio.wrap_future(request.answer))] = number
                if job.cancelled:
                    request.answer.cancel()
            if not pending:
                return
            done, _ = await asyncio.wait(
                pending, timeout=_LOOK_SECONDS, return_when=asyncio.FIRST_COMPLETED
            )
            for answer in sorted(done, key=pending.__getitem__):
                number = pending.pop(answer)
                try:
                    yield number, answer.result()
                except Refused as refused:
                    yield number, failed(service, clips[number], str(refused))
                except asyncio.CancelledError:
                    if not job.cancelled:
                        raise
    finally:
        for request in job.requests:
            request.answer.cancel()
        for answer in pending:
            answer.cancel()
            with contextlib.suppress(asyncio.CancelledError, Exception):
                await answer


def failed(service: Service, clip: Clip, reason: str) -> Assessment:
    """The row of a clip that wasn't scored."""
    said = " ".join(reason.replace(str(clip.path), clip.video).split()) or "refused"
    return Assessment.failed(clip.video, clip.prompt, service.name, said)

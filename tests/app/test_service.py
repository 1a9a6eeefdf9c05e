"""The queue before the model: whose row is whose, and what is refused."""

import asyncio
import json
import threading
from concurrent.futures import CancelledError, ThreadPoolExecutor

import pytest

from aigveval.app import work
from aigveval.app.limits import Limits, Refused
from aigveval.app.service import Service
from aigveval.data.manifest import Clip
from aigveval.inference.assessor import Assessor

from tests.aigveval.engines import TextEngine

LONGEST = 20  # seconds that a test waits for what should come at once


class HeldEngine(TextEngine):
    """A text engine that computes nothing until it is let go."""

    def __init__(self):
        super().__init__()
        self.go, self.at_work = threading.Event(), threading.Event()

    def score(self, *args, **options):
        self.at_work.set()
        assert self.go.wait(LONGEST)
        return super().score(*args, **options)


def write(folder, name, text):
    path = folder / name
    path.write_text(str(text))
    return path


@pytest.fixture
def engine():
    return HeldEngine()


@pytest.fixture
def service(engine):
    with Service(Assessor(engine, name="text", batch_size=4), limits=Limits(waiting=12)) as made:
        yield made
        engine.go.set()


def test_the_row_is_that_of_score_many(engine, service, tmp_path):
    engine.go.set()
    path = write(tmp_path, "a.mp4", 3.5)
    row = service.submit(path, "a dog", name="a.mp4").answer.result(LONGEST)
    (expected,) = Assessor(TextEngine(), name="text").score_many([(path, "a dog")])
    plain = row.to_dict() | {"seconds": 0}
    assert plain == expected.to_dict() | {"seconds": 0, "video": "a.mp4"}
    assert json.dumps(plain)


def test_what_waits_together_goes_through_the_model_together(engine, service, tmp_path):
    paths = [write(tmp_path, f"{number}.mp4", 1 + number / 10) for number in range(9)]
    first = service.submit(paths[0], name="0")
    assert engine.at_work.wait(LONGEST)  # the first one waited for nobody
    others = [service.submit(path, name=path.name) for path in paths[1:]]
    engine.go.set()
    scores = [one.answer.result(LONGEST).overall.score for one in [first, *others]]
    assert scores == pytest.approx([1 + number / 10 for number in range(9)])
    assert [len(batch) for batch in engine.batches] == [1, 4, 4]


def test_32_clients_at_once_get_their_own_rows(tmp_path):
    """Each of its clip and of its prompt, again and again."""
    with Service(Assessor(TextEngine(), name="text")) as service:

        def ask(number):
            path = write(tmp_path, f"{number}.mp4", 1 + number / 1000)
            rows = [
                service.submit(path, f"prompt {number}", name=f"{number}").answer.result(LONGEST)
                for _ in range(5)
            ]
            return {(row.video, row.prompt, row.overall.score) for row in rows}

        with ThreadPoolExecutor(32) as pool:
            found = list(pool.map(ask, range(32)))
    assert found == [{(f"{n}", f"prompt {n}", 1 + n / 1000)} for n in range(32)]


def test_a_bad_clip_has_a_row_of_its_own_and_does_not_say_where_it_lay(engine, service, tmp_path):
    engine.go.set()
    good = service.submit(write(tmp_path, "good.mp4", 4), name="good.mp4")
    bad = service.submit(write(tmp_path, "bad.mp4", "unreadable"), name="bad.mp4")
    gone = service.submit(write(tmp_path, "gone.mp4", 2), name="gone.mp4")
    (tmp_path / "gone.mp4").unlink()
    rows = [one.answer.result(LONGEST) for one in (good, bad, gone)]
    assert [row.error for row in rows[:2]] == [None, "not a video"]
    assert all(str(tmp_path) not in json.dumps(row.to_dict()) for row in rows)


def test_a_fault_of_the_software_is_one_line_and_the_next_clip_is_scored(engine, service, tmp_path):
    engine.go.set()
    lost = service.submit(write(tmp_path, "bug.mp4", "bug"), name="bug.mp4").answer
    with pytest.raises(Refused, match="the video could not be assessed; something other") as told:
        lost.result(LONGEST)
    assert told.value.status == 500 and "\n" not in str(told.value)
    row = service.submit(write(tmp_path, "a.mp4", 4), name="a.mp4").answer.result(LONGEST)
    assert row.overall.score == 4


def test_nobody_gets_the_row_of_another_where_the_software_fails(service, tmp_path):
    """Those behind a fault have rows, and it has none."""
    with service._changed:  # so that both go through the model together
        lost = service.submit(write(tmp_path, "a.mp4", "bug"), "a dog", name="a").answer
        bad = service.submit(write(tmp_path, "b.mp4", "unreadable"), "a secret", name="b").answer
    row = bad.result(LONGEST)
    assert (row.video, row.prompt, row.error) == ("b", "a secret", "not a video")
    with pytest.raises(Refused, match="something other than the video is at fault"):
        lost.result(LONGEST)


def test_no_more_may_wait_than_said(engine, service, tmp_path):
    path = write(tmp_path, "a.mp4", 3)
    taken = []
    with pytest.raises(Refused, match="^too many clips are waiting, try again later$") as told:
        for _ in range(100):
            taken.append(service.submit(path, name="a.mp4"))
    assert told.value.status == 503
    # 12 that wait, and those that are being prepared or computed: 2 batches and 2 workers
    assert 12 <= len(taken) <= 12 + 2 * 4 + 2
    engine.go.set()
    assert all(one.answer.result(LONGEST).overall.score == 3 for one in taken)


def test_a_clip_that_is_cancelled_is_not_computed(engine, service, tmp_path):
    service.submit(write(tmp_path, "first.mp4", 1), name="first")
    assert engine.at_work.wait(LONGEST)
    waiting = service.submit(write(tmp_path, "second.mp4", 2), name="second")
    last = service.submit(write(tmp_path, "third.mp4", 3), name="third")
    assert waiting.answer.cancel()
    engine.go.set()
    assert last.answer.result(LONGEST).overall.score == 3
    assert [score for batch in engine.batches for score in batch] == [1, 3]
    with pytest.raises(CancelledError):
        waiting.answer.result(0)


def test_what_is_cancelled_takes_no_room(engine, service, tmp_path):
    path = write(tmp_path, "a.mp4", 3)
    taken = []
    with pytest.raises(Refused, match="too many clips are waiting"):
        for _ in range(100):
            taken.append(service.submit(path, name="a.mp4"))
    for one in taken:
        one.answer.cancel()
    assert service.waiting == 0
    last = service.submit(path, name="b.mp4").answer
    engine.go.set()
    assert last.result(LONGEST).video == "b.mp4"


def test_a_clip_that_was_never_taken_has_no_row_when_its_job_is_cancelled(
    service, tmp_path, monkeypatch
):
    def full(*arguments, **options):
        raise Refused("too many clips are waiting, try again later", 503)

    monkeypatch.setattr(work, "_TRY_AGAIN_SECONDS", 0.01)
    monkeypatch.setattr(service, "submit", full)
    path = write(tmp_path, "a.mp4", 3)

    async def cancelled():
        job = work.Job()
        asyncio.get_running_loop().call_later(0.05, job.cancel)
        clips = [Clip(path=path, video="b.mp4")]
        return [one async for one in work.score_all(service, clips, explain=False, job=job)]

    assert asyncio.run(cancelled()) == []


def test_when_it_stops_nobody_is_left_waiting(engine, tmp_path):
    path = write(tmp_path, "a.mp4", 3)
    with Service(Assessor(engine, name="text")) as service:
        at_work = service.submit(path, name="a")
        assert engine.at_work.wait(LONGEST)
        waiting = service.submit(path, name="b")
        threading.Timer(0.2, engine.go.set).start()
    assert at_work.answer.result(LONGEST).overall.score == 3
    with pytest.raises(Refused, match="the server is stopping"):
        waiting.answer.result(LONGEST)
    with pytest.raises(Refused, match="the server is stopping"):
        service.submit(path, name="c")


def test_what_cannot_be_asked(service, tmp_path):
    path = write(tmp_path, "a.mp4", 3)
    with pytest.raises(Refused, match="^the prompt has more than 10000 characters$"):
        service.submit(path, "x" * 10_001, name="a")
    with pytest.raises(Refused, match="^the model text was not trained to explain its scores$"):
        service.submit(path, name="a", explain=True)

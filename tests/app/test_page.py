"""What the page's buttons do, without a browser."""

import asyncio
import errno
from types import SimpleNamespace

import pytest

pytest.importorskip("gradio", reason="needs what the extra `app` brings")

from gradio.route_utils import delete_files_created_by_app

from aigveval.app.files import Scratch
from aigveval.app.limits import Limits, Refused
from aigveval.app.page import Page, find_examples
from aigveval.app.serve import application
from aigveval.app.service import Service
from aigveval.assessment import Assessment
from aigveval.errors import InputError
from aigveval.inference.assessor import Assessor

from tests.aigveval.engines import TextEngine


@pytest.fixture
def page(tmp_path):
    root = tmp_path / "root"
    root.mkdir()
    for number in range(25):
        (root / f"{number:02}.mp4").write_text("3")
    with Scratch(Limits(), tmp_path) as scratch, Service(Assessor(TextEngine(), name="t")) as made:
        yield Page(made, scratch, root)


def scored(page, names, prompt):
    """All that a click on Score shows, one after the other."""

    async def click():
        request = SimpleNamespace(session_hash="s")
        return [one async for one in page.score(None, names, prompt, False, request)]

    return asyncio.run(click())


def test_the_bar_counts_the_clips_that_have_no_card_too(page):
    shown = scored(page, [f"{number:02}.mp4" for number in range(25)], "")
    counts = [progress for progress, _ in shown if "<progress" in progress]
    assert [f"{n} of 25 scored" in count for n, count in enumerate(counts)] == [True] * 26
    said, cards = shown[-1]
    assert "5 more were scored" in said and cards.count("clipcard") == 20


def test_a_prompt_of_several_lines_is_one_prompt(page):
    _, cards = scored(page, ["00.mp4", "01.mp4"], "a dog\n\nruns on the beach\n")[-1]
    assert cards.count("a dog runs on the beach") == 2


def test_results_without_rows_are_said_to_have_none(page):
    page.scratch.pages_path.mkdir()
    path = page.scratch.pages_path / "empty.jsonl"
    path.touch()
    said, results = page.open_results(str(path))
    assert "empty.jsonl: has no rows" in said and results.rows == ()


def test_results_are_forgotten_by_their_rows(page):
    row = Assessment.failed("a.mp4", None, "t", "not a video")
    large = [page.kept((row,) * 5000, {}).key for _ in range(30)]
    small = [page.kept((row,), {}).key for _ in range(300)]
    with pytest.raises(Refused, match="no such file, or no more"):
        page.results.get(large[10])
    assert all(page.results.get(key) for key in (*large[-19:], *small))


def test_examples_stay_when_old_uploads_go(monkeypatch):
    built = []
    build = Page.build
    monkeypatch.setattr(Page, "build", lambda page: built.append(build(page)) or built[0])
    with application(Assessor(TextEngine(), name="text")) as app:
        old = app.scratch.pages_path / "old.mp4"
        old.write_text("3")
        built[0].upload_file_set.add(str(old))
        delete_files_created_by_app(built[0], -1)  # whatever its age
        left = {path.name for path in app.scratch.pages_path.rglob("*") if path.is_file()}
    assert left == {path.name for path, _ in find_examples()}


def test_without_room_for_uploads_their_place_is_named(monkeypatch):
    def full(page):
        raise OSError(errno.ENOSPC, "No space left on device", "example.mp4")

    monkeypatch.setattr(Page, "build", full)
    said = (
        r"/aigveval-app-\w+: no place for uploads: No space left on device; TMPDIR names another$"
    )
    with pytest.raises(InputError, match=said):
        with application(Assessor(TextEngine(), name="text")):
            pass

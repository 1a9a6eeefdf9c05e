"""The page in a real browser: what a person does there, at both widths, light and dark."""

import json
import os
import re
import shutil
from pathlib import Path

import pytest

from aigveval.app.limits import MEGABYTE, Limits
from aigveval.evaluation.figures import Sampling
from aigveval.evaluation.leaderboard import rank
from aigveval.evaluation.ratings import RatedClip
from aigveval.inference.assessor import Assessor
from aigveval.reports.html.ranking import write_report
from aigveval.reports.results import read_results

from .engines import PageEngine
from .server import running, until
from tests.media import write_video

playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright")

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
BROWSER = next(filter(None, map(shutil.which, BROWSERS)), None)
pytestmark = pytest.mark.skipif(BROWSER is None, reason="needs Chromium or Chrome")
SHOTS = os.environ.get("AIGVEVAL_SCREENSHOTS")  # a folder, to look at what the tests saw
HOSTILE = "<img src=x onerror=window.broken=1>${window.broken=1}{{broken}}.mp4"


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clips")
    for name, frames in (("long.webm", 96), ("short.webm", 48)):
        write_video(folder / name, num_frames=frames, codec="libvpx", fps=24, width=320, height=180)
    (folder / "broken.webm").write_text("no video at all")
    (folder / "large.webm").write_bytes(os.urandom(MEGABYTE))
    shutil.copy(folder / "short.webm", folder / HOSTILE)
    return folder


@pytest.fixture(scope="module")
def engine():
    return PageEngine()


@pytest.fixture(scope="module")
def server(engine, clips):
    limits = Limits(size_bytes=MEGABYTE // 2)
    with running(Assessor(engine, name="page", batch_size=2), limits=limits, root=clips) as found:
        yield found


@pytest.fixture(scope="module")
def browser():
    root = hasattr(os, "geteuid") and os.geteuid() == 0  # a sandbox needs another user
    with playwright.sync_playwright() as started:
        opened = started.chromium.launch(
            executable_path=BROWSER, args=["--no-sandbox"] if root else []
        )
        yield opened
        opened.close()


@pytest.fixture
def open_page(browser, server):
    """Opens the page; fails if a script of it did, or if it asked another server for anything."""
    pages, faults = [], []

    def go(width=1280, dark=False):
        page = browser.new_page(
            viewport={"width": width, "height": 900}, color_scheme="dark" if dark else "light"
        )
        page.set_default_timeout(20_000)
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on(
            "request",
            lambda asked: (
                asked.url.startswith(("data:", "blob:", server[0])) or faults.append(asked.url)
            ),
        )
        page.goto(server[0])
        page.get_by_role("tab", name="Score").wait_for()
        pages.append(page)
        return page

    yield go
    for page in pages:
        assert page.evaluate("window.broken") is None
        page.close()
    assert faults == []


def shot(page, name):
    if SHOTS:
        page.screenshot(path=f"{SHOTS}/{name}.png", full_page=True)


def panel(page, name):
    page.get_by_role("tab", name=name).click()
    return page.get_by_role("tabpanel").filter(visible=True)


def drop(part, paths, number=0):
    part.locator("input[type=file]").nth(number).set_input_files(paths)
    names = [Path(path).name for path in (paths if isinstance(paths, list) else [paths])]
    for name in names:  # the upload is done when it's listed with its size
        stem = re.escape(Path(name).stem[:4])
        part.locator(".file-preview").get_by_text(re.compile(stem)).first.wait_for()


def click_row(part, name):
    row = part.get_by_role("row").filter(has_text=name).filter(visible=True).last
    row.locator(".cell-wrap").nth(1).click()  # the name's own cell unfolds over its neighbours


def no_wider_than_the_window(page):
    return page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")


def test_score_play_and_jump(open_page, clips):
    page = open_page()
    part = panel(page, "Score")
    drop(part, clips / "long.webm")
    part.get_by_label("prompt").fill("a <b>good</b> clip")
    part.get_by_role("button", name="Score", exact=True).click()
    card = page.locator(".clipcard")
    card.wait_for()
    assert "4.50 [4.0, 5.0]" in card.locator(".overall").inner_text().replace("\n", " ")
    assert "a <b>good</b> clip" in card.inner_text()
    assert "holds still, <b>says</b> the test" in card.inner_text()
    assert "familiarity 2 of 100: unlike" in card.inner_text()
    assert "-1.30" in card.locator(".moves").inner_text()
    video = card.locator("video")
    assert until(lambda: video.evaluate("v => v.duration") == pytest.approx(4.0, abs=0.1))
    card.locator(".ranges button").first.click()
    assert until(lambda: video.evaluate("v => v.currentTime") == pytest.approx(1.0, abs=0.05))
    assert until(lambda: video.evaluate("v => !v.seeking"))
    place = "c => parseFloat(getComputedStyle(c.querySelector('.playhead')).left)"
    assert until(lambda: card.evaluate(place) > 10)
    video.evaluate("v => v.play()")
    assert until(lambda: video.evaluate("v => v.currentTime") > 1.1)
    assert card.locator("img.strip").evaluate("i => i.naturalWidth") > 300
    shot(page, "score")


def test_by_keyboard_on_a_phone_in_the_dark(open_page, clips):
    page = open_page(width=390, dark=True)
    part = panel(page, "Score")
    drop(part, [clips / "short.webm", clips / "broken.webm"])
    part.get_by_role("button", name="Score", exact=True).focus()
    page.keyboard.press("Enter")
    page.locator(".clipcard").nth(1).wait_for()
    good, bad = page.locator(".clipcard").all()
    assert bad.get_by_role("alert").inner_text().startswith("Could not be scored: ")
    jump = good.locator(".ranges button").first
    jump.focus()
    page.keyboard.press("Enter")
    video = good.locator("video")
    assert until(lambda: video.evaluate("v => v.currentTime") == pytest.approx(1.0, abs=0.05))
    assert no_wider_than_the_window(page)
    ink, ground = (
        page.evaluate(f"getComputedStyle(document.querySelector('{what}')).{prop}")
        for what, prop in ((".clipcard .reason", "color"), ("body", "backgroundColor"))
    )
    light, dark = (sum(map(int, re.findall(r"\d+", colour)[:3])) for colour in (ink, ground))
    assert light > 600 and dark < 150
    shot(page, "phone-dark")
    for name in ("Compare", "Batch", "Open results"):
        if not page.get_by_role("tab", name=name).is_visible():  # behind a menu
            break
        panel(page, name)
        assert no_wider_than_the_window(page), name


def test_an_example_is_there_to_be_clicked(open_page):
    page = open_page()
    part = panel(page, "Score")
    part.get_by_text("scene clean").or_(part.get_by_text("scene", exact=True)).first.click()
    assert until(lambda: "red car" in part.get_by_label("prompt").input_value())
    part.locator(".file-preview").wait_for()


def test_compare_in_step(open_page, clips):
    page = open_page()
    part = panel(page, "Compare")
    drop(part, clips / "long.webm", 0)
    part.locator("input[type=file]").nth(0).set_input_files(clips / "short.webm")
    assert until(lambda: part.locator(".file-preview").count() == 2)
    part.get_by_label("prompt of both").fill("a clip")
    part.get_by_role("button", name="Compare", exact=True).click()
    pair = part.locator(".pair")
    pair.wait_for()
    assert pair.inner_text().startswith("neither is better: a chance of 50 %")
    assert "it is surest on motion, where B is better" in pair.inner_text()
    ready = "p => [...p.querySelectorAll('video')].every(v => v.readyState >= 3)"
    assert until(lambda: pair.evaluate(ready))
    pair.get_by_role("button", name="Play both").click()
    times = "p => [...p.querySelectorAll('video')].map(v => v.currentTime)"
    assert until(lambda: min(pair.evaluate(times)) > 0.5)
    pair.get_by_role("button", name="Pause both").click()
    first, second = pair.evaluate(times)
    assert abs(first - second) < 0.15
    pair.get_by_role("slider").fill("0.25")
    assert until(lambda: pair.evaluate(times) == pytest.approx([1.0, 1.0], abs=0.05))
    assert part.locator(".clipcard").count() == 2
    shot(page, "compare")


def test_a_batch_as_a_table_a_card_and_files(open_page, clips, tmp_path):
    page = open_page()
    part = panel(page, "Batch")
    names = ["long.webm", "short.webm", "broken.webm"]
    drop(part, [clips / name for name in names])
    part.get_by_label("prompts").fill("a <i>good</i> one\nanother\na third")
    part.get_by_role("button", name="Score the batch").click()
    links = part.locator(".links")
    links.wait_for()
    part.get_by_role("row").get_by_text("a <i>good</i> one").first.wait_for()
    rows = {}
    for label in ("CSV", "JSONL", "HTML report"):
        with page.expect_download() as started:
            links.get_by_role("link", name=label).click()
        path = tmp_path / started.value.suggested_filename
        started.value.save_as(path)
        rows[path.suffix] = path
    assert sorted(rows) == [".csv", ".html", ".jsonl"]
    found = read_results(rows[".jsonl"])
    assert [(row.video, row.error is None) for row in found] == [
        ("long.webm", True),
        ("short.webm", True),
        ("broken.webm", False),
    ]
    assert read_results(rows[".csv"]) == found
    report = rows[".html"].read_text("utf-8")
    assert "a &lt;i&gt;good&lt;/i&gt; one" in report and "data:image/jpeg" in report
    videos = part.get_by_role("row").locator(".cell-wrap:visible").filter(has_text=".webm")
    assert until(lambda: videos.all_inner_texts() == names)
    head = part.locator("th[title=motion]:visible")
    head.hover()
    head.locator(".cell-menu-button").click()
    page.get_by_text(re.compile("sort descending", re.I)).click()
    assert until(lambda: videos.all_inner_texts()[0] == "short.webm")
    part.get_by_placeholder("Filter...").fill("short")
    assert until(lambda: videos.all_inner_texts() == ["short.webm"])
    click_row(part, "short.webm")
    part.locator(".chosen .clipcard").wait_for()
    assert "short.webm" in part.locator(".chosen .clipcard").inner_text()
    part.get_by_role("img").or_(part.locator(".vega-embed, canvas")).first.wait_for()
    shot(page, "batch")


def test_results_of_the_command_line_with_hostile_texts(open_page, clips, server, tmp_path):
    row = json.loads(
        json.dumps(
            Assessor(PageEngine(), name="page", explain=True)
            .score(clips / "long.webm", "<script>window.broken=1</script>")
            .to_dict()
        )
    )
    bad = row | {"video": "/etc/<svg onload=window.broken=1>", "model": "<b onclick=x>"}
    inside = row | {"video": HOSTILE}
    path = tmp_path / "results.jsonl"
    path.write_text("".join(json.dumps(one) + "\n" for one in (row, bad, inside)))
    page = open_page()
    part = panel(page, "Open results")
    drop(part, path)
    part.locator(".links").wait_for()
    for name in ("<svg onload", "<img src=x"):
        click_row(part, name)
        card = part.locator(".chosen .clipcard").filter(has_text=name)
        card.wait_for()
        assert "<script>window.broken=1</script>" in card.inner_text()
    # of the clips that are named only the one in --root can be seen
    assert card.locator("video").count() == 1
    with page.expect_download() as started:
        part.get_by_role("link", name="HTML report").click()
    report = tmp_path / "report.html"
    started.value.save_as(report)
    text = report.read_text("utf-8")
    assert "&lt;svg onload" in text and "<svg onload" not in text
    assert "&lt;script&gt;window" in text and "<script>window" not in text
    assert text.count("data:image/jpeg") == 2 and text.count("isn&#39;t at hand") == 1
    shot(page, "results")
    drop_bad = tmp_path / "other.jsonl"
    drop_bad.write_text('{"no": "results"}\n{"no": "results"}\n')
    page = open_page()
    part = panel(page, "Open results")
    drop(part, drop_bad)
    said = part.get_by_role("alert").inner_text()
    assert said.startswith("other.jsonl: not a file of results: line 1")


def test_cancel_and_what_is_refused(open_page, clips, engine):
    page = open_page()
    part = panel(page, "Score")
    part.get_by_role("button", name="Score", exact=True).click()
    assert part.get_by_role("alert").inner_text() == "no clip yet: drop one, or choose one"
    drop(part, [clips / "long.webm", clips / "short.webm"])
    engine.go.clear()
    try:
        part.get_by_role("button", name="Score", exact=True).click()
        part.get_by_text("0 of 2 scored").wait_for()
        part.get_by_role("button", name="Cancel").click()
        part.get_by_text("cancelled").wait_for()
        assert page.locator(".clipcard").count() == 0
    finally:
        engine.go.set()
    part.get_by_role("button", name="Score", exact=True).click()
    page.locator(".clipcard").nth(1).wait_for()
    large = open_page()
    part = panel(large, "Score")
    part.locator("input[type=file]").first.set_input_files(clips / "large.webm")
    large.get_by_text(re.compile("exceeds|larger|too large|maximum", re.I)).first.wait_for()


def test_a_clip_that_came_since_the_start_can_be_chosen(open_page, clips):
    open_page()
    late = clips / "later" / "came.webm"
    late.parent.mkdir()
    shutil.copy(clips / "short.webm", late)
    page = open_page()
    part = panel(page, "Score")
    part.get_by_label("or choose from the server's folder").click()
    page.get_by_role("option", name="later/came.webm").click()
    part.get_by_role("button", name="Score", exact=True).click()
    page.locator(".clipcard").wait_for()
    assert "later/came.webm" in page.locator(".clipcard").inner_text()
    part = panel(page, "Compare")
    part.get_by_label("or choose from the server's folder").nth(1).click()
    page.get_by_role("option", name="later/came.webm").wait_for()
    shutil.rmtree(late.parent)


def test_a_report_sorts_ranks_with_intervals_by_the_rank(browser, tmp_path):
    clips = [
        RatedClip(
            row=1,
            video=f"{g}/{n}.mp4",
            path=Path(f"{g}/{n}.mp4"),
            prompt=f"prompt {n}",
            generator=f"model {g}",
            scores={"overall": 5 - g / 4 + n / 100},
        )
        for g in range(12)
        for n in range(3)
    ]
    write_report(tmp_path / "r.html", rank(clips, sampling=Sampling(draws=20)))
    page = browser.new_page()
    page.goto((tmp_path / "r.html").as_uri())
    table = page.locator("table.figures")
    table.get_by_role("button", name="rank").click()
    shown = table.locator("tbody tr td:first-child").all_inner_texts()
    assert shown == [f"model {g}" for g in reversed(range(12))]
    assert table.locator("tbody tr td:nth-child(2)").first.inner_text().startswith("12 [")
    page.close()

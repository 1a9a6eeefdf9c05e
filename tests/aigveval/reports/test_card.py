"""Rows as notebooks and the app show them."""

import re
import shutil

import pytest

from aigveval import Assessments
from aigveval.assessment import Assessment, Contributions, Score
from aigveval.reports.html.card import card, table
from aigveval.reports.html.page import render
from aigveval.reports.html.scores import write_report
from prompts import Defect
from prompts.facts import Fact

from tests.media import write_video

HOSTILE = '<img src=x onerror="alert(1)">'
FACTS = (
    Fact(kind="duration", value=2.0),
    Fact(kind="seen", name="<i>dog</i>", value=1, confidence=0.9, start_seconds=0, end_seconds=1.5),
)


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return write_video(tmp_path_factory.mktemp("clips") / "clip.mp4", num_frames=48, fps=24)


def row(video="a.mp4", **fields):
    score = Score(3.21, 0.4, 2.5, 4.0)
    given = {
        "overall": score,
        "motion": Score(2.0, 0.5),
        "familiarity": 3.0,
        "explanation": {"motion": "It flickers."},
        "defects": (Defect(name="flicker", severity=3, start_seconds=0.5, end_seconds=1.0),),
        "problems": (),
        "evidence": FACTS,
        "advice": ("Try less.",),
        "contributions": Contributions(baseline=4.0, residue=0.1, motion=-0.89),
    }
    if fields.get("error"):
        given = {}
    given |= {"model": "m", "version": "1", "seconds": 1.0}
    return Assessment(video=str(video), **(given | fields))


def test_a_card_says_what_the_row_does(clip):
    html = card(row(clip, prompt="a dog"), file=clip)
    for said in ("3.21 <small>[2.5, 4.0]", "2.00 <small>±0.50", "It flickers.", "Try less."):
        assert said in html
    assert "familiarity 3 of 100: unlike what" in html
    assert "of 3.21, from 4.00 without" in html and "-0.89" in html and "+0.10" in html
    assert "flicker <small>0.5 to 1.0 s</small>" in html
    assert html.count("data:image/jpeg") == 1 and "<video" not in html and "<button" not in html


def test_nothing_has_no_sign_of_less():
    moved = Contributions(baseline=3.0, technical=0.25, motion=-0.001, residue=-0.00001)
    html = card(row(contributions=moved))
    assert re.findall(r'<span class="by">(.*?)</span>', html) == ["+0.25", "+0.00", "+0.00"]
    sides = {"differences": {"overall": -0.001}, "chances": {"overall": "50 %"}}
    html = render("pair.html.j2", rows=[row()] * 2, said="", players=[None] * 2, **sides)
    assert "<td>+0.00</td><td>50 %</td>" in html


def test_a_card_with_a_player_has_buttons_to_jump(clip):
    html = card(row(clip), file=clip, player="/clip/key")
    assert '<video src="/clip/key"' in html
    assert re.findall(r'<button type="button" data-seconds="([\d.]+)"', html) == ["0.5", "0.0"]


def test_a_row_without_extras_and_one_with_an_error(clip):
    bare = Assessment(video="a.mp4", model="m", version="1", seconds=1.0, overall=Score(3.0, 0.5))
    html = card(bare, file=clip)
    assert "3.00" in html and "familiarity" not in html and "What moves" not in html
    assert "not a video" in card(row(error="not a video"), file=clip, player="/clip/x")
    assert "<video" not in card(row(error="not a video"), file=clip, player="/clip/x")


def test_texts_from_outside_are_text_everywhere(clip, tmp_path):
    copy = shutil.copy(clip, tmp_path / f"{HOSTILE}.mp4".replace("/", ""))
    bad = row(
        copy,
        prompt=HOSTILE,
        explanation={"motion": HOSTILE},
        advice=(HOSTILE,),
        warnings=(HOSTILE,),
        model=HOSTILE,
    )
    failed = row(HOSTILE, error=HOSTILE)
    sides = {"differences": {"overall": 0.0}, "chances": {"overall": "50 %"}}
    write_report(tmp_path / "report.html", [bad, bad, failed])
    for html in (
        card(bad, file=clip, player=HOSTILE),
        card(failed),
        table([bad, failed]),
        render("pair.html.j2", rows=[bad, bad], said=HOSTILE, players=[HOSTILE, None], **sides),
        Assessments([bad, failed])._repr_html_(),
        bad._repr_html_(),
        (tmp_path / "report.html").read_text("utf-8"),
    ):
        assert "&lt;img src=x onerror=" in html
        assert "<img src=x" not in html and "<i>dog" not in html
        assert not re.search(r"<[^<>]*\sonerror=", re.sub(r"\"[^\"]*\"|'[^']*'", "", html))


def test_a_row_and_rows_show_themselves(clip):
    one = row(clip)._repr_html_()
    assert one.startswith("<style>") and "<article" in one and "data:image/jpeg" in one
    rows = Assessments(row(clip, overall=Score(score, 0.5)) for score in (2.0, 4.0))
    many = rows._repr_html_()
    assert many.count("<tr><td data-sort=") == 2 and 'class="clips sortable"' in many
    assert "header.setAttribute" in many or "setAttribute" in many
    assert rows[0].overall.score == 2.0 and len(rows) == 2
    assert "No rows." in Assessments()._repr_html_()
    assert "No rows." in rows[2:]._repr_html_() and rows[0] is rows[:1][0]


def test_a_report_opens_no_files_but_those_it_is_given(clip, tmp_path):
    rows = [row(clip), row("given.mp4")]
    write_report(tmp_path / "a.html", rows, files={"given.mp4": clip})
    html = (tmp_path / "a.html").read_text("utf-8")
    assert html.count("data:image/jpeg") == 1
    assert "no picture: the video isn&#39;t at hand" in html
    write_report(tmp_path / "b.html", rows)
    html = (tmp_path / "b.html").read_text("utf-8")
    assert html.count("data:image/jpeg") == 1 and "no picture: no such file" in html

"""Reports: one file, no network, nothing executed from names, and what they show."""

import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from aigveval.assessment import Assessment, Score
from aigveval.cli.app import app
from aigveval.evaluation import evaluate
from aigveval.evaluation.figures import Sampling
from aigveval.evaluation.leaderboard import rank
from aigveval.evaluation.ratings import RatedClip
from aigveval.inference import assessor as assess
from aigveval.inference.assessor import Assessor
from aigveval.reports.html import evaluation, figures, page, ranking, scores
from aigveval.reports.html.page import HEIGHT_PX, make_strip

from ..engines import TextEngine

VIDEOS = Path(__file__).parents[3] / "examples" / "videos"
HOSTILE = '<script>alert(1)</script> $x^2$ & "quoted" 猫'
# names of vocabularies in the plots' metadata; nothing is loaded from there
FOREIGN = ("http://www.w3.org/", "http://purl.org/", "http://creativecommons.org/")


class _Reader(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for found, attributes in self.tags if found == tag]


def _checked(path: Path) -> tuple[str, _Reader]:
    """The page, after what holds for every report."""
    text = path.read_text(encoding="utf-8")
    reader = _Reader(text)
    for _, attributes in reader.tags:
        for name in ("src", "href", "xlink:href"):
            value = attributes.get(name) or "#"
            assert value.startswith(("#", "data:image/")), value
    loaded = re.findall(r"url\((?!#)|@import|fetch\(|https?://[^\s\"'<)]+", text)
    assert all(found.startswith(FOREIGN) for found in loaded), set(loaded)
    assert "<script>alert" not in text and len(reader.all("script")) == 1
    assert any("default-src 'none'" in (m.get("content") or "") for m in reader.all("meta"))
    assert any("width=device-width" in (m.get("content") or "") for m in reader.all("meta"))
    return text, reader


@pytest.fixture
def rated(tmp_path, monkeypatch):
    """Twenty clips with ratings: one real video, the others missing."""
    monkeypatch.chdir(tmp_path)
    random = np.random.default_rng(0)
    ratings = random.uniform(1, 5, 20)
    rows, predicted = [], []
    for i, rating in enumerate(ratings):
        video = str(VIDEOS / "scene_clean.mp4") if i == 0 else f"{i}.mp4"
        rows.append(
            {
                "video": video,
                "prompt": f"{HOSTILE} {i // 4}",
                "generator": f"{HOSTILE}{i % 2}",
                "overall": float(rating),
            }
        )
        score = float(np.clip(rating + random.normal(0, 0.5), 1, 5))
        predicted.append({"video": video, "overall": {"score": score, "std": 0.7}})
    Path("m.json").write_text(json.dumps(rows))
    Path("p.json").write_text(json.dumps(predicted))
    return evaluate("p.json", "m.json", sampling=Sampling(draws=20))


def test_report_of_an_evaluation(rated):
    evaluation.write_report(Path("r.html"), rated)
    text, reader = _checked(Path("r.html"))
    assert f"{rated.scores['overall'].figures['srocc'].value:.3f}" in text
    assert len(reader.all("svg")) == 2  # scatter and boxes
    pictures = reader.all("img")
    assert pictures and all(p["src"].startswith("data:image/jpeg;base64,") for p in pictures)
    assert "no picture: no such file" in text
    assert "&lt;script&gt;alert(1)" in text and "猫" in text
    rows = [found for found in reader.all("td") if found.get("data-label") == "overall"]
    gaps = [float(found["data-sort"]) for found in rows]
    assert len(gaps) == 20 and gaps == sorted(gaps, reverse=True)  # the worst are on top
    clips = rated.clips["overall"]
    assert gaps[0] == pytest.approx(np.abs(clips.fitted - clips.ratings).max())


def test_reports_are_reproducible(rated):
    evaluation.write_report(Path("a.html"), rated)
    evaluation.write_report(Path("b.html"), rated)
    assert Path("a.html").read_bytes() == Path("b.html").read_bytes()


def test_report_of_scores(tmp_path):
    def row(video, score, **more):
        made = {"overall": Score(score, 0.5), "technical": Score(score, 1.0)}
        return Assessment(video=video, model="lite", version="0", seconds=1.0, **(made | more))

    rows = [
        row(str(VIDEOS / "scene_clean.mp4"), 4.0, prompt=HOSTILE),
        row("a/1.mp4", 2.0),
        row("b/2.mp4", 3.0),
        row("c/bad.mp4", 1.0, overall=None, technical=None, error="not a video <b>"),
    ]
    path = tmp_path / "deep" / "s.html"
    scores.write_report(path, rows)
    text, reader = _checked(path)
    assert "Scores of 3 videos" in text and "1 could not be scored" in text
    assert "not a video &lt;b&gt;" in text
    assert text.index("a/1.mp4") < text.index("b/2.mp4") < text.index("scene_clean.mp4</div>")
    assert len(reader.all("svg")) == 4  # two histograms, two box plots by folder
    assert ">3.00</b>" in text  # the mean
    assert "</span>interval or spread" in text


def test_means_say_of_how_many_clips_they_are(tmp_path):
    """A score that some clips lack is the mean of fewer; one clip differs from nothing."""
    made = {"model": "lite", "version": "0", "seconds": 1.0}
    rows = [
        Assessment(video=f"{n}.mp4", overall=Score(n, 0.5), technical=Score(n, 0.5), **made)
        for n in (2.0, 3.0, 4.0)
    ]
    rows[0] = replace(rows[0], technical=None)
    rows[1] = replace(rows[1], semantic=Score(3.0, 0.5))
    scores.write_report(tmp_path / "s.html", rows)
    tiles = re.findall(r'class="soft">(\w+)</span><b>([\d.]+)</b>(.*?)</div>',
                       _checked(tmp_path / "s.html")[0], re.DOTALL)  # fmt: skip
    said = {name: (mean, re.sub("<.*?>", "", more).strip()) for name, mean, more in tiles}
    assert said == {
        "overall": ("3.00", "mean of 3; clips differ by ±0.82"),
        "technical": ("3.50", "mean of 2; clips differ by ±0.50"),
        "semantic": ("3.00", ""),
    }


def test_folders_of_one_name_are_kept_apart(tmp_path):
    names = ("wan/dog/1.mp4", "wan/cat/1.mp4", "cog/dog/1.mp4", "cog/cat/1.mp4", "4.mp4")
    rows = [
        Assessment(video=name, model="lite", version="0", seconds=1.0, overall=Score(3.0, 0.5))
        for name in names
    ]
    scores.write_report(tmp_path / "s.html", rows)
    text = (tmp_path / "s.html").read_text("utf-8")
    assert all(f">{name}<" in text for name in ("wan/dog", "cog/dog", "wan/cat", "cog/cat"))


def test_boxes_say_how_many_are_left_out():
    groups = {f"folder {n}": {"predicted": np.array([3.0])} for n in range(31)}
    drawn = figures.boxes(groups, low=1, high=5, title="x")
    assert ">30 of 31 are shown<" in drawn and "folder 30" not in drawn
    del groups["folder 30"]
    assert "are shown" not in figures.boxes(groups, low=1, high=5, title="x")


def test_option_of_score(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(
        assess,
        "load",
        lambda model, *, device, dtype, **options: Assessor(TextEngine(), name=model, **options),
    )
    Path("v").mkdir()
    for name in "23":
        Path(f"v/{name}.mp4").write_text(name)
    result = CliRunner().invoke(app, ["score", "v", "--report", "s.html"])
    assert result.exit_code == 0 and "the report is s.html" in result.output
    text, _ = _checked(Path("s.html"))
    assert "Scores of 2 videos" in text and ">2.50</b>" in text


def test_report_of_nothing_but_failures(tmp_path):
    bad = Assessment(video="x.mp4", model="m", version="0", seconds=0.0, error="broken")
    scores.write_report(tmp_path / "s.html", [bad])
    text, _ = _checked(tmp_path / "s.html")
    assert "Scores of 0 videos" in text and "broken" in text


def test_report_of_a_leaderboard(tmp_path):
    random = np.random.default_rng(0)
    entries = [
        RatedClip(
            row=i,
            video=f"{name}/{i}.mp4",
            path=Path(f"{name}/{i}.mp4"),
            generator=name,
            scores={"overall": float(np.clip(mean + random.normal(0, 0.3), 1, 5))},
        )
        for name, mean in (("good", 4.0), (HOSTILE, 2.5))
        for i in range(12)
    ]
    ranking.write_report(tmp_path / "l.html", rank(entries))
    text, reader = _checked(tmp_path / "l.html")
    assert text.index(">good</td>") < text.index("&lt;script&gt;alert(1)&lt;/script&gt;")
    assert len(reader.all("svg")) == 2
    assert len([t for t in reader.all("td") if t.get("data-label") == "overall"]) == 24


def test_report_of_a_leaderboard_whose_scores_are_all_the_same(tmp_path):
    entries = [
        RatedClip(row=i, video=f"{i}", path=Path(f"{i}"), generator=name, scores={"overall": 80.0})
        for i, name in enumerate("aabb")
    ]
    ranking.write_report(tmp_path / "l.html", rank(entries))
    text, reader = _checked(tmp_path / "l.html")
    assert len([t for t in reader.all("td") if t.get("data-label") == "overall"]) == 4
    assert "80.00" in text


def test_strips_of_real_videos_and_of_others(tmp_path):
    strip = make_strip(VIDEOS / "scene_clean.mp4")
    assert strip.height_px == HEIGHT_PX and strip.width_px > 2 * HEIGHT_PX
    assert 2_000 < len(strip.uri) < 60_000
    bad = tmp_path / "bad.mp4"
    bad.write_text("no video")
    assert make_strip(bad).uri == "" and "not a readable video" in make_strip(bad).reason


def test_pictures_are_bounded(monkeypatch):
    monkeypatch.setattr(page, "MOST_STRIPS", 3)
    rows = [page.ClipRow(video=str(i), path=Path(f"{i}.mp4")) for i in range(9)]
    page.add_strips(rows, first=[rows[7]])
    assert [i for i, row in enumerate(rows) if row.strip is not None] == [0, 1, 7]


def test_large_scatters_become_pictures():
    x = np.random.default_rng(0).uniform(1, 5, 6000)
    svg = figures.scatter(
        x, x, groups=[None] * 6000, low=1, high=5, logistic=None, same_scale=True, title="t"
    )
    assert "data:image/png;base64," in svg and len(svg) < 300_000


def test_names_in_plots_are_text_whatever_they_hold():
    groups = {HOSTILE: {"human": np.array([1.0, 2.0, 4.0])}, "_b$": {"human": np.array([3.0, 4.0])}}
    svg = figures.boxes(groups, low=1, high=5, title=HOSTILE)
    assert "<script>" not in svg and "&lt;script&gt;" in svg and "_b$" in svg


def test_unwritable_reports_are_one_line(rated, tmp_path):
    from aigveval.errors import InputError

    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="r.html: cannot be written"):
        evaluation.write_report(tmp_path / "file" / "r.html", rated)

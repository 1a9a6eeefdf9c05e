"""The plot of a timeline and its CSV file."""

import csv
import dataclasses

import numpy as np
import pytest
from PIL import Image

from aigveval.assessment import SCORE_FIELDS, Score
from aigveval.errors import InputError
from aigveval.inference.timeline import make_timeline
from aigveval.reports.plots import plot_timeline, write_timeline
from prompts import Defect

from ..engines import tiny_assessor
from tests import media

DEFECTS = (
    Defect(name="blur", severity=3),
    Defect(name="freeze", severity=4, start_seconds=0.5, end_seconds=0.8),
    Defect(name="scene_cut", severity=2, start_seconds=1.5, end_seconds=1.5),
)


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("videos")
    return {
        "even": media.write_video(folder / "even.mp4", num_frames=48),  # 24 fps
        "short": media.write_video(folder / "short.mp4", num_frames=5),
    }


@pytest.fixture(scope="module")
def plain(videos):
    return make_timeline(tiny_assessor(), videos["even"], prompt="a dog", window_seconds=1)


@pytest.fixture(scope="module")
def with_defects(plain):
    clip = dataclasses.replace(plain.clip, explanation={}, problems=(), defects=DEFECTS)
    return dataclasses.replace(plain, clip=clip)


def test_csv(plain, with_defects, tmp_path):
    write_timeline(plain, tmp_path / "a.csv")
    with open(tmp_path / "a.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["start_seconds"], row["end_seconds"]) for row in rows] == [
        ("0.0", "1.0"),
        ("0.5", "1.5"),
        ("1.0", "2.0"),
    ]
    for row, window in zip(rows, plain.windows):
        for name in SCORE_FIELDS:
            assert float(row[name]) == window.scores[name].score
            assert float(row[f"{name}_std"]) == window.scores[name].std
    assert "defects" not in rows[0]
    write_timeline(with_defects, tmp_path / "b.csv")
    with open(tmp_path / "b.csv", encoding="utf-8", newline="") as file:
        assert [row["defects"] for row in csv.DictReader(file)] == [
            "blur 3; freeze 4 0.5-0.8",
            "blur 3; freeze 4 0.5-0.8",
            "blur 3; scene cut 2 1.5-1.5",
        ]


def test_plot(plain, with_defects, tmp_path):
    pytest.importorskip("matplotlib")
    for name, timeline in (("plain", plain), ("defects", with_defects)):
        for suffix in (".png", ".svg", ".pdf"):
            plot_timeline(timeline, tmp_path / f"{name}{suffix}")
    low, high = (Image.open(tmp_path / f"{name}.png").size for name in ("plain", "defects"))
    assert low[0] == high[0] >= 1000 and high[1] > low[1]
    shown = (tmp_path / "defects.svg").read_text(encoding="utf-8")
    for text in ("overall", "semantic", "freeze 4", "scene cut 2", "even.mp4", "seconds"):
        assert f"<!-- {text} -->" in shown
    assert "freeze 4" not in (tmp_path / "plain.svg").read_text(encoding="utf-8")
    before = {path.name: path.read_bytes() for path in tmp_path.glob("*.[sp][vn]g")}
    plot_timeline(with_defects, tmp_path / "defects.svg")
    plot_timeline(with_defects, tmp_path / "defects.png")
    assert before == {path.name: path.read_bytes() for path in tmp_path.glob("*.[sp][vn]g")}
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(InputError, match="folder.png: cannot be written: Is a directory"):
        plot_timeline(plain, tmp_path / "folder.png")


def test_another_score_at_the_overall_score_is_seen(plain, tmp_path):
    """As where both are 5.0, which is the usual case for clips of today's generators."""

    def coloured(**scores):
        """Pixels of motion's colour that the plot has left of its legend."""
        windows = tuple(
            dataclasses.replace(
                window,
                scores={name: Score(score=scores.get(name, 2.0), std=0.1) for name in SCORE_FIELDS},
            )
            for window in plain.windows
        )
        plot_timeline(dataclasses.replace(plain, windows=windows), tmp_path / "x.png")
        picture = np.asarray(Image.open(tmp_path / "x.png").convert("RGB")).astype(int)
        left = picture[:, : int(0.8 * picture.shape[1])]
        return int((np.abs(left - (0xD5, 0x5E, 0x00)).max(2) < 40).sum())

    apart, together = coloured(motion=4.0, overall=5.0), coloured(motion=5.0, overall=5.0)
    assert together > 0.5 * apart > 100


def test_plot_without_semantic_scores(videos, tmp_path):
    found = make_timeline(tiny_assessor(), videos["short"])
    plot_timeline(found, tmp_path / "x.svg")
    text = (tmp_path / "x.svg").read_text(encoding="utf-8")
    assert "<!-- motion -->" in text and "<!-- semantic -->" not in text

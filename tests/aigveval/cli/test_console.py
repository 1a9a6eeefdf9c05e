"""What the command line shows."""

import io
import json
from dataclasses import replace

import pytest

from aigveval.assessment import SCORE_FIELDS, Assessment, Contributions, Score
from aigveval.cli.console import (
    print_explanations,
    print_json,
    print_results,
    say,
    video_progress,
)


def scored(video: str) -> Assessment:
    scores = {name: Score(3.25, 0.5, low=2.5, high=4.125) for name in SCORE_FIELDS}
    return Assessment(
        video=video, prompt=None, model="m", version="1", seconds=1.0, familiarity=50.0, **scores
    )


def test_nothing_has_no_sign_of_less(capsys):
    moved = Contributions(
        baseline=3.0, technical=0.25, motion=-0.001, semantic=None, residue=-0.00001
    )
    print_explanations([replace(scored("a.mp4"), contributions=moved)])
    told = "overall 3.25 = 3.00 without evidence +0.25 technical +0.00 motion +0.00 by their"
    assert told in capsys.readouterr().out


def test_the_rate_of_videos_that_come_in_batches():
    now = [0.0]
    bar = video_progress(quiet=True)
    bar.get_time = lambda: now[0]
    task = bar.add_task("scoring", total=24)
    for now[0] in (16.0, 32.0):
        for _ in range(8):
            bar.advance(task)
        assert bar.tasks[0].speed == pytest.approx(0.5)
    assert bar.tasks[0].time_remaining == 16
    now[0] = 80.0  # a batch may take longer than the half minute that rich looks back
    bar.advance(task)
    assert bar.tasks[0].speed == pytest.approx(17 / 80)


@pytest.mark.parametrize("quiet, terminal", [(False, False), (True, False), (False, True)])
def test_a_log_has_a_line_now_and_then_in_place_of_the_bar(quiet, terminal, monkeypatch, capsys):
    if terminal:
        monkeypatch.setenv("FORCE_COLOR", "1")  # rich's word for one
    now = [0.0]
    bar = video_progress(quiet=quiet)
    bar.get_time = lambda: now[0]
    task = bar.add_task("scoring", total=10_000)
    for now[0] in range(0, 1800, 2):
        for _ in range(4):
            bar.advance(task)
    lines = capsys.readouterr().err.splitlines()
    if quiet or terminal:
        assert lines == []
    else:
        assert lines == [
            "scoring: 1,201 of 10,000, 2.0 videos/s, 1:13:24 left",
            "scoring: 2,401 of 10,000, 2.0 videos/s, 1:03:24 left",
        ]


def test_a_path_stays_readable_on_80_columns(monkeypatch, capsys):
    monkeypatch.setenv("FORCE_COLOR", "1")  # rich's word for a terminal
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "80")
    print_results([scored("clips/a_dog_runs/0001.mp4")] * 2)
    shown = capsys.readouterr().out
    assert "clips/a_dog_runs/0001.mp4" in shown and "3.25" in shown and "[2.5" not in shown
    assert "interval" not in shown
    monkeypatch.setenv("COLUMNS", "120")
    print_results([scored("clips/a_dog_runs/0001.mp4")] * 2)
    shown = capsys.readouterr().out
    assert "clips/a_dog_runs/0001.mp4" in shown and "3.25 [2.5, 4.1]" in shown


def test_means_say_of_how_many_they_are(capsys):
    """A score that some clips lack, as `semantic` without a prompt, is the mean of fewer."""
    rows = [scored("a.mp4"), scored("b.mp4"), replace(scored("c.mp4"), technical=None)]
    print_results(rows)
    assert " mean of 3, technical of 2 " in capsys.readouterr().out
    print_results(rows[:2])
    assert " mean of 2 " in capsys.readouterr().out


def test_names_cannot_move_the_cursor(capsys):
    print_results([scored("a\x1b[2Jb\nc.mp4")])
    say("failed: a\x1b[2Jb\x9b.mp4: 犬🎬 is\nno video")
    out, err = capsys.readouterr()
    assert "a\\x1b[2Jb\\nc.mp4" in out
    assert err == "failed: a\\x1b[2Jb\\x9b.mp4: 犬🎬 is no video\n"


@pytest.mark.parametrize("encoding", ["utf-8", "cp1252", "ascii"])
def test_json_stays_json_whatever_the_output_holds(monkeypatch, encoding):
    written = io.BytesIO()
    stdout = io.TextIOWrapper(written, encoding=encoding, errors="backslashreplace")
    monkeypatch.setattr("sys.stdout", stdout)
    print_json({"prompt": "ein Hund läuft 🎬"})
    stdout.flush()
    text = written.getvalue().decode(encoding)
    assert json.loads(text) == {"prompt": "ein Hund läuft 🎬"}
    assert ("🎬" in text) == (encoding == "utf-8")

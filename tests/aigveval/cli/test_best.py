"""`aigveval best` and `aigveval compare`, with an engine that reads scores out of text files."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from aigveval.assessment import Score
from aigveval.cli.app import app
from aigveval.inference import assessor as assess

from ..engines import TextEngine, text_engine
from ..inference.makers import fake_load


@pytest.fixture
def engine(monkeypatch, tmp_path) -> TextEngine:
    """Two prompts' folders of three clips each; a score is what the file says."""
    engine = text_engine(monkeypatch, tmp_path)
    for folder, scores in (("a dog", "234"), ("a_red_cat", "543")):
        os.mkdir(folder)
        for number, score in enumerate(scores):
            Path(folder, f"{number}.mp4").write_text(score)
    return engine


def run(*arguments: str, code: int = 0):
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == code, result.output
    assert "Traceback" not in result.output
    return result


def cells(result) -> list[list[str]]:
    return [
        [cell.strip() for cell in line.split("│")]
        for line in result.stdout.splitlines()
        if "│" in line
    ]


class TestBest:
    def test_one_contest_from_the_best_to_the_worst(self, engine):
        found = run("best", "a dog", "--prompt", "a dog runs")
        assert engine.prompts == ["a dog runs"] * 3
        assert cells(found) == [
            ["a dog/2.mp4", "4.00", "92 %"],
            ["a dog/1.mp4", "3.00", "8 %"],
            ["a dog/0.mp4", "2.00", "<1 %"],
        ]
        assert "chances are from the spread of the scores" in found.stdout

    def test_a_folder_for_each_prompt(self, engine):
        found = run("best", ".", "--prompts", "folders")
        assert engine.prompts == ["a dog"] * 3 + ["a red cat"] * 3
        assert cells(found) == [
            ["a dog", "a dog/2.mp4", "4.00", "92 %", "3"],
            ["a red cat", "a_red_cat/0.mp4", "5.00", "92 %", "3"],
        ]

    def test_folders_without_prompts(self, engine):
        found = run("best", "a dog", "a_red_cat", "--quiet")
        assert found.stdout == "a dog/2.mp4\na_red_cat/0.mp4\n" and engine.prompts == [None] * 6

    def test_for_programs(self, engine):
        Path("p.csv").write_text("video,prompt\na dog/0.mp4,x\na dog/1.mp4,y\na_red_cat/0.mp4,x\n")
        found = json.loads(run("best", "p.csv", "--by", "semantic", "--json").stdout)
        assert found["by"] == "semantic"
        x, y = found["contests"]
        assert (x["prompt"], x["best"], x["basis"]) == ("x", "a_red_cat/0.mp4", "spread")
        assert [clip["semantic"]["score"] for clip in x["clips"]] == [5.0, 2.0]
        assert sum(clip["chance"] for clip in x["clips"]) == pytest.approx(1)
        assert (y["best"], y["chance"]) == ("a dog/1.mp4", 1.0)

    def test_the_best_of_those_that_can_be_scored(self, engine):
        Path("a dog/2.mp4").write_text("unreadable")
        found = run("best", "a dog", "a dog/gone.mp4", code=1)
        assert cells(found)[0][0] == "a dog/1.mp4"
        assert cells(found)[2:] == [["a dog/2.mp4", "-", "-"], ["a dog/gone.mp4", "-", "-"]]
        assert found.stderr.splitlines() == [
            "failed: a dog/2.mp4: not a video",
            "failed: a dog/gone.mp4: no such file",
        ]

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["gone.mp4"], "nothing to score: gone.mp4: no such file"),
            (["empty"], "no video in the folder empty"),
            (["a dog", "--by", "semantic"], "no video has a score for semantic; it needs prompts"),
            (["a dog", "--fps", "0"], "--fps must be above 0, got 0"),
        ],
    )
    def test_errors(self, engine, arguments, message):
        os.mkdir("empty")
        assert run("best", *arguments, code=2).stderr == f"error: {message}\n"


class TestCompare:
    def test_which_and_how_surely_and_on_what(self, engine, monkeypatch):
        def score(prepared, prompts, **asked):
            scores = {"overall": 0.2, "technical": -0.5, "motion": 2.0, "semantic": -0.001}
            sides = ({n: Score(3 + s * v / 2, 0.5) for n, v in scores.items()} for s in (1, -1))
            return list(sides)

        monkeypatch.setattr(engine, "score", score)
        found = run("compare", "a dog/0.mp4", "a dog/1.mp4", "--prompt", "a dog")
        assert cells(found) == [
            ["overall", "3.10", "2.90", "+0.20", "61 %"],
            ["technical", "2.75", "3.25", "-0.50", "24 %"],
            ["motion", "4.00", "2.00", "+2.00", ">99 %"],
            ["semantic", "3.00", "3.00", "+0.00", "50 %"],
        ]
        assert found.stdout.splitlines()[-1] == (
            "a dog/0.mp4 is better, with a chance of 61 % by the spread of the scores; "
            "it is surest on motion, where a dog/0.mp4 is better with >99 %"
        )

    def test_the_same_clip_twice(self, engine):
        found = run("compare", "a dog/0.mp4", "a dog/0.mp4")
        assert found.stdout.splitlines()[-1] == (
            "neither is better: a chance of 50 % by the spread of the scores"
        )

    def test_for_programs(self, engine):
        arguments = ["compare", "a dog/0.mp4", "a dog/1.mp4"]
        found = json.loads(run(*arguments, "--json").stdout)
        assert (found["better"], found["chance"]) == ("a dog/1.mp4", 0.9214)
        assert found["chances"]["motion"] == pytest.approx(1 - 0.9214, abs=1e-4)
        assert found["differences"] == {"overall": -1, "technical": -1, "motion": -1}
        assert [clip["video"] for clip in found["clips"]] == arguments[1:]
        assert run(*arguments, "--quiet").stdout == "a dog/1.mp4\n"

    def test_one_that_cannot_be_scored(self, engine):
        found = run("compare", "a dog/0.mp4", "gone.mp4", code=1)
        assert (found.stdout, found.stderr) == ("", "failed: gone.mp4: no such file\n")


def test_numbered_pictures_are_videos_of_the_command_line(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(assess, "load", fake_load())
    for name, level in (("dark", 40), ("light", 200)):
        (tmp_path / "out" / name).mkdir(parents=True)
        for number in range(3):
            picture = np.full((32, 32, 3), level, np.uint8)
            Image.fromarray(picture).save(f"out/{name}/frame_{number}.png")
    Path("out/light/notes.txt").touch()
    Path("out/thumb.png").touch()
    for inputs in (["out"], ["out/dark", "out/light"], ["out/*/*.png"], ["out/*"]):
        found = run("best", *inputs, "--prompt", "a dog", "--fps", "8", "--json")
        (contest,) = json.loads(found.stdout)["contests"]
        videos = sorted(clip["video"] for clip in contest["clips"])
        end = "/*.png" if "*.png" in inputs[0] else ""
        assert videos == [f"out/dark{end}", f"out/light{end}"]

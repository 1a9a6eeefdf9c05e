"""`aigveval data` on the command line."""

import errno
import json
import os
from pathlib import Path

import pytest
from typer.testing import CliRunner

from aigveval.cli.app import app
from aigveval.data.adapters import list_adapters
from aigveval.data.manifest import iter_manifest
from aigveval.data.readers import read_rows


@pytest.fixture(autouse=True)
def inside(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    lines = [f"{n}.mp4|prompt {n % 10}|{n % 5 + 1}" for n in range(50)]
    Path("x_train.txt").write_text("\n".join(lines))
    Path("x_test.txt").write_text("".join(f"t{n}.mp4|Prompt {n + 5}\n" for n in range(10)))


def run(*arguments, code=0):
    result = CliRunner().invoke(app, ["data", *map(str, arguments)])
    assert result.exit_code == code, (result.output, result.exception)
    return result


def test_from_a_data_set_to_folds():
    result = run("convert", "ntire2025", "x_train.txt", "x_test.txt", "--out", "m.csv")
    assert result.stdout == "60 rows are in m.csv; known: overall 50\n"
    result = run("check", "m.csv", "--files", "none", "--json", "check.json")
    assert "60 rows, 60 videos, 15 distinct prompts\nparts: train 50, test 10\n" in result.stdout
    assert "all rows are sound (files were not looked at)" in result.stdout
    assert result.stderr.splitlines() == [
        "note: 5 of 10 distinct prompts of test also occur in train",
        "the picture is in check.png",
    ]
    assert os.path.getsize("check.png") > 10_000
    assert json.loads(Path("check.json").read_text())["scores"]["overall"]["mean"] == 3
    result = run("split", "m.csv", "--only", "train", "--folds", 5, "--out", "folds")
    assert result.stderr == "note: as given, 5 of 10 distinct prompts of test also occur in train\n"
    assert result.stdout.count("       10 rows (20.0%) in folds/fold") == 5
    assert "no two parts share a prompt, a generator or a video" in result.stdout
    (row, *_) = iter_manifest("folds/fold0/valid.csv")
    assert Path(row.path).resolve().parent == Path.cwd()


def test_scale_is_mapped():
    Path("m.csv").write_text("video,overall\na.mp4,50\n")
    result = run("convert", "manifest", "m.csv", "--scale", "0:100", "--out", "m.jsonl")
    assert result.stdout == ("1 rows are in m.jsonl; known: overall 1, mapped from 0-100 to 1-5\n")
    assert list(read_rows("m.jsonl"))[0][1]["overall"] == 3.0


@pytest.mark.parametrize(
    "adapter, option, scale",
    [("manifest", [], "1-5"), ("manifest", ["--scale", "0:9"], "0-9"), ("t2veval", [], "0-5")],
)
def test_a_score_off_the_scale_names_the_option(adapter, option, scale):
    Path("m.csv").write_text("video,overall\na.mp4,50\n" if adapter == "manifest" else "a.mp4,50\n")
    result = run("convert", adapter, "m.csv", *option, "--out", "m.jsonl", code=2)
    assert result.stderr.endswith(
        f": overall must lie in {scale}, got 50; scores are taken to be on {scale}; "
        "--scale LOW:HIGH says otherwise\n"
    )


def test_findings_that_cannot_be_written_leave_the_earlier_ones(monkeypatch):
    def full(*paths):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    Path("m.csv").write_text("video,overall\na.mp4,3\n")
    Path("check.json").write_text("earlier")
    monkeypatch.setattr(os, "replace", full)
    arguments = ["m.csv", "--files", "none", "--no-picture", "--json", "check.json"]
    result = run("check", *arguments, code=2)
    assert result.stderr == "error: check.json: cannot be written: No space left on device\n"
    assert Path("check.json").read_text() == "earlier"


def test_check_of_what_is_not_sound():
    Path("m.csv").write_text("video,overall\na.mp4,50\nb.mp4,3\n")
    result = run("check", "m.csv", "--no-picture", code=1)
    assert result.stderr.splitlines() == [
        "wrong: row 2: overall must lie in 1-5, got 50",
        "note: scores are taken to be on 1-5; --scale LOW:HIGH says otherwise",
        "failed: row 3: b.mp4: no such file",
        "not sound: 1 wrong rows, 1 missing files",
    ]
    assert not os.path.exists("check.png")
    assert run("check", "m.csv", "--no-picture", "--quiet", code=1).output == ""


def test_split_tells_what_parts_share():
    run("convert", "ntire2025", "x_train.txt", "--out", "m.jsonl")
    result = run("split", "m.jsonl", "--by", "random", "--parts", "a=1,b=1", "--out", "parts")
    assert result.stderr.splitlines() == ["note: 10 of 10 distinct prompts of b also occur in a"]
    assert sorted(os.listdir("parts")) == ["a.jsonl", "b.jsonl"]


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["check", "gone.csv"], "gone.csv: No such file or directory"),
        (
            ["check", "x_train.txt"],
            "x_train.txt: a manifest is one of .json, .jsonl, .csv, .parquet",
        ),
        (
            ["check", "m.csv", "--scale", "5"],
            "a scale is LOW:HIGH with LOW below HIGH, such as 0:100, got '5'",
        ),
        (["check", "m.csv", "--picture", "x.jpg"], "x.jpg: the picture is a .png file"),
        (
            ["check", "m.csv", "--files", "none", "--no-picture", "--json", "no/check.json"],
            "no/check.json: cannot be written: No such file or directory",
        ),
        (
            ["convert", "ntire", "x_train.txt", "--out", "m.csv"],
            f"no adapter 'ntire'; did you mean ntire2025? There are {', '.join(list_adapters())}",
        ),
        (
            ["convert", "ntire2025", "x_train.txt", "--out", "out.xml"],
            "out.xml: a manifest is written as one of .json, .jsonl, .csv, .parquet",
        ),
        (
            ["split", "m.csv", "--out", "o", "--by", "generator"],
            "m.csv: row 2 has no generator, which the split goes by",
        ),
        (
            ["split", "m.csv", "--out", "o", "--parts", "all"],
            "parts are two or more NAME=SHARE, such as train=0.8,test=0.2, got 'all'",
        ),
    ],
)
def test_errors_are_one_line(arguments, message):
    Path("m.csv").write_text("video\na.mp4\n")
    result = run(*arguments, code=2)
    assert result.stderr.replace(f"{Path.cwd()}/", "") == f"error: {message}\n"
    assert sorted(os.listdir()) == ["m.csv", "x_test.txt", "x_train.txt"]


def test_a_manifest_without_scores_is_told_their_columns():
    Path("m.csv").write_text("video,prompt,mos\na.mp4,a,3\nb.mp4,b,4\n")
    result = run("check", "m.csv", "--files", "none", "--no-picture")
    columns = "technical, motion, semantic, overall"
    assert f"no row has a score; columns of scores are {columns}\n" in result.stdout
    Path("pairs.csv").write_text("video_a,video_b,prompt,overall\na.mp4,b.mp4,a,A\n")
    result = run("check", "pairs.csv", "--files", "none", "--no-picture")
    assert "no row has a score" not in result.stdout


def test_help_names_every_adapter_and_column():
    told = run("convert", "--help").stdout
    assert all(name in told for name in list_adapters())
    told = run("--help").stdout
    assert all(name in told for name in ("check", "convert", "split", "technical_rater1"))

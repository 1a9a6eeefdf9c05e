"""The NTIRE zip, and what is wrong with names."""

import json
import unicodedata
import zipfile
from pathlib import Path

import pytest
from typer.testing import CliRunner

from aigveval.cli.app import app
from aigveval.errors import InputError
from aigveval.evaluation.ntire import Readme, read_names

OPTIONS = ["--hardware", "gpu", "--no-extra-data", "--runtime", "1.25", "--description", "ours"]


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("names.txt").write_text("b.mp4|a | dog\na.mp4|a cat|3.5\r\n\nc.mp4|x\n")
    return tmp_path


def _submit(rows, *options: str, code: int):
    Path("p.json").write_text(json.dumps(rows))
    result = CliRunner().invoke(app, ["submit", "p.json", "names.txt", *OPTIONS, *options])
    assert result.exit_code == code, result.output
    return result.output


def _rows(**scores):
    return [{"video": f"clips/{n}.mp4", "predict_score": s} for n, s in scores.items()]


def test_zip_has_names_in_order_and_the_readme(folder):
    _submit(_rows(a=3.25, b=1.0, c=4.5), code=0)
    with zipfile.ZipFile("submission.zip") as archive:
        assert archive.namelist() == ["output.json", "readme.txt"]
        assert json.loads(archive.read("output.json")) == [
            {"video": "b.mp4", "predict_score": 1.0},
            {"video": "a.mp4", "predict_score": 3.25},
            {"video": "c.mp4", "predict_score": 4.5},
        ]
        assert archive.read("readme.txt").decode() == (
            "runtime per video [s] : 1.25\nCPU[1] / GPU[0] : 0\n"
            "Extra Data [1] / No Extra Data [0] : 0\nLLM [1] / No LLM [0] : 1\n"
            "Other description : ours\n"
        )


def test_equal_scores_give_equal_bytes(folder):
    _submit(_rows(a=3.25, b=1.0, c=4.5), code=0)
    first = Path("submission.zip").read_bytes()
    _submit(_rows(c=4.5, b=1.0, a=3.25), "--out", "again.zip", code=0)
    assert Path("again.zip").read_bytes() == first


def test_wrong_names_are_listed_and_nothing_is_written(folder):
    rows = _rows(a=3.0, b=2.0, x=1.0) + [{"video": "other/a.mp4", "predict_score": 4.0}]
    rows.append({"video": "c.mp4", "overall": None, "error": "no such file"})
    output = _submit(rows, code=1)
    assert "1 missing:\n  c.mp4 (no such file)\n" in output
    assert "1 extra:\n  x.mp4\n" in output
    assert "1 duplicate:\n  a.mp4\n" in output
    assert not Path("submission.zip").exists()


@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_accents_match_however_they_are_stored(folder, form):
    other = "NFD" if form == "NFC" else "NFC"
    wanted = unicodedata.normalize(form, "für-é.mp4")
    Path("names.txt").write_text(f"{wanted}|a dog\n", encoding="utf-8")
    _submit([{"video": unicodedata.normalize(other, wanted), "overall": 3.0}], code=0)
    with zipfile.ZipFile("submission.zip") as archive:
        written = json.loads(archive.read("output.json"))
    assert written == [{"video": wanted, "predict_score": 3.0}]


def test_extra_names_can_be_dropped(folder):
    rows = _rows(a=3.0, b=2.0, c=1.0, x=1.0)
    _submit(rows, code=1)
    assert "3 scores are in submission.zip" in _submit(rows, "--drop-extra", code=0)


def test_runtime_and_model_come_from_results(folder):
    rows = [
        {"video": f"{n}.mp4", "overall": {"score": 3.0, "std": 0.5}, "model": "lite", "seconds": s}
        for n, s in zip("abc", (1.0, 2.0, 6.0))
    ]
    Path("p.json").write_text(json.dumps(rows))
    command = ["submit", "p.json", "names.txt", "--hardware", "cpu", "--extra-data"]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0, result.output
    assert "runtime per video [s] : 3\nCPU[1] / GPU[0] : 1\n" in result.output
    assert "model lite" in result.output


@pytest.mark.parametrize(
    "options, message",
    [
        (
            [],
            "p.json: does not tell the runtime: give --runtime; and the model: give a "
            "--description\n",
        ),
        (["--runtime", "0", "--description", "x"], "the runtime must be above 0 seconds, got 0"),
        (["--runtime", "1"], "does not tell the model"),
        (
            ["--runtime", "1", "--description", "x", "--out", "s.tar"],
            "s.tar: a submission is a .zip",
        ),
        (["--runtime", "1", "--description", "x", "--score", "beauty"], "'beauty' is no score"),
        (["--score", "motion", "--column", "motion"], "--score and --column exclude each other"),
        (["--runtime", "1", "--description", ""], "the description is empty"),
    ],
)
def test_what_is_lacking_is_said_in_a_line(folder, options, message):
    Path("p.json").write_text(json.dumps(_rows(a=3.0, b=2.0, c=1.0)))
    command = ["submit", "p.json", "names.txt", "--hardware", "cpu", "--extra-data", *options]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 2
    assert message in result.output and "Traceback" not in result.output


def test_wrong_names_are_listed_before_the_readme_is_asked_for(folder):
    Path("p.json").write_text(json.dumps(_rows(a=3.0, b=2.0, x=1.0)))
    command = ["submit", "p.json", "names.txt", "--hardware", "cpu", "--extra-data"]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 1 and "1 missing:\n  c.mp4\n" in result.output


def test_bad_names(folder):
    Path("names.txt").write_text("a prompt without a video\n")
    with pytest.raises(InputError, match="names.txt: line 1 begins with no video"):
        read_names("names.txt")
    with pytest.raises(InputError, match="nowhere.txt: No such file"):
        read_names("nowhere.txt")
    Path("names.jsonl").write_text('{"video": null}')
    with pytest.raises(InputError, match="names.jsonl: row 1: video must be a path, got None"):
        read_names("names.jsonl")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_a_prompt_with_ends_of_lines_of_its_own_is_one_line(folder, encoding):
    Path("names.txt").write_text("a.mp4|two\u2028lines\r\nb.mp4|x\x85y|3.2\n", encoding=encoding)
    assert read_names("names.txt") == ["a.mp4", "b.mp4"]


def test_a_description_stays_one_line():
    readme = Readme(
        runtime_seconds=1, cpu=True, extra_data=False, llm=False, description="two\nlines"
    )
    assert str(readme).endswith("Other description : two lines\n")


def test_the_organisers_lists(data_dir):
    annotations = data_dir / "annotations"
    test = read_names(annotations / "ntire2025_test.txt")
    assert len(test) == len(set(test)) == 6807 and test[0] == "27223.mp4"

"""Rows and the files they are kept in."""

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import pandas
import pytest

from aigveval.assessment import SCORE_FIELDS, Assessment, Score
from aigveval.errors import one_line
from aigveval.reports.results import ResultsError, ResultsFile, read_results, take_earlier

SUFFIXES = (".jsonl", ".csv", ".parquet")
ROW_FIELDS = [
    "video",
    "prompt",
    "overall",
    "technical",
    "motion",
    "semantic",
    "model",
    "version",
    "seconds",
    "error",
    "warnings",
]


def scored(video="a.mp4", prompt="a dog", *, overall=3.25, model="lite", **fields) -> Assessment:
    scores = {name: Score(overall, 0.5) for name in SCORE_FIELDS}
    if prompt is None:
        scores["semantic"] = None
    return Assessment(
        video=video, prompt=prompt, model=model, version="0.1.0", seconds=1.5, **scores, **fields
    )


def failed(video="bad.mp4", error="empty file") -> Assessment:
    return Assessment(video=video, model="lite", version="0.1.0", seconds=0.0, error=error)


ODD_ROWS = [
    scored("a.mp4"),
    scored('b, "quoted".mp4', 'with, commas; "quotes"\nand\r\nline breaks\u2028too'),
    scored("中文.mp4", "一只狗在沙滩上奔跑"),
    scored("no prompt.mp4", None),
    failed(),
    scored("long.mp4", "long " * 2000),
    scored("=1+1.mp4", "\ttab"),
]


class TestScore:
    @pytest.mark.parametrize("score", [1.0, 5.0, 3])
    def test_takes_the_scale(self, score):
        assert Score(score, 0.0).score == score

    @pytest.mark.parametrize("score", [0.99, 5.01, float("nan"), float("inf")])
    def test_rejects_what_is_off_the_scale(self, score):
        message = f"score must be finite and in 1..5, got {score}"
        with pytest.raises(ValueError) as caught:
            Score(score, 0.5)
        assert str(caught.value) == message

    @pytest.mark.parametrize("std", [-0.1, 2.1, float("nan")])
    def test_rejects_impossible_spread(self, std):
        with pytest.raises(ValueError, match=r"^std must be finite and in 0\.\.2"):
            Score(3.0, std)

    def test_rejects_text(self):
        with pytest.raises(ValueError, match="^score must be a number, got '3'$"):
            Score("3", 0.5)  # type: ignore[arg-type]


class TestAssessment:
    def test_row_has_exactly_the_documented_fields(self):
        row = scored().to_dict()
        assert list(row) == ROW_FIELDS
        assert row["technical"] == {"score": 3.25, "std": 0.5}
        assert scored(prompt=None).to_dict()["semantic"] is None

    @pytest.mark.parametrize("row", ODD_ROWS, ids=lambda row: one_line(row.video, limit=20))
    def test_survives_json(self, row):
        assert Assessment.from_dict(json.loads(json.dumps(row.to_dict()))) == row

    def test_from_dict_names_what_is_missing(self):
        row = scored().to_dict()
        del row["model"]
        with pytest.raises(ValueError, match="^no 'model' in the row$"):
            Assessment.from_dict(row)

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"technical": 3.0}, r'^a score must be \{"score", "std"\} or null$'),
            ({"video": None}, "^video must be text, got None$"),
            ({"seconds": -1}, r"^seconds must be finite"),
            ({"error": "x"}, "^an assessment with an error cannot have scores"),
            ({"overall": None}, "^an assessment without an error needs an overall score$"),
        ],
    )
    def test_from_dict_rejects(self, change, message):
        with pytest.raises(ValueError, match=message):
            Assessment.from_dict(scored().to_dict() | change)

    @pytest.mark.parametrize("error", ["", "two\nlines"])
    def test_error_is_one_line(self, error):
        with pytest.raises(ValueError, match="^error must be one line of text"):
            failed(error=error)


@pytest.mark.parametrize("suffix", SUFFIXES)
class TestFiles:
    def test_round_trip(self, tmp_path, suffix):
        path = tmp_path / "new folder" / f"results{suffix}"
        with ResultsFile(path) as results:
            for row in ODD_ROWS:
                results.write(row)
        assert read_results(path) == ODD_ROWS
        assert os.listdir(path.parent) == [path.name]  # nothing temporary is left

    def test_rows_are_on_disk_after_a_kill(self, tmp_path, suffix):
        path = tmp_path / f"results{suffix}"
        code = (
            "import os, sys\n"
            "from tests.aigveval.test_assessment import ODD_ROWS\n"
            "from aigveval.reports.results import ResultsFile\n"
            "results = ResultsFile(sys.argv[1], keep=ODD_ROWS[:2])\n"
            "for row in ODD_ROWS[2:5]: results.write(row)\n"
            "os._exit(9)\n"
        )
        root = Path(__file__).parents[2]
        assert subprocess.run([sys.executable, "-c", code, path], cwd=root).returncode == 9
        assert read_results(path) == ODD_ROWS[:5]
        earlier = take_earlier(path, {row.key() for row in ODD_ROWS}, resume=True)
        with ResultsFile(path, keep=list(earlier.done.values())) as results:
            for row in ODD_ROWS[4:]:
                results.write(row)
        assert read_results(path) == ODD_ROWS
        assert os.listdir(tmp_path) == [path.name]

    def test_final_order(self, tmp_path, suffix):
        path = tmp_path / f"results{suffix}"
        with ResultsFile(path) as results:
            for row in reversed(ODD_ROWS):
                results.write(row)
            results.close(rows=ODD_ROWS)
        assert read_results(path) == ODD_ROWS

    def test_refuses_a_file_of_someone_else(self, tmp_path, suffix):
        path = tmp_path / f"prompts{suffix}"
        path.write_text("video,prompt\na.mp4,a dog\n")
        for resume in (False, True):
            with pytest.raises(ResultsError) as caught:
                take_earlier(path, set(), resume=resume)
            message = str(caught.value)
            assert message.startswith(f"{path}: not a file of results: ")
            assert message.endswith("; choose another file for the results")
            assert "\n" not in message
        assert path.read_text() == "video,prompt\na.mp4,a dog\n"

    def test_same_work_is_replaced(self, tmp_path, suffix):
        path = tmp_path / f"results{suffix}"
        write(path, ODD_ROWS)
        earlier = take_earlier(path, [row.key() for row in ODD_ROWS], resume=False)
        assert earlier.note == f"{path}: earlier results replaced"
        assert (earlier.done, earlier.others) == ({}, [])
        assert os.listdir(tmp_path) == [path.name]

    def test_other_work_is_kept_aside(self, tmp_path, suffix):
        path = tmp_path / f"results{suffix}"
        for number in (1, 2):
            write(path, ODD_ROWS)
            earlier = take_earlier(path, [ODD_ROWS[0].key()], resume=False)
            old = tmp_path / f"results.old-{number}{suffix}"
            assert earlier.note == f"{path}: earlier results kept as {old}"
            assert read_results(old) == ODD_ROWS

    def test_resume_takes_scores_and_drops_failures(self, tmp_path, suffix):
        path = tmp_path / f"results{suffix}"
        other, again, bad = scored("other.mp4"), scored("again.mp4"), failed("bad.mp4")
        write(path, [other, again, bad, scored("again.mp4", model="old")])
        earlier = take_earlier(path, [again.key(), bad.key()], resume=True)
        assert earlier.done == {again.key(): again}
        assert earlier.others == [other, scored("again.mp4", model="old")]
        assert earlier.note is None

    def test_empty_file_is_no_obstacle(self, tmp_path, suffix):
        path = tmp_path / f"results{suffix}"
        path.touch()
        assert take_earlier(path, [], resume=True).done == {}


def write(path, rows) -> None:
    with ResultsFile(path) as results:
        for row in rows:
            results.write(row)


@pytest.mark.parametrize("suffix", [".jsonl", ".csv"])
def test_row_cut_short_is_dropped(tmp_path, suffix):
    path = tmp_path / f"results{suffix}"
    write(path, ODD_ROWS[:3])
    whole = path.read_bytes()
    write(path, ODD_ROWS[:2])
    start = len(path.read_bytes())
    for cut in range(start + 1, len(whole)):
        path.write_bytes(whole[:cut])
        # A JSON row that lacks nothing but its line break is whole.
        whole_row = suffix == ".jsonl" and cut == len(whole) - 1
        assert read_results(path) == ODD_ROWS[: 3 if whole_row else 2]


def test_csv_opens_in_spreadsheets_and_pandas(tmp_path):
    path = tmp_path / "results.csv"
    write(path, ODD_ROWS)
    assert path.read_bytes().startswith(b"\xef\xbb\xbfvideo,prompt,overall,overall_std,technical,")
    table = pandas.read_csv(path)
    assert list(table.video) == [row.video for row in ODD_ROWS]
    assert table.technical.tolist()[0] == 3.25 and table.technical_std.tolist()[0] == 0.5
    assert table.semantic.isna().tolist() == [row.semantic is None for row in ODD_ROWS]


def test_parquet_nests_scores(tmp_path):
    path = tmp_path / "results.parquet"
    write(path, ODD_ROWS)
    table = pandas.read_parquet(path)
    assert list(table.columns) == ROW_FIELDS
    assert table.technical[0] == {"score": 3.25, "std": 0.5}
    assert table.semantic[3] is None


def test_parquet_without_any_scored_row(tmp_path):
    path = tmp_path / "results.parquet"
    write(path, [failed()])
    assert read_results(path) == [failed()]


@pytest.mark.parametrize(
    ("name", "found"), [("results.txt", "has the suffix .txt"), ("results", "has no suffix")]
)
def test_unknown_suffix(name, found):
    message = f"{name}: {found}; results are written as .jsonl, .csv, .parquet"
    for use in (ResultsFile, read_results, lambda path: take_earlier(path, [], resume=False)):
        with pytest.raises(ResultsError) as caught:
            use(name)
        assert str(caught.value) == message


def test_file_that_is_not_text(tmp_path):
    path = tmp_path / "results.csv"
    path.write_bytes(b"\xff\xfe\x00\n")
    with pytest.raises(ResultsError, match="not a file of results, as it is not UTF-8 text"):
        read_results(path)


def test_files_that_no_reader_comes_to_the_end_of(tmp_path):
    for name, text in (("a.csv", "a,b\n" + "x" * 200_000), ("a.jsonl", "[" * 10**5 + "\n{}\n")):
        (tmp_path / name).write_text(text)
        with pytest.raises(ResultsError, match=f"{name}: not a file of results: "):
            read_results(tmp_path / name)


def test_folder_in_the_way(tmp_path):
    (tmp_path / "results.csv").mkdir()
    (tmp_path / "file").touch()
    with pytest.raises(ResultsError, match="results.csv: not a file, results need one$"):
        take_earlier(tmp_path / "results.csv", [], resume=False)
    with pytest.raises(ResultsError, match="results.csv: cannot be written, as .*file is not a fo"):
        take_earlier(tmp_path / "file" / "sub" / "results.csv", [], resume=False)


def test_full_disk_is_one_line(tmp_path, monkeypatch):
    def no_room(*arguments):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    path = tmp_path / "results.jsonl"
    with ResultsFile(path) as results:
        results.write(ODD_ROWS[0])
        monkeypatch.setattr(results, "_append", no_room)
        with pytest.raises(ResultsError) as caught:
            results.write(ODD_ROWS[1])
    assert str(caught.value) == f"{path}: cannot be written: No space left on device"
    assert read_results(path) == ODD_ROWS[:1]

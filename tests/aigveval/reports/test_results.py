"""Rows with explanations and contributions, and the files that hold them."""

import csv
import json
import os
import tempfile
from dataclasses import replace

import pandas
import pytest

from aigveval.assessment import SCORE_FIELDS, Assessment, Contributions, Score
from aigveval.cli.console import print_explanations, print_results
from aigveval.evaluation.ratings import read_predictions
from aigveval.reports.results import (
    ResultsError,
    ResultsFile,
    only_writer,
    read_results,
    take_earlier,
)
from prompts import Defect
from prompts.facts import Fact

from ..test_assessment import SUFFIXES, failed, scored

MOVED = Contributions(baseline=3.1, residue=-0.05, technical=0.4, motion=-0.25, semantic=0.05)
DEFECTS = (
    Defect(name="low_resolution", severity=4),
    Defect(name="freeze", severity=2, start_seconds=0.6, end_seconds=1.4),
)
TEXT = {"technical": 'sharp, "crisp"; fine.', "motion": "steady.", "semantic": "c'est ça."}

FACTS = (
    Fact(kind="speed", value=0.25, percentile=70),
    Fact(kind="freeze", value=0.8, start_seconds=0.6, end_seconds=1.4),
    Fact(
        kind="changes",
        name="cat",
        other="dog",
        confidence=0.75,
        start_seconds=1.0,
        end_seconds=2.0,
        at_seconds=1.0,
        box=(0.1, 0.25, 0.5, 1.0),
    ),
)


def explained(video="e.mp4", **fields) -> Assessment:
    values = {"explanation": TEXT, "defects": DEFECTS, "problems": (), "contributions": MOVED}
    return scored(video, **values | fields)


ROWS = [
    explained("all.mp4"),
    explained("none.mp4", defects=()),
    explained(
        "unread.mp4",
        explanation={},
        defects=None,
        problems=("unexpected_line: a, b", "no_answer: c: d"),
    ),
    explained(
        "one dimension.mp4",
        prompt=None,
        explanation={"motion": "shaky."},
        contributions=Contributions(baseline=1.0, residue=0.0, motion=2.25),
    ),
    explained("facts.mp4", evidence=FACTS, advice=("cut it, at 1 s", "say so")),
    explained("no facts.mp4", evidence=(), advice=()),
    explained("numbers.mp4", explanation=None, defects=None, problems=None),
    scored("plain.mp4"),
    failed(),
]


class TestRow:
    def test_extras(self):
        assert [row.extras for row in ROWS] == [["explanation", "contributions"]] * 4 + [
            ["explanation", "contributions", "evidence"],
            ["explanation", "contributions", "evidence"],
            ["contributions"],
            [],
            [],
        ]

    def test_keys_are_there_only_with_something_in_them(self):
        plain = list(scored().to_dict())
        assert list(ROWS[0].to_dict()) == [
            *plain,
            "explanation",
            "defects",
            "problems",
            "contributions",
        ]
        assert list(ROWS[4].to_dict())[-3:] == ["contributions", "evidence", "advice"]
        assert list(ROWS[6].to_dict()) == [*plain, "contributions"]
        assert list(failed().to_dict()) == plain

    def test_documented_form(self):
        row = ROWS[0].to_dict()
        assert row["defects"] == [
            {
                "name": "low_resolution",
                "dimension": "technical",
                "severity": 4,
                "start_seconds": None,
                "end_seconds": None,
            },
            {
                "name": "freeze",
                "dimension": "motion",
                "severity": 2,
                "start_seconds": 0.6,
                "end_seconds": 1.4,
            },
        ]
        assert row["contributions"] == {
            "technical": 0.4,
            "motion": -0.25,
            "semantic": 0.05,
            "sum": 0.2,
            "residue": -0.05,
            "baseline": 3.1,
        }

    @pytest.mark.parametrize("row", ROWS, ids=lambda row: row.video)
    def test_survives_json(self, row):
        assert Assessment.from_dict(json.loads(json.dumps(row.to_dict()))) == row

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"explanation": {"sound": "x"}}, "^an explanation is about "),
            ({"explanation": "text"}, "^an explanation or contributions of another form: "),
            ({"problems": None}, "^an explanation or contributions of another form: "),
            ({"defects": [{"name": "wobble", "severity": 1}]}, "^unknown defect 'wobble'; known: "),
            ({"defects": [{"name": "blur", "severity": 6}]}, "^severity must be an integer 1-5"),
            ({"evidence": []}, "^no 'advice' in the row$"),
            ({"evidence": [{"kind": "x"}], "advice": []}, "^kind must be one of seen, "),
            ({"evidence": [3], "advice": []}, "^an explanation or contributions of another form: "),
            ({"contributions": {"baseline": 3.0}}, "^an explanation or contributions of another"),
            ({"contributions": {"baseline": 9.0, "residue": 0}}, "^baseline must be finite and in"),
        ],
    )
    def test_rejects(self, change, message):
        with pytest.raises(ValueError, match=message):
            Assessment.from_dict(ROWS[0].to_dict() | change)

    def test_no_explanation_of_a_failure(self):
        with pytest.raises(ValueError, match=r"cannot have scores, got \['contributions'\]$"):
            Assessment.from_dict(failed().to_dict() | {"contributions": MOVED.to_dict()})
        with pytest.raises(ValueError, match="^explanation and problems must be both given or"):
            scored(problems=())


@pytest.mark.parametrize("suffix", SUFFIXES)
class TestFiles:
    @pytest.mark.parametrize("order", [1, -1])
    def test_round_trip_whichever_row_comes_first(self, tmp_path, suffix, order):
        path = tmp_path / f"r{suffix}"
        with ResultsFile(path) as results:
            for row in ROWS[::order]:
                results.write(row)
                if suffix != ".parquet":
                    assert read_results(path)[-1] == row  # on disk at once
        assert read_results(path) == ROWS[::order]
        with ResultsFile(path, keep=ROWS[::order]):
            pass
        assert read_results(path) == ROWS[::order] and os.listdir(tmp_path) == [path.name]

    def test_a_file_that_is_removed_meanwhile_is_made_anew(self, tmp_path, suffix):
        path = tmp_path / f"r{suffix}"
        with ResultsFile(path, keep=[ROWS[0]]) as results:
            for row in ROWS[1:]:
                results._stream_path.unlink()
                results.write(row)
            results._stream_path.unlink()
        assert read_results(path) == ROWS

    def test_a_file_that_another_command_replaces_is_left_alone(self, tmp_path, suffix):
        path = tmp_path / f"r{suffix}"
        with pytest.raises(ResultsError) as caught, ResultsFile(path) as results:
            results.write(ROWS[0])
            other = ResultsFile(path, keep=ROWS[:1])
            other.write(ROWS[1])
            results.write(ROWS[2])
        assert str(caught.value) == f"{path}: another command has replaced it; give each its own"
        other.close()
        assert read_results(path) == ROWS[:2]

    def test_without_extras_the_file_is_as_ever(self, tmp_path, suffix):
        path = tmp_path / f"r{suffix}"
        with ResultsFile(path, keep=[scored(), failed()]):
            pass
        if suffix == ".parquet":
            found = list(pandas.read_parquet(path))
        elif suffix == ".csv":
            found = list(pandas.read_csv(path))
        else:
            found = list(json.loads(path.read_text().splitlines()[0]))
        assert found[-4:] == ["version", "seconds", "error", "warnings"]

    def test_a_folder_whose_name_is_not_utf8(self, tmp_path, suffix):
        path = tmp_path / os.fsdecode(b"caf\xe9") / f"r{suffix}"
        with ResultsFile(path) as file:
            for row in ROWS:
                file.write(row)
        assert read_results(path) == ROWS and os.listdir(path.parent) == [path.name]

    def test_what_counts_as_done(self, tmp_path, suffix):
        path = tmp_path / f"r{suffix}"
        with ResultsFile(path, keep=ROWS):
            pass
        keys = {row.key() for row in ROWS}

        def done(*extras):
            return len(take_earlier(path, keys, resume=True, extras=extras).done)

        assert (done(), done("contributions"), done("explanation", "contributions")) == (8, 7, 6)
        assert done("evidence") == 2
        everything = ["explanation", "contributions", "evidence"]
        anew = take_earlier(path, keys, resume=False, extras=everything)
        assert anew.note == f"{path}: earlier results replaced"
        aside = take_earlier(path, keys, resume=False, extras=["contributions"])
        assert aside.note == f"{path}: earlier results kept as {tmp_path}/r.old-1{suffix}"
        assert read_results(tmp_path / f"r.old-1{suffix}") == ROWS


@pytest.mark.skipif(not os.access("/tmp", os.W_OK), reason="without /tmp each has its own place")
def test_one_writer_whatever_the_folder_for_temporary_files(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with only_writer(tmp_path / "r.jsonl"):
        monkeypatch.setattr(tempfile, "tempdir", None)
        with pytest.raises(ResultsError, match="another command is writing it$"):
            with only_writer(tmp_path / "r.jsonl"):
                pass


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_prompt_of_any_length_is_read_again(tmp_path, suffix):
    """Python's reader of CSV takes 131,072 characters, unless it's told otherwise."""
    limit = csv.field_size_limit(131_072)
    row = Assessment(
        video="a.mp4", prompt="a dog " * 50_000, error="x", model="m", version="1", seconds=1
    )
    path = tmp_path / f"results{suffix}"
    with ResultsFile(path) as file:
        file.write(row)
    try:
        assert read_results(path) == [row]
        assert read_predictions(path)[0].prompt == row.prompt
    finally:
        csv.field_size_limit(limit)


def test_a_name_that_no_file_can_have(tmp_path):
    path = tmp_path / f"{'x' * 300}.jsonl"
    with pytest.raises(ResultsError, match=r"x\.jsonl: cannot be written: File name too long$"):
        take_earlier(path, [], resume=False)


def test_cells_of_csv(tmp_path):
    path = tmp_path / "r.csv"
    with ResultsFile(path, keep=ROWS[:3]):
        pass
    with open(path, encoding="utf-8-sig", newline="") as file:
        first, second, third = csv.DictReader(file)
    assert first["defects"] == "low resolution 4; freeze 2 0.6-1.4" and first["problems"] == "none"
    assert first["explanation_technical"] == TEXT["technical"]
    assert (first["contribution_sum"], first["contribution_baseline"]) == ("0.2", "3.1")
    assert second["defects"] == "none"
    assert third["defects"] == "" and third["problems"].splitlines() == [
        "unexpected_line: a, b",
        "no_answer: c: d",
    ]


def test_tables_of_parquet(tmp_path):
    path = tmp_path / "r.parquet"
    with ResultsFile(path, keep=ROWS):
        pass
    table = pandas.read_parquet(path)
    assert table["contributions"][0]["technical"] == 0.4
    assert table["defects"][0][1]["end_seconds"] == 1.4
    assert table["explanation"][3] == {"technical": None, "motion": "shaky.", "semantic": None}


def calibrated(video="c.mp4", **fields) -> Assessment:
    scores = {name: Score(3.25, 0.5, low=2.5, high=4.125) for name in SCORE_FIELDS}
    return replace(scored(video, familiarity=37.5, **fields), **scores)


class TestIntervals:
    @pytest.mark.parametrize("suffix", SUFFIXES)
    def test_round_trip_beside_rows_without(self, suffix, tmp_path):
        rows = [scored("plain.mp4"), calibrated(), failed()]
        with ResultsFile(tmp_path / f"r{suffix}") as file:
            for row in rows:
                file.write(row)
        assert read_results(tmp_path / f"r{suffix}") == rows

    def test_a_row(self):
        row = calibrated().to_dict()
        assert row["familiarity"] == 37.5
        assert row["technical"] == {"score": 3.25, "std": 0.5, "low": 2.5, "high": 4.125}

    def test_columns(self, tmp_path):
        with ResultsFile(tmp_path / "r.csv") as file:
            file.write(calibrated())
        table = pandas.read_csv(tmp_path / "r.csv")
        assert (table.familiarity[0], table.motion_low[0], table.motion_high[0]) == (
            37.5,
            2.5,
            4.125,
        )

    def test_a_run_replaces_rows_that_have_them(self, tmp_path):
        """They come with the model, whatever the run asked for."""
        path = tmp_path / "r.jsonl"
        with ResultsFile(path) as file:
            file.write(calibrated())
        found = take_earlier(path, [calibrated().key()], resume=False)
        assert found.note == f"{path}: earlier results replaced"

    @pytest.mark.parametrize(
        ("ends", "message"),
        [
            ({"low": 3.5, "high": 4.0}, "low must be finite and in 1..3.25, got 3.5"),
            ({"low": 2.0, "high": 3.0}, "high must be finite and in 3.25..5, got 3.0"),
            ({"low": 2.0}, "low and high must be both given or both None"),
        ],
    )
    def test_ends_that_contradict_the_score(self, ends, message):
        with pytest.raises(ValueError) as caught:
            Score(3.25, 0.5, **ends)
        assert str(caught.value) == message

    def test_people_are_told_of_an_unfamiliar_clip(self):
        odd = replace(calibrated(), familiarity=1.5, warnings=("interlaced: deinterlaced",))
        assert calibrated().notes == ()
        assert odd.notes == (
            "interlaced: deinterlaced",
            "unlike what it learnt from (familiarity 1.5)",
        )

    def test_a_row_with_intervals_is_no_explanation(self, capsys):
        print_results([calibrated()])
        print_explanations([calibrated(), explained("e.mp4")])
        shown = capsys.readouterr().out
        assert "3.25 [2.5, 4.1]" in shown and "[80 % interval]" in shown
        assert shown.count("c.mp4") == 1 and "e.mp4" in shown

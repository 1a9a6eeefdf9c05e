"""Rows of manifests with their scores: checked, mapped, written again."""

import json
import math
import os
from pathlib import Path

import pytest

from aigveval.data.manifest import iter_manifest
from aigveval.data.scales import Scale
from aigveval.errors import InputError, ManifestError


@pytest.fixture(autouse=True)
def inside(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def write(name: str, text: str, *, encoding: str = "utf-8") -> str:
    os.makedirs(os.path.dirname(name) or ".", exist_ok=True)
    with open(name, "w", encoding=encoding, newline="") as file:
        file.write(text)
    return name


WRONG = {
    "nothing.csv": ("video,overall\n", "holds no rows"),
    "columns.csv": (
        "clip,mos\na,3\n",
        "row 1, the header, names no column 'video' (or path, "
        "video_path, file_path, file, filename, video_name, video_file), it has clip, "
        "mos",
    ),
    "twice.csv": (
        "video,overall,overall\na,3,4\n",
        "row 1, the header, names the column 'overall' twice",
    ),
    "high.csv": ("video,overall\na,3\nb,5.5\n", "row 3: overall must lie in 1-5, got 5.5"),
    "low.jsonl": ('{"video": "a", "motion": 0}', "row 1: motion must lie in 1-5, got 0"),
    "rater.csv": ("video,motion_rater1\na,9\n", "row 2: motion_rater1 must lie in 1-5, got 9"),
    "nan.csv": ("video,overall\na,3\nb,nan\n", "row 3: overall must be a number, got 'nan'"),
    "nan.json": ('[{"video": "a", "overall": NaN}]', "row 1: overall must be a number, got nan"),
    "infinite.jsonl": (
        '{"video": "a", "overall": Infinity}',
        "row 1: overall must lie in 1-5, got inf",
    ),
    "huge.jsonl": (
        f'{{"video": "a", "overall": 1{"0" * 400}}}',
        f"row 1: overall must be a number, got 1{'0' * 56}...",
    ),
    "comma.csv": ('video,overall\na,"3,5"\n', "row 2: overall must be a number, got '3,5'"),
    "word.csv": ("video,overall\na,good\n", "row 2: overall must be a number, got 'good'"),
    "weight.csv": ("video,weight\na,0\n", "row 2: weight must be above 0, got 0"),
    "semantic.csv": ("video,semantic\na,3\n", "row 2: a semantic score needs a prompt"),
    "path.csv": ("video,overall\n,3\n", "row 2: video must be a path, got ''"),
}


class TestScores:
    @pytest.mark.parametrize("newline", ["\n", "\r\n"])
    @pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
    @pytest.mark.parametrize("name", WRONG)
    def test_wrong_rows_are_named(self, name, encoding, newline):
        text, reason = WRONG[name]
        write(name, text.replace("\n", newline), encoding=encoding)
        with pytest.raises(ManifestError) as error:
            list(iter_manifest(name))
        assert str(error.value) == f"{name}: {reason}"

    def test_wrong_rows_can_be_collected(self):
        path = write(
            "m.jsonl",
            '{"video": "a"}\nnot json\n{"video": "b", "overall": 7}\n[1]\n'
            '{"video": "c", "overall": 2}\n',
        )
        faults = []
        rows = list(iter_manifest(path, on_fault=faults.append))
        assert [row.number for row in rows] == [1, 5]
        assert [(fault.number, str(fault)) for fault in faults] == [
            (2, "row 2 is not JSON: Expecting value"),
            (3, "row 3: overall must lie in 1-5, got 7"),
            (4, "row 4 is not an object: [1]"),
        ]

    def test_all_columns(self):
        path = write(
            "m/rated.csv",
            "video,prompt,overall,technical,technical_rater1,technical_rater2,"
            "generator,group,split,weight,source\n中文.mp4,一只狗,3.5,2,1,3,Wan,g,train,0.5,web\n"
            "b.mp4,,,,,,,,,,\n",
        )
        first, second = iter_manifest(path)
        assert (first.number, first.video, first.path) == (2, "中文.mp4", "m/中文.mp4")
        assert first.prompt == "一只狗" and first.weight == 0.5
        assert first.scores[0] == 2 and first.scores[3] == 3.5 and math.isnan(first.scores[1])
        assert first.raters == {"technical": {"1": 1.0, "2": 3.0}}
        assert (first.generator, first.group, first.split) == ("Wan", "g", "train")
        assert first.extra == {"source": "web"}
        assert (second.prompt, second.generator, second.split) == (None, None, None)
        assert second.weight == 1 and math.isnan(second.raters["technical"]["2"])

    def test_scale(self):
        path = write("m.csv", "video,overall,overall_rater1\na,0,25\nb,62.5,\nc,100,100.0000001\n")
        rows = list(iter_manifest(path, scale=Scale(0, 100)))
        assert [row.scores[-1] for row in rows] == [1.0, 3.5, 5.0]
        assert [row.raters["overall"]["1"] for row in rows[::2]] == [2.0, 5.0]
        with pytest.raises(ManifestError, match="row 2: overall must lie in 1-5, got 0"):
            list(iter_manifest(path))

    def test_records_are_rows_of_another_folder(self, tmp_path):
        write("m/sub/a.mp4", "")
        write("m/b.mp4", "")
        absolute = str(tmp_path / "elsewhere.mp4")
        path = write(
            "m/m.csv",
            "video,prompt,overall,overall_rater7,note\nsub\\a.mp4,A,50,25,x\n"
            f"b.mp4,B,100,,y\n{absolute},,,,\nC:\\x.mp4,,,,\n",
        )
        rows = iter_manifest(path, scale=Scale(0, 100))
        records = [row.to_record(Path("out/deep")) for row in rows]
        assert [record["video"] for record in records] == [
            "../../m/sub/a.mp4",
            "../../m/b.mp4",
            absolute,
            "C:\\x.mp4",
        ]
        assert records[0]["overall"] == 3.0 and records[0]["overall_rater7"] == 2.0
        assert records[1]["overall_rater7"] is None and records[2]["overall"] is None
        again = write("out/deep/m.jsonl", "\n".join(map(json.dumps, records)))
        first = next(iter_manifest(again))
        assert os.path.samefile(first.path, "m/sub/a.mp4")
        assert (first.scores[-1], first.extra) == (3.0, {"note": "x"})

    def test_spaces_around_labels_make_no_others(self):
        path = write("m.csv", "video,generator,group,split\na.mp4, Sora,g ,train \nb.mp4, , ,\n")
        labels = [(row.generator, row.group, row.split) for row in iter_manifest(path)]
        assert labels == [("Sora", "g", "train"), (None, None, None)]


class TestScale:
    @pytest.mark.parametrize("text", ["0-100", "5:1", "1", "a:b", "0:inf", "nan:5", "1:1", "1:2:3"])
    def test_what_is_none(self, text):
        with pytest.raises(InputError, match="a scale is LOW:HIGH"):
            Scale.parse(text)

    @pytest.mark.parametrize("text", ["0:100", "1:5", "1:4", "-1:1"])
    def test_there_and_back(self, text):
        scale = Scale.parse(text)
        assert (scale.to_mos(scale.low), scale.to_mos(scale.high)) == (1, 5)
        for share in (0, 1 / 3, 0.5, 1):
            score = scale.low + share * (scale.high - scale.low)
            assert scale.from_mos(scale.to_mos(score)) == pytest.approx(score)
        assert scale.spread_from_mos(4) == pytest.approx(scale.high - scale.low)
        assert math.isnan(scale.to_mos(math.nan)) and math.isnan(scale.from_mos(math.nan))

    def test_one_to_five_is_exact(self):
        assert Scale(1, 5).to_mos(2.3333333333333335) == 2.3333333333333335

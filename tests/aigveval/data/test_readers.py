"""Tables of every format, read and written row by row."""

import csv
import json
import os
import sys
import tracemalloc

import numpy as np
import pyarrow
import pyarrow.parquet as parquet
import pytest

from aigveval.data.inputs import collect
from aigveval.data.manifest import iter_manifest, read_manifest
from aigveval.data.preference_pairs import is_pairs, read_pairs
from aigveval.data.readers import part_names, read_rows
from aigveval.data.writers import Columns, TableWriter, write_table
from aigveval.errors import InputError, ManifestError
from prompts.rubric import SCORES

ROWS = [
    {"video": "中 文.mp4", "prompt": 'a, "dog"\nruns', "overall": 3.25, "count": 3, "tags": None},
    {"video": "b.mp4", "prompt": None, "overall": None, "count": None, "tags": '["x"]'},
]


@pytest.mark.parametrize("suffix", [".csv", ".json", ".jsonl", ".parquet"])
class TestWriter:
    def test_rows_come_back(self, tmp_path, suffix):
        path = tmp_path / "deep" / f"table{suffix}"
        write_table(path, ROWS)
        found = [row for _, row in read_rows(path)]
        if suffix == ".csv":  # knows nothing but text
            told = [{n: "" if v is None else str(v) for n, v in row.items()} for row in ROWS]
            assert found == told
        else:
            assert found == ROWS
        assert [path.name for path in path.parent.iterdir()] == [path.name]  # no partial file

    def test_a_folder_whose_name_is_not_utf8(self, tmp_path, suffix):
        path = tmp_path / os.fsdecode(b"caf\xe9") / f"table{suffix}"
        write_table(path, ROWS)
        assert [row["video"] for _, row in read_rows(path)] == [row["video"] for row in ROWS]

    def test_objects_become_text_where_a_cell_cannot_hold_them(self, tmp_path, suffix):
        path = tmp_path / f"table{suffix}"
        write_table(path, [{"video": "a", "raters": {"x": [1, 2]}}, {"video": "b"}])
        first, second = (row["raters"] for _, row in read_rows(path))
        expected = {"x": [1, 2]}
        assert first == (expected if suffix.startswith(".json") else json.dumps(expected))
        assert second in (None, "")

    def test_an_error_leaves_the_old_file(self, tmp_path, suffix):
        path = tmp_path / f"table{suffix}"
        write_table(path, ROWS)
        before = path.read_bytes()
        with pytest.raises(RuntimeError):
            with TableWriter(path, Columns(video="text")) as table:
                table.write({"video": "new"})
                raise RuntimeError
        assert path.read_bytes() == before
        assert [path.name for path in tmp_path.iterdir()] == [path.name]


def test_parquet_types_are_told_by_all_rows(tmp_path):
    path = tmp_path / "t.parquet"
    write_table(path, [{"video": "a", "n": 1, "x": 2, "mixed": 1}, {"x": 0.5, "mixed": "two"}])
    types = {field.name: str(field.type) for field in parquet.read_schema(path)}
    assert types == {"video": "string", "n": "int64", "x": "double", "mixed": "string"}


def test_a_place_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file" / "t.csv", tmp_path / "t.txt"):
        with pytest.raises(InputError) as error:
            write_table(path, ROWS)
        assert str(error.value).startswith(f"{path}: ") and "\n" not in str(error.value)


class TestParquet:
    def test_of_pandas_with_nan_for_unknown(self, tmp_path):
        pandas = pytest.importorskip("pandas")
        frame = pandas.DataFrame({"video": ["a.mp4", "b.mp4"], "overall": [np.nan, 2.5]})
        frame.to_parquet(tmp_path / "m.parquet")
        first, second = iter_manifest(tmp_path / "m.parquet")
        assert np.isnan(first.scores).all() and second.scores[-1] == 2.5

    def test_is_an_input_like_the_others(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        (tmp_path / "a.mp4").touch()
        parquet.write_table(
            pyarrow.table({"video": ["a.mp4"], "prompt": ["a dog"]}), tmp_path / "m.parquet"
        )
        (clip,) = collect(["m.parquet"]).clips
        assert (clip.video, clip.prompt, clip.problem) == ("a.mp4", "a dog", None)

    @pytest.mark.parametrize(
        "content, reason",
        [
            (b"nothing of the kind", "not Parquet: "),
            (None, "No such file or directory"),
        ],
    )
    def test_broken(self, tmp_path, content, reason):
        path = tmp_path / "m.parquet"
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(ManifestError) as error:
            read_manifest(path)
        assert str(error.value).startswith(f"{path}: {reason}") and "\n" not in str(error.value)

    def test_without_the_column(self, tmp_path):
        parquet.write_table(pyarrow.table({"clip": ["a"]}), tmp_path / "m.parquet")
        with pytest.raises(ManifestError) as error:
            read_manifest(tmp_path / "m.parquet")
        assert str(error.value) == (
            f"{tmp_path}/m.parquet: the table names no column 'video' (or path, video_path, "
            "file_path, file, filename, video_name, video_file), it has clip"
        )


class TestDatasets:
    @pytest.fixture(scope="class")
    @classmethod
    def datasets(cls):
        return pytest.importorskip("datasets")

    ROWS = {"video": ["a.mp4", "b.mp4"], "prompt": ["a dog", None], "overall": [3.0, 4.5]}

    def test_saved(self, datasets, tmp_path, monkeypatch):
        datasets.Dataset.from_dict(self.ROWS).save_to_disk(tmp_path / "saved")
        rows = list(iter_manifest(tmp_path / "saved"))
        assert [(row.number, row.path, row.prompt) for row in rows] == [
            (1, str(tmp_path / "saved/a.mp4"), "a dog"),
            (2, str(tmp_path / "saved/b.mp4"), None),
        ]
        assert [row.scores[-1] for row in rows] == [3.0, 4.5] and rows[0].split is None
        monkeypatch.chdir(tmp_path)
        assert [clip.prompt for clip in collect(["saved"]).clips] == ["a dog", None]

    def test_saved_with_splits(self, datasets, tmp_path):
        parts = {name: datasets.Dataset.from_dict(self.ROWS) for name in ("train", "test")}
        datasets.DatasetDict(parts).save_to_disk(tmp_path / "saved")
        rows = list(iter_manifest(tmp_path / "saved"))
        assert [(row.number, row.split) for row in rows] == [
            (1, "train"),
            (2, "train"),
            (3, "test"),
            (4, "test"),
        ]

    def test_folder_of_data_files(self, datasets, tmp_path):
        (tmp_path / "data").mkdir()
        write_table(tmp_path / "data/train.parquet", [{"video": "a.mp4", "overall": 2.0}])
        (row,) = iter_manifest(tmp_path / "data")
        assert (row.path, row.scores[-1]) == (str(tmp_path / "data/a.mp4"), 2.0)

    def test_videos_are_not_decoded(self, datasets, tmp_path, monkeypatch):
        if not hasattr(datasets, "Video"):
            pytest.skip("datasets has no feature Video")
        clip = tmp_path / "clip.mp4"
        clip.write_bytes(b"nothing that could be decoded")
        features = datasets.Features({"video": datasets.Video()})
        table = datasets.Dataset.from_dict({"video": [str(clip)]}, features=features)
        monkeypatch.setattr(datasets, "load_dataset", lambda *names, **options: table)
        monkeypatch.chdir(tmp_path)
        (row,) = iter_manifest("me/clips")
        assert row.path == str(clip)
        table.save_to_disk(tmp_path / "saved")  # which puts the file into the table
        with pytest.raises(ManifestError, match="row 1: video is stored in the table itself; "):
            list(iter_manifest(tmp_path / "saved"))

    def test_column_that_is_missing(self, datasets, tmp_path):
        datasets.Dataset.from_dict({"clip": ["a"]}).save_to_disk(tmp_path / "saved")
        with pytest.raises(ManifestError) as error:
            list(iter_manifest(tmp_path / "saved"))
        assert str(error.value) == (
            f"{tmp_path}/saved: the data set names no column 'video' (or path, video_path, "
            "file_path, file, filename, video_name, video_file), it has clip"
        )

    def test_folder_without_data(self, datasets, tmp_path):
        with pytest.raises(ManifestError) as error:
            list(iter_manifest(tmp_path))
        assert str(error.value).startswith(f"{tmp_path}: no data set in this folder: ")

    def test_hub_id_that_cannot_be_had(self, datasets, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        with pytest.raises(ManifestError) as error:
            list(iter_manifest("nobody/nothing:test"))
        assert str(error.value).startswith("nobody/nothing:test: no such file, and no data set ")
        assert "\n" not in str(error.value)

    def test_hub_id_is_taken_apart(self, datasets, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        asked = []

        def load_dataset(*names, **options):
            asked.append((names, options["split"]))
            return datasets.Dataset.from_dict(self.ROWS).to_iterable_dataset()

        monkeypatch.setattr(datasets, "load_dataset", load_dataset)
        for source in ("me/clips", "me/clips/rated:test"):
            assert [row.path for row in iter_manifest(source)] == ["a.mp4", "b.mp4"]
        assert asked == [(("me/clips", None), None), (("me/clips", "rated"), "test")]

    def test_without_the_package(self, tmp_path, monkeypatch):
        (tmp_path / "dataset_info.json").touch()
        monkeypatch.setitem(sys.modules, "datasets", None)
        with pytest.raises(ManifestError) as error:
            list(iter_manifest(tmp_path))
        assert str(error.value).endswith("pip install 'aigveval[datasets]'")


@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
def test_memory_does_not_grow_with_the_rows(tmp_path, suffix):
    peaks = []
    for count in (800, 8_000):
        path = tmp_path / f"{count}{suffix}"
        write_table(
            path, ({"video": f"{n}.mp4", "prompt": "x" * 500, "overall": 3.5} for n in range(count))
        )
        tracemalloc.start()
        assert sum(1 for _ in iter_manifest(path)) == count
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert path.stat().st_size > 4e6 and peaks[1] < peaks[0] + 1e6


def test_a_million_rows_of_json_fit_into_2_gb(tmp_path):
    count, path = 5_000, tmp_path / "m.json"
    write_table(
        path,
        (
            {
                "video": f"videos/model_{n % 20}/clip_{n:07d}.mp4",
                "prompt": "一只狗 " * 15 + str(n),
                **dict.fromkeys(SCORES, 3.125),
                "generator": f"model_{n % 20}",
                "group": f"g{n // 20}",
                "split": "train",
            }
            for n in range(count)
        ),
    )
    tracemalloc.start()
    rows = list(iter_manifest(path))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(rows) == count and peak / count * 1e6 < 2e9


def test_json_keeps_repeated_keys_and_nested_objects(tmp_path):
    path = tmp_path / "m.json"
    path.write_text('{"a": "1", "b": {"prompt": "2", "x": {"y": 0, "z": [{}]}}, "a": "3"}')
    assert list(read_rows(path)) == [
        (1, {"video": "a", "prompt": "1"}),
        (2, {"video": "b", "prompt": "2", "x": {"y": 0, "z": [{}]}}),
        (3, {"video": "a", "prompt": "3"}),
    ]


@pytest.mark.parametrize(
    "found, videos",
    [
        ({"video": "a.mp4", "prompt": "a dog", "seed": 3}, ["a.mp4"]),
        ({"path": "a.mp4", "overall": 3}, ["a.mp4"]),
        ({"video": "a dog", "clip": "a cat"}, ["video", "clip"]),  # folders of pictures
        ({"video": {"prompt": "a dog"}, "prompt": "a cat"}, ["video", "prompt"]),
    ],
)
def test_json_of_one_row(tmp_path, found, videos):
    path = tmp_path / "m.json"
    path.write_text(json.dumps(found))
    rows = [row for _, row in read_rows(path)]
    assert [row["video"] for row in rows] == videos
    if len(videos) == 1:
        assert rows == [{"video": "a.mp4"} | {n: v for n, v in found.items() if n != "path"}]


def test_json_of_one_pair(tmp_path):
    path = tmp_path / "m.json"
    path.write_text('{"video_a": "a.mp4", "video_b": "b.mp4", "prompt": "x", "overall": "A"}')
    (pair,) = read_pairs(path)
    assert is_pairs(path) and pair.preferences[-1] == "A"


@pytest.mark.parametrize(
    "sources, names",
    [
        (["one.csv"], [None]),
        (["n_train.txt", "x/n_val.txt", "n_test.txt"], ["train", "val", "test"]),
        (["train.csv", "test.csv"], ["train", "test"]),
        (["a-part.csv", "a-.csv"], ["part", "a-"]),
        (["fold0/train.csv", "fold1/train.csv"], ["fold0/train.csv", "fold1/train.csv"]),
    ],
)
def test_parts_are_named_after_files(sources, names):
    assert part_names(sources) == names


@pytest.mark.parametrize("line", ["sep=;", '"sep=;"', "Sep=;\r"])
def test_a_line_for_excel_tells_the_delimiter(tmp_path, line):
    path = tmp_path / "m.csv"
    path.write_text(f"{line}\nvideo,x;a,b;overall\n1;2;3,5\n4;5;6;7\n", encoding="utf-16")
    faults = []
    rows = list(read_rows(path, required=(), on_fault=faults.append))
    assert rows == [(2, {"video,x": "1", "a,b": "2", "overall": "3.5"})]
    assert [fault.number for fault in faults] == [3]  # as Excel counts


@pytest.mark.parametrize("mark", [",", ";"])
def test_spaces_behind_the_separators_of_a_header_are_part_of_nothing(tmp_path, mark):
    path = tmp_path / "m.csv"
    lines = "prompt, video", f'"a dog{mark} running", clips/a.mp4', f'a cat, "b{mark} c.mp4"'
    path.write_text("\n".join(lines).replace(", ", f"{mark} "), encoding="utf-8")
    rows = [(row["video"], row["prompt"]) for _, row in read_rows(path)]
    assert rows == [("clips/a.mp4", f"a dog{mark} running"), (f"b{mark} c.mp4", "a cat")]
    # without them a name may begin with one
    path.write_text(f"video{mark}prompt\n a.mp4{mark} b\n", encoding="utf-8")
    assert list(read_rows(path)) == [(2, {"video": " a.mp4", "prompt": " b"})]


class TestDecimalCommas:
    @pytest.mark.parametrize("mark", [";", "\t"])
    def test_as_spreadsheets_write_them(self, tmp_path, mark):
        path = tmp_path / "m.csv"
        lines = ["video;prompt;technical;overall", "a.mp4;one, 2,5 or 3;3,25;+4", 'b.mp4;b;"2,5";']
        path.write_text("\ufeff" + "\r\n".join(lines).replace(";", mark), encoding="utf-8")
        first, second = iter_manifest(path)
        assert first.prompt == "one, 2,5 or 3"
        assert (first.scores[0], first.scores[3], second.scores[0]) == (3.25, 4.0, 2.5)

    def test_commas_between_columns_are_no_marks_of_numbers(self, tmp_path):
        path = tmp_path / "m.csv"
        path.write_text('video,overall\na.mp4,"3,5"\n')
        with pytest.raises(ManifestError, match="row 2: overall must be a number, got '3,5'"):
            list(iter_manifest(path))


class TestQuotesThatAreNotClosed:
    """They would take in the rows behind them."""

    def test_of_a_row(self, tmp_path):
        path = tmp_path / "m.csv"
        path.write_text('video,prompt\na.mp4,"a\ndog"\nb.mp4,"a cat\nc.mp4,a cow\n\nd.mp4,a hen')
        faults = []
        found = list(read_rows(path, on_fault=faults.append))
        assert found == [(2, {"video": "a.mp4", "prompt": "a\ndog"})]
        assert [(fault.number, str(fault)) for fault in faults] == [
            (3, "row 3 begins a double quote that never ends")
        ]

    def test_of_a_row_before_many(self, tmp_path):
        path = tmp_path / "m.csv"
        others = "".join(f"{n}.mp4,a hen that walks\n" for n in range(800_000))
        path.write_text(f'video,prompt\na.mp4,a dog\nb.mp4,"a cat\n{others}')
        faults = []
        found = list(read_rows(path, on_fault=faults.append))
        assert found == [(2, {"video": "a.mp4", "prompt": "a dog"})]
        assert [fault.number for fault in faults] == [3]
        with pytest.raises(ManifestError, match="row 3 has a value of more than 16,777,216 char"):
            list(read_rows(path))

    @pytest.mark.parametrize("end", ['b.mp4,"a cat"', "b.mp4,a cat\n", 'b.mp4,a 5" cat\n\n'])
    def test_others_are_as_they_were(self, tmp_path, end):
        path = tmp_path / "m.csv"
        path.write_text(f"video,prompt\n\n{end}")
        with open(path, newline="") as file:
            *_, last = filter(None, csv.reader(file))
        assert list(read_rows(path)) == [(3, dict(zip(("video", "prompt"), last)))]

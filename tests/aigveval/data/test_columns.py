"""Other names of columns, in every place that reads a table."""

import json
import os

import pytest

from aigveval.data.check import check_manifests
from aigveval.data.columns import ALIASES, check_columns, in_our_names
from aigveval.data.convert import convert
from aigveval.data.inputs import collect
from aigveval.data.manifest import iter_manifest, read_manifest
from aigveval.data.preference_pairs import is_pairs, read_pairs
from aigveval.data.readers import read_rows
from aigveval.data.split import split
from aigveval.data.writers import write_table
from aigveval.errors import ManifestError
from aigveval.evaluation import evaluate
from aigveval.evaluation.figures import Sampling
from aigveval.evaluation.ntire import read_names
from aigveval.evaluation.ratings import read_predictions
from aigveval.inference.assessor import as_clip
from aigveval.train.answers import read_answers
from aigveval.train.rows import read_training_manifest

VIDEO = "path, video_path, file_path, file, filename, video_name, video_file"
PROMPT = "caption, text, prompt_en, text_prompt"


@pytest.fixture(autouse=True)
def inside(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def write(name: str, text: str) -> str:
    with open(name, "w", encoding="utf-8") as file:
        file.write(text)
    return name


class TestNames:
    @pytest.mark.parametrize("name, other", [(n, o) for n, many in ALIASES.items() for o in many])
    def test_every_other_name(self, name, other):
        assert in_our_names({"x": 1, other: "a"}) == {"x": 1, name: "a"}
        assert list(in_our_names({other: "a", "x": 1})) == [name, "x"]

    @pytest.mark.parametrize(
        "column, name",
        [
            ("Video Path", "video"),
            ("videoPath", "video"),
            ("file-name", "video"),
            ("FILE_NAME", "video"),
            ("Video", "video"),
            ("Prompt", "prompt"),
            ("text prompt", "prompt"),
        ],
    )
    def test_case_and_marks_make_no_difference(self, column, name):
        assert in_our_names({column: "a"}) == {name: "a"}

    def test_ours_go_first(self):
        row = {"path": "b", "video": "a", "text": "q", "prompt": None}
        assert in_our_names(row) == row
        assert in_our_names({"file": 1, "VIDEO": 2}) == {"file": 1, "video": 2}

    def test_others_stay(self):
        row = {"id": 1, "videos": ["a"], "video_prompt": "p", "overall": 3}
        assert in_our_names(row) == row

    def test_a_pair_has_no_column_of_one_video(self):
        row = {"video_a": "a", "video_b": "b", "path": "x", "caption": "p"}
        assert in_our_names(row) == {"video_a": "a", "video_b": "b", "path": "x", "prompt": "p"}

    @pytest.mark.parametrize(
        "row, message",
        [
            (
                {"path": "a", "filename": "b"},
                "several columns that could be 'video': path, filename; call one of them video",
            ),
            (
                {"Video": "a", "VIDEO": "b"},
                "several columns that could be 'video': Video, VIDEO; call one of them video",
            ),
            (
                {"video": "a", "caption": "x", "text": "y"},
                "several columns that could be 'prompt': caption, text; call one of them prompt",
            ),
        ],
    )
    def test_a_choice_is_an_error(self, row, message):
        with pytest.raises(ValueError) as error:
            in_our_names(row)
        assert str(error.value) == message

    def test_columns_that_must_be_there(self):
        check_columns("it", ["file", "b"], ["video"])
        for columns, options, message in (
            (["clip", "b"], {}, f"it names no column 'video' (or {VIDEO}), it has clip, b"),
            ([], {}, f"it names no column 'video' (or {VIDEO}), it has nothing"),
            (["file"], {"aliases": False}, "it names no column 'video', it has file"),
            (["file", "b", "b"], {}, "it names the column 'b' twice"),
        ):
            with pytest.raises(ValueError) as error:
                check_columns("it", columns, ["video"], **options)
            assert str(error.value) == message


@pytest.mark.parametrize("suffix", [".csv", ".json", ".jsonl", ".parquet"])
class TestFormats:
    ROWS = [{"Video Path": "a.mp4", "caption": "a dog", "overall": 3.0, "x": "1"}]

    def test_rows_have_our_names(self, suffix):
        write_table(f"m{suffix}", self.ROWS)
        (row,) = iter_manifest(f"m{suffix}")
        assert (row.video, row.prompt, row.scores[-1]) == ("a.mp4", "a dog", 3.0)
        assert row.extra == {"x": "1"}
        (clip,) = read_manifest(f"m{suffix}", need_prompt=True)
        assert (clip.video, clip.prompt) == ("a.mp4", "a dog")

    def test_an_adapter_that_reads_one_form_gets_it_as_it_is(self, suffix):
        write_table(f"m{suffix}", self.ROWS)
        ((_, row),) = read_rows(f"m{suffix}", required=(), aliases=False)
        assert list(row) == [name.lower() if suffix == ".csv" else name for name in self.ROWS[0]]

    def test_a_choice_names_the_place(self, suffix):
        write_table(f"m{suffix}", [{"path": "a.mp4", "file": "b.mp4"}])
        where = {".csv": "row 1, the header,", ".parquet": "the table"}.get(suffix, "row 1")
        with pytest.raises(ManifestError) as error:
            read_manifest(f"m{suffix}")
        assert str(error.value) == (
            f"m{suffix}: {where} has several columns that could be 'video': path, file; call one "
            "of them video"
        )

    def test_neither(self, suffix):
        write_table(f"m{suffix}", [{"clip": "a.mp4", "words": "a dog"}])
        where = {
            ".csv": "row 1, the header, names no column",
            ".parquet": "the table names no column",
        }.get(suffix, "row 1 has no")
        with pytest.raises(ManifestError) as error:
            read_manifest(f"m{suffix}")
        assert str(error.value) == f"m{suffix}: {where} 'video' (or {VIDEO}), it has clip, words"


class TestPlaces:
    def test_inputs_and_prompts(self):
        open("a.mp4", "w").close()
        path = write("m.csv", "path,caption\na.mp4,a dog\n")
        for found in (collect([path]), collect(["a.mp4"], prompts=path), collect([], prompts=path)):
            assert [(clip.video, clip.prompt) for clip in found.clips] == [("a.mp4", "a dog")]

    def test_training(self):
        path = write("m.jsonl", '{"file_name": "a.mp4", "text": "a dog", "semantic": 4}\n')
        for read in (read_training_manifest, read_answers):
            (row,) = read(path)
            assert (row.video, row.prompt, row.scores[2]) == ("a.mp4", "a dog", 4)

    def test_training_without_scores_tells_the_columns(self):
        path = write("m.csv", "path,caption,mos\na.mp4,a dog,3\n")
        with pytest.raises(ManifestError) as error:
            read_training_manifest(path)
        assert str(error.value) == (
            "m.csv: row 2: none of technical, motion, semantic, overall is known; it has video, "
            "prompt, mos"
        )

    def test_evaluation(self):
        ratings = "\n".join(f"{n}.mp4,{1 + n / 3}" for n in range(12))
        predicted = "\n".join(f"{n}.mp4,{1 + n / 4}" for n in range(12))
        write("m.csv", f"video_path,overall\n{ratings}\n")
        write("p.csv", f"filename,score\n{predicted}\n")
        assert [entry.video for entry in read_predictions("p.csv")][:2] == ["0.mp4", "1.mp4"]
        found = evaluate("p.csv", "m.csv", sampling=Sampling(draws=0))
        assert found.scores["overall"].figures["srocc"].value == pytest.approx(1.0)

    def test_predictions_without_video(self):
        with pytest.raises(ManifestError) as error:
            read_predictions(write("p.jsonl", '{"clip": "a.mp4", "score": 3}\n'))
        assert str(error.value) == (
            f"p.jsonl: row 1 has no 'video' (or {VIDEO}), it has clip, score"
        )

    def test_names_to_submit(self):
        assert read_names(write("m.csv", "filename\nv/a.mp4\n")) == ["a.mp4"]

    def test_data_commands(self):
        rows = "".join(f"{n}.mp4,prompt {n}\n" for n in range(4))
        path = write("m.csv", f"path,caption\n{rows}")
        report = check_manifests([path], files="none")
        assert (report.rows, report.wrong_rows, report.prompts) == (4, 0, 4)
        done = split(path, "parts", by="prompt", parts={"train": 0.5, "test": 0.5})
        assert sum(done.rows.values()) == 4
        for file in done.files.values():
            for _, row in read_rows(file, aliases=False):
                assert row["video"].startswith("../") and row["prompt"].startswith("prompt ")
        convert("manifest", [path], "out.jsonl")
        assert json.loads(open("out.jsonl").readline()) == {"video": "0.mp4", "prompt": "prompt 0"}

    def test_pairs(self):
        path = write("m.csv", "video_a,video_b,path,text,motion\na.mp4,b.mp4,x,a dog,A\n")
        assert is_pairs(path)
        (pair,) = read_pairs(path)
        assert (os.path.basename(pair.video_a), pair.prompt) == ("a.mp4", "a dog")

    def test_items_of_python(self):
        clip = as_clip({"path": "a.mp4", "caption": "a dog"})
        assert (clip.video, clip.prompt) == ("a.mp4", "a dog")
        with pytest.raises(TypeError) as error:
            as_clip({"path": "a.mp4", "file": "b.mp4"})
        assert str(error.value) == (
            "an item has several columns that could be 'video': path, file; call one of them video"
        )

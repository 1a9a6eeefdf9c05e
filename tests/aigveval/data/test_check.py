"""What `aigveval data check` finds."""

import json
import os
import shutil

import pytest
from PIL import Image

from aigveval.data.check import BINS, LISTED, check_manifests
from aigveval.data.scales import Scale
from aigveval.data.writers import write_table
from aigveval.errors import InputError, ManifestError
from aigveval.reports.plots import plot_check

from ...media import sound, text_file, truncated_half, write_video


@pytest.fixture(autouse=True)
def inside(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("videos")
    sound(folder / "good.mp4")
    write_video(folder / "other.mp4", seed=5)
    shutil.copy(folder / "good.mp4", folder / "copy.mp4")
    text_file(folder / "text.mp4")
    truncated_half(folder / "cut.mp4")
    return folder


def table(rows, name="m.jsonl"):
    write_table(name, rows)
    return name


class TestFiles:
    @pytest.mark.parametrize("level", ["open", "decode"])
    def test_missing_unreadable_and_copies(self, videos, level):
        names = ["good.mp4", "other.mp4", "copy.mp4", "text.mp4", "cut.mp4", "gone.mp4", "good.mp4"]
        rows = [{"video": str(videos / name), "prompt": f"p{n}"} for n, name in enumerate(names)]
        os.symlink("nowhere.mp4", "link.mp4")
        report = check_manifests([table([*rows, {"video": "link.mp4"}])], files=level)
        assert (report.rows, report.videos, report.sound) == (8, 7, False)
        assert (report.missing, report.unreadable) == (2, 2)
        text, cut, gone, link = report.bad_files
        assert text.startswith(f"row 4: {videos}/text.mp4: ") and text.count("text.mp4") == 1
        assert cut.startswith(f"row 5: {videos}/cut.mp4: ")
        assert gone == f"row 6: {videos}/gone.mp4: no such file"
        assert link == "row 8: link.mp4: broken link"
        assert report.copies == [
            [f"row 1: {videos}/good.mp4 (all)", f"row 3: {videos}/copy.mp4 (all)"]
        ]
        assert report.copies_across == 0
        assert report.absolute == 7 and report.first_absolute == f"row 1: {videos}/good.mp4"

    def test_urls(self):
        report = check_manifests([table([{"video": "gs://bucket/a.mp4"}])])
        assert report.missing == 1 and report.bad_files == [
            "row 1: gs://bucket/a.mp4: a URL, and files are needed: download it and give its path"
        ]

    def test_sound(self, videos):
        os.symlink(videos, "v")
        report = check_manifests([table([{"video": "v/good.mp4"}, {"video": "v/other.mp4"}])])
        assert report.sound and not report.copies and not report.bad_files

    def test_numbered_pictures_by_folder_and_by_pattern(self):
        for clip in ("one", "two"):
            os.mkdir(clip)
            for n in range(3):
                Image.new("RGB", (32, 32)).save(f"{clip}/{n}.png")
        rows = [{"video": name} for name in ("one", "one/*.png", "two/*.png", "two/*.jpg")]
        report = check_manifests([table(rows)])
        assert report.bad_files == ["row 4: two/*.jpg: no such file"] and not report.copies

    def test_copies_in_other_parts(self, videos):
        os.symlink(videos, "v")
        rows = [
            {"video": f"v/{name}.mp4", "split": part}
            for name, part in [("good", "train"), ("other", "train"), ("copy", "test")]
        ]
        report = check_manifests([table(rows)])
        assert report.copies == [["row 1: v/good.mp4 (train)", "row 3: v/copy.mp4 (test)"]]
        assert report.copies_across == 1 and report.sound

    def test_are_left_alone_if_asked(self):
        report = check_manifests([table([{"video": "gone.mp4"}])], files="none")
        assert report.sound and report.missing == 0 and report.checked == "none"


class TestRows:
    def test_wrong_ones_are_listed_and_the_others_counted(self):
        lines = [
            '{"video": "a", "overall": 3}',
            "{",
            '{"video": "b", "overall": 9}',
            '{"video": "", "overall": 3}',
            '{"video": "c", "overall": 2}',
        ]
        with open("m.jsonl", "w") as file:
            file.write("\n".join(lines))
        report = check_manifests(["m.jsonl"], files="none")
        assert (report.rows, report.wrong_rows, report.sound) == (2, 3, False)
        assert report.wrong == [
            "row 2 is not JSON: Expecting property name enclosed in double quotes",
            "row 3: overall must lie in 1-5, got 9",
            "row 4: video must be a path, got ''",
        ]
        assert report.scores["overall"].mean == 2.5

    def test_all_wrong(self):
        rows = [{"video": "a", "overall": 9}] * (LISTED + 5)
        report = check_manifests([table(rows)], files="none")
        assert (report.rows, report.wrong_rows, len(report.wrong)) == (0, LISTED + 5, LISTED)

    def test_repeats(self):
        rows = [
            {"video": v, "prompt": p}
            for v, p in [
                ("a.mp4", "x"),
                ("a.mp4", "y"),
                ("b.mp4", "x"),
                ("./a.mp4", "x"),
                ("a.mp4", "x"),
            ]
        ]
        report = check_manifests([table(rows)], files="none")
        assert (report.repeated, report.videos) == (2, 2)
        assert report.repeats == ["row 4 repeats row 1", "row 5 repeats row 1"]

    def test_paths_that_are_not_portable(self):
        rows = [
            {"video": v}
            for v in [
                "a.mp4",
                "../b.mp4",
                "x/../../c.mp4",
                "..d.mp4",
                "C:\\e.mp4",
                "\\\\server\\f.mp4",
            ]
        ]
        report = check_manifests([table(rows)], files="none")
        assert (report.outside, report.first_outside) == (2, "row 2: ../b.mp4")
        assert (report.absolute, report.first_absolute) == (2, "row 5: C:\\e.mp4")
        assert report.sound  # they work here

    @pytest.mark.parametrize("text", ["", "video,overall\n", "clip\na\n"])
    def test_a_manifest_without_rows_is_no_manifest(self, text):
        with open("m.csv", "w") as file:
            file.write(text)
        with pytest.raises(ManifestError, match="^m.csv: "):
            check_manifests(["m.csv"])


class TestContent:
    ROWS = [
        {
            "video": f"{n}.mp4",
            "prompt": f"p{n % 4}" if n % 5 else None,
            "overall": 25.0 * (n % 5),
            "motion": 50.0 if n < 3 else None,
            "motion_rater1": 40.0 if n < 2 else None,
            "generator": "ab"[n % 2],
        }
        for n in range(20)
    ]

    def test_counts_scores_generators_raters(self):
        report = check_manifests([table(self.ROWS)], files="none", scale=Scale(0, 100))
        assert (report.rows, report.prompts, report.without_prompt) == (20, 4, 4)
        overall = report.scores["overall"]
        assert (overall.count, overall.distinct, overall.low, overall.high) == (20, 5, 0, 100)
        assert overall.mean == pytest.approx(50) and overall.std == pytest.approx(35.355, abs=1e-3)
        assert len(overall.histogram["all"]) == BINS and sum(overall.histogram["all"]) == 20
        assert [n for n in overall.histogram["all"] if n] == [4] * 5
        assert report.scores["motion"].count == 3 and report.raters == {"motion": {"1": 2}}
        assert report.generators == {"a": 10, "b": 10}
        assert report.generator_means["a"]["overall"] == pytest.approx(50)
        assert set(report.scores) == {"overall", "motion"}

    def test_videos_are_compared_by_where_they_lie(self, tmp_path):
        (tmp_path / "x").mkdir()
        (tmp_path / "y").mkdir()
        rows = [[{"video": "1.mp4"}], [{"video": "1.mp4"}, {"video": "../x/1.mp4"}]]
        rows[1].append({"video": str(tmp_path / "y/1.mp4")})
        tables = [table(rows[0], "x/a.jsonl"), table(rows[1], "y/b.jsonl")]
        report = check_manifests(tables, files="none")
        assert [str(overlap) for overlap in report.overlaps] == [
            "1 of 1 distinct videos of a also occur in b"
        ]
        assert (report.videos, report.repeats) == (
            2,
            ["b.jsonl row 2 repeats a.jsonl row 1", "b.jsonl row 3 repeats b.jsonl row 1"],
        )

    def test_parts_by_column_and_by_file(self):
        train = [{"video": f"{n}.mp4", "prompt": f"p{n}", "generator": "x"} for n in range(10)]
        test = [{"video": f"t{n}.mp4", "prompt": f"P{n + 8} ", "generator": "y"} for n in range(4)]
        test.append({"video": "9.mp4", "prompt": "own", "generator": "x"})
        expected = [
            "2 of 5 distinct prompts of test also occur in train",
            "1 of 2 distinct generators of test also occur in train",
            "1 of 5 distinct videos of test also occur in train",
        ]
        tables = [table(train, "train.csv"), table(test, "test.csv")]
        by_file = check_manifests(tables, files="none")
        assert [str(overlap) for overlap in by_file.overlaps] == expected
        rows = [row | {"split": "train"} for row in train] + [r | {"split": "test"} for r in test]
        by_column = check_manifests([table(rows)], files="none")
        assert [str(overlap) for overlap in by_column.overlaps] == expected
        assert by_column.parts == {"train": 10, "test": 5}

    def test_rows_of_several_files_are_told_apart(self):
        files = [table([{"video": "a"}], "x.csv"), table([{"video": "a"}], "y.csv")]
        with open("y.csv", "a") as file:
            file.write("b,c\n")
        report = check_manifests(files, files="none")
        assert report.repeats == ["y.csv row 2 repeats x.csv row 2"]
        assert report.wrong == [
            "y.csv: row 3 has 2 values for 1 columns; text with commas needs "
            "double quotes around it"
        ]

    def test_pairs(self, videos):
        rows = [
            {
                "video_a": "a.mp4",
                "video_b": "b.mp4",
                "prompt": "p",
                "motion": "A",
                "overall": answer,
                "generator_a": "x",
                "generator_b": "y",
            }
            for answer in ("A", "same", "B", "left")
        ]
        report = check_manifests([table(rows)])
        assert report.pairs and (report.rows, report.videos, report.wrong_rows) == (3, 2, 1)
        assert report.preferences == {"motion": {"A": 3}, "overall": {"A": 1, "same": 1, "B": 1}}
        assert report.generators == {"x": 3, "y": 3} and report.missing == 2

    def test_is_ready_for_json(self):
        report = check_manifests([table(self.ROWS)], files="none", scale=Scale(0, 100))
        told = json.loads(json.dumps(report.to_dict()))
        assert told["scores"]["overall"]["count"] == 20 and told["sound"] is True

    @pytest.fixture
    def matplotlib(self):
        """Loaded, with a text drawn: the oldest calls what its parser has deprecated since."""
        import matplotlib.pyplot as plt

        figure = plt.figure()
        figure.text(0, 0, "$x$")
        figure.canvas.draw()
        plt.close(figure)

    @pytest.mark.parametrize("kind", ["scores", "pairs", "parts", "nothing"])
    def test_picture(self, kind, matplotlib, recwarn):
        rows = {
            "scores": [row | {"generator": "模型 $x_1$"} for row in self.ROWS],
            "pairs": [{"video_a": "a", "video_b": "b", "overall": "A"}],
            "parts": [{"video": f"{n}", "prompt": "p", "split": "ab"[n % 2]} for n in range(9)],
            "nothing": [{"video": "a"}],
        }[kind]
        report = check_manifests([table(rows)], files="none", scale=Scale(0, 100))
        plot_check(report, "deep/check.png")
        with Image.open("deep/check.png") as image:
            assert image.width >= 1000 and image.height >= 300
            darkest, lightest = image.convert("L").getextrema()
        assert darkest < 60 and lightest == 255 and not recwarn.list

    def test_picture_that_cannot_be_written(self):
        report = check_manifests([table([{"video": "a"}])], files="none")
        os.mkdir("folder.png")
        with pytest.raises(InputError, match="^folder.png: cannot be written: "):
            plot_check(report, "folder.png")


def test_ntire_prompts(data_dir):
    """The figure of the public files: 2,054 of 2,974."""
    from aigveval.data.convert import convert

    for part in ("train", "test"):
        source = data_dir / f"annotations/ntire2025_{part}.txt"
        convert("ntire2025", [source], f"{part}.jsonl", videos=".")
    report = check_manifests(["train.jsonl", "test.jsonl"], files="none")
    assert (report.rows, report.sound) == (30_627, True)
    assert [str(overlap) for overlap in report.overlaps] == [
        "2,054 of 2,974 distinct prompts of test also occur in train"
    ]
    assert report.scores["overall"].distinct == 17


def test_fetv_dev(data_dir):
    report = check_manifests([data_dir / "fetv_dev/manifest.csv"])
    assert report.sound and (report.rows, report.videos, report.prompts) == (85, 85, 17)
    assert set(report.generators.values()) == {17} and len(report.generators) == 5
    assert report.raters["motion"] == {"1": 85, "2": 85, "3": 85} and not report.copies

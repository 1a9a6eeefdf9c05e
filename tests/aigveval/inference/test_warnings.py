"""What was noticed when a video was read, in its row and wherever rows are shown."""

import csv
import json

import pytest

from aigveval.assessment import Assessment
from aigveval.cli.console import print_results, print_windows
from aigveval.inference.timeline import make_timeline
from aigveval.reports.html.scores import write_report
from aigveval.reports.results import ResultsFile, read_results, take_earlier

from ..engines import tiny_assessor
from ..test_assessment import SUFFIXES, failed, scored
from tests import media

FIELDS = "interlaced: deinterlaced"
ROWS = [
    scored("a.mp4", warnings=("cut: 38 of its 70 frames are shown", FIELDS)),
    scored("b.mp4"),
    failed(),
]


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("videos")
    return [media.interlaced(folder / "fields.mp4"), media.sound(folder / "sound.mp4")]


class TestRow:
    def test_survives_json(self):
        row = json.loads(json.dumps(ROWS[0].to_dict()))
        assert row["warnings"] == list(ROWS[0].warnings)
        assert Assessment.from_dict(row) == ROWS[0]
        assert ROWS[1].to_dict()["warnings"] == []

    @pytest.mark.parametrize("absent", [{}, {"warnings": None}])
    def test_rows_of_earlier_versions_have_none(self, absent):
        row = {name: value for name, value in ROWS[1].to_dict().items() if name != "warnings"}
        assert Assessment.from_dict(row | absent) == ROWS[1]

    @pytest.mark.parametrize(
        ("warnings", "message"),
        [
            ("text", "^warnings must be a list of lines, got 'text'$"),
            (["two\nlines"], "^a warning must be one line of text, got 'two"),
            ([""], "^a warning must be one line of text, got ''$"),
            ([3], "^a warning must be one line of text, got 3$"),
        ],
    )
    def test_rejects(self, warnings, message):
        with pytest.raises(ValueError, match=message):
            Assessment.from_dict(ROWS[1].to_dict() | {"warnings": warnings})


@pytest.mark.parametrize("suffix", SUFFIXES)
class TestFiles:
    def test_round_trip(self, tmp_path, suffix):
        path = tmp_path / f"r{suffix}"
        with ResultsFile(path, keep=ROWS):
            pass
        assert read_results(path) == ROWS

    def test_a_file_of_an_earlier_version_loads_and_is_gone_on_with(self, tmp_path, suffix):
        path = tmp_path / f"r{suffix}"
        with ResultsFile(path, keep=ROWS[1:]):
            pass
        self.without_warnings(path)
        assert read_results(path) == ROWS[1:]
        earlier = take_earlier(path, {row.key() for row in ROWS}, resume=True)
        assert list(earlier.done.values()) == [ROWS[1]]
        with ResultsFile(path, keep=[ROWS[1]]) as results:
            results.write(ROWS[0])
        assert read_results(path) == [ROWS[1], ROWS[0]]

    def without_warnings(self, path):
        if path.suffix == ".jsonl":
            rows = [json.loads(line) for line in path.read_text().splitlines()]
            lines = ({k: v for k, v in row.items() if k != "warnings"} for row in rows)
            path.write_text("".join(json.dumps(row) + "\n" for row in lines))
        elif path.suffix == ".csv":
            with open(path, encoding="utf-8-sig", newline="") as file:
                rows = list(csv.reader(file))
            place = rows[0].index("warnings")
            with open(path, "w", encoding="utf-8-sig", newline="") as file:
                csv.writer(file).writerows(row[:place] + row[place + 1 :] for row in rows)
        else:
            import pyarrow.parquet as parquet

            parquet.write_table(parquet.read_table(path).drop_columns(["warnings"]), path)


def test_cells_of_csv(tmp_path):
    with ResultsFile(tmp_path / "r.csv", keep=ROWS):
        pass
    with open(tmp_path / "r.csv", encoding="utf-8-sig", newline="") as file:
        cells = [row["warnings"] for row in csv.DictReader(file)]
    assert cells == ["\n".join(ROWS[0].warnings), "", ""]


def test_scored_videos_say_what_was_done(videos):
    assessor = tiny_assessor()
    alone = assessor.score(videos[0], prompt="a bar")
    assert alone.warnings == (FIELDS,)
    rows = list(assessor.score_many(videos))
    assert [row.warnings for row in rows] == [(FIELDS,), ()]
    engine = assessor.engine
    prepared = [engine.prepare(video) for video in videos]
    found = engine.score(prepared, ["a bar", None], contributions=True)
    assert [row["warnings"] for row in found] == [(FIELDS,), ()]


def test_shown_on_the_terminal_and_in_the_report(tmp_path, capsys, videos):
    print_results(ROWS)
    shown = capsys.readouterr().out
    assert all(warning in shown for warning in ROWS[0].warnings)
    print_windows(make_timeline(tiny_assessor(), videos[0], window_seconds=0.5))
    assert FIELDS in capsys.readouterr().out
    write_report(tmp_path / "s.html", [scored("<i>", warnings=("<b>",)), *ROWS])
    text = (tmp_path / "s.html").read_text()
    assert all(f">{warning}</div>" in text for warning in (*ROWS[0].warnings, "&lt;b&gt;"))

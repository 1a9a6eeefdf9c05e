"""`aigveval evaluate`: files in, tables out."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from scipy import stats
from typer.testing import CliRunner

from aigveval.assessment import Assessment, Score
from aigveval.cli.app import app
from aigveval.data.scales import Scale
from aigveval.errors import InputError
from aigveval.evaluation import evaluate
from aigveval.evaluation.figures import Sampling
from aigveval.evaluation.ratings import RatedClip, match, read_predictions
from aigveval.metrics import METRICS, Estimate
from aigveval.reports.results import ResultsFile
from aigveval.reports.tables import Table, as_latex, as_markdown

RANDOM = np.random.default_rng(3)
N = 24
RATINGS = np.round(RANDOM.uniform(1, 5, N), 2)
SCORES = np.round(np.clip(RATINGS + RANDOM.normal(0, 0.6, N), 1, 5), 3)
VIDEOS = [f"gen{i % 3}/{i // 3}.mp4" for i in range(N)]
QUICK = {"sampling": Sampling(draws=30)}


@pytest.fixture
def files(tmp_path, monkeypatch) -> Path:
    """`m.csv` with ratings, `p.json` in NTIRE's form with the same names."""
    monkeypatch.chdir(tmp_path)
    rows = [
        (video, f"prompt {i // 3}", video[:4], RATINGS[i], "yes" if i < 12 else "no")
        for i, video in enumerate(VIDEOS)
    ]
    _csv("m.csv", ["video", "prompt", "generator", "overall", "Old"], rows)
    _predict("p.json", SCORES)
    return tmp_path


def _csv(name, header, rows):
    with open(name, "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header, *rows])


def _predict(name, scores, videos=VIDEOS):
    rows = [{"video": v, "predict_score": float(s)} for v, s in zip(videos, scores)]
    Path(name).write_text(json.dumps(rows))


def _run(*arguments, code=0):
    result = CliRunner().invoke(app, ["evaluate", *arguments, "--draws", "30"])
    assert result.exit_code == code, result.output
    assert "Traceback" not in result.output and "nan" not in result.output.lower()
    return result.output


def test_command_shows_and_writes_the_figures(files):
    output = _run("p.json", "m.csv", "--out", "e.json", "--out", "e.md", "--out", "e.tex")
    expected = stats.spearmanr(SCORES, RATINGS).statistic
    assert f"{expected:.3f} [" in output
    written = json.loads(Path("e.json").read_text())
    found = written["scores"]["overall"]["figures"]["srocc"]
    assert found["value"] == pytest.approx(expected) and found["low"] < expected < found["high"]
    assert {g["name"] for g in written["scores"]["overall"]["generators"]} == {
        "gen0",
        "gen1",
        "gen2",
    }
    assert written["settings"]["resampled"] == {"overall": "prompts"}
    assert f"| SROCC | {expected:.3f} [" in Path("e.md").read_text()
    assert f"SROCC & ${expected:.3f}$ {{\\scriptsize $[" in Path("e.tex").read_text()


def test_equal_seed_equal_result(files):
    _run("p.json", "m.csv", "--out", "a.json", "-q")
    _run("p.json", "m.csv", "--out", "b.json", "-q")
    assert Path("a.json").read_bytes() == Path("b.json").read_bytes()


def test_order_of_predictions_does_not_matter(files):
    _predict("q.json", SCORES[::-1], VIDEOS[::-1])
    found = [evaluate(name, "m.csv", **QUICK).to_dict()["scores"] for name in ("p.json", "q.json")]
    assert found[0] == found[1]


def test_against_another_predictor(files):
    _predict("q.json", RANDOM.permutation(SCORES))
    output = _run("p.json", "m.csv", "--against", "q.json")
    assert "overall: first minus second predictor" in output


def test_predictors_on_two_scales_each_have_their_own(files):
    _predict("q.json", (SCORES - 1) * 25)
    output = _run("q.json", "m.csv", "--prediction-scale", "0:100", "--against", "p.json",
                  "--against-scale", "1:5", "--out", "e.json")  # fmt: skip
    assert "First: q.json, on 0:100; second: p.json, on 1:5." in " ".join(output.split())
    found = json.loads(Path("e.json").read_text())["scores"]["overall"]["comparison"]
    rmse = float(np.sqrt(np.mean((SCORES - RATINGS) ** 2)))
    assert found["rmse"]["first"] == pytest.approx(rmse)
    assert found["rmse"]["second"] == pytest.approx(rmse)


def test_a_generator_with_one_clip_has_no_intervals(files):
    Path("m.csv").write_text(Path("m.csv").read_text().replace(",gen0,", ",alone,", 1))
    for group in evaluate("p.json", "m.csv", **QUICK).to_dict()["scores"]["overall"]["generators"]:
        alone = group["name"] == "alone"
        assert group["clips"] == (1 if alone else 7 if group["name"] == "gen0" else 8)
        assert (group["figures"]["rmse"]["low"] is None) == alone
        assert group["figures"]["rmse"]["value"] is not None


def test_where(files):
    found = evaluate("p.json", "m.csv", where=["old=YES"], **QUICK)
    assert found.scores["overall"].clips == 12
    with pytest.raises(InputError, match="4 clips have both"):
        evaluate("p.json", "m.csv", where=["old!=yes", "generator=gen0"], **QUICK)
    with open("m.csv", encoding="utf-8") as file:
        rows = [json.dumps(row) for row in csv.DictReader(file)]
    Path("m.jsonl").write_text("\n".join(rows))
    found = evaluate("p.json", "m.jsonl", where=["Old=yes"], **QUICK)
    assert found.scores["overall"].clips == 12


def test_a_number_beyond_floats_is_told(tmp_path):
    path = tmp_path / "p.jsonl"
    path.write_text(f'{{"video": "a.mp4", "overall": 1{"0" * 400}}}')
    with pytest.raises(InputError, match="row 1: overall must be a number, got 1000"):
        read_predictions(path)


def test_scales_change_only_the_unit(files):
    rows = [(v, (r - 1) * 25) for v, r in zip(VIDEOS, RATINGS)]
    _csv("h.csv", ["video", "overall"], rows)
    one = evaluate("p.json", "m.csv", unit="clip", **QUICK).scores["overall"].figures
    hundred = evaluate("p.json", "h.csv", scale=Scale(0, 100), **QUICK).scores["overall"].figures
    for name, value in one.items():
        metric = METRICS.get(name.removesuffix("_fitted"))
        factor = 25.0 if metric is not None and metric.same_scale else 1.0
        assert hundred[name].value == pytest.approx(factor * value.value, rel=1e-4), name


def test_predictions_off_their_scale_have_no_plain_rmse(files):
    _predict("q.json", 10 * SCORES)
    found = evaluate("q.json", "m.csv", **QUICK)
    assert "rmse" not in found.scores["overall"].figures
    assert "predictions reach outside 1-5" in found.notes[0]
    stated = evaluate("q.json", "m.csv", prediction_scale=Scale(10, 50), **QUICK)
    plain = np.sqrt(np.mean((SCORES - RATINGS) ** 2))
    assert stated.scores["overall"].figures["rmse"].value == pytest.approx(plain)


def test_results_of_score_and_another_column(files):
    results = [
        Assessment(
            video=f"elsewhere/{v}",
            overall=Score(s, 0.5),
            technical=Score(2.0, 0.1),
            model="lite",
            version="0",
            seconds=1.0,
        )
        for v, s in zip(VIDEOS, SCORES)
    ]
    for name in ("r.csv", "r.jsonl", "r.parquet"):
        with ResultsFile(name) as file:
            for row in results:
                file.write(row)
        found = evaluate(name, "m.csv", **QUICK)
        assert list(found.scores) == ["overall"]
        assert found.clips["overall"].stds == pytest.approx([0.5] * N)
    _csv("c.csv", ["video", "overall", "MUSIQ"], [(v, 1, s) for v, s in zip(VIDEOS, SCORES)])
    for column in ("musiq", "MUSIQ"):
        found = evaluate("c.csv", "m.csv", column=column, **QUICK)
        assert found.scores["overall"].clips == N


@pytest.mark.parametrize(
    "scores, message",
    [
        (
            np.full(N, 3.0),
            "nothing can be evaluated: overall: all 24 predictions are 3, which orders",
        ),
        (SCORES[:4], "overall: 4 clips have both a prediction and a rating, at least 5 are needed"),
    ],
)
def test_constant_and_too_few_predictions_are_told(files, scores, message):
    _predict("p.json", scores)
    assert message in _run("p.json", "m.csv", code=2)


def test_one_score_of_two_fails(files):
    rows = [(v, r, r) for v, r in zip(VIDEOS, RATINGS)]
    _csv("m.csv", ["video", "technical", "motion"], rows)
    _csv("p.csv", ["video", "technical", "motion"], [(v, s, 2) for v, s in zip(VIDEOS, SCORES)])
    output = _run("p.csv", "m.csv", code=1)
    assert "motion cannot be evaluated: all 24 predictions are 2" in output


def test_rows_without_a_score_are_noted(files):
    rows = [{"video": v, "overall": float(s)} for v, s in zip(VIDEOS, SCORES)]
    rows[0]["overall"] = rows[5]["overall"] = None
    Path("p.json").write_text(json.dumps(rows))
    assert evaluate("p.json", "m.csv", **QUICK).notes[0] == (
        f"p.json: overall is empty for 2 ({VIDEOS[0]}, {VIDEOS[5]}) of 24 videos"
    )


def test_what_is_missing_is_noted(files):
    rows = [{"video": v, "overall": float(s)} for v, s in zip(VIDEOS[2:], SCORES[2:])]
    rows += [{"video": VIDEOS[0], "overall": None, "error": "broken"}, {"video": "x", "overall": 1}]
    Path("p.json").write_text(json.dumps(rows))
    assert evaluate("p.json", "m.csv", **QUICK).notes == [
        "p.json: no prediction for 1 (gen1/0.mp4) of 24 videos",
        "p.json: could not be scored: 1 (gen0/0.mp4)",
        "p.json: 1 predictions are for videos without a rating",
        "overall: only 8 prompts, so that intervals are too narrow and p-values too small",
    ]


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["nowhere.json", "m.csv"], "nowhere.json: No such file or directory"),
        (["p.json", "m.csv", "--where", "colour=red"], "m.csv: has no column 'colour', it has"),
        (["p.json", "m.csv", "--where", "old"], "'old': expected COLUMN=VALUE"),
        (["p.json", "m.csv", "--where", "old=never"], "m.csv: no row has old=never"),
        (
            ["p.json", "m.csv", "--where", "Overall=3"],
            "'Overall=3': a condition is on a label of a row, not on a score",
        ),
        (
            ["p.json", "m.csv", "--score", "motion"],
            "m.csv: has no motion; for these clips it has over",
        ),
        (["p.json", "m.csv", "--score", "beauty"], "'beauty' is no score"),
        (
            ["p.json", "m.csv", "--column", "musiq"],
            "p.json: has no column 'musiq', it has video, pred",
        ),
        (["p.json", "m.csv", "--scale", "5:1"], "a scale is LOW:HIGH"),
        (
            ["p.json", "m.csv", "--scale", "0:1"],
            "; scores are taken to be on 0-1; --scale LOW:HIGH says otherwise",
        ),
        (
            ["p.json", "m.csv", "--out", "e.doc"],
            "e.doc: tables are written as .json, .md, .tex, .txt",
        ),
        (["p.json", "m.csv", "--report", "e.pdf"], "e.pdf: a report is an .html file"),
        (["p.json", "m.csv", "--out", "./p.json"], "p.json: would be written over itself"),
    ],
)
def test_wrong_use_is_one_line(files, arguments, message):
    output = _run(*arguments, code=2)
    assert message in output and len(output.strip().splitlines()) == 1


def test_another_column_is_pointed_to(files):
    _csv("p.csv", ["video", "musiq"], zip(VIDEOS, SCORES))
    output = _run("p.csv", "m.csv", code=2)
    assert "p.csv: none for these clips; --column names the one with overall" in output


def test_ratings_without_a_score_are_told_what_to_be_called(files):
    _csv("r.csv", ["video", "mos"], zip(VIDEOS, SCORES))
    output = _run("p.json", "r.csv", code=2)
    assert "r.csv: none for these clips; p.json: " in output
    assert output.rstrip().endswith("; one of these must be a column of r.csv")


def test_tables_in_memory_are_told_to_be_files(files):
    with pytest.raises(
        TypeError, match=r"are files, got a dict; .* table.to_csv\('predictions.csv'"
    ):
        evaluate({"video": VIDEOS, "overall": SCORES}, "m.csv")


@pytest.mark.parametrize(
    "row, message",
    [
        ({"video": "a.mp4", "overall": "good"}, "row 1: overall must be a number, got 'good'"),
        ({"video": "a.mp4", "overall": True}, "row 1: overall must be a number, got True"),
        ({"video": "a.mp4", "overall": 1e999}, "row 1: overall is inf; leave it empty"),
        ({"video": "", "overall": 1}, "row 1: video must be a name"),
    ],
)
def test_wrong_rows_are_named(files, row, message):
    Path("p.jsonl").write_text(json.dumps(row) + "\n")
    with pytest.raises(InputError, match=message):
        read_predictions("p.jsonl")


def test_a_video_that_is_written_in_two_ways_counts_once(files):
    rows = [(f"{start}{v}", r) for start in ("", "./") for v, r in zip(VIDEOS, RATINGS)]
    _csv("two.csv", ["video", "overall"], rows)
    assert evaluate("p.json", "two.csv", **QUICK).scores["overall"].clips == N


def test_spaces_around_names_make_no_others(files):
    rows = [(f"{v} ", f" {g}", r) for v, g, r in zip(VIDEOS, "AB" * N, RATINGS)]
    _csv("padded.csv", ["video", "generator", "overall"], rows)
    found = evaluate("p.json", "padded.csv", **QUICK)
    assert found.scores["overall"].clips == N
    assert found.generators["overall"] == ["A", "B"]
    predicted = read_predictions("padded.csv")
    assert {clip.generator for clip in predicted} == {"A", "B"}


def test_absolute_paths_are_found_from_the_manifest(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    wanted = [_entry("../1.mp4"), _entry("../a/1.mp4")]
    for start in ("v", str(tmp_path / "v")):
        offered = [_entry(f"{start}/1.mp4", 1.0), _entry(f"{start}/a/1.mp4", 2.0)]
        found, spare = match(wanted, offered, wanted_folder=Path("v/folds"), path="p")
        assert (found, spare) == (offered, [])


def test_the_score_of_another_prompt_is_none_of_a_video_with_several():
    wanted = [_entry("a.mp4", prompt="dog"), _entry("a.mp4", prompt="cat"), _entry("a.mp4")]
    dog, bare = _entry("a.mp4", 2.0, prompt="dog"), _entry("a.mp4", 3.0)
    assert match(wanted, [dog], wanted_folder=Path(), path="p")[0] == [dog, None, dog]
    assert match(wanted, [bare], wanted_folder=Path(), path="p")[0] == [bare] * 3


def _entry(video, score=1.0, prompt=None):
    return RatedClip(row=1, video=video, path=Path(video), scores={"overall": score}, prompt=prompt)


def test_videos_are_matched_by_the_end_of_the_path_that_is_unique():
    wanted = [_entry("a/1.mp4"), _entry("b/1.mp4"), _entry("2.mp4"), _entry("3.mp4")]
    offered = [
        _entry("/x/b/1.mp4"),
        _entry("C:\\x\\a\\1.mp4"),
        _entry("./2.mp4"),
        _entry("q/3.mp4"),
        _entry("r/3.mp4"),
    ]
    found, spare = match(wanted, offered, wanted_folder=Path("m"), path="p")
    assert [e and e.video for e in found] == ["C:\\x\\a\\1.mp4", "/x/b/1.mp4", "./2.mp4", None]
    assert {e.video for e in spare} == {"q/3.mp4", "r/3.mp4"}


def test_the_last_two_of_a_name_are_no_pair_because_the_others_were_found():
    wanted = [_entry("a/1.mp4"), _entry("b/1.mp4")]
    offered = [_entry("a/1.mp4"), _entry("c/1.mp4")]
    assert match(wanted, offered, wanted_folder=Path(), path="p")[0] == [offered[0], None]


def test_accents_are_matched_however_they_are_stored():
    (found,), _ = match(
        [_entry("x/caf\u00e9.mp4")], [_entry("x/cafe\u0301.mp4")], wanted_folder=Path(), path="p"
    )
    assert found is not None


def test_repeated_predictions_have_to_agree():
    wanted = [_entry("a.mp4", prompt="dog")]
    same = [_entry("a.mp4"), _entry("a.mp4")]
    assert match(wanted, same, wanted_folder=Path(), path="p")[0] == [same[0]]
    by_prompt = [_entry("a.mp4", 1.0, "cat"), _entry("a.mp4", 2.0, "dog")]
    assert match(wanted, by_prompt, wanted_folder=Path(), path="p")[0] == [by_prompt[1]]
    with pytest.raises(InputError, match="p: a.mp4 has different scores in rows 1, 1"):
        match(wanted, [_entry("a.mp4", 1.0), _entry("a.mp4", 2.0)], wanted_folder=Path(), path="p")


def test_special_characters_in_tables():
    cell = Estimate(value=-0.5, low=-0.75, high=0.25)
    table = Table(title="50% & more_or|less", header=["", "a"], rows=[["x_y|z", cell], ["b", None]])
    assert "| x\\_y\\|z | -0.500 [-0.750, 0.250] |" in as_markdown([table])
    latex = as_latex([table])
    assert "50\\% \\& more\\_or|less" in latex
    assert "x\\_y|z & $-0.500$ {\\scriptsize $[-0.750, 0.250]$} \\\\" in latex


def test_rater_columns_of_fetv(data_dir, tmp_path):
    manifest = data_dir / "fetv_dev" / "manifest.csv"
    with open(manifest, encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["real"] == "False"]
    table = [[float(row[f"motion_rater{k}"]) for k in (1, 2, 3)] for row in rows]
    path = tmp_path / "p.csv"
    _csv(path, ["video", "motion"], [(row["video"], t[0]) for row, t in zip(rows, table)])
    found = evaluate(path, manifest, where=["real=False"], **QUICK).scores["motion"]
    expected = [
        stats.spearmanr([t[k] for t in table], [sum(t) - t[k] for t in table]).statistic
        for k in range(3)
    ]
    assert found.human["srocc"].value == pytest.approx(np.mean(expected))
    assert found.clips == 68 and len(found.generators) == 4 and len(found.prompts) == 17

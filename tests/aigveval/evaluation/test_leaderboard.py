"""Ranks, intervals and significance groups of generators."""

import itertools
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy import stats
from typer.testing import CliRunner

from aigveval.cli.app import app
from aigveval.errors import InputError
from aigveval.evaluation.figures import Sampling
from aigveval.evaluation.leaderboard import _letters, generators_of_folders, rank
from aigveval.evaluation.ratings import RatedClip
from aigveval.inference import assessor as assess
from aigveval.inference.assessor import Assessor
from aigveval.reports.tables import board_tables

from ..engines import TextEngine


def _entries(prompts: int = 20, **shifts: float) -> list[RatedClip]:
    random = np.random.default_rng(0)
    easy = random.normal(0, 0.5, prompts)
    return [
        RatedClip(
            row=1,
            video=f"{name}/{p}.mp4",
            path=Path(f"{name}/{p}.mp4"),
            prompt=f"prompt {p}",
            generator=name,
            scores={"overall": 3.0 + shift + easy[p] + random.normal(0, 0.1)},
        )
        for name, shift in shifts.items()
        for p in range(prompts)
    ]


def test_order_means_and_groups():
    board = rank(_entries(good=0.5, also=0.48, bad=-0.5))
    assert {board.places[0].generator, board.places[1].generator} == {"good", "also"}
    assert [place.groups for place in board.places] == ["a", "a", "b"]
    best = board.places[0]
    values = [e.scores["overall"] for e in board.ratings[best.generator]]
    assert best.scores["overall"].value == pytest.approx(np.mean(values))
    assert best.scores["overall"].low < np.mean(values) < best.scores["overall"].high
    assert (best.ranks.low, board.places[2].ranks.low) == (1.0, 3.0)
    assert board.settings["resampled"] == "prompts"


def test_one_clip_a_prompt_is_the_paired_t_test():
    board = rank(_entries(a=0.03, b=0.0), sampling=Sampling(draws=4000))
    values = [[e.scores["overall"] for e in board.ratings[name]] for name in "ab"]
    assert board.p_values[0][2] == pytest.approx(stats.ttest_rel(*values).pvalue, rel=0.15)


def test_three_prompts_do_not_make_everything_significant():
    board = rank(_entries(prompts=3, a=0.15, b=0.0))
    assert [place.groups for place in board.places] == ["a", "a"]
    assert board.notes == [
        "a generator has only 3 prompts: the intervals of the means are too narrow"
    ]


@pytest.mark.parametrize(
    "differ",
    [
        set(),
        {(0, 2)},
        {(0, 1), (0, 2), (1, 2)},
        {(0, 3), (1, 3), (0, 2)},
        {(0, 1), (2, 3), (0, 3)},
    ],
)
def test_letters_are_shared_exactly_where_there_is_no_difference(differ):
    letters = _letters(4, differ)
    for pair in itertools.combinations(range(4), 2):
        shared = set(letters[pair[0]]) & set(letters[pair[1]])
        assert bool(shared) == (pair not in differ)


def test_no_samples_no_groups():
    board = rank(_entries(a=1.0, b=0.0), sampling=Sampling(draws=0))
    assert [place.groups for place in board.places] == ["", ""]
    assert board_tables(board)[0].rows[0][1] == "1"


def test_equal_means_are_ties_however_they_were_rounded():
    random = np.random.default_rng(1)
    for _ in range(10):
        first = _entries(prompts=int(random.integers(10, 40)), a=0.0)
        second = [replace(first[i], generator="b") for i in random.permutation(len(first))]
        board = rank(first + second, sampling=Sampling(draws=100))
        assert board.p_values == [("a", "b", 1.0)]
        assert all((place.groups, place.ranks.high) == ("a", 1.0) for place in board.places)
        assert [place.rank for place in board.places] == [1, 1]


def test_those_behind_a_tie_keep_their_rank():
    entries = _entries(a=0.0, b=0.5)
    entries += [replace(clip, generator="c") for clip in entries if clip.generator == "b"]
    board = rank(entries, sampling=Sampling(draws=100))
    found = {place.generator: place.rank for place in board.places}
    ranks = {place.generator: place.ranks for place in board.places}
    assert found == {"b": 1, "c": 1, "a": 3}
    assert all(ranks[name].low <= found[name] <= ranks[name].high for name in found)


def test_a_clip_has_one_row_of_results_but_may_have_several_ratings():
    entries = _entries(prompts=3, a=0.0, b=0.5)
    again = [replace(clip, row=7, scores={"overall": 4.0}) for clip in entries]
    assert rank(entries + again).places[0].clips == 6
    with pytest.raises(InputError, match="a/0.mp4 has different scores in rows 1 and 7; a leader"):
        rank([replace(clip, model="lite") for clip in entries + again])


def test_different_prompts_are_noted():
    entries = _entries(a=1.0, b=0.0)
    assert "different prompts (19 in common)" in rank(entries[:-1]).notes[0]


def test_a_mean_of_one_clip_has_no_interval():
    entries = _entries(a=1.0, b=0.0, c=-1.0)
    alone = next(clip for clip in entries if clip.generator == "c")
    board = rank([*entries[:40], alone], sampling=Sampling(draws=50))
    places = {place.generator: place for place in board.places}
    for name, place in places.items():
        found = place.scores["overall"]
        assert found.value is not None and (found.low is None) == (name == "c")
        assert (place.ranks.low is None) == (name == "c")
    assert board_tables(board)[0].rows[2][1] == "3"
    assert "a generator has only one prompt, so no interval: the intervals" in board.notes[-1]
    assert "no interval" not in " ".join(
        rank([*entries[:40], alone], sampling=Sampling(draws=0)).notes
    )


def test_prompts_of_clips_without_a_score_do_not_count_as_shared():
    entries = _entries(prompts=12, a=1.0, b=0.0)
    entries[-1] = replace(entries[-1], scores={}, error="no video")
    notes = rank(entries, sampling=Sampling(draws=10)).notes
    assert "different prompts (11 in common)" in notes[0]
    assert notes[1] == "1 of 24 clips have no overall and are not in its mean: 1 of b"


def test_a_video_with_rows_of_two_prompts_is_noted():
    entries = [replace(clip, model="lite") for clip in _entries(prompts=12, a=1.0, b=0.0)]
    assert rank(entries, sampling=Sampling(draws=10)).notes == []
    again = replace(entries[0], prompt=None)
    notes = rank([*entries, again], sampling=Sampling(draws=10)).notes
    assert notes == ["a/0.mp4 count as several clips, as there are rows of more prompts"]


def test_folders_name_generators():
    def entry(video, generator=None):
        return RatedClip(row=1, video=video, path=Path(video), scores={}, generator=generator)

    named = generators_of_folders([entry("x/a/1/c.mp4"), entry("x/b/2/c.mp4")])
    assert [e.generator for e in named] == ["a", "b"]
    with pytest.raises(InputError, match="x/c.mp4: of which generator"):
        generators_of_folders([entry("x/c.mp4"), entry("x/d.mp4")])


@pytest.mark.parametrize(
    "entries, options, message",
    [
        (_entries(a=0.0), {}, "a leaderboard needs two generators, got a"),
        (
            _entries(a=0.0, b=0.0),
            {"by": "motion"},
            "no clip has the score 'motion', there are overall",
        ),
    ],
)
def test_what_cannot_be_ranked(entries, options, message):
    with pytest.raises(InputError) as error:
        rank(entries, **options)
    assert str(error.value) == message


def test_command_on_folders_scores_them_once(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    engine = TextEngine()
    monkeypatch.setattr(
        assess,
        "load",
        lambda model, *, device, dtype, **options: Assessor(engine, name=model, **options),
    )
    for generator, scores in (("low", (1.0, 2.0, 2.5)), ("high", (4.0, 4.5, 5.0))):
        Path("g", generator).mkdir(parents=True)
        for index, score in enumerate(scores):
            Path("g", generator, f"{index}.mp4").write_text(str(score))
    Path("g/low/bad.mp4").write_text("unreadable")
    command = ["leaderboard", "g", "--report", "l.html", "--out", "l.json"]
    for computed in (6, 6):  # the second time all scores are there
        result = CliRunner().invoke(app, command)
        assert result.exit_code == 1, result.output  # a clip failed
        assert sum(map(len, engine.batches)) == computed
    places = json.loads(Path("l.json").read_text())["places"]
    assert [(p["generator"], p["clips"], p["failed"]) for p in places] == [
        ("high", 3, 0),
        ("low", 3, 1),
    ]
    assert Path("l.html").stat().st_size > 10_000
    # rows of another model stay in the file, and out of the leaderboard
    results = Path("leaderboard.jsonl")
    results.write_text(results.read_text().replace('"model": "lite', '"model": "another'))
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 1, result.output
    assert len(results.read_text().splitlines()) == 14
    assert json.loads(Path("l.json").read_text())["places"] == places


def test_command_says_before_scoring_that_there_are_no_generators(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(assess, "load", lambda *_, **__: pytest.fail("scored in vain"))
    for name in ("low/1.mp4", "low/2.mp4", "high/1.mp4"):
        Path("g", name).parent.mkdir(parents=True, exist_ok=True)
        Path("g", name).write_text("3")
    for folder, message in (
        ("g/low", "g/low/1.mp4: of which generator"),
        ("g/high", "g/high/1.mp4: of which generator"),
    ):
        result = CliRunner().invoke(app, ["leaderboard", folder])
        assert result.exit_code == 2 and message in result.output
    Path("m.csv").write_text("video,generator\ng/low/1.mp4,x\ng/low/2.mp4,x\n")
    result = CliRunner().invoke(app, ["leaderboard", "g", "--manifest", "m.csv"])
    assert result.exit_code == 2 and "m.csv: has no row for g/high/1.mp4" in result.output
    result = CliRunner().invoke(app, ["leaderboard", "g/low", "--manifest", "m.csv"])
    assert result.exit_code == 2 and "needs two generators, got x" in result.output


def test_command_names_folders_without_videos(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(assess, "load", lambda model, **options: Assessor(TextEngine(), name=model))
    for name in ("a/1.mp4", "b/1.mp4", "c/1.mpfour"):
        Path("g", name).parent.mkdir(parents=True)
        Path("g", name).write_text("3")
    result = CliRunner().invoke(app, ["leaderboard", "g"])
    assert result.exit_code == 0 and "note: no video is in c\n" in result.output


def test_command_on_a_table(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rows = [
        {"video": e.video, "prompt": e.prompt, "generator": e.generator, **e.scores}
        for e in _entries(good=0.5, bad=-0.5)
    ]
    Path("s.json").write_text(json.dumps(rows))
    result = CliRunner().invoke(app, ["leaderboard", "s.json", "--out", "l.json", "--out", "l.md"])
    assert result.exit_code == 0, result.output
    written = json.loads(Path("l.json").read_text())
    assert [place["generator"] for place in written["places"]] == ["good", "bad"]
    assert "| good | 1 [1, 1] | a | 20 |" in Path("l.md").read_text()
    Path("m.csv").write_text("video,generator\nelsewhere.mp4,good\n")
    result = CliRunner().invoke(app, ["leaderboard", "m.csv", "--manifest", "s.json"])
    assert "m.csv" not in result.output and result.exit_code == 2
    assert "error: s.json: has no row for elsewhere.mp4\n" in result.output
    result = CliRunner().invoke(app, ["leaderboard", "s.json", "--out", "s.json"])
    assert result.exit_code == 2 and "s.json: would be written over itself" in result.output

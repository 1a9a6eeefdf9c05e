"""Real Ray: two processes on two cores, or one where two show no more."""

import json
import sys
from contextlib import contextmanager
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from safetensors.numpy import load_file
from typer.testing import CliRunner

from aigveval.cli.app import app
from aigveval.data.manifest import make_clip
from aigveval.errors import AssessmentError, UsageError, newer_versions
from aigveval.inference import assessor
from aigveval.reports.results import ResultsFile, read_results
from aigveval.scale import Encoder, Scorer, cluster
from aigveval.scale.cluster import Cluster, GivenUp

from ..inference.makers import fake_load
from . import works
from tests import media

ray = pytest.importorskip("ray")
pytestmark = pytest.mark.slow
ONE = ("--engine", "ray", "--processes", 1)  # each takes seconds to import what it needs
BUG = f"RuntimeError: a bug with two lines{newer_versions()}"  # from Ray's own processes


@pytest.fixture(scope="module", autouse=True)
def two_cpus():
    ray.init(
        num_cpus=2,
        include_dashboard=False,
        object_store_memory=80 << 20,
        log_to_driver=False,
        logging_level="ERROR",
    )
    yield
    ray.shutdown()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Clips of two generators, one of them broken."""
    folder = tmp_path_factory.mktemp("clips")
    for number in range(9):
        path = folder / ("ab"[number % 2]) / f"{number}.mp4"
        path.parent.mkdir(exist_ok=True)
        media.write_video(path, num_frames=4, seed=number)
    (folder / "a/4.mp4").write_bytes(b"not a video")
    return folder


@pytest.fixture
def texts(tmp_path, monkeypatch):
    """Files that hold their scores, for `works.load`, behind the commands."""
    monkeypatch.setattr(assessor, "load", works.load)
    monkeypatch.setattr(assessor, "row_name", lambda *model, **options: "texts")

    def write(*contents):
        paths = [tmp_path / "clips" / "ab"[n % 2] / f"{n}.mp4" for n in range(len(contents))]
        for path, content in zip(paths, contents):
            path.parent.mkdir(exist_ok=True, parents=True)
            path.write_text(str(content))
        return paths

    return write


def run_echo(names, **options):
    clips = [make_clip(name) for name in names]
    with Cluster() as two:
        return list(two.run(partial(works.Echo, **options), clips, ahead=2))


@pytest.mark.parametrize("deadly", ["dies.mp4", "gpu.mp4"])
def test_a_process_lost_in_the_middle_loses_and_doubles_nothing(tmp_path, deadly):
    names = [f"{number}.mp4" for number in range(40)]
    names[7] = deadly
    found = run_echo(names, flag=str(tmp_path / "flag"))
    assert (tmp_path / "flag").exists()
    assert sorted(found) == [(number, (name, None)) for number, name in enumerate(names)]


def test_a_clip_that_kills_every_process_is_given_up():
    names = ["0.mp4", "dies.mp4", *(f"{number}.mp4" for number in range(2, 12))]
    found = dict(run_echo(names))
    assert found.pop(1) == GivenUp("3 processes died with it, one by one")
    assert found == {n: (name, None) for n, name in enumerate(names) if n != 1}


def test_processes_that_always_die_end_the_run(monkeypatch):
    monkeypatch.setattr(cluster, "FRUITLESS", 2)
    with pytest.raises(AssessmentError, match=r"^the processes of the Ray cluster die \(.+\); aig"):
        run_echo(["dies.mp4"] * 40)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (works.no_model, "^no weights here$"),
        (
            works.with_a_bug,
            "^a process of the Ray cluster failed; something other than the video is at fault: "
            r"RuntimeError: a bug with two lines \(aigveval ",
        ),
    ],
)
def test_what_keeps_a_process_from_working_is_said(make, message):
    with Cluster() as two, pytest.raises(UsageError, match=message):
        list(two.run(make, [make_clip("a.mp4")], ahead=2))


@contextmanager
def all_taken():
    holder = ray.remote(works.Echo).options(num_cpus=2).remote()
    ray.get(holder.__ray_ready__.remote())
    try:
        yield
    finally:
        ray.kill(holder)


def test_a_cluster_whose_cpus_are_taken_gives_a_message(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(cluster, "ROOM_SECONDS", 0.3)
    with all_taken():
        done = command("score", folder, "--engine", "ray", "--out", tmp_path / "r.jsonl")
    assert done.exit_code == 2
    assert done.stderr == (
        "error: the CPUs of the Ray cluster are all taken: of 2 0 are free; try again when its "
        "other jobs have ended\n"
    )
    assert not (tmp_path / "r.jsonl").exists()


def command(*arguments):
    return CliRunner().invoke(app, [*map(str, arguments), "--quiet"])


def test_commands_give_what_they_give_on_one_machine(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(assessor, "load", fake_load())
    monkeypatch.setattr(assessor, "row_name", lambda *model, **options: "tiny")
    monkeypatch.chdir(folder.parent)  # paths are relative, as people give them
    clips = [folder.name, f"file://{folder}/a/0.mp4", "memory://gone.mp4", "gone.mp4"]

    def rows_of(name, *options):
        out = tmp_path / name
        done = command("score", *clips, "--prompt", "a dog", "--out", out, *options)
        assert done.exit_code == 1, done.output
        return read_results(out)

    ours = rows_of("local.jsonl")
    theirs = rows_of("ray.csv", "--engine", "ray", "--batch-size", 2)
    assert [row.video for row in theirs] == [row.video for row in ours]
    assert [row.error is None for row in theirs] == [True] * 2 + [False] + [True] * 7 + [False] * 2
    assert [row.error for row in theirs[-2:]] == ["no such file"] * 2
    assert theirs[9].overall == theirs[0].overall  # by its address
    for row, other in zip(theirs, ours):
        assert (row.prompt, row.model) == (other.prompt, other.model)
        if other.overall:
            assert row.overall.score == pytest.approx(other.overall.score, abs=1e-4)
            assert row.motion.score == pytest.approx(other.motion.score, abs=1e-4)


def test_resume_computes_what_is_not_there_and_nothing_else(tmp_path, texts):
    texts(2, 4, 3, "unreadable", 1, 5)
    out = tmp_path / "r.csv"
    asked = ["score", tmp_path / "clips", "--out", out, *ONE]
    assert command(*asked).exit_code == 1
    whole = read_results(out)
    long = [replace(row, seconds=77.0) for row in whole]  # seconds are rounded, and may be alike
    with ResultsFile(out) as file:
        for row in long[1:5]:
            file.write(row)
    assert command(*asked, "--resume").exit_code == 1
    again = read_results(out)
    assert [row.overall for row in again] == [row.overall for row in whole]
    assert [row.video for row in again] == [row.video for row in whole]
    same = [row.seconds == other.seconds for row, other in zip(again, long)]
    assert whole[4].error and same[1:4] == [True] * 3 and not all(same)
    assert same == [False, True, True, True, False, False]


def test_a_fault_of_the_software_ends_the_run_with_one_line(tmp_path, texts):
    texts("bug", "unreadable", *["bug"] * 6)
    out = tmp_path / "r.jsonl"
    done = command("score", tmp_path / "clips", *ONE, "--out", out)
    assert done.exit_code == 2 and done.stderr.count("\n") == 1
    assert done.stderr.startswith(
        "error: none of 7 videos could be assessed; something other than the video is at fault: "
        "RuntimeError: a bug with two lines (aigveval "
    )
    assert [row.error for row in read_results(out)] == ["not a video"]


def test_a_leaderboard(tmp_path, texts):
    texts(2, 4, 3, "unreadable", "bug", 5)
    results, board = tmp_path / "board.jsonl", tmp_path / "board.json"
    asked = ["leaderboard", tmp_path / "clips", "--results", results, "--out", board]
    assert command(*asked, "--draws", 0, *ONE).exit_code == 1
    errors = [row.error for row in read_results(results)]
    assert errors == [None, None, BUG, None, "not a video", None]
    places = json.loads(board.read_text())["places"]
    assert [(place["generator"], place["clips"]) for place in places] == [("b", 2), ("a", 2)]


def test_features(folder, tmp_path):
    asked = ["features", folder, "--encoder", "motion_flow", "--out"]
    assert command(*asked, tmp_path / "local").exit_code == 1
    assert command(*asked, tmp_path / "ray", *ONE).exit_code == 1
    ours, theirs = (
        [json.loads(line) for line in (tmp_path / name / "index.jsonl").read_text().splitlines()]
        for name in ("local", "ray")
    )
    assert len(ours) == 9 and ours[2]["error"].startswith("not a readable")
    for row, other in zip(ours, theirs, strict=True):
        assert [row[n] for n in ("video", "file", "error")] == [
            other[n] for n in ("video", "file", "error")
        ]
        if row["file"]:
            mine, found = (load_file(tmp_path / n / row["file"]) for n in ("local", "ray"))
            np.testing.assert_allclose(found["motion_flow"], mine["motion_flow"], atol=1e-4)


def test_classes_for_pipelines_of_ray_data(folder, tmp_path, texts):
    """With an actor killed in the middle."""
    import ray.data

    ray.data.DataContext.get_current().enable_progress_bars = False
    paths = list(map(str, texts(1, 2, "unreadable", 4, 5, "dies", 2, 1.5, "bug", 4, 5, 1)))
    table = [{"path": path, "id": number} for number, path in enumerate(paths)]
    flag = tmp_path / "flag"
    scored = ray.data.from_items(table, override_num_blocks=12).map_batches(
        Scorer,
        fn_constructor_kwargs={"make": works.load, "model": str(flag)},
        batch_size=1,
        compute=ray.data.ActorPoolStrategy(size=2),
        num_cpus=0.9,
    )
    rows = sorted(scored.take_all(), key=lambda row: row["id"])
    assert flag.exists() and [row["path"] for row in rows] == paths
    errors = {2: "not a video", 8: BUG}
    assert [row["error"] for row in rows] == [errors.get(n, "") for n in range(12)]
    values = [1, 2, np.nan, 4, 5, 3, 2, 1.5, np.nan, 4, 5, 1]
    np.testing.assert_array_equal([row["overall"] for row in rows], values)

    videos = sorted(map(str, folder.rglob("*.mp4")))
    encoded = ray.data.from_items([{"video": video} for video in videos]).map_batches(
        Encoder,
        fn_constructor_kwargs={"encoder": "flow", "pooled": True},
        compute=ray.data.ActorPoolStrategy(size=1),
        num_cpus=0.9,
    )
    rows = sorted(encoded.take_all(), key=lambda row: row["video"])
    assert [row["video"] for row in rows] == videos
    assert [bool(row["error"]) for row in rows] == [n == 2 for n in range(9)]
    assert [np.isnan(row["pooled"]).all() for row in rows] == [n == 2 for n in range(9)]


def test_without_ray_or_its_cluster(folder, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(ray, "is_initialized", lambda: False)
        done = command("score", folder, "--engine", "ray", "--address", "127.0.0.1:9")
    assert done.exit_code == 2
    assert done.stderr.startswith("error: no Ray cluster at 127.0.0.1:9: [Errno ")
    monkeypatch.setitem(sys.modules, "ray", None)
    done = command("score", folder, "--engine", "ray")
    assert done.exit_code == 2
    assert done.stderr == "error: --engine ray needs Ray: pip install 'aigveval[ray]'\n"
    done = command("score", folder, "--address", "auto")
    assert done.stderr == "error: --address and --processes are of --engine ray\n"

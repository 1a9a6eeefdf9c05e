"""`aigveval features`: tokens in files, one row per video, errors included, and going on."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.dataset
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from typer.testing import CliRunner

from aigveval.cli.app import app
from aigveval.features import export as features_module
from aigveval.model.precision import find_device
from encoders import create_encoder, registry
from encoders.video import read_views

from ..tiny_llm import MeanColour
from tests import media

FLOW = {"name": "motion_mean", "dimension": "motion", "num_tokens": 4, "dim": 5}
LOOK = {
    "name": "semantic_mean",
    "dimension": "semantic",
    "num_tokens": 3,
    "dim": 7,
    "reads_text": True,
}


class Nan(MeanColour):
    """Its tokens of the second clip are no numbers."""

    encoded = 0

    def encode(self, view):
        self.encoded += 1
        return super().encode(view) * (float("nan") if self.encoded == 2 else 1.0)


@pytest.fixture(autouse=True)
def work(monkeypatch, tmp_path):
    """Two small encoders, and three videos with prompts in the current folder."""
    made = {
        "motion_mean": lambda: MeanColour(**FLOW),
        "semantic_mean": lambda: MeanColour(**LOOK),
        "motion_nan": lambda: Nan(**{**FLOW, "name": "motion_nan"}),
    }
    monkeypatch.setattr(registry, "_registered", made)
    monkeypatch.chdir(tmp_path)
    os.mkdir("v")
    for seed, name in enumerate("abc"):
        media.write_video(Path(f"v/{name}.mp4"), num_frames=6, seed=seed)
    Path("p.json").write_text('{"v/a.mp4": "A", "v/b.mp4": "a longer one", "v/c.mp4": ""}')


def run(*arguments, code=0):
    result = CliRunner().invoke(app, ["features", *arguments])
    assert result.exit_code == code, result.output
    assert "Traceback" not in result.output
    return result


def index(folder="out"):
    lines = Path(folder, "index.jsonl").read_text().splitlines()
    return {(row["video"], row["prompt"]): row for row in map(json.loads, lines)}


def tokens_of(folder="out"):
    """(video, prompt) to tokens by encoder, whatever the format."""
    found = {}
    for key, row in index(folder).items():
        if row["file"] is None:
            continue
        path = Path(folder, row["file"])
        if path.suffix == ".safetensors":
            found[key] = load_file(path)
        else:
            with pyarrow.OSFile(str(path)) as file:
                record = pyarrow.ipc.open_file(file).read_all().slice(row["row"], 1).to_pylist()[0]
            assert (record.pop("video"), record.pop("prompt")) == key
            found[key] = {name: torch.tensor(value) for name, value in record.items()}
    return found


def expected(video, prompt, *names):
    """Computed where the command does: a GPU's last digits are others."""
    device = find_device(None)
    encoders = {name: create_encoder(name).to(device) for name in names}
    views = read_views(video, encoders)
    text = [prompt] if prompt else None
    return {
        name: one(views[name][None].to(device), text)[0].cpu() for name, one in encoders.items()
    }


@pytest.mark.parametrize("kind", ["safetensors", "arrow"])
def test_tokens_are_those_of_the_encoders(kind):
    result = run(
        "v",
        "--encoder",
        "motion=mean",
        "--encoder",
        "semantic_mean",
        "--prompts",
        "p.json",
        "--out",
        "out",
        "--format",
        kind,
    )
    assert result.stdout == "features of 3 of 3 videos are in out\n"
    found = tokens_of()
    assert list(found) == [("v/a.mp4", "A"), ("v/b.mp4", "a longer one"), ("v/c.mp4", None)]
    for (video, prompt), tokens in found.items():
        wanted = expected(video, prompt, "motion_mean", "semantic_mean")
        assert set(tokens) == set(wanted)
        for name, value in wanted.items():
            assert tokens[name].dtype == torch.float32
            assert torch.equal(tokens[name], value)


def test_the_folder_says_what_made_it():
    run("v/a.mp4", "--encoder", "motion_mean", "--prompt", "P", "--out", "out")
    about = json.loads(Path("out/encoders.json").read_text())
    encoder = create_encoder("motion_mean")
    assert about["encoders"] == {
        "motion_mean": {
            "fingerprint": encoder.fingerprint(),
            "options": encoder.options(),
            "spec": encoder.spec.to_dict(),
        }
    }
    (row,) = index().values()
    with safe_open(Path("out", row["file"]), "pt") as file:
        assert file.metadata() == {
            "video": "v/a.mp4",
            "prompt": "P",
            "motion_mean": encoder.fingerprint(),
        }
    assert Path(row["file"]).name.startswith("a-") and row["seconds"] > 0
    # Who may read the index may read the tokens.
    assert Path("out", row["file"]).stat().st_mode == Path("out/index.jsonl").stat().st_mode


def test_options_may_be_paths(monkeypatch):
    monkeypatch.setattr(MeanColour, "options", lambda self: {"weights": Path("w.pt")})
    run("v/a.mp4", "--encoder", "motion_mean", "--out", "out")
    about = json.loads(Path("out/encoders.json").read_text())
    assert about["encoders"]["motion_mean"]["options"] == {"weights": "w.pt"}


def test_arrow_files_are_read_as_data_sets_by_others():
    run("v", "--encoder", "motion_mean", "--out", "out", "--format", "arrow")
    table = pyarrow.dataset.dataset("out/tokens", format="arrow").to_table()
    assert table.column_names == ["video", "prompt", "motion_mean"]
    frame = table.to_pandas()
    assert np.stack(frame["motion_mean"][1]).shape == (4, 5)
    datasets = pytest.importorskip("datasets")
    loaded = datasets.load_dataset(
        "arrow", data_files="out/tokens/*.arrow", split="train", cache_dir="cache"
    ).with_format("torch")
    wanted = expected("v/b.mp4", None, "motion_mean")["motion_mean"]
    assert torch.equal(loaded[1]["motion_mean"], wanted)


def test_a_video_with_two_prompts_is_two_rows():
    Path("p.jsonl").write_text(
        '{"video": "v/a.mp4", "prompt": "x"}\n{"video": "v/a.mp4", "prompt": "xyz"}\n'
    )
    run("--prompts", "p.jsonl", "--encoder", "semantic_mean", "--out", "out")
    first, second = (value["semantic_mean"] for value in tokens_of().values())
    assert torch.allclose(second - first, torch.tensor(2.0))  # the longer prompt


def test_a_video_that_fails_is_a_row_and_the_others_go_on():
    Path("v/b.mp4").write_bytes(b"no video")
    result = run("v", "v/gone.mp4", "--encoder", "motion_mean", "--out", "out", code=1)
    assert result.stdout == "features of 2 of 4 videos are in out\n"
    errors = {video: row["error"] for (video, _), row in index().items()}
    assert list(errors) == ["v/a.mp4", "v/b.mp4", "v/c.mp4", "v/gone.mp4"]
    assert errors["v/gone.mp4"] == "no such file" and "not a readable video" in errors["v/b.mp4"]
    assert [line.split(":")[1] for line in result.stderr.splitlines()] == [
        " v/b.mp4",
        " v/gone.mp4",
    ]
    assert set(tokens_of()) == {("v/a.mp4", None), ("v/c.mp4", None)}


def test_tokens_that_are_not_finite_are_an_error():
    run("v", "--encoder", "motion_nan", "--out", "out", code=1)
    assert [row["error"] for row in index().values()] == [
        None,
        "ValueError: motion_nan gave tokens that are not finite",
        None,
    ]


@pytest.mark.parametrize("kind", ["safetensors", "arrow"])
def test_going_on_encodes_what_is_missing_or_failed(kind, monkeypatch):
    options = ["--encoder", "motion_mean", "--out", "out", "--format", kind]
    good = Path("v/b.mp4").read_bytes()
    Path("v/b.mp4").write_bytes(b"no video")
    run("v/b.mp4", "v/c.mp4", "v/gone.mp4", *options, code=1)
    kept = tokens_of()
    Path("v/b.mp4").write_bytes(good)
    read = []
    monkeypatch.setattr(
        features_module,
        "read_views",
        lambda path, *rest: read.append(str(path)) or read_views(path, *rest),
    )
    result = run("v", *options, "--resume")
    assert result.stderr == "1 of 3 videos are already in out\n"
    assert sorted(read) == ["v/a.mp4", "v/b.mp4"]
    assert [video for video, _ in index()] == ["v/gone.mp4", "v/a.mp4", "v/b.mp4", "v/c.mp4"]
    assert index()["v/gone.mp4", None]["error"] == "no such file"  # not asked for this time
    found = tokens_of()
    assert set(found) == {(f"v/{name}.mp4", None) for name in "abc"}
    assert torch.equal(found["v/c.mp4", None]["motion_mean"], kept["v/c.mp4", None]["motion_mean"])


def test_a_killed_run_goes_on(monkeypatch):
    """As a kill leaves it: the last line cut short, an Arrow file that is in no row."""
    monkeypatch.setattr(features_module, "_SHARD_BYTES", 1)
    options = ["--encoder", "motion_mean", "--out", "out", "--format", "arrow"]
    run("v", *options)
    assert len(os.listdir("out/tokens")) == 3
    text = Path("out/index.jsonl").read_text()
    Path("out/index.jsonl").write_text(text[: text.rindex("\n", 0, -1) + 20])
    result = run("v", *options, "--resume")
    assert result.stderr == "2 of 3 videos are already in out\n"
    assert len(os.listdir("out/tokens")) == 3 and len(tokens_of()) == 3
    assert Path("out/index.jsonl").read_text().count("\n") == 3


def test_an_interrupted_run_keeps_what_it_has(monkeypatch):
    def read(path, *rest):
        if Path(path).name == "c.mp4":
            raise KeyboardInterrupt
        return read_views(path, *rest)

    monkeypatch.setattr(features_module, "read_views", read)
    monkeypatch.setattr("sys.argv", ["aigveval", "features", "v", "--out", "out"])
    result = run(
        "v",
        "--encoder",
        "motion_mean",
        "--out",
        "out",
        "--format",
        "arrow",
        "--workers",
        "1",
        code=130,
    )
    assert result.stdout == "features of 2 of 3 videos are in out\n"
    assert result.stderr == ("interrupted; go on with: aigveval features v --out out --resume\n")
    assert len(tokens_of()) == 2


def test_a_folder_of_other_features_is_left_alone():
    run("v/a.mp4", "--encoder", "motion_mean", "--out", "out")
    before = {path: path.read_bytes() for path in Path("out").rglob("*") if path.is_file()}
    prints = {name: create_encoder(name).fingerprint() for name in ("motion_mean", "semantic_mean")}
    for extra, message in {
        ("--encoder", "motion_mean"): "out holds features already; go on there with --resume, or "
        "choose another folder",
        (
            "--encoder",
            "semantic_mean",
            "--resume",
        ): f"out holds safetensors features of motion_mean ({prints['motion_mean']}); choose "
        f"another folder for safetensors features of semantic_mean ({prints['semantic_mean']})",
    }.items():
        result = run("v", *extra, "--out", "out", code=2)
        assert result.stderr == f"error: {message}\n"
        assert before == {path: path.read_bytes() for path in before}


@pytest.mark.parametrize(
    "damage, message",
    [
        (
            lambda: Path("out/encoders.json").write_text("[]"),
            "out: not a folder of features that can",
        ),
        (
            lambda: Path("out/index.jsonl").unlink(),
            "out: not a folder of features that can go on: ",
        ),
        (
            lambda: Path("out/index.jsonl").write_text("{}\n"),
            "out: not a folder of features that can",
        ),
        (lambda: (shutil.rmtree("out"), Path("out").write_text("")), "out: cannot be written: "),
    ],
)
def test_a_folder_that_cannot_be_used_is_named(damage, message):
    run("v/a.mp4", "--encoder", "motion_mean", "--out", "out")
    damage()
    result = run("v", "--encoder", "motion_mean", "--out", "out", "--resume", code=2)
    assert result.stderr.startswith(f"error: {message}")
    assert len(result.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    "arguments, message",
    [
        (
            ["--encoder", "mean", "v"],
            "'mean' can be motion_mean or semantic_mean; give the full name",
        ),
        (
            ["--encoder", "motion_mean", "--encoder", "motion=mean", "v"],
            "an encoder is named twice; each DIR holds one version of it",
        ),
        (["--encoder", "motion_mean"], "nothing to encode: name videos, folders or patterns"),
        (["--encoder", "motion_mean", "v", "--device", "abacus"], "no device 'abacus' here; "),
    ],
)
def test_a_command_that_cannot_be_carried_out_is_one_line(arguments, message):
    result = run(*arguments, "--out", "out", code=2)
    assert result.stderr.startswith(f"error: {message}")
    assert not Path("out").exists()


def test_a_batch_gives_the_same_tokens():
    run("v", "--encoder", "semantic_mean", "--prompt", "P", "--out", "one")
    run("v", "--encoder", "semantic_mean", "--prompt", "P", "--out", "many", "--batch-size", "3")
    for key, tokens in tokens_of("one").items():
        assert torch.allclose(tokens["semantic_mean"], tokens_of("many")[key]["semantic_mean"])

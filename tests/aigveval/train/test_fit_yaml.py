"""The YAML file of a training, changes on the command line, and the examples' files."""

import dataclasses
import json
import re
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from aigveval.cli.app import app
from aigveval.errors import ManifestError
from aigveval.presets import read_preset
from aigveval.train.config import FitConfig, FitError
from aigveval.train.rows import read_training_manifest
from aigveval.train.stages import read_fit_config, write_fit_config
from encoders.registry import dimension_of, resolve_name

YAML = "train: a.jsonl\noutput_dir: run\ncache_dir: $CACHE_ROOM/x\nlearning_rate: 1e-3\n"
CONFIGS = Path(__file__).parents[3] / "examples" / "configs"


def test_yaml_is_read(tmp_path, monkeypatch):
    monkeypatch.setenv("CACHE_ROOM", "/room")
    (tmp_path / "fit.yaml").write_text(YAML + "encoders:\n- {name: a, options: {x: 1}}\n")
    config = read_fit_config(tmp_path / "fit.yaml")
    assert config.train == [str(tmp_path / "a.jsonl")] and config.valid == []
    assert config.output_dir == str(tmp_path / "run") and config.cache_dir == "/room/x"
    assert config.learning_rate == 1e-3 and config.llm == "smollm2-135m-instruct"
    assert config.encoders == [{"name": "a", "options": {"x": 1}}]


def test_exponents_make_numbers_in_mappings_too(tmp_path):
    path = tmp_path / "fit.yaml"
    path.write_text(YAML + "trainer: {adam_epsilon: 1e-7}\nloss: {rank: 1E-1, plcc: -0e0}\n")
    config = read_fit_config(path, changes=["lora.alpha=3.2e1", "grpo.rewards={format: 1.e+0}"])
    assert config.trainer == {"adam_epsilon": 1e-7} and config.loss == {"rank": 0.1, "plcc": 0}
    assert config.lora["alpha"] == 32 and config.grpo["rewards"] == {"format": 1}
    assert read_fit_config(path, changes=["output_dir=1e5a"]).output_dir.endswith("/1e5a")


@pytest.mark.parametrize(
    "text, message",
    [
        (YAML + "lerning_rate: 1", "unknown option 'lerning_rate'; did you mean 'learning_rate'?"),
        (YAML + "loss: {plc: 1}", "unknown loss term 'plc'; did you mean 'plcc'?"),
        (YAML + "loss: {plcc: -1}", "the weight of loss term plcc must be >= 0, got -1"),
        (YAML + "loss: {plcc: .nan}", "the weight of loss term plcc must be >= 0, got nan"),
        (YAML + f"ema: 1{'0' * 400}", "ema must be a number, got 1000"),
        (YAML + "epochs: -1", "epochs must not be negative, got -1"),
        (YAML + "seed: 4294967296", "seed must be below 2 ** 32, got 4294967296"),
        (YAML + "epochs: 1.5", "epochs must be a whole number, got 1.5"),
        (YAML + "warmup: much", "warmup must be a number, got 'much'"),
        (YAML + "device: cuda:1", "device must be one of ('auto', 'cpu'), got 'cuda:1'"),
        (YAML + "valid: [1]", "valid must be a list, got [1]"),
        (YAML + "mismatch_scores: [2, 1]", "mismatch_scores must be [low, high] within 1-5, got "),
        (YAML + "scale: 100", "scale must be text, got 100"),
        (YAML + "scale: 0-100", "scale: a scale is LOW:HIGH with LOW below HIGH, such as 0:100, "),
        (YAML + "encoders: [{nam: x}]", "unknown encoder key 'nam'; did you mean 'name'?"),
        ("train: a.jsonl\ncache_dir: c", "option 'output_dir' is missing"),
        ("- a", "expected options, one 'name: value' a line"),
        ("a: [", "not YAML ("),
        (YAML + "lora: &a {r: *a}", "not YAML (a value holds itself)"),
        (YAML + f"lora: {'[' * 5000}", "not YAML (nested too deeply)"),
        (YAML + "lora: 2024-02-30", "not YAML (day "),
        (YAML + "train: b.jsonl", "option 'train' is given twice: lines 1 and 5"),
        (YAML + "lora:\n  r: 4\n  r: 8", "option 'r' is given twice: lines 6 and 7"),
        (
            YAML + "stages: [{stage: sft, stage: grpo}]",
            "option 'stage' is given twice: lines 5 and ",
        ),
    ],
)
def test_yaml_errors_name_the_option(tmp_path, text, message):
    path = tmp_path / "fit.yaml"
    path.write_text(text)
    with pytest.raises(FitError) as error:
        read_fit_config(path)
    assert str(error.value).startswith(f"{path}: {message}")


@pytest.fixture
def path(tmp_path, monkeypatch):
    monkeypatch.setenv("CACHE_ROOM", "/room")
    (tmp_path / "fit.yaml").write_text(YAML + "lora: {r: 4}\n")
    return tmp_path / "fit.yaml"


def test_changes_replace_what_the_file_says(path):
    config = read_fit_config(
        path,
        changes=[
            "learning_rate=2e-4",
            "lora.r=16",
            "loss.rank=0.5",
            "valid=[b.csv, c.csv]",
            "ema = 0.999",
            "encoders=[motion_flow, {name: technical_lite, options: {num_frames: 4}}]",
            "max_steps=null",
            "fsdp_config.version=2",
            "fsdp=true",
            "ema=null",
        ],
    )
    assert config.learning_rate == 2e-4 and config.lora == {"r": 16}
    assert config.loss["rank"] == 0.5 and config.loss["plcc"] == 1.0
    assert config.valid == [str(path.parent / "b.csv"), str(path.parent / "c.csv")]
    assert config.encoders[1]["options"] == {"num_frames": 4}
    assert config.fsdp_config == {"version": 2} and config.ema is None


@pytest.mark.parametrize(
    "change, message",
    [
        ("epoch=1", "unknown option 'epoch'; did you mean 'epochs'?"),
        ("epochs", "expected NAME=VALUE, got 'epochs'"),
        ("=1", "expected NAME=VALUE, got '=1'"),
        ("epochs=many", "epochs must be a whole number, got 'many'"),
        ("epochs.a=1", "'epochs.a=1': epochs is no mapping that has fields"),
        ("lora=[", "'lora=[': the value is not YAML"),
        ("lora=&a [*a]", "'lora=&a [*a]': the value is not YAML"),
        ("loss.plc=1", "unknown loss term 'plc'; did you mean 'plcc'?"),
    ],
)
def test_wrong_changes(path, change, message):
    with pytest.raises(FitError) as error:
        read_fit_config(path, changes=[change])
    assert str(error.value) == f"{path}: {message}"


def test_a_field_is_changed_in_what_the_preset_has(path):
    path.write_text("train: a.csv\noutput_dir: o\ncache_dir: c\npreset: qsave\n")
    config = read_fit_config(path, changes=["lora.r=4", "frames.num_slow=2", "loss.rank=0"])
    preset = read_preset("qsave")
    assert config.lora == preset["lora"] | {"r": 4}
    assert config.frames == preset["frames"] | {"num_slow": 2}
    assert config.loss == {"level": 1.0, "plcc": 1.0, "rank": 0, "pair": 1.0}
    assert read_preset("qsave") == preset


def test_a_base_replaces_what_comes_with_it(path):
    config = read_fit_config(path, base="lite")
    assert config.base == "lite" and config.lora["r"] == 8  # the default: the file's is dropped
    path.write_text(YAML + "preset: clip-qwen\n")
    both = read_fit_config(path, base="lite")
    assert both.llm == config.llm and both.mismatch_probability == 0.2
    (path.parent / "mine").mkdir()
    assert read_fit_config(path, base="mine").base == str(path.parent / "mine")
    path.write_text(YAML + "base: lite\nllm: x\n")
    with pytest.raises(FitError, match="llm comes with the base model; leave it out"):
        read_fit_config(path)


def test_hub_ids_are_told_from_files(path):
    (path.parent / "me").mkdir()
    (path.parent / "me" / "there").mkdir()
    changes = ["train=[me/data, me/there, me/rows.csv, ./x/y]", "llm=Qwen/Qwen2.5-0.5B-Instruct"]
    config = read_fit_config(path, changes=changes)
    folder = str(path.parent)
    assert config.train == [
        "me/data",
        f"{folder}/me/there",
        f"{folder}/me/rows.csv",
        f"{folder}/x/y",
    ]
    assert config.llm == "Qwen/Qwen2.5-0.5B-Instruct"
    url = "https://example.com/rows.csv"
    (found,) = read_fit_config(path, changes=[f"train=[{url}]"]).train
    with pytest.raises(ManifestError) as error:
        read_training_manifest(found)
    assert str(error.value) == (
        f"{url}: a URL, and files are needed: download it and give its path"
    )


@pytest.mark.parametrize(
    "text, low, high",
    [
        ("0:100", 0, 100),
        ("1:10", 1, 10),
        ("'1:4'", 1, 4),
        ("1:4.5", 1, 4.5),
        ("-1:1", -1, 1),
    ],
)
def test_a_scale_is_written_as_on_the_command_line(path, text, low, high):
    """YAML 1.1 would read 1:10 as 70, sixty being its base."""
    for config in (
        read_fit_config(path, changes=[f"scale={text}"]),
        read_fit_config(_with_line(path, f"scale: {text}")),
    ):
        assert (config.score_scale.low, config.score_scale.high) == (low, high)


def _with_line(path: Path, line: str) -> Path:
    path.write_text(f"{path.read_text()}{line}\n")
    return path


def test_what_is_written_reads_the_same(path, tmp_path):
    config = read_fit_config(path, changes=["ema=0.9", "train=[é.jsonl]", "scale=1:10"])
    (tmp_path / "again.yaml").write_text(write_fit_config(config), encoding="utf-8")
    assert read_fit_config(tmp_path / "again.yaml") == config


def run(*arguments: str):
    return CliRunner().invoke(app, ["fit", *map(str, arguments)])


def test_the_command_prints_the_config(path):
    result = run(path, "--from", "lite", "--set", "epochs=3", "--print-config")
    assert result.exit_code == 0, result.output
    printed = yaml.safe_load(result.stdout)
    assert printed["base"] == "lite" and printed["epochs"] == 3 and printed["seed"] == 0
    assert not (path.parent / "run").exists()


def test_the_command_tells_errors_in_one_line(path):
    result = run(path, "--set", "epoch=3")
    assert result.exit_code == 2 and len(result.stderr.strip().splitlines()) == 1
    assert "unknown option 'epoch'; did you mean 'epochs'?" in result.stderr
    result = run(path, "--from", "no such model")
    assert result.exit_code == 2 and "Traceback" not in result.stderr


@pytest.mark.parametrize("name", ["gone.yaml", "."])
def test_a_file_that_cannot_be_opened_is_told_before_the_model_is_imported(
    name, tmp_path, monkeypatch
):
    monkeypatch.setitem(sys.modules, "aigveval.train.stages", None)  # importing it would raise
    result = run(tmp_path / name)
    assert result.exit_code == 2
    assert result.stderr.startswith(f"error: {tmp_path / name}: ")
    assert "unexpected" not in result.stderr


# ---- the files in examples/configs ----


def files() -> list[Path]:
    return sorted(CONFIGS.glob("*.yaml"))


def test_every_public_data_set_has_a_file():
    assert {path.stem for path in files()} == {
        "ntire2025",
        "t2vqa_db",
        "t2veval",
        "fetv",
        "videofeedback",
        "aigvqa_db",
        "gaia",
        "videogen_rewardbench",
        "vbench",
        "q_save",
    }


@pytest.mark.parametrize("path", files(), ids=lambda path: path.stem)
def test_the_files_are_sound(path):
    config = read_fit_config(path)
    names = [entry if isinstance(entry, str) else entry["name"] for entry in config.encoders]
    seen = {dimension_of(resolve_name(name)) for name in names}
    # GAIA has no semantic scores
    assert seen == {"technical", "motion"} | ({"semantic"} if path.stem != "gaia" else set())
    assert {resolve_name(name) for name in config.train_encoders} <= set(map(resolve_name, names))
    assert config.valid and config.output_dir != config.cache_dir
    text = path.read_text(encoding="utf-8")
    # Each tells how its manifests are made, and with which adapter.
    from aigveval.data.adapters import list_adapters

    commands = re.findall(r"aigveval data convert (\S+)", text)
    assert commands and set(commands) <= set(list_adapters())
    made = set(re.findall(r"--out (\S+\.jsonl)", text)) | {
        f"{folder}/{name}.jsonl"
        for folder in re.findall(r"--out (\S+)", text)
        for name in ("train", "valid", "test")
    }
    for manifest in [*config.train, *config.valid]:
        relative = Path(manifest).relative_to(CONFIGS).as_posix()
        assert relative in made, f"no command of {path.name} makes {relative}"


def test_options_may_have_their_old_names(tmp_path, caplog):
    file = tmp_path / "fit.yaml"
    file.write_text(YAML + "impressions: false\nlearn: reading\n")
    config = read_fit_config(file, changes=["impressions=true"])
    assert config.score_hints is True and config.learn == "distill"
    assert caplog.messages == [
        "impressions is now called score_hints",
        "learn: reading is now called learn: distill",
        "impressions is now called score_hints",
    ]
    caplog.clear()
    assert replace(config, learn="reading").learn == "distill"  # from Python
    assert caplog.messages == ["learn: reading is now called learn: distill"]


def test_paths_from_python_are_kept_as_text(tmp_path):
    folder = tmp_path / "base"
    config = FitConfig(
        train=[tmp_path / "a.jsonl"],
        base=folder,
        output_dir=tmp_path / "run",
        cache_dir=tmp_path / "cache",
        trainer={"logging_dir": tmp_path},
    )
    assert config.base == str(folder) and config.train == [str(tmp_path / "a.jsonl")]
    path = tmp_path / "fit.yaml"
    path.write_text(write_fit_config(config))
    assert read_fit_config(path) == config
    assert json.loads(json.dumps(dataclasses.asdict(config)))["trainer"] == {
        "logging_dir": str(tmp_path)
    }

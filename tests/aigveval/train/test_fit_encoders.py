"""`aigveval fit`: encoders chosen by preset, config or command line; subsets of the dimensions."""

import json
from pathlib import Path

import pytest
import torch
import yaml
from typer.testing import CliRunner

from aigveval.cli.app import app
from aigveval.model.config import LORA, AIGVEvalConfig
from aigveval.presets import list_presets, read_preset
from aigveval.train.config import FitError
from aigveval.train.stages import read_fit_config
from encoders import registry

from ..tiny_llm import MeanColour, make_llm, make_tokenizer
from tests import media

SHAPES = {"technical_mean": (2, 3), "motion_mean": (3, 4), "semantic_mean": (2, 5)}
SCORES = ("technical", "motion", "semantic", "overall")


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def work(monkeypatch, tmp_path):
    """Encoders from outside, an LLM in a folder, six rated videos and a config that uses them."""

    def maker(name, k, d):
        return lambda reads_text=False: MeanColour(
            name=name, dimension=name.partition("_")[0], num_tokens=k, dim=d, reads_text=reads_text
        )

    made = {name: maker(name, k, d) for name, (k, d) in SHAPES.items()}
    made["motion_other"] = maker("motion_other", 1, 2)
    monkeypatch.setattr(registry, "_registered", made)
    monkeypatch.chdir(tmp_path)
    make_llm().save_pretrained("llm")
    make_tokenizer().save_pretrained("llm")
    rows = []
    for number in range(6):
        media.write_video(Path(f"{number}.mp4"), num_frames=4, seed=number)
        scores = {name: 1.0 + (number * (column + 1)) % 5 for column, name in enumerate(SCORES)}
        rows.append({"video": f"{number}.mp4", "prompt": f"prompt {number}", **scores})
    Path("rated.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = {
        "train": ["rated.jsonl"],
        "valid": ["rated.jsonl"],
        "output_dir": "run",
        "cache_dir": "cache",
        "llm": "llm",
        "encoders": list(SHAPES),
        "projector_hidden": 8,
        "max_steps": 2,
        "batch_size": 3,
        "device": "cpu",
        "mismatch_probability": 0.5,
    }
    Path("fit.yaml").write_text(yaml.safe_dump(config))
    return config


def run(*arguments, code=0):
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == code, result.output
    assert "Traceback" not in result.output
    return result


@pytest.mark.parametrize(
    "choices, expected",
    [
        ((), ["semantic_mean", "motion_mean", "technical_mean"]),
        (("motion=other", "semantic=none"), ["motion_other", "technical_mean"]),
        (("motion=none", "technical=none"), ["semantic_mean"]),
    ],
)
def test_a_subset_is_trained_and_scores_what_it_looks_at(work, choices, expected):
    options = [argument for text in choices for argument in ("--encoder", text)]
    said = run("fit", "fit.yaml", *options).stderr
    found = AIGVEvalConfig.from_pretrained("run/model").encoders
    assert [entry["name"] for entry in found] == expected
    seen = {name.partition("_")[0] for name in expected}
    unscored = [name for name in SCORES[:3] if name not in seen]
    note = f"No encoder of {' or '.join(unscored)}: these scores are left out"
    assert (note in said) == bool(unscored)
    validated = [line for line in said.splitlines() if line.startswith("  rated  SROCC / PLCC")][-1]
    assert "nan" not in said
    for name in SCORES:
        assert (f" {name} " in validated) == (name not in unscored)
    run("score", "0.mp4", "--prompt", "a cat", "--model", "run/model")
    row = json.loads(Path("results.jsonl").read_text())
    assert [name for name in SCORES if row[name] is None] == unscored


def test_options_reach_the_encoders(work):
    run("fit", "fit.yaml", "--encoder", "semantic=mean:reads_text=true")
    (entry,) = [
        e
        for e in AIGVEvalConfig.from_pretrained("run/model").encoders
        if e["dimension"] == "semantic"
    ]
    assert entry["options"] == {"reads_text": True}


@pytest.mark.parametrize(
    "options, message",
    [
        (["--encoder", "motion=men"], "no encoder named 'men'; did you mean motion_mean?"),
        (["--encoder", "motion_mean:reads=1"], "encoder motion_mean: "),
        ([f"--encoder={name}=none" for name in SCORES[:3]], "encoders must name at least one"),
    ],
)
def test_a_wrong_choice_is_one_line(work, options, message):
    said = run("fit", "fit.yaml", *options, code=2).stderr
    assert said.startswith(f"error: {message}") and len(said.splitlines()) == 1


def test_rows_that_rate_only_what_is_not_looked_at_are_left_out(work):
    rows = [json.loads(line) for line in Path("rated.jsonl").read_text().splitlines()]
    kept = [{key: row[key] for key in ("video", "prompt", "motion")} for row in rows]
    Path("rated.jsonl").write_text("".join(json.dumps(row) + "\n" for row in kept))
    said = run("fit", "fit.yaml", "--encoder", "motion=none", code=2).stderr
    assert "rated.jsonl: none of its 6 videos can be used" in said


# ---- presets ----


def config_file(**options):
    Path("preset.yaml").write_text(
        yaml.safe_dump(
            {"train": "rated.jsonl", "output_dir": "run", "cache_dir": "cache", **options}
        )
    )
    return "preset.yaml"


@pytest.mark.parametrize("name", list_presets())
def test_a_config_begins_with_a_preset(work, name):
    config = read_fit_config(config_file(preset=name, batch_size=3))
    for option, value in read_preset(name).items():
        assert getattr(config, option) == (3 if option == "batch_size" else value)
    assert config.batch_size == 3


def test_lite_has_the_networks_that_fit_takes_without_a_preset(work):
    lite, plain = read_fit_config(config_file(preset="lite")), read_fit_config(config_file())
    names = [entry if isinstance(entry, str) else entry["name"] for entry in lite.encoders]
    assert (lite.llm, names) == (plain.llm, plain.encoders)
    assert {**LORA, **lite.lora}["r"] == plain.lora["r"]


@pytest.mark.parametrize("name", ["clip", None, ["lite"]])
def test_an_unknown_preset_is_one_line(work, name):
    with pytest.raises(FitError) as caught:
        read_fit_config(config_file(preset=name))
    assert str(caught.value) == (
        f"preset.yaml: no preset {name!r}; there are lite, clip-qwen, aigveval, qsave"
    )


def test_a_preset_is_trained_with_other_parts(work):
    """Its own LLM and encoders need downloads; the rest of it is what trains here."""
    run(
        "fit",
        config_file(
            preset="aigveval",
            max_steps=1,
            llm="llm",
            encoders=["motion_mean"],
            projector_hidden=8,
            device="cpu",
        ),
    )
    assert AIGVEvalConfig.from_pretrained("run/model").lora["r"] == 8

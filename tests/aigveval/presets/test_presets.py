"""Presets: what the catalogue says of their parts is what the networks and the loaders say."""

import inspect
import json
from pathlib import Path

import pytest
import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    BertConfig,
    BertModel,
    BlipVisionConfig,
    BlipVisionModel,
    LlamaConfig,
)
from typer.testing import CliRunner

from aigveval.cli.app import app
from aigveval.errors import ModelError
from aigveval.model.checkpoint import CHECKPOINTS, open_checkpoint
from aigveval.model.modeling_vlm import DEFAULT_VLM, FRAMES, VlmConfig
from aigveval.presets import list_presets, parts_of, read_catalogue, read_preset
from encoders import WeightsError, create_encoder
from encoders.checkpoints import RANDOM
from encoders.motion_flow import MotionFlow
from encoders.registry import dimension_of
from encoders.semantic_lite import SemanticLite
from encoders.technical_lite import TechnicalLite
from encoders.weights import WHEELS

ENCODERS, LLMS = read_catalogue()["encoders"], read_catalogue()["llms"]
VLMS = read_catalogue()["vlms"]
WITH_ENCODERS = [name for name in list_presets() if "vlm" not in read_preset(name)]
BY_HAND = [key for key, facts in ENCODERS.items() if facts["get"] == "file"]


@pytest.fixture(autouse=True)
def empty_home(monkeypatch, tmp_path):
    monkeypatch.setenv("AIGVEVAL_HOME", str(tmp_path / "home"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path


def options_of(key):
    name, _, variant = key.partition(":")
    return name, {"variant": variant} if variant else {}


def count(module):
    return sum(value.numel() for value in module.parameters())


def run(*arguments, code=0):
    result = CliRunner().invoke(app, ["presets", *arguments], env={"COLUMNS": "200"})
    assert result.exit_code == code, result.output
    return result


# ---- the files ----


@pytest.mark.parametrize("name", WITH_ENCODERS)
def test_a_preset_has_an_llm_and_an_encoder_of_each_dimension(name):
    llm, *encoders = parts_of(name)
    assert llm.role == "LLM" and llm.name == read_preset(name)["llm"]
    assert {part.role for part in encoders} == {"technical", "motion", "semantic"}
    assert all(part.role == dimension_of(part.name) for part in encoders)
    for part in (llm, *encoders):
        assert part.licence and part.what and part.get in ("wheel", "hub", "file", "nothing")


def test_qsave_is_a_vision_language_model_alone():
    (part,) = parts_of("qsave")
    assert (part.role, part.name) == ("VLM", DEFAULT_VLM)
    assert read_preset("qsave")["vlm"] == part.name
    assert read_preset("qsave")["frames"] == FRAMES == VlmConfig().frames
    assert part.licence == "Apache-2.0" and part.get == "hub" and not part.here


def test_every_part_of_the_catalogue_is_in_a_preset():
    used = {(part.name, part.what) for name in list_presets() for part in parts_of(name)}
    assert {what for _, what in used} == {
        facts["what"] for facts in (*ENCODERS.values(), *LLMS.values(), *VLMS.values())
    }


def test_lite_is_what_the_shipped_checkpoint_is_made_of():
    saved = json.loads((CHECKPOINTS / "lite" / "config.json").read_text())
    preset = read_preset("lite")
    given = [
        entry if isinstance(entry, dict) else {"name": entry, "options": {}}
        for entry in preset["encoders"]
    ]
    assert [entry["name"] for entry in given] == [entry["name"] for entry in saved["encoders"]]
    classes = {
        "semantic_lite": SemanticLite,
        "motion_flow": MotionFlow,
        "technical_lite": TechnicalLite,
    }
    for ours, theirs in zip(given, saved["encoders"]):
        known = inspect.signature(classes[ours["name"]]).parameters
        defaults = {name: known[name].default for name in theirs["options"]}
        assert {**defaults, **ours["options"]} == theirs["options"], ours["name"]
    assert preset["llm"] == saved["llm"]
    assert preset["lora"].items() <= saved["lora"].items()


def test_an_unknown_preset_is_refused():
    with pytest.raises(ValueError, match="no preset 'x'; there are lite, .*, aigveval, qsave$"):
        read_preset("x")


# ---- the catalogue ----


@pytest.mark.parametrize("key", BY_HAND)
def test_a_missing_checkpoint_is_one_line_with_file_source_licence_and_place(key, empty_home):
    name, options = options_of(key)
    with pytest.raises(WeightsError) as caught:
        create_encoder(name, **options)
    message, facts = str(caught.value), ENCODERS[key]
    assert len(message.splitlines()) == 1
    for fact in ("file", "url", "licence"):
        assert facts[fact] in message
    assert str(empty_home / "home" / "checkpoints") in message


@pytest.mark.parametrize("name", [name for name, facts in LLMS.items() if "config" in facts])
def test_parameters_and_size_of_an_llm(name):
    facts = LLMS[name]
    with torch.device("meta"):
        llm = AutoModelForCausalLM.from_config(AutoConfig.for_model(**facts["config"]))
    assert facts["parameters"] == count(llm)
    assert facts["download_mb"] == round(2 * count(llm) / 1e6)  # two bytes each


@pytest.mark.parametrize("name", VLMS)
def test_parameters_size_and_memory_of_a_vision_language_model(name):
    facts, memory = VLMS[name], read_catalogue()["presets"]["qsave"]["memory"]
    with torch.device("meta"):
        vlm = AutoModelForImageTextToText.from_config(AutoConfig.for_model(**facts["config"]))
    assert facts["parameters"] == count(vlm)
    weights = 2 * count(vlm)  # bytes, in bfloat16
    assert facts["download_mb"] == round(weights / 1e6)
    assert weights / 1e9 < memory["score_gb"] <= weights / 1e9 + 4 < memory["train_gb"]
    assert memory["kind"] == "GPU in bfloat16, measured with random weights"


def test_parameters_of_the_embedded_llm():
    with torch.device("meta"):
        llm = AutoModelForCausalLM.from_config(
            LlamaConfig(
                hidden_size=576,
                intermediate_size=1536,
                num_hidden_layers=30,
                num_attention_heads=9,
                num_key_value_heads=3,
                vocab_size=49152,
                tie_word_embeddings=True,
            )
        )
    assert LLMS["smollm2-135m-instruct"]["parameters"] == count(llm)


@pytest.mark.parametrize(
    "key", [key for key in ENCODERS if key.startswith(("motion_slowfast", "technical_fastvqa"))]
)
def test_parameters_of_a_checkpoint(key):
    name, options = options_of(key)
    encoder = create_encoder(name, weights=RANDOM, **options)
    assert ENCODERS[key]["parameters"] == count(encoder)


def test_parameters_of_clip_and_blip():
    from open_clip import CLIP, get_model_config

    with torch.device("meta"):
        config = get_model_config("ViT-L-14-quickgelu")
        clip = CLIP(**config)
        blip = BlipVisionModel(
            BlipVisionConfig(
                hidden_size=1024,
                intermediate_size=4096,
                num_hidden_layers=24,
                num_attention_heads=16,
                image_size=224,
            )
        )
    facts = ENCODERS["semantic_clip"]
    assert facts["parameters"] == count(clip) - 1  # the temperature is not used
    assert facts["download_mb"] == round(4 * count(clip) / 1e6)
    assert ENCODERS["semantic_blip"]["parameters"] == count(blip)
    assert ENCODERS["semantic_blip"]["download_mb"] == round(4 * count(blip) / 1e6)


def test_parameters_of_the_lite_encoders():
    import timm

    with torch.device("meta"):
        pictures = timm.create_model("tf_efficientnet_lite0")
        texts = BertModel(
            BertConfig(
                hidden_size=384,
                intermediate_size=1536,
                num_hidden_layers=6,
                num_attention_heads=12,
            )
        )
    assert ENCODERS["semantic_lite"]["parameters"] == count(pictures) + count(texts)


def test_sizes_of_wheels_count_each_once():
    parts = [facts for facts in (*LLMS.values(), *ENCODERS.values()) if facts["get"] == "wheel"]
    wheels = {wheel for facts in parts for wheel in facts["wheels"]}
    total = sum(WHEELS[wheel].size_bytes for wheel in wheels) / 1e6
    assert sum(facts["download_mb"] for facts in parts) == pytest.approx(total, abs=1)
    assert {WHEELS[wheel].licence for wheel in wheels} == {facts["licence"] for facts in parts}


@pytest.mark.parametrize("name", [name for name in WITH_ENCODERS if name != "lite"])
def test_memory_holds_at_least_the_weights(name):
    memory = read_catalogue()["presets"][name]["memory"]
    llm, *encoders = (part.parameters for part in parts_of(name))
    each = 2 if "bfloat16" in memory.get("kind", "") else 4  # bytes; encoders are float32 always
    weights = (each * llm + 4 * sum(encoders)) / 1e9
    assert weights < memory["score_gb"] <= weights + 4
    assert memory["train_gb"] > each * llm / 1e9
    if name == "clip-qwen":
        assert memory["train_gb"] <= 24


@pytest.mark.parametrize(
    "command",
    [
        ["features", "v.mp4", "--encoder", "slowfast", "--out", "out"],
        ["fit", "fit.yaml"],
    ],
)
def test_a_missing_checkpoint_is_one_line_on_the_command_line(command, empty_home, monkeypatch):
    monkeypatch.chdir(empty_home)
    Path("rated.jsonl").write_text('{"video": "v.mp4", "motion": 3}')
    Path("fit.yaml").write_text(
        "{train: rated.jsonl, output_dir: run, cache_dir: cache, encoders: [slowfast]}"
    )
    result = CliRunner().invoke(app, command)
    facts = ENCODERS["motion_slowfast"]
    assert result.exit_code == 1 and len(result.stderr.splitlines()) == 1
    assert result.stderr.startswith("error: ")
    assert f"download {facts['file']} (Apache-2.0) from {facts['url']} and put it into " in (
        result.stderr
    )


def test_a_preset_without_a_checkpoint_is_no_model():
    with pytest.raises(ModelError) as caught:
        open_checkpoint("clip-qwen")
    assert str(caught.value) == (
        "the preset clip-qwen comes without a trained checkpoint; train one by "
        "`preset: clip-qwen` in a config for `aigveval fit`, and give its folder"
    )


# ---- the command ----


def test_the_command_lists_presets_and_encoders():
    said = run().stdout
    for name in list_presets():
        assert f" {name} " in said
    for facts in (*ENCODERS.values(), *LLMS.values()):
        assert facts["licence"] in said
    assert "SlowFast-R50" in said and " technical_pyiqa " in said


def test_the_command_says_what_is_missing_and_where_it_goes(empty_home):
    folder = empty_home / "home" / "checkpoints"
    lines = run("aigveval").stdout.splitlines()
    missing = [line for line in lines if line.startswith("missing: ")]
    keys = ["semantic_blip", "motion_slowfast", "technical_fastvqa:kinetics"]
    assert missing == [
        f"missing: download {ENCODERS[key]['file']} ({ENCODERS[key]['licence']}) from "
        f"{ENCODERS[key]['url']} and put it into {folder}"
        for key in keys
    ]
    assert lines[-1].endswith("preset: aigveval")
    folder.mkdir(parents=True)
    (folder / "model_large.pth").touch()
    (empty_home / "hub" / "models--lmsys--vicuna-7b-v1.1" / "snapshots").mkdir(parents=True)
    said = run("aigveval").stdout
    assert said.count("missing: ") == 2 and said.count("is here") == 2


def test_the_command_refuses_an_unknown_preset():
    assert run("x", code=2).stderr == (
        "error: no preset 'x'; there are lite, clip-qwen, aigveval, qsave\n"
    )

"""What a model saves and loads, and its configuration."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig

from aigveval.model.checkpoint import open_checkpoint
from aigveval.model.config import AIGVEvalConfig
from aigveval.model.modeling import AIGVEvalModel
from aigveval.model.processing import AIGVEvalProcessor

from ..tiny_llm import (
    make_batch,
    make_config,
    make_encoders,
    make_llm,
    make_model,
    make_tokenizer,
)

PROMPTS = ["a cat on a roof in the rain", None, "dog", "two boats, one sun"]


@pytest.fixture(scope="module")
def batch():
    model, processor = make_model()
    return make_batch(processor, model.config, PROMPTS)


# ---- saving and loading ----


def test_round_trip_is_bit_for_bit_and_holds_nothing_frozen(tmp_path, batch):
    model, _ = make_model()
    model.set_feature_stats("flow", torch.rand(5), torch.rand(5) + 0.5)
    model.load_encoders(make_encoders())
    model.save_pretrained(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.json", "model.safetensors"]
    saved = load_file(tmp_path / "model.safetensors")
    assert set(saved) == model.trained_keys()
    assert not any("embed" in key or "base_layer" in key or "lm_head" in key for key in saved)
    size = sum(value.numel() for value in saved.values()) * 4
    assert size < (tmp_path / "model.safetensors").stat().st_size < size + 10_000
    again = AIGVEvalModel.from_pretrained(tmp_path, llm=make_llm())
    assert not again.training
    for key, value in saved.items():
        assert torch.equal(again.state_dict()[key], value), key
    assert torch.equal(again.score(**batch)[0], model.score(**batch)[0])
    again.save_pretrained(tmp_path / "again")
    for name in ("config.json", "model.safetensors"):
        assert (tmp_path / name).read_bytes() == (tmp_path / "again" / name).read_bytes()


def test_config_round_trip(tmp_path):
    config = make_model()[0].config
    config.save_pretrained(tmp_path)
    again = AutoConfig.from_pretrained(tmp_path)
    assert isinstance(again, AIGVEvalConfig)
    assert again.encoders == config.encoders and again.lora == config.lora
    assert again.get_text_config().hidden_size == 32 and again.num_features == 9
    assert again.image_token_id == config.feature_token_id
    assert again.text_config.to_dict() == config.text_config.to_dict()


@pytest.mark.parametrize("tied", [True, False])
def test_merged_folder_needs_nothing_else(tmp_path, batch, tied):
    make_tokenizer().save_pretrained(tmp_path / "source")
    llm = make_llm(tied=tied)
    llm.save_pretrained(tmp_path / "source")
    model, processor = make_model(llm=llm)
    model.config.llm = str(tmp_path / "source")
    encoders = make_encoders()
    encoders["flow"].weight.mul_(3)
    model.load_encoders(encoders)
    model.save_pretrained(tmp_path / "merged", merge=True)
    shutil.rmtree(tmp_path / "source")
    merged = AIGVEvalModel.from_pretrained(tmp_path / "merged")
    assert torch.equal(merged.score(**batch)[0], model.score(**batch)[0])
    plain = make_llm(tied=tied)
    for key, value in plain.model.state_dict().items():
        stored = merged.model.language_model.state_dict()
        stored = {name.replace(".base_layer", ""): tensor for name, tensor in stored.items()}
        assert torch.equal(stored[key], value), key
    own = make_encoders()
    merged.load_encoders(own)
    assert torch.equal(merged.encoders["flow"].weight, encoders["flow"].weight)
    assert not torch.equal(own["flow"].weight, encoders["flow"].weight)  # left as it was
    loaded = AIGVEvalProcessor.from_pretrained(tmp_path / "merged")
    ids = loaded.encode_prompts(PROMPTS)["input_ids"]
    assert torch.equal(ids, processor.encode_prompts(PROMPTS)["input_ids"])
    merged.save_pretrained(tmp_path / "again", merge=True)
    for part in ("llm", "encoders"):
        for path in (tmp_path / "merged" / part).iterdir():
            assert (tmp_path / "again" / part / path.name).read_bytes() == path.read_bytes()
    files = [path for path in (tmp_path / "merged").rglob("*") if path.is_file()]
    assert len({path.stat().st_mode for path in files}) == 1  # others may read all of them, or none


@pytest.fixture
def saved(tmp_path):
    make_model()[0].save_pretrained(tmp_path)
    return tmp_path


def load(folder):
    return AIGVEvalModel.from_pretrained(folder, llm=make_llm())


def test_keys_must_match_exactly(saved):
    state = load_file(saved / "model.safetensors")
    state["model.projectors.other.up.weight"] = state.pop("model.projectors.flow.up.weight")
    state["model.projectors.flow.mean"] = torch.zeros(6)
    state["lm_head.weight"] = torch.zeros(3)
    save_file(state, saved / "model.safetensors")
    with pytest.raises(ValueError) as error:
        load(saved)
    assert str(error.value) == (
        f"{saved / 'model.safetensors'} doesn't fit its config; "
        "missing: model.projectors.flow.up.weight; "
        "unknown: lm_head.weight, model.projectors.other.up.weight; "
        "of another shape: model.projectors.flow.mean (6,) instead of (5,)"
    )


def test_only_safetensors_are_read(saved):
    state = load_file(saved / "model.safetensors")
    (saved / "model.safetensors").unlink()
    torch.save(state, saved / "pytorch_model.bin")
    with pytest.raises(ValueError) as error:
        load(saved)
    assert str(error.value) == (
        f"{saved} has no model.safetensors; "
        "of weights, only safetensors are read, not pytorch_model.bin"
    )


@pytest.mark.parametrize("content", [b"", b"\x80\x04junk" * 100, b"\xff" * 8])
def test_broken_file(saved, content):
    (saved / "model.safetensors").write_bytes(content)
    with pytest.raises(ValueError, match="model.safetensors is not a readable safetensors file"):
        load(saved)


def test_another_llm(saved):
    with pytest.raises(ValueError) as error:
        AIGVEvalModel.from_pretrained(saved, llm=make_llm(hidden_size=64))
    assert str(error.value) == (
        "tiny: the model was made for an LLM of hidden_size 32, this one has 64"
    )


def test_no_such_model(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(OSError, match="^no/such-model is not a folder, and the Hugging Face Hub"):
        AIGVEvalModel.from_pretrained("no/such-model", cache_dir=str(tmp_path))


def test_an_error_of_the_hub_without_words_is_named(monkeypatch):
    def timed_out(*args, **options):
        raise TimeoutError

    monkeypatch.setattr("huggingface_hub.snapshot_download", timed_out)
    with pytest.raises(OSError, match="the Hugging Face Hub doesn't give it: TimeoutError$"):
        open_checkpoint("owner/model").folder  # noqa: B018


# ---- configuration ----


@pytest.mark.parametrize(
    "options, message",
    [
        ({"lora": {"rank": 4}}, "lora has unknown fields ['rank']"),
        ({"lora": {"r": 0}}, "lora r must be at least 1, got 0"),
        ({"lora": {"target_modules": "q_proj"}}, "lora target_modules must be a list"),
        ({"projector_hidden": 0}, "projector_hidden must be at least 1, got 0"),
        ({"feature_dropout": 1.0}, "feature_dropout must lie in [0, 1), got 1.0"),
        ({"feature_noise": -1}, "feature_noise must not be negative, got -1"),
        ({"feature_clip": 0}, "feature_clip must be positive, got 0"),
        ({"level_token_ids": [1, 2, 3, 4, 4]}, "level_token_ids must be 5 different ids"),
        ({"encoders": [{"name": "x"}]}, "an encoder entry needs 'options' (dict), got None"),
    ],
)
def test_bad_option(options, message):
    with pytest.raises(ValueError) as error:
        AIGVEvalConfig(**options)
    assert str(error.value).startswith(message)


def test_bad_encoder_entries():
    entry = make_config().encoders[0]
    for change, message in (
        ({"dimension": "sound"}, "dimension must be one of"),
        ({"name": "a.b"}, "an encoder's name must be an identifier, got 'a.b'"),
        ({"num_tokens": 0}, "num_tokens must be at least 1, got 0"),
        ({"colour": 1}, "an encoder entry has unknown fields ['colour']"),
    ):
        with pytest.raises(ValueError) as error:
            AIGVEvalConfig(encoders=[{**entry, **change}])
        assert str(error.value).startswith(message)
    with pytest.raises(ValueError, match="^encoder names must be unique, got"):
        AIGVEvalConfig(encoders=[entry, entry])


def test_mistyped_option():
    with pytest.raises(TypeError, match="'projector_hiden'; did you mean 'projector_hidden'?"):
        AIGVEvalConfig(projector_hiden=3)


def test_config_without_token_ids():
    with pytest.raises(ValueError, match="^no token ids; AIGVEvalProcessor.from_config"):
        AIGVEvalModel(make_config(), llm=make_llm())


def test_saved_config_has_no_path_of_this_machine(tmp_path):
    make_llm().save_pretrained(tmp_path / "source")
    llm = type(make_llm()).from_pretrained(tmp_path / "source")
    model, _ = make_model(llm=llm)
    model.save_pretrained(tmp_path / "model")
    text = (tmp_path / "model" / "config.json").read_text()
    assert str(tmp_path) not in text
    assert json.loads(text)["model_type"] == "aigveval"

"""The frozen LLM: any causal LM, and the embedded one."""

from functools import cache

import gguf
import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    BloomConfig,
    Gemma2Config,
    GPT2Config,
    GPTNeoXConfig,
    LlamaModel,
    MambaConfig,
    MistralConfig,
    OPTConfig,
    Qwen3Config,
)

from aigveval.model import backbones as llm
from aigveval.model.backbones import EMBEDDED_LLM, inject_lora, llm_folder, load_llm, load_tokenizer
from aigveval.model.config import LORA
from aigveval.model.modeling import AIGVEvalModel
from aigveval.model.processing import AIGVEvalProcessor
from encoders.weights import WeightsError, fetch

from ..tiny_llm import make_batch, make_config, make_llm, make_model, make_tokenizer

PROMPTS = ["a cat on a roof in the rain", None]


def test_load_from_a_folder(tmp_path, capfd):
    saved = make_llm()
    saved.save_pretrained(tmp_path)
    make_tokenizer().save_pretrained(tmp_path)
    capfd.readouterr()
    loaded = load_llm(str(tmp_path))
    assert capfd.readouterr().err == ""  # no bar for a load of milliseconds
    assert not loaded.training and loaded.dtype == torch.float32
    ids = torch.arange(10)[None]
    assert torch.equal(loaded(ids).logits, saved(ids).logits)
    assert load_llm(str(tmp_path), dtype=torch.bfloat16).dtype == torch.bfloat16
    text = "<|im_start|> a good cat<|im_end|>"
    expected = make_tokenizer()(text).input_ids
    assert load_tokenizer(str(tmp_path))(text).input_ids == expected


@pytest.mark.parametrize("load", [load_llm, load_tokenizer])
@pytest.mark.parametrize(
    "name, message",
    [
        (
            "Qwen/Qwen2.5-1.5B-Instruct",
            "Qwen/Qwen2.5-1.5B-Instruct: the LLM is not on this machine, "
            "and the Hugging Face Hub doesn't give it (",
        ),
        ("gpt", "gpt: the LLM is not on this machine, and the Hugging Face Hub doesn't give it ("),
        ("/no/such/folder", "/no/such/folder: no such folder of an LLM"),
        (".", ".: cannot be loaded as a causal LM ("),
    ],
)
def test_an_llm_that_is_missing_is_one_line(load, name, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(WeightsError) as caught:
        load(name)
    said = str(caught.value)
    assert said.startswith(message) and len(said.splitlines()) == 1
    if name.startswith("Qwen"):
        command = f"`hf download {name} --local-dir FOLDER`"
        assert said.endswith(f"{command}, and give that folder as llm")


def test_other_names_are_left_alone():
    assert llm_folder("Qwen/Qwen3-8B") == "Qwen/Qwen3-8B"


SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
QWEN_LIKE = {**SMALL, "intermediate_size": 64, "num_key_value_heads": 2, "head_dim": 8}
FAMILIES = {
    "gpt2": (GPT2Config, {"n_embd": 32, "n_layer": 2, "n_head": 4}, "c_attn"),
    "gpt_neox": (GPTNeoXConfig, {**SMALL, "intermediate_size": 64}, "query_key_value"),
    "bloom": (BloomConfig, {"hidden_size": 32, "n_layer": 2, "n_head": 4}, "query_key_value"),
    "opt": (OPTConfig, {**SMALL, "word_embed_proj_dim": 16, "ffn_dim": 64}, "v_proj"),
    "mistral": (MistralConfig, {**QWEN_LIKE, "sliding_window": 256}, "v_proj"),
    "qwen3": (Qwen3Config, QWEN_LIKE, "q_proj"),
    "gemma2": (Gemma2Config, QWEN_LIKE, "q_proj"),
}


@pytest.mark.parametrize("family", FAMILIES)
def test_any_causal_llm(family):
    config_class, options, target = FAMILIES[family]
    torch.manual_seed(0)
    size = len(make_tokenizer())
    text_config = config_class(
        vocab_size=size, pad_token_id=0, bos_token_id=1, eos_token_id=2, **options
    )
    own = AutoModelForCausalLM.from_config(text_config)
    model, processor = make_model(llm=own, lora={"target_modules": [target], "dropout": 0.0})
    batch = make_batch(processor, model.config, PROMPTS)
    output = model.score(**batch, output_last_hidden_state=True)
    logits = output.level_logits
    assert logits.shape == (2, 4, 5) and logits.isfinite().all()
    length = int(batch["attention_mask"][1].sum())
    assert length < batch["input_ids"].shape[1]
    alone = {key: value[1:] for key, value in batch.items()}
    alone |= {key: alone[key][:, :length] for key in ("input_ids", "attention_mask")}
    torch.testing.assert_close(model.score(**alone)[0][0], logits[1], atol=1e-4, rtol=0)
    model.train()
    model(**batch).level_logits.square().sum().backward()
    trained = [p for p in model.parameters() if p.requires_grad]
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in trained)


def test_wrong_lora_target():
    with pytest.raises(ValueError) as error:
        inject_lora(
            make_llm().model,
            {"r": 2, "alpha": 4, "dropout": 0.0, "target_modules": ["q_proj", "query"]},
            name="tiny",
        )
    assert str(error.value) == (
        "lora target_modules ['query'] are not in tiny, whose linear layers are ['down_proj', "
        "'gate_proj', 'k_proj', 'o_proj', 'q_proj', 'up_proj', 'v_proj']"
    )


def test_layers_that_peft_refuses_are_told_with_those_there_are():
    shape = {"vocab_size": 64, "hidden_size": 32, "state_size": 4, "num_hidden_layers": 1}
    hybrid = AutoModelForCausalLM.from_config(MambaConfig(**shape))
    with pytest.raises(ValueError) as error:
        inject_lora(hybrid.base_model, {**LORA, "target_modules": "all-linear"}, name="tiny")
    assert str(error.value).startswith(
        "lora target_modules all-linear do not suit tiny; name some of ['dt_proj', 'in_proj', "
        "'out_proj', 'x_proj']: "
    )
    assert "'out_proj' is incompatible" in str(error.value)


def test_lora_target_by_path():
    model, _ = make_model(lora={"target_modules": ["layers.1.self_attn.q_proj"]})
    names = {name for name, p in model.named_parameters() if "lora_" in name}
    assert len(names) == 2 and all(".layers.1.self_attn.q_proj." in name for name in names)


def test_not_a_causal_llm():
    config = make_config()
    AIGVEvalProcessor.from_config(config, tokenizer=make_tokenizer())
    with pytest.raises(ValueError, match="^tiny: LlamaModel is not a causal LM$"):
        AIGVEvalModel(config, llm=LlamaModel(make_llm().config))


def test_level_words_beyond_the_vocabulary():
    config = make_config(level_token_ids=[1, 2, 3, 4, 999], feature_token_id=5)
    with pytest.raises(ValueError, match=r"\[1, 2, 3, 4, 999\] go beyond the LLM's 28\d tokens"):
        AIGVEvalModel(config, llm=make_llm())


@pytest.fixture(scope="module")
def embedded():
    """The real LLM and its tokenizer."""
    try:
        return load_llm(EMBEDDED_LLM), load_tokenizer(EMBEDDED_LLM)
    except WeightsError as error:
        pytest.skip(f"{EMBEDDED_LLM} can't be had here: {error}")


@pytest.mark.slow
def test_embedded_llm_answers(embedded):
    model, tokenizer = embedded
    chat = [{"role": "user", "content": "What is the capital of France? Answer in one sentence."}]
    inputs = tokenizer.apply_chat_template(
        chat, add_generation_prompt=True, return_tensors="pt", return_dict=True
    )
    out = model.generate(**inputs, max_new_tokens=20, do_sample=False)
    answer = tokenizer.decode(out[0, inputs["input_ids"].shape[1] :])
    assert answer == "The capital of France is Paris.<|im_end|>"


@pytest.mark.slow
def test_embedded_tokenizer(embedded):
    _, tokenizer = embedded
    text = "<|im_start|>user\nIs 2025 a good year, résumé 夜の猫 🎉?<|im_end|>\n"
    ids = tokenizer(text).input_ids
    assert ids[0] == 1 and ids[-2] == 2 and tokenizer.decode(ids) == text
    assert tokenizer.eos_token == "<|im_end|>" and tokenizer.chat_template


@pytest.mark.slow
def test_converted_weights_are_those_of_the_gguf(embedded, monkeypatch):
    model, tokenizer = embedded
    # transformers makes the same large table of names for each of the model's modules, and parses
    # the file for the config, for the weights and for the tokenizer
    for name in ("get_tensor_name_map", "GGUFReader"):
        monkeypatch.setattr(gguf, name, cache(getattr(gguf, name)))
    file = next(fetch(EMBEDDED_LLM).glob("*.gguf"))
    source = AutoModelForCausalLM.from_pretrained(
        file.parent, gguf_file=file.name, dtype=torch.float32
    ).eval()
    ids = tokenizer("The video shows a cat.", return_tensors="pt").input_ids
    with torch.inference_mode():
        assert torch.equal(model(ids).logits, source(ids).logits)
    again = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
    assert again(PROMPTS[0]).input_ids == tokenizer(PROMPTS[0]).input_ids


@pytest.mark.slow
def test_embedded_llm_is_converted_once(embedded, monkeypatch):
    def fail(*_, **__):
        raise AssertionError("fetched again")

    monkeypatch.setattr(llm, "fetch", fail)
    assert load_llm(EMBEDDED_LLM).config.hidden_size == embedded[0].config.hidden_size


@pytest.mark.slow
def test_embedded_llm_scores(embedded, tmp_path):
    config = make_config(llm=EMBEDDED_LLM)
    processor = AIGVEvalProcessor.from_config(config)
    model = AIGVEvalModel(config)
    batch = make_batch(processor, config, PROMPTS)
    together = model.score(**batch)
    assert batch["input_ids"].max() == config.feature_token_id == 49152  # beyond the vocabulary
    length = int(batch["attention_mask"][1].sum())
    alone = {key: value[1:] for key, value in batch.items()}
    alone |= {key: alone[key][:, :length] for key in ("input_ids", "attention_mask")}
    torch.testing.assert_close(model.score(**alone)[0][0], together[0][1], atol=1e-4, rtol=0)
    model.save_pretrained(tmp_path)
    assert (tmp_path / "model.safetensors").stat().st_size < 5e6
    loaded = AIGVEvalModel.from_pretrained(tmp_path)
    assert torch.equal(loaded.score(**batch)[0], together[0])
    ids = AIGVEvalProcessor.from_pretrained(tmp_path).encode_prompts(PROMPTS)["input_ids"]
    assert torch.equal(ids, batch["input_ids"])

"""From the cache of the question's beginning: the same scores, whatever the LLM."""

import pytest
import torch
from transformers import AutoModelForCausalLM, Mamba2Config, MistralConfig, Qwen3NextConfig

from aigveval.inference.engine import ModelEngine
from aigveval.model.generation import AnswerWriter
from aigveval.model.library_internals import cache_of
from aigveval.model.prefix_cache import PrefixCache
from encoders.onednn import OneDnnLinear, has_onednn

from ..tiny_llm import make_batch, make_encoders, make_llm, make_model, make_tokenizer
from .test_backbones import FAMILIES, QWEN_LIKE
from .test_generation import NEW, PROMPTS, heads, make_writer

OTHERS = {
    # narrower than the beginning of the question
    "mistral, 4": (MistralConfig, {**QWEN_LIKE, "sliding_window": 4}, "v_proj"),
    "mamba2": (
        Mamba2Config,
        {"hidden_size": 32, "num_hidden_layers": 2, "num_heads": 8, "head_dim": 8, "n_groups": 1},
        "in_proj",
    ),
    "qwen3_next": (
        Qwen3NextConfig,
        {
            **QWEN_LIKE,
            "layer_types": ["linear_attention", "full_attention"],
            "num_experts": 2,
            "num_experts_per_tok": 1,
            "moe_intermediate_size": 16,
            "shared_expert_intermediate_size": 16,
            "linear_num_value_heads": 2,
            "linear_num_key_heads": 2,
            "linear_key_head_dim": 8,
            "linear_value_head_dim": 8,
        },
        "q_proj",
    ),
}
WITHOUT_CACHE = ("mamba2", "qwen3_next")  # their state at the end of the beginning is more than it


@pytest.fixture(scope="module")
def made():
    return make_model()


@pytest.fixture(scope="module")
def batch(made):
    return make_batch(made[1], made[0].config, PROMPTS)


@pytest.fixture
def lengths(made, monkeypatch):
    """How many tokens the LLM reads, call by call."""
    found = []
    real = made[0].model.language_model.forward

    def forward(*args, **kwargs):
        found.append(kwargs["inputs_embeds"].shape[1])
        return real(*args, **kwargs)

    monkeypatch.setattr(made[0].model.language_model, "forward", forward)
    return found


def start_of(model, batch):
    return batch["input_ids"][0].tolist().index(model.config.feature_token_id)


@torch.inference_mode()
def both(model, batch, **options):
    return model(**batch, **options), PrefixCache(model)(**batch, **options)


@pytest.mark.parametrize("family", [*FAMILIES, *OTHERS])
def test_scores_of_any_causal_llm(family):
    config_class, options, target = {**FAMILIES, **OTHERS}[family]
    torch.manual_seed(0)
    llm = AutoModelForCausalLM.from_config(
        config_class(
            vocab_size=len(make_tokenizer()),
            pad_token_id=0,
            bos_token_id=1,
            eos_token_id=2,
            **options,
        )
    )
    model, processor = make_model(llm=llm, lora={"target_modules": [target], "dropout": 0.0})
    batch = make_batch(processor, model.config, ["a cat on a roof in the rain", None])
    run = PrefixCache(model)
    with torch.inference_mode():
        plain, first, again = model(**batch), run(**batch), run(**batch)
    spread = float(plain.level_logits.std())
    torch.testing.assert_close(first.level_logits, plain.level_logits, atol=spread / 500, rtol=0)
    assert torch.equal(first.level_logits, again.level_logits)
    assert (run._kept is None) == (family in WITHOUT_CACHE)


@pytest.mark.parametrize("use_cache", [True, False])
def test_scores_and_cache_of_a_batch(made, batch, use_cache):
    plain, found = both(made[0], batch, use_cache=use_cache)
    for name in ("level_logits", "scores", "stds"):
        torch.testing.assert_close(found[name], plain[name], atol=2e-5, rtol=2e-5, equal_nan=True)
    if not use_cache:
        assert cache_of(found) is cache_of(plain) is None
        return
    for layer, expected in zip(cache_of(found).layers, cache_of(plain).layers):
        torch.testing.assert_close(layer.keys, expected.keys, atol=2e-5, rtol=2e-5)
        torch.testing.assert_close(layer.values, expected.values, atol=2e-5, rtol=2e-5)


def test_the_beginning_is_read_once(made, batch, lengths):
    model, start = made[0], start_of(made[0], batch)
    assert start > 20
    run = PrefixCache(model)
    with torch.inference_mode():
        for rows in (batch, {name: value[:1] for name, value in batch.items()}, batch):
            run(**rows)
    rest = batch["input_ids"].shape[1] - start
    assert lengths == [start, rest, rest, rest]


def test_alone_as_in_a_batch(made, batch):
    run = PrefixCache(made[0])
    with torch.inference_mode():
        together = run(**batch).level_logits
        for row in range(len(PROMPTS)):
            alone = run(
                **{name: value[row : row + 1] for name, value in batch.items()}
            ).level_logits
            torch.testing.assert_close(alone[0], together[row], atol=2e-5, rtol=2e-5)


def test_rows_that_begin_in_different_ways(made, batch, lengths):
    """Padding on the left, another first token, a placeholder at once: nothing to share."""
    model, width = made[0], batch["input_ids"].shape[1]
    ids, mask = batch["input_ids"], batch["attention_mask"]
    pad = torch.nn.functional.pad
    padded = {**batch, "input_ids": pad(ids, (1, 0)), "attention_mask": pad(mask, (1, 0))}
    padded["slot_positions"] = batch["slot_positions"] + 1
    other = {**batch, "input_ids": ids.clone()}
    other["input_ids"][3, 0] += 1
    start = start_of(model, batch)
    at_once = {
        **batch,
        "input_ids": ids[:, start:],
        "attention_mask": mask[:, start:],
        "slot_positions": batch["slot_positions"] - start,
    }
    for rows, length in ((padded, width + 1), (other, width), (at_once, width - start)):
        lengths.clear()
        plain, found = both(model, rows)
        assert lengths == [length] * 2
        assert torch.equal(found.level_logits, plain.level_logits)


def test_another_question(made, batch):
    """A question that begins in another way is not answered from the first one's cache."""
    run = PrefixCache(made[0])
    other = {**batch, "input_ids": batch["input_ids"].clone()}
    other["input_ids"][:, 2] += 1
    with torch.inference_mode():
        for rows in (batch, other, batch):
            expected = made[0](**rows).level_logits
            torch.testing.assert_close(run(**rows).level_logits, expected, atol=2e-5, rtol=2e-5)


def test_answers_are_written_on_from_its_cache(made, batch):
    expected = make_writer(made, batch).write(range(len(PROMPTS)), max_new_tokens=NEW)
    model, processor = made
    with torch.inference_mode():
        output = PrefixCache(model)(**batch, use_cache=True)
    writer = AnswerWriter(
        model, processor.tokenizer, batch=batch, cache=cache_of(output), heads=heads()
    )
    assert writer.write(range(len(PROMPTS)), max_new_tokens=NEW) == expected
    assert writer._cache is not None


def test_in_bfloat16():
    model, processor = make_model(llm=make_llm().bfloat16())
    batch = make_batch(processor, model.config, PROMPTS)
    plain, found = both(model, batch)
    torch.testing.assert_close(found.scores, plain.scores, atol=0.05, rtol=0, equal_nan=True)


def test_an_engine_scores_with_it(made, batch, lengths):
    """And leaves the model as it was: what it computes for others, and what is saved."""
    model, processor = made
    processor._encoders = make_encoders()
    state = {name: value.clone() for name, value in model.state_dict().items()}
    with torch.no_grad():
        plain = model(**batch)
    engine = ModelEngine(model, processor, device=torch.device("cpu"))
    clip = {name: torch.rand(e.spec.num_tokens, 3) for name, e in processor.encoders.items()}
    lengths.clear()
    (alone,) = engine.score_views([clip], ["a cat"])
    pair = engine.score_views([clip, clip], ["a cat", None])
    assert len(lengths) == 3 and lengths[0] == start_of(model, batch)
    assert engine.score_views([clip], ["a cat"]) == [alone]
    for name, score in alone.items():
        assert pair[0][name].score == pytest.approx(score.score, abs=1e-4)
    layers = model.model.language_model.layers
    assert any(isinstance(m, OneDnnLinear) for m in layers.modules()) == has_onednn()
    with torch.no_grad():
        torch.testing.assert_close(model(**batch).scores, plain.scores, equal_nan=True)
    after = {n: v for n, v in model.state_dict().items() if not n.startswith("encoders.")}
    assert all(torch.equal(value, state[name]) for name, value in after.items())


def test_a_model_is_saved_as_before(tmp_path):
    """Its LoRA, and with `merge` the LLM without it, though oneDNN has another layout."""
    llm = make_llm()
    source = tmp_path / "llm"
    llm.save_pretrained(source)
    make_tokenizer().save_pretrained(source)
    model, processor = make_model(llm=llm)
    model.config.llm = str(source)
    model.load_encoders(make_encoders())
    model.save_pretrained(tmp_path / "before", merge=True)
    processor._encoders = make_encoders()
    ModelEngine(model, processor, device=torch.device("cpu"))
    model.save_pretrained(tmp_path / "after", merge=True)
    names = sorted(
        path.relative_to(tmp_path / "before")
        for path in (tmp_path / "before").rglob("*.safetensors")
    )
    assert len(names) == 5  # what is trained, the LLM, three encoders
    for name in names:
        assert (tmp_path / "after" / name).read_bytes() == (tmp_path / "before" / name).read_bytes()

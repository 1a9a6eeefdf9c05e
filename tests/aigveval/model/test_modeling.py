"""The model: one forward pass, encoders, what is trained."""

import shutil

import pytest
import torch
from safetensors.torch import load_file
from transformers import FalconH1Config, FalconH1ForCausalLM, Trainer, TrainingArguments

from aigveval.errors import ModelError
from aigveval.model.config import AIGVEvalConfig
from aigveval.model.modeling import AIGVEvalModel
from aigveval.model.processing import AIGVEvalProcessor
from prompts import SCORES

from ..tiny_llm import (
    MeanColour,
    make_batch,
    make_config,
    make_encoders,
    make_llm,
    make_model,
    make_tokenizer,
)

PROMPTS = ["a cat on a roof in the rain", None, "dog", "two boats, one sun"]


@pytest.fixture(scope="module")
def made():
    return make_model()


@pytest.fixture(scope="module")
def model(made):
    return made[0]


@pytest.fixture(scope="module")
def batch(made):
    return make_batch(made[1], made[0].config, PROMPTS)


def rows(batch, index):
    return {key: value[index] for key, value in batch.items()}


# ---- one forward pass ----


def test_shapes_and_ranges(model, batch):
    output = model.score(**batch)
    assert list(output) == ["level_logits", "scores", "stds"]
    assert output.level_logits.shape == (4, 4, 5) and output.level_logits.dtype == torch.float32
    known = ~output.scores.isnan()
    assert torch.equal(known, batch["slot_mask"])
    assert known.sum() == 15 and not known[1, SCORES.index("semantic")]
    assert (output.scores[known] > 1).all() and (output.scores[known] < 5).all()
    assert (output.stds[known] > 0).all() and torch.equal(known, ~output.stds.isnan())


@pytest.mark.parametrize("tied", [True, False])
def test_only_the_needed_logits_and_they_are_the_llms_own(tied, batch):
    model, _ = make_model(llm=make_llm(tied=tied))
    output = model.score(**batch, output_last_hidden_state=True)
    every = model.lm_head(output.last_hidden_state)
    for row, slots in enumerate(batch["slot_positions"]):
        for slot, position in enumerate(slots):
            torch.testing.assert_close(
                output.level_logits[row, slot], every[row, position, model.config.level_token_ids]
            )


def test_scaled_and_capped_logits(model, batch):
    plain = model.score(**batch).level_logits
    changed = {"logit_scale": 0.5, "logits_scaling": 4.0, "final_logit_softcapping": 2.0}
    for name, value in changed.items():
        setattr(model.config.text_config, name, value)
    try:
        capped = model.score(**batch).level_logits
    finally:
        for name in changed:
            delattr(model.config.text_config, name)
    torch.testing.assert_close(capped, 2.0 * torch.tanh(plain * 0.5 / 4.0 / 2.0))


def test_the_head_of_falcon_h1_is_its_own():
    torch.manual_seed(0)
    llm = FalconH1ForCausalLM(
        FalconH1Config(
            vocab_size=len(make_tokenizer()),
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=1,
            num_attention_heads=4,
            num_key_value_heads=2,
            mamba_d_ssm=32,
            mamba_n_heads=4,
            mamba_d_head=8,
            mamba_d_state=8,
            lm_head_multiplier=0.02,
        )
    ).eval()
    ids = torch.arange(2, 11)[None]
    expected = llm(input_ids=ids, use_cache=False).logits
    model, _ = make_model(llm=llm, lora=None)
    hidden = model.model.language_model(input_ids=ids, use_cache=False).last_hidden_state
    found = model._level_logits(hidden, torch.tensor([[8, 8, 8, 8]]))[0, 0]
    torch.testing.assert_close(found, expected[0, 8, model.config.level_token_ids])


def test_head_with_bias(batch):
    llm = make_llm(tied=False)
    plain = make_model(llm=llm)[0].score(**batch).level_logits
    llm = make_llm(tied=False)
    llm.lm_head.bias = torch.nn.Parameter(torch.arange(float(llm.config.vocab_size)))
    model, _ = make_model(llm=llm)
    bias = torch.tensor(model.config.level_token_ids, dtype=torch.float32)
    torch.testing.assert_close(model.score(**batch).level_logits, plain + bias, rtol=1e-5, atol=0)


def test_scores_keep_their_digits_under_autocast(model, batch):
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        output = model(**batch, output_last_hidden_state=True)
        assert output.level_logits.dtype == torch.float32
    logits = model._level_logits(output.last_hidden_state, batch["slot_positions"])
    assert torch.equal(output.level_logits, logits)


def test_same_input_same_bits(model, batch):
    first, second = model.score(**batch), model.score(**batch)
    assert torch.equal(first.level_logits, second.level_logits)


@pytest.mark.parametrize("side", ["right", "left"])
def test_batch_and_padding_do_not_matter(model, batch, side):
    together = model.score(**batch).level_logits
    lengths = batch["attention_mask"].sum(1)
    assert len(set(lengths.tolist())) > 2  # there is padding
    for row, length in enumerate(lengths.tolist()):
        alone = rows(batch, slice(row, row + 1))
        cut = {key: alone[key][:, :length] for key in ("input_ids", "attention_mask")}
        alone |= cut
        if side == "left":
            for key, pad in (("input_ids", 5), ("attention_mask", 0)):
                alone[key] = torch.nn.functional.pad(alone[key], (3, 0), value=pad)
            alone["slot_positions"] = alone["slot_positions"] + 3
        torch.testing.assert_close(
            model.score(**alone).level_logits[0], together[row], atol=1e-4, rtol=0
        )


def test_every_encoder_and_the_prompt_count(model, made, batch):
    plain = model.score(**batch).level_logits
    start = 0
    for k, d in model.config.feature_shapes:
        changed = batch["features"].clone()
        changed[:, start : start + k, :d] += 1
        assert not torch.allclose(model.score(**{**batch, "features": changed})[0], plain)
        start += k
    other = {**batch, **made[1].encode_prompts(["sea", "ice", "fog", "sun"])}
    assert not torch.allclose(model.score(**other)[0], plain)


def test_width_beyond_an_encoders_own_is_not_read(model, batch):
    padded = batch["features"].clone()
    start = 0
    for k, d in model.config.feature_shapes:
        padded[:, start : start + k, d:] = 99.0
        start += k
    assert torch.equal(model.score(**{**batch, "features": padded})[0], model.score(**batch)[0])


def test_mismatch_of_placeholders_and_features(model, batch):
    with pytest.raises(ValueError) as error:
        model(**{**batch, "features": batch["features"][:, :-1]})
    assert str(error.value) == (
        "placeholder counts per row are [13, 13, 13, 13], but features are 4 rows that fill 12"
    )
    fewer = batch["input_ids"].clone()
    fewer[2][fewer[2] == model.config.feature_token_id] = 5
    with pytest.raises(ValueError, match=r"per row are \[13, 13, 0, 13\], .* that fill 13$"):
        model(**{**batch, "input_ids": fewer})
    with pytest.raises(ValueError, match=r"^features must be \(b, 9, 11\), got \(4, 9, 10\)$"):
        model(**{**batch, "features": batch["features"][..., :-1]})
    with pytest.raises(ValueError, match="^forward needs features, or the cache of a pass"):
        model(input_ids=batch["input_ids"])
    with pytest.raises(TypeError, match="labels"):
        model(**batch, labels=torch.ones(4, 4))


def test_subset_of_encoders():
    entries = [entry for entry in make_config().encoders if entry["dimension"] != "motion"]
    config = AIGVEvalConfig(llm="tiny", encoders=entries)
    processor = AIGVEvalProcessor.from_config(config, tokenizer=make_tokenizer())
    subset = AIGVEvalModel(config, llm=make_llm())
    assert list(subset.model.projectors) == ["look", "crisp"]
    output = subset.score(**make_batch(processor, config, PROMPTS))
    assert output.scores[0].isnan().tolist() == [name == "motion" for name in SCORES]


# ---- encoders ----


def test_encode_equals_join_of_cached_tokens_and_rows_are_independent():
    model, _ = make_model()
    model.load_encoders(make_encoders())
    views = {name: torch.rand(3, e.spec.num_tokens, 3) for name, e in make_encoders().items()}
    text = ["a cat", None, " "]
    features = model.encode(views, text)
    assert features.shape == (3, 9, 11) and features.dtype == torch.float32
    tokens = {name: e.encode(views[name]) for name, e in make_encoders().items()}
    assert torch.equal(model.join(tokens, text), features)
    for row in range(3):
        alone = model.encode({name: v[row : row + 1] for name, v in views.items()}, [text[row]])
        torch.testing.assert_close(alone[0], features[row])
    without = model.encode(views)
    assert not torch.allclose(without[0], features[0])
    torch.testing.assert_close(without[1:], features[1:])
    with pytest.raises(ValueError, match="^there are 2 prompts for 3 clips$"):
        model.join(tokens, ["a", "b"])


def test_encoders_of_a_package_that_is_not_here_are_told():
    model, processor = make_model()
    for load in (model.load_encoders, lambda: processor.encoders):
        with pytest.raises(ModelError) as error:
            load()
        assert str(error.value) == (
            "the model was made with the encoder look of another package: install that, or "
            "register it by encoders.register_encoder"
        )


def test_tokens_that_are_not_what_the_spec_says():
    model, _ = make_model()
    model.load_encoders(make_encoders())
    tokens = {"look": torch.rand(2, 3, 7), "flow": torch.rand(2, 4, 6), "crisp": torch.rand(2, 2)}
    with pytest.raises(ValueError) as error:
        model.join(tokens)
    assert str(error.value) == ("encoder flow gave tokens of shape (4, 6), its spec says (4, 5)")


def test_encoders_are_frozen_whatever_the_mode():
    model, _ = make_model()
    model.load_encoders(make_encoders())
    model.train()
    assert not any(module.training for module in model.encoders.modules())
    assert model.model.projectors.training


def test_another_fingerprint():
    model, _ = make_model()
    encoders = make_encoders()
    trained_with = model.config.encoders[1]["fingerprint"]
    encoders["flow"].version = 2
    found = encoders["flow"].fingerprint()
    message = (
        f"encoder flow: the model was trained with fingerprint {trained_with}, "
        f"this one has {found}; its tokens may differ"
    )
    with pytest.raises(ValueError) as error:
        model.load_encoders(encoders)
    assert str(error.value) == message
    with pytest.warns(UserWarning, match=message):
        model.load_encoders(encoders, strict=False)
    encoders["flow"] = MeanColour(name="flow", dimension="motion", num_tokens=4, dim=6)
    with pytest.raises(ValueError, match="^encoder flow: the config has dim 5, the encoder has 6$"):
        model.load_encoders(encoders, strict=False)


# ---- training ----


def test_gradients_reach_all_that_is_trained_and_nothing_frozen(batch):
    model, _ = make_model()
    model.load_encoders(make_encoders())
    model.train()
    model(**batch).level_logits.square().sum().backward()
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    for name, parameter in model.named_parameters():
        if name in trained:
            assert parameter.grad.abs().sum() > 0, name
        else:
            assert parameter.grad is None, name
    # statistics are saved, but not learnt
    assert model.trained_keys() - trained == {
        f"model.projectors.{name}.{stat}"
        for name in ("look", "flow", "crisp")
        for stat in ("mean", "std", "probe")
    }
    assert sum("lora_" in name for name in trained) == 2 * 2 * 2  # layers, q and v, A and B


def test_without_lora(batch):
    model, _ = make_model(lora=None)
    assert not any("lora_" in name for name, _ in model.named_parameters())
    assert model.score(**batch).level_logits.isfinite().all()


def test_gradient_checkpointing_gives_the_same_gradients(batch):
    gradients = []
    for checkpointing in (False, True):
        model, _ = make_model(lora={"dropout": 0.0})
        model.train()
        if checkpointing:
            newer = hasattr(model, "activation_checkpointing_enable")
            word = "activation" if newer else "gradient"
            getattr(model, f"{word}_checkpointing_enable")()
            assert getattr(model, f"is_{word}_checkpointing")
        model(**batch).level_logits.square().sum().backward()
        gradients.append([p.grad for p in model.parameters() if p.requires_grad])
    for plain, checkpointed in zip(*gradients, strict=True):
        torch.testing.assert_close(plain, checkpointed)


def test_trainer_steps_saves_and_resumes(tmp_path, batch):
    rows_ = [{**rows(batch, i), "labels": torch.full((4,), 4.0)} for i in range(4)]

    def loss(output, labels, num_items_in_batch=None):
        known = ~output.scores.isnan()
        return (output.scores - labels)[known].square().mean()

    def train(steps, **resume):
        model, _ = make_model()
        arguments = TrainingArguments(
            tmp_path,
            max_steps=steps,
            save_steps=2,
            logging_steps=1,
            per_device_train_batch_size=4,
            learning_rate=1e-2,
            label_names=["labels"],
            report_to=[],
            use_cpu=True,
            disable_tqdm=True,
        )
        trainer = Trainer(model, arguments, train_dataset=rows_, compute_loss_func=loss)
        trainer.train(**resume)
        return model, [log["loss"] for log in trainer.state.log_history if "loss" in log], trainer

    frozen = make_model()[0].model.language_model.embed_tokens.weight
    model, losses, trainer = train(4)
    assert losses[-1] < losses[0]
    assert torch.equal(model.model.language_model.embed_tokens.weight, frozen)
    assert trainer.evaluate(rows_)["eval_loss"] < losses[0]
    assert trainer.predict(rows_).predictions[0].shape == (4, 4, 5)
    saved = load_file(tmp_path / "checkpoint-4" / "model.safetensors")
    assert set(saved) == model.trained_keys()
    shutil.rmtree(tmp_path / "checkpoint-4")
    resumed, _, _ = train(4, resume_from_checkpoint=str(tmp_path / "checkpoint-2"))
    for key in saved:
        torch.testing.assert_close(resumed.state_dict()[key], saved[key])

"""The model: fusion, scores, what's trained, what's saved."""

import json
import math
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, Trainer, TrainingArguments

from aigveval.checkpoint import trained_keys
from aigveval.config import AIGVEvalConfig
from aigveval.fusion import (
    FeatureProjector, bounded, mix_levels, pack_features, unpack_features,
)
from aigveval.modeling import AIGVEvalModel
from aigveval.processing import AIGVEvalProcessor
from prompts import SCORES, level_distribution

from .tiny_llm import (
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


def test_head_with_bias(batch):
    llm = make_llm(tied=False)
    plain = make_model(llm=llm)[0].score(**batch).level_logits
    llm = make_llm(tied=False)
    llm.lm_head.bias = torch.nn.Parameter(torch.arange(float(llm.config.vocab_size)))
    model, _ = make_model(llm=llm)
    bias = torch.tensor(model.config.level_token_ids, dtype=torch.float32)
    torch.testing.assert_close(model.score(**batch).level_logits, plain + bias, rtol=1e-5, atol=0)


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
        changed[:, start:start + k, :d] += 1
        assert not torch.allclose(model.score(**{**batch, "features": changed})[0], plain)
        start += k
    other = {**batch, **made[1].encode_prompts(["sea", "ice", "fog", "sun"])}
    assert not torch.allclose(model.score(**other)[0], plain)


def test_width_beyond_an_encoders_own_is_not_read(model, batch):
    padded = batch["features"].clone()
    start = 0
    for k, d in model.config.feature_shapes:
        padded[:, start:start + k, d:] = 99.0
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


# ---- features ----


def test_pack_and_unpack():
    parts = [torch.randn(2, 3, 7), torch.randn(2, 4, 5), torch.randn(2, 2, 11)]
    packed = pack_features(parts)
    assert packed.shape == (2, 9, 11)
    assert packed[:, 3:7, 5:].abs().sum() == 0
    shapes = [tuple(part.shape[1:]) for part in parts]
    back = unpack_features(packed, shapes)
    assert all(torch.equal(a, b) for a, b in zip(parts, back, strict=True))


def projector(**options):
    torch.manual_seed(0)
    defaults = {"hidden": 64, "embedding_rms": 0.1, "clip": 10.0, "dropout": 0.0, "noise": 0.0}
    new = FeatureProjector(6, 20, 32, **{**defaults, **options})
    torch.nn.init.normal_(new.down.weight, std=0.1)
    return new


def test_a_new_projector_gives_positions_as_large_as_the_embeddings():
    new = projector(embedding_rms=0.1)
    torch.nn.init.zeros_(new.down.weight)
    embeddings, told = new(torch.randn(50, 6, 20))
    assert torch.equal(embeddings, new.position.expand(50, -1, -1))
    assert told.shape == (50, 6, len(SCORES)) and not told.any()
    assert new.position.square().mean().sqrt().item() == pytest.approx(0.1, rel=0.15)


def test_standardisation_and_clip():
    mean, std = torch.arange(20.0), torch.full((20,), 2.0)
    std[3] = 0.0  # a constant feature
    plain, standardised = projector(), projector()
    standardised.set_stats(mean, std)
    z = torch.randn(4, 6, 20)
    assert standardised.std[3] == 1
    torch.testing.assert_close(
        standardised(z * standardised.std + mean), plain(z), atol=1e-5, rtol=1e-5
    )
    freak = torch.full((1, 6, 20), 1e6)
    torch.testing.assert_close(plain(freak), plain(torch.full((1, 6, 20), 10.0)))


def test_a_probe_adds_exactly_what_it_says():
    new = projector()
    weight, bias = torch.randn(len(SCORES), 20), torch.arange(4.0)
    tokens = torch.randn(3, 6, 20)
    before = new(tokens)[1]
    new.set_stats(torch.full((20,), 0.5), torch.full((20,), 2.0))
    shifted = 0.5 + 2.0 * tokens
    new.set_probe(weight, bias)
    torch.testing.assert_close(
        new(shifted)[1], before + tokens @ weight.T + bias, atol=1e-4, rtol=1e-4
    )


def test_the_mix_of_level_words():
    levels = torch.eye(5)
    mixed = mix_levels(torch.tensor([[-7.0, 1.5, 2.25], [4.5, 4.0, 99.0]]), levels)
    expected = torch.tensor([
        [[1, 0, 0, 0, 0], [0.5, 0.5, 0, 0, 0], [0, 0.75, 0.25, 0, 0]],
        [[0, 0, 0, 0.5, 0.5], [0, 0, 0, 1, 0], [0, 0, 0, 0, 1]],
    ])
    torch.testing.assert_close(mixed, expected)
    middle = torch.tensor(3.0, requires_grad=True)  # where new projectors begin
    mix_levels(middle, levels)[3].backward()
    assert middle.grad == 1
    unknown = mix_levels(torch.tensor([math.nan, 2.0]), levels)
    assert unknown.isnan().all(1).tolist() == [True, False]
    for score in (1.5, 1.7, 3.0, 4.4):
        assert mix_levels(torch.tensor(score), levels).tolist() == pytest.approx(
            level_distribution(score), abs=1e-6
        )


def test_scores_beyond_the_scale_keep_their_order():
    scores = torch.linspace(-1, 7, 801, dtype=torch.float64, requires_grad=True)
    found = bounded(scores)
    found.sum().backward()
    inside = (scores >= 1.5) & (scores <= 4.5)
    torch.testing.assert_close(found[inside], scores[inside])
    assert (found.diff() > 0).all() and found[0] > 1 and found[-1] < 5
    assert (found - scores).diff().abs().max() < 0.01  # no jump
    assert (scores.grad > 0).all() and scores.grad[inside].tolist() == [1.0] * int(inside.sum())


def test_what_stands_in_the_placeholders(batch):
    """The features' embeddings with their own dimension's level, then the four impressions."""
    model, _ = make_model()
    plain, _ = make_model(impressions=False)
    plain.load_state_dict(model.state_dict())
    features = batch["features"]
    with torch.no_grad():
        shown = model.model.project(features)
        impressions = model.model.impressions(features)
        difference = shown[:, :9] - plain.model.project(features)
        levels = model.get_input_embeddings().weight[model.config.level_token_ids]
        outputs = [project(part) for project, part in zip(
            model.model.projectors.values(), unpack_features(features, model.config.feature_shapes)
        )]
    assert shown.shape == (len(features), 9 + len(SCORES), 32)
    assert impressions.std() > 0.1
    torch.testing.assert_close(shown[:, 9:], mix_levels(impressions, levels))
    column = SCORES.index("motion")  # tokens 3 to 6 are those of `flow`
    torch.testing.assert_close(
        difference[:, 3:7], mix_levels(3 + outputs[1][1][..., column], levels),
        atol=1e-5, rtol=1e-4,
    )
    expected = 3 + sum(told.mean(1) for _, told in outputs)
    torch.testing.assert_close(impressions, expected)


def test_feature_stats_by_name_or_dimension():
    model, _ = make_model()
    model.set_feature_stats("technical", torch.ones(11), torch.full((11,), 3.0))
    model.set_feature_stats("flow", torch.full((5,), 2.0), torch.ones(5))
    assert model.model.projectors["crisp"].std.tolist() == [3.0] * 11
    assert model.model.projectors["flow"].mean.tolist() == [2.0] * 5
    with pytest.raises(ValueError, match=r"expected one of \['look', 'flow', 'crisp'\], .*'blur'"):
        model.set_feature_stats("blur", torch.ones(11), torch.ones(11))
    with pytest.raises(ValueError, match=r"^std must be finite and of shape \(5,\), got \(7,\)$"):
        model.set_feature_stats("flow", torch.zeros(5), torch.ones(7))
    with pytest.raises(ValueError, match="^mean must be finite"):
        model.set_feature_stats("flow", torch.full((5,), math.nan), torch.ones(5))


def test_dropout_takes_whole_encoders_and_only_in_training():
    drop = projector(dropout=0.5)
    tokens = torch.randn(400, 6, 20)
    (clean, _), (empty, _) = drop.eval()(tokens), drop(torch.zeros(1, 6, 20))
    dropped, _ = drop.train()(tokens)
    is_empty = torch.isclose(dropped, empty).all(2).all(1)
    is_clean = torch.isclose(dropped, clean).all(2).all(1)
    assert (is_empty ^ is_clean).all()
    assert 0.4 < is_empty.float().mean() < 0.6


def test_noise_only_in_training(batch):
    model, _ = make_model(feature_noise=0.1, lora=None)
    quiet = model.score(**batch)[0]
    model.train()
    assert torch.equal(model.score(**batch)[0], quiet) and model.training
    assert not torch.allclose(model(**batch)[0], quiet)


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
        alone = model.encode({name: v[row:row + 1] for name, v in views.items()}, [text[row]])
        torch.testing.assert_close(alone[0], features[row])
    without = model.encode(views)
    assert not torch.allclose(without[0], features[0])
    torch.testing.assert_close(without[1:], features[1:])
    with pytest.raises(ValueError, match="^there are 2 prompts for 3 clips$"):
        model.join(tokens, ["a", "b"])


def test_tokens_that_are_not_what_the_spec_says():
    model, _ = make_model()
    model.load_encoders(make_encoders())
    tokens = {"look": torch.rand(2, 3, 7), "flow": torch.rand(2, 4, 6), "crisp": torch.rand(2, 2)}
    with pytest.raises(ValueError) as error:
        model.join(tokens)
    assert str(error.value) == (
        "encoder flow gave tokens of shape (4, 6), its spec says (4, 5)"
    )


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
    assert trained_keys(model) - trained == {
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
            model.activation_checkpointing_enable()
            assert model.is_activation_checkpointing
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
    assert set(saved) == trained_keys(model)
    shutil.rmtree(tmp_path / "checkpoint-4")
    resumed, _, _ = train(4, resume_from_checkpoint=str(tmp_path / "checkpoint-2"))
    for key in saved:
        torch.testing.assert_close(resumed.state_dict()[key], saved[key])


# ---- saving and loading ----


def test_round_trip_is_bit_for_bit_and_holds_nothing_frozen(tmp_path, batch):
    model, _ = make_model()
    model.set_feature_stats("flow", torch.rand(5), torch.rand(5) + 0.5)
    model.load_encoders(make_encoders())
    model.save_pretrained(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.json", "model.safetensors"]
    saved = load_file(tmp_path / "model.safetensors")
    assert set(saved) == trained_keys(model)
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

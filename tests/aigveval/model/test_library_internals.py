"""What is inside of other libraries: the quick way and the one without it give the same.

A failure names the library and its version.
"""

import inspect
import sys
from dataclasses import dataclass, fields, replace

import pytest
import torch
import transformers
from torch import nn
from transformers import DynamicCache, TrainingArguments

from aigveval.model import library_internals
from aigveval.model.base import AIGVEvalOutput
from aigveval.model.library_internals import (
    CACHE,
    add_reference,
    cache_argument,
    cache_of,
    can_go_on,
    checkpointing_option,
    is_lora,
    library,
    merge_lora,
    repeated,
    rows_of,
    shortened,
    use_one_gpu,
    without_lora,
)
from aigveval.model.prefix_cache import PrefixCache

from ..tiny_llm import make_batch, make_llm, make_model
from .test_generation import NEW, PROMPTS, make_writer

TRANSFORMERS = f"transformers {transformers.__version__}"


@pytest.fixture(scope="module")
def made():
    return make_model()


@pytest.fixture(scope="module")
def batch(made):
    return make_batch(made[1], made[0].config, PROMPTS)


@pytest.fixture
def cache():
    """Of one row and five tokens."""
    llm = make_llm()
    with torch.no_grad():
        return cache_of(llm(torch.arange(5)[None], use_cache=True))


def tensors(cache):
    return [tensor for keys, values, *_ in cache for tensor in (keys, values)]


# ---- the KV cache ----


def test_output_carries_the_cache_under_the_name_of_transformers(cache):
    output = AIGVEvalOutput(scores=torch.zeros(1, 4), **{CACHE: cache})
    assert cache_of(output) is output[CACHE] is cache, TRANSFORMERS
    assert list(output) == [CACHE, "scores"], TRANSFORMERS  # `generate` looks with `in`
    assert cache_of(AIGVEvalOutput(scores=torch.zeros(1, 4))) is None, TRANSFORMERS


class Newer(nn.Module):
    def forward(self, input_ids, cache=None):
        pass


class Older(nn.Module):
    def forward(self, input_ids, past_key_values=None):
        pass


class Either(nn.Module):
    def forward(self, input_ids, **kwargs):
        pass


def test_cache_goes_in_by_the_name_that_the_model_has():
    cache = DynamicCache()
    assert cache_argument(Newer(), cache) == {"cache": cache}
    assert cache_argument(Older(), cache) == {"past_key_values": cache}
    assert cache_argument(Either(), cache) == {CACHE: cache}
    assert cache_argument(Either(), None) == {}


def test_forward_takes_the_cache_by_either_name(made, batch):
    model = made[0]
    row = {name: value[:1] for name, value in batch.items()}
    more = row["input_ids"][:, -3:]
    with torch.no_grad():
        found = [
            model(input_ids=more, **{name: cache_of(model(**row, use_cache=True))}).logits
            for name in ("cache", "past_key_values")
        ]
    assert torch.equal(*found)


@pytest.mark.parametrize("count", [1, 3])
def test_copies_of_a_cache(cache, count):
    before = [tensor.clone() for tensor in tensors(cache)]
    quick = library_internals._copied(cache, count)
    assert quick is not None, f"{TRANSFORMERS}: a DynamicCache is built of something else"
    slow = library_internals._copied_slowly(cache, count)
    for copied in (quick, slow):
        assert copied.get_seq_length() == 5, TRANSFORMERS
        for one, original in zip(tensors(copied), before, strict=True):
            assert torch.equal(one, original.expand(count, -1, -1, -1)), TRANSFORMERS
            one.zero_()
        assert all(map(torch.equal, tensors(cache), before)), f"{TRANSFORMERS}: not a copy"


def test_scores_without_the_quick_copy_or_any(made, batch, monkeypatch):
    model = made[0]
    lengths = []
    model.model.register_forward_pre_hook(
        lambda _, args, kwargs: lengths.append((args[0] if args else kwargs["input_ids"]).shape[1]),
        with_kwargs=True,
    )
    with torch.inference_mode():
        quick = PrefixCache(model)(**batch).scores
        monkeypatch.setattr(library_internals, "_copied", lambda cache, count: None)
        slow = PrefixCache(model)(**batch).scores
        monkeypatch.setattr(library_internals, "_PLAIN_LAYERS", ())
        whole = PrefixCache(model)(**batch).scores
    start, width = lengths[0], batch["input_ids"].shape[1]
    assert lengths == [start, width - start, start, width - start, start, width], TRANSFORMERS
    assert torch.equal(quick.nan_to_num(), slow.nan_to_num()), TRANSFORMERS
    torch.testing.assert_close(quick, whole, atol=2e-5, rtol=2e-5, equal_nan=True)


def test_a_cache_is_cut_or_nothing_is_gone_on_from(cache, monkeypatch):
    assert shortened(cache, 0) is cache and cache.get_seq_length() == 5
    assert shortened(cache, 2) is cache and cache.get_seq_length() == 3, TRANSFORMERS
    monkeypatch.setattr(DynamicCache, "crop", lambda self, count: None)  # does nothing any more
    assert shortened(cache, 1) is None
    monkeypatch.delattr(DynamicCache, "crop")
    monkeypatch.delattr(transformers.Cache, "crop", raising=False)
    assert shortened(cache, 1) is None and shortened(None, 1) is None


def test_rows_of_a_cache(cache):
    both = repeated(cache, 2)
    for keys, *_ in both:
        keys[1] += 1
    (keys, *_), *_ = rows_of(both, torch.tensor([1, 0, 1]))
    (own, *_), *_ = both
    assert torch.equal(keys, own[[1, 0, 1]]), TRANSFORMERS


def test_rows_are_picked_without_a_copy_of_the_others(cache, monkeypatch):
    def fail(self, memo):
        raise NotImplementedError

    both, rows = repeated(cache, 2), torch.tensor([1])
    before = [tensor.clone() for tensor in tensors(both)]
    with monkeypatch.context() as patch:
        patch.setattr(library_internals, "_PLAIN_LAYERS", ())
        slow = rows_of(both, rows)
    monkeypatch.setattr(torch.Tensor, "__deepcopy__", fail)
    quick = rows_of(both, rows)
    assert quick is not None and all(map(torch.equal, tensors(quick), tensors(slow))), TRANSFORMERS
    for tensor in tensors(quick):
        tensor.zero_()
    quick.update(*(torch.zeros(1, *own.shape[1:]) for own in before[:2]), 0)
    assert all(map(torch.equal, tensors(both), before)), f"{TRANSFORMERS}: not a copy"


@pytest.mark.parametrize("gone", ["crop", "batch_select_indices"])
def test_the_same_answers_without_what_a_cache_can_do(made, batch, gone, monkeypatch):
    expected = make_writer(made, batch).write(range(8), max_new_tokens=NEW)

    def fail(self, *args):
        raise NotImplementedError(gone)

    monkeypatch.setattr(DynamicCache, gone, fail)
    assert make_writer(made, batch).write(range(8), max_new_tokens=NEW) == expected, TRANSFORMERS


def test_a_model_whose_positions_are_unknown_reads_all_again():
    plain, rotary = nn.Module(), nn.Module()
    rotary.get_rope_index = None
    assert can_go_on(plain) and not can_go_on(rotary)
    rotary.rope_deltas = None
    assert can_go_on(rotary)
    from transformers.models.qwen3_vl.modeling_qwen3_vl import Qwen3VLModel

    assert hasattr(Qwen3VLModel, "get_rope_index"), TRANSFORMERS
    assert "rope_deltas" in inspect.getsource(Qwen3VLModel.__init__), TRANSFORMERS


# ---- LoRA ----


def test_names_of_lora_layers(made):
    from peft import __version__

    model = made[0].model.language_model
    plain = make_llm().base_model
    state = without_lora(model, like=plain)
    assert set(state) == set(plain.state_dict()), f"peft {__version__}"
    added = {name for name, value in model.named_parameters() if value.requires_grad}
    assert added and {name for name in model.state_dict() if is_lora(name)} == added
    with pytest.raises(ValueError, match=r"^peft \S+ has LoRA layers with unknown names: \['embed"):
        without_lora(model, like=nn.Identity())


@pytest.mark.parametrize("lora", [{}, {"use_dora": True}, None])
def test_merged_lora_gives_the_same_scores_and_is_not_taken_for_the_llm_s_own(lora, tmp_path):
    model, processor = make_model(lora=lora)
    batch = make_batch(processor, model.config, PROMPTS)
    with torch.no_grad():
        before = model(**batch).scores
        merge_lora(model)
        torch.testing.assert_close(model(**batch).scores, before, equal_nan=True)
    model.save_pretrained(tmp_path)
    again = type(model).from_pretrained(tmp_path, llm=make_llm())
    with torch.no_grad():
        assert torch.equal(again(**batch).scores.nan_to_num(), before.nan_to_num())
    if lora is not None:
        with pytest.raises(ValueError, match="^this model's LoRA is in the LLM's weights by now"):
            without_lora(model.model.language_model, like=make_llm().base_model)


def test_lora_of_weights_with_fewer_digits_is_not_merged():
    model, _ = make_model(llm=make_llm().to(torch.bfloat16))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    merge_lora(model)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_without_lora_peft_is_not_needed(monkeypatch):
    model, _ = make_model(lora=None)
    monkeypatch.setitem(sys.modules, "peft.tuners.lora", None)  # an ImportError
    merge_lora(model)


def test_save_holds_what_is_trained_alone(made, tmp_path):
    from safetensors.torch import load_file

    made[0].save_pretrained(tmp_path)
    assert set(load_file(tmp_path / "model.safetensors")) == made[0].trained_keys(), TRANSFORMERS
    made[0].save_pretrained(tmp_path / "given", state_dict=made[0].state_dict())  # as Trainer does
    saved = load_file(tmp_path / "given" / "model.safetensors")
    assert set(saved) == made[0].trained_keys(), TRANSFORMERS


# ---- trainers ----


def test_trainer_goes_on_without_a_warning_of_what_is_frozen(made, tmp_path, caplog):
    made[0].save_pretrained(tmp_path)
    arguments = TrainingArguments(output_dir=str(tmp_path), use_cpu=True, report_to="none")
    trainer = transformers.Trainer(model=made[0], args=arguments)
    transformers.logging.enable_propagation()
    try:
        trainer._load_from_checkpoint(str(tmp_path))
    finally:
        transformers.logging.disable_propagation()
    assert "missing keys" not in caplog.text, TRANSFORMERS


def test_gradient_checkpointing_by_the_name_there_is():
    @dataclass
    class Both:
        gradient_checkpointing: bool = False
        activation_checkpointing: bool = False

    assert checkpointing_option(Both) == "activation_checkpointing"
    assert checkpointing_option(TrainingArguments) in {f.name for f in fields(TrainingArguments)}


def test_a_process_takes_one_gpu(tmp_path, monkeypatch):
    arguments = TrainingArguments(output_dir=str(tmp_path), use_cpu=True, report_to="none")
    assert arguments.n_gpu <= 1
    arguments._n_gpu = 4
    assert arguments.n_gpu == 4, TRANSFORMERS
    use_one_gpu(arguments)
    assert arguments.n_gpu == 1, TRANSFORMERS
    monkeypatch.setattr(TrainingArguments, "n_gpu", 4)
    with pytest.raises(RuntimeError, match=r"transformers \S+ .*CUDA_VISIBLE_DEVICES"):
        use_one_gpu(arguments)


def test_rows_come_in_our_order_whatever_the_trainer_asks(fit_config, tmp_path, monkeypatch):
    from safetensors.torch import load_file

    from aigveval.train import fit

    asked = []
    real = transformers.Trainer.get_train_dataloader

    def not_asking(self):
        if monkeypatched:  # as a version would that has another name for `_get_train_sampler`
            return torch.utils.data.DataLoader(self.train_dataset)
        loader = real(self)
        asked.append(self.sampler)
        return loader

    monkeypatch.setattr(transformers.Trainer, "get_train_dataloader", not_asking)
    results = []
    for monkeypatched in (False, True):
        folder = str(tmp_path / str(len(results)))
        config = replace(fit_config, max_steps=4, valid=[], output_dir=folder)
        results.append(load_file(fit.main(config).model / "model.safetensors"))
    assert asked and asked[0] is not None, f"{TRANSFORMERS} doesn't ask for our sampler any more"
    for key, value in results[0].items():
        assert torch.equal(value, results[1][key]), key


def test_trl_has_what_grpo_needs_of_it():
    trl = pytest.importorskip("trl")
    source = inspect.getsource(trl.GRPOTrainer)
    needed = (
        "self.ref_model",
        "self.beta",
        "self.temperature",
        "rollout_func",
        "current_gradient_accumulation_steps",
    )
    missing = [name for name in needed if name not in source]
    missing += [] if hasattr(trl.GRPOTrainer, "_send_telemetry") else ["_send_telemetry"]
    assert not missing, f"trl {trl.__version__}"


def test_a_trl_that_takes_no_reference_says_so():
    pytest.importorskip("trl")
    with pytest.raises(RuntimeError, match=r"^trl \S+ takes no reference model .*; set beta to 0$"):
        add_reference(object(), make_llm(), beta=0.1)


def test_messages_say_that_a_version_is_untested(monkeypatch):
    assert library("transformers").startswith(TRANSFORMERS)
    monkeypatch.setattr(
        library_internals, "newer_than_tested", lambda: ["transformers 6.1 (tested up to 5.24)"]
    )
    assert library("transformers") == "transformers 6.1 (tested up to 5.24)"

"""Options of a training: LoRA's kinds, 4 bits, bfloat16, checkpointing, logs."""

import errno
import os
import sys
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from aigveval.model import backbones as llm
from aigveval.model.config import AIGVEvalConfig
from aigveval.model.modeling import AIGVEvalModel
from aigveval.train import fit
from aigveval.train.build import build_model
from aigveval.train.config import FitError
from aigveval.train.trainer import training_arguments

from ..fit_case import history, losses


@pytest.mark.parametrize("kind", ["use_dora", "use_rslora"])
@pytest.mark.parametrize("targets", [["q_proj", "o_proj"], "all-linear"])
def test_kinds_of_lora_are_trained_and_loaded(fit_config, kind, targets):
    lora = {"r": 2, "alpha": 4, "dropout": 0.0, "target_modules": targets, kind: True}
    result = fit.main(replace(fit_config, lora=lora, epochs=1))
    saved = load_file(result.model / "model.safetensors")
    magnitudes = [name for name in saved if "lora_magnitude_vector" in name]
    layers = {name.split(".")[-4] for name in saved if "lora_A" in name}
    assert layers == (
        {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}
        if targets == "all-linear"
        else {"q_proj", "o_proj"}
    )
    assert len(magnitudes) == (2 * len(layers) if kind == "use_dora" else 0)
    model = AIGVEvalModel.from_pretrained(result.model)
    layer = model.model.language_model.layers[0].self_attn.q_proj
    assert layer.scaling["default"] == pytest.approx(4 / 2**0.5 if kind == "use_rslora" else 2.0)
    for name, value in saved.items():
        assert torch.equal(model.state_dict()[name], value)


def test_a_misspelt_option_of_lora_is_told(fit_config):
    with pytest.raises(FitError, match="unknown lora option 'dora'; did you mean 'use_dora'?"):
        replace(fit_config, lora={"dora": True})
    with pytest.raises(FitError, match="target_modules must be a list or 'all-linear', got 'all'"):
        fit.main(replace(fit_config, lora={"target_modules": "all"}))


@pytest.mark.parametrize(
    "lora, message",
    [
        ({"r": 8.0}, "lora r must be a whole number, got 8.0"),
        ({"r": True}, "lora r must be a whole number, got True"),
        ({"alpha": "16"}, "lora alpha must be a number, got '16'"),
        ({"dropout": None}, "lora dropout must be a number, got None"),
        ({"use_dora": "no"}, "lora use_dora must be true or false, got 'no'"),
        ({"target_modules": 5}, "lora target_modules must be a list or 'all-linear', got 5"),
    ],
)
def test_a_wrong_type_of_an_option_of_lora_is_told(fit_config, lora, message):
    with pytest.raises(FitError) as error:
        build_model(replace(fit_config, lora=lora))
    assert str(error.value) == message


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere as Python starts processes")
def test_processes_that_read_are_forks(fit_config):
    """Python 3.14 would send them each tensor of an encoder by a file, of which there are too many."""
    of = "dataloader_multiprocessing_context"
    assert getattr(training_arguments(fit_config), of) is None  # all is encoded before
    trained = replace(fit_config, train_encoders=list(fit_config.encoders)[:1], workers=2)
    assert getattr(training_arguments(trained), of) == "fork"
    asked = replace(trained, trainer={of: "spawn"})
    assert getattr(training_arguments(asked), of) == "spawn"


def test_bfloat16_is_for_the_frozen_and_for_computing(fit_config):
    config = replace(fit_config, bf16=True, epochs=2, ema=0.9)
    built = build_model(config)
    types = {parameter.dtype for parameter in built.model.parameters() if parameter.requires_grad}
    assert types == {torch.float32}
    assert built.model.lm_head.weight.dtype == torch.bfloat16
    assert training_arguments(config).bf16
    result = fit.main(config)
    assert {value.dtype for value in load_file(result.model / "model.safetensors").values()} == {
        torch.float32
    }
    plain = replace(config, bf16=False, output_dir=config.output_dir + "-plain")
    fit.main(plain)
    found, expected = losses(config.output_dir), losses(plain.output_dir)
    assert found == pytest.approx(expected, rel=0.15) and found != expected


def test_without_score_hints_the_score_heads_are_left_alone(fit_config):
    result = fit.main(replace(fit_config, score_hints=False, epochs=1))
    model = AIGVEvalModel.from_pretrained(result.model)
    assert not model.config.score_hints
    for name, value in load_file(result.model / "model.safetensors").items():
        if ".score_head." in name:
            assert not value.any()
    told = [p for name, p in model.named_parameters() if ".score_head." in name]
    assert told and not any(parameter.requires_grad for parameter in told)  # DDP would wait for it


def test_checkpointed_gradients_are_the_same(fit_config):
    config = replace(fit_config, epochs=1, lora={**fit_config.lora, "dropout": 0.0})
    first = fit.main(config)
    second = fit.main(
        replace(config, gradient_checkpointing=True, output_dir=config.output_dir + "-less")
    )
    left, right = (load_file(r.model / "model.safetensors") for r in (first, second))
    for name, value in left.items():
        assert torch.allclose(value, right[name], atol=1e-6), name


# ---- 4 bits ----


def test_four_bits_need_a_gpu_and_say_so(fit_config, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(FitError) as error:
        build_model(replace(fit_config, llm_4bit=True))
    assert str(error.value) == "an LLM in 4 bits needs a CUDA GPU, and there is none"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    monkeypatch.setattr(llm, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match="needs bitsandbytes: pip install bitsandbytes"):
        llm.load_llm(str(fit_config.llm), four_bit=True)


@pytest.mark.skipif(find_spec("bitsandbytes") is None, reason="bitsandbytes is not installed")
def test_four_bits_are_trained_upon(fit_config, monkeypatch):
    """On the CPU, which bitsandbytes can quantise on too; only our check asks for a GPU.

    Without validation: its kernels for that, on a CPU, take no layers as narrow as these.
    """
    monkeypatch.setattr(llm, "check_four_bit", lambda: None)
    if not torch.cuda.is_available():
        monkeypatch.setattr(torch.cuda, "current_device", lambda: "cpu")
    config = replace(fit_config, llm_4bit=True, epochs=2, valid=[])
    model = build_model(config).model
    layer = model.model.language_model.layers[0].self_attn.q_proj.base_layer
    assert type(layer).__name__ == "Linear4bit"
    result = fit.main(config)
    assert losses(config.output_dir)[-1] < losses(config.output_dir)[0]
    saved = AIGVEvalConfig.from_pretrained(result.model)
    assert saved.llm_4bit and getattr(saved.text_config, "quantization_config", None) is None
    names = load_file(result.model / "model.safetensors")
    assert all(".projectors." in name or ".lora_" in name for name in names)
    if not torch.cuda.is_available():  # it loads whole
        loaded = AIGVEvalModel.from_pretrained(result.model)
        layer = loaded.model.language_model.layers[0].self_attn.q_proj.base_layer
        assert type(layer) is torch.nn.Linear
    message = "is in 4 bits, from which the LLM cannot be written whole"
    with pytest.raises(ValueError, match=message):
        model.load_encoders()
        model.save_pretrained(Path(config.output_dir) / "merged", merge=True)


# ---- logs ----


def test_tensorboard_has_every_step_once_however_often_it_is_stopped(fit_config, monkeypatch):
    reader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    config = replace(fit_config, report_to=None, epochs=2)

    def stop(self, args, state, control, **kwargs):
        if state.global_step == 6:
            raise RuntimeError

    with monkeypatch.context() as patch:
        patch.setattr(fit.ProgressCallback, "on_log", stop)
        with pytest.raises(RuntimeError):
            fit.main(config)
    fit.main(config)
    events = reader.EventAccumulator(str(Path(config.output_dir) / "tensorboard"))
    events.Reload()
    logged = {event.step: event.value for event in events.Scalars("train/loss")}
    assert sorted(logged) == list(range(1, 9))
    assert list(logged.values()) == pytest.approx(losses(config.output_dir))
    assert [event.step for event in events.Scalars("eval/valid_srocc_technical")] == [4, 8]


def test_other_logs_are_the_trainers(fit_config, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(FitError, match="report_to: wandb is not installed, or not known to "):
        fit.main(replace(fit_config, report_to=["wandb"]))
    assert not Path(fit_config.output_dir).exists()
    assert training_arguments(replace(fit_config, report_to=[])).report_to == []
    fit.main(replace(fit_config, report_to=[], epochs=1))
    assert not (Path(fit_config.output_dir) / "tensorboard").exists()


def test_fsdp_options_are_passed_on(fit_config):
    options = {"reshard_after_forward": False, "cpu_offload": True}
    arguments = training_arguments(replace(fit_config, fsdp=True, fsdp_config=options))
    assert arguments.fsdp and arguments.fsdp_plugin_args["cpu_offload"]
    assert arguments.fsdp_plugin_args["reshard_after_forward"] is False
    assert options == {"reshard_after_forward": False, "cpu_offload": True}


def test_arguments_of_the_trainer_have_their_own_names(fit_config):
    options = {"lr_scheduler_type": "constant", "adam_beta2": 0.95, "save_total_limit": 1}
    config = replace(fit_config, trainer=options, epochs=2, warmup=0.0, valid=[])
    fit.main(config)
    rates = [entry["learning_rate"] for entry in history(config.output_dir) if "loss" in entry]
    assert len(rates) == 8 and len(set(rates)) == 1
    (last,) = Path(config.output_dir).glob("checkpoint-*")
    groups = torch.load(last / "optimizer.pt")["param_groups"]
    assert {group["betas"] for group in groups} == {(0.9, 0.95)}


@pytest.mark.parametrize(
    "options, message",
    [
        (
            {"lr_schedular_type": "linear"},
            "unknown argument of trainer 'lr_schedular_type'; did you mean 'lr_scheduler_type'?",
        ),
        (
            {"num_train_epochs": 3},
            "trainer: num_train_epochs follows from the other options; leave it out",
        ),
        ({"optim": "sgd"}, "trainer: optim follows from the other options; leave it out"),
        ({"lr_scheduler_type": "steep"}, "steep"),
    ],
)
def test_wrong_arguments_of_the_trainer_are_one_line(fit_config, options, message):
    with pytest.raises(FitError) as error:
        fit.main(replace(fit_config, trainer=options))
    assert message in str(error.value) and "\n" not in str(error.value)


def test_one_manifest_needs_no_list(fit_config):
    assert replace(fit_config, train="a.jsonl").train == ["a.jsonl"]
    assert replace(fit_config, valid=Path("b.csv")).valid == ["b.csv"]


def test_sharding_needs_several_processes(fit_config):
    with pytest.raises(FitError) as error:
        fit.main(replace(fit_config, fsdp=True))
    assert str(error.value) == (
        "fsdp: true is for several processes: start with torchrun or accelerate"
    )


@pytest.mark.parametrize(
    "options, message",
    [
        ({"ema": 1.0}, "ema must lie in (0, 1), got 1.0"),
        ({"epochs": 2.5}, "epochs must be a whole number, got 2.5"),
        ({"lora": 5}, "lora must be a mapping, got 5"),
        ({"learn": "x"}, "learn must be one of ('scores', 'distill'), got 'x'"),
        ({"pair_tie": 1.0}, "pair_tie must be above 1, got 1.0"),
        (
            {"scale": "5:1"},
            "scale: a scale is LOW:HIGH with LOW below HIGH, such as 0:100, got '5:1'",
        ),
        ({"ema": 0.9, "fsdp": True}, "ema can't be combined with fsdp; use DDP (fsdp: false)"),
        ({"fsdp_config": {"version": 2}}, "fsdp_config needs fsdp: true"),
        (
            {"early_stop": 2, "valid": []},
            "early_stop needs manifests to validate on: name them as valid",
        ),
        (
            {"train_encoders": ["motion_mixed"], "align_epochs": 1},
            "ridge and align_epochs need cached tokens, which train_encoders have none of",
        ),
        ({"save_minutes": 0.0}, "save_minutes must be above 0, got 0.0"),
    ],
)
def test_options_that_cannot_be(fit_config, options, message):
    with pytest.raises(FitError) as error:
        replace(fit_config, **options)
    assert str(error.value) == message


def test_without_memory_it_says_what_to_change(fit_config, monkeypatch):
    def run(*args):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9 GiB.")

    monkeypatch.setattr(fit, "_run", run)
    with pytest.raises(FitError) as error:
        fit.main(fit_config)
    assert str(error.value) == (
        "out of memory (OutOfMemoryError: CUDA out of memory. Tried to allocate 9 GiB.); set "
        "gradient_checkpointing: true or bf16: true, or a smaller batch_size (grad_accum makes up "
        "for it), eval_batch_size or encode_batch_size"
    )


@pytest.mark.parametrize(
    "error",
    [
        SafetensorError(
            "Error while serializing: I/O error: No space left on device (os error 28)"
        ),
        OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)),
        RuntimeError("PytorchStreamWriter failed writing file data/1: file write failed"),
        RuntimeError("[enforce fail at inline_container.cc:671] . unexpected pos 6720 vs 6612"),
    ],
)
def test_a_full_disk_is_named_by_its_folder(fit_config, monkeypatch, error):
    def run(*args):
        raise error

    monkeypatch.setattr(fit, "_run", run)
    with pytest.raises(FitError) as caught:
        fit.main(fit_config)
    assert str(caught.value) == (
        f"{fit_config.output_dir}: cannot be written ({type(error).__name__}: {error}); make room "
        "on its disk, and the same command goes on"
    )


@pytest.mark.parametrize(
    "error",
    [
        FitError("else: cannot be written: No space left on device"),
        OSError(errno.ENOSPC, "No space left on device", "else"),
    ],
)
def test_a_full_disk_elsewhere_keeps_its_own_name(fit_config, monkeypatch, error):
    def run(*args):
        raise error

    monkeypatch.setattr(fit, "_run", run)
    with pytest.raises(type(error)) as caught:
        fit.main(fit_config)
    assert caught.value is error

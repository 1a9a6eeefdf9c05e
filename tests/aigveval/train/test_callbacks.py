"""A run that is told to stop, killed, or not getting better: what is kept, and where it goes on."""

import json
import os
import signal
from dataclasses import replace
from io import StringIO
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file
from scipy.stats import spearmanr

from aigveval import batching
from aigveval.features.cache import FeatureCache
from aigveval.train import callbacks, fit
from aigveval.train.callbacks import AVERAGE, WeightAverage
from aigveval.train.predict import predict
from aigveval.train.resume import stale_validations
from aigveval.train.rows import read_training_manifest

from ..fit_case import history, run_and_kill


def weights(result) -> dict[str, torch.Tensor]:
    return load_file(result.model / "model.safetensors")


def same(left, right) -> bool:
    left, right = weights(left), weights(right)
    assert left.keys() == right.keys()
    return all(torch.equal(value, right[key]) for key, value in left.items())


def at_step(monkeypatch, step, action):
    """Call an action when a step has ended, before the run's own callbacks hear of it."""
    step_end = fit.ProgressCallback.on_step_end

    def called(self, args, state, flags, **kwargs):
        if state.global_step == step:
            action()
        step_end(self, args, state, flags, **kwargs)

    monkeypatch.setattr(fit.ProgressCallback, "on_step_end", called)


def test_the_line_of_an_epoch_has_its_own_loss(fit_config, capsys):
    config = replace(fit_config, epochs=2, log_steps=1000)
    fit.main(config)
    logged = [entry["loss"] for entry in history(config.output_dir) if "loss" in entry]
    assert len(logged) == 3  # of the first step, the rest of its epoch, and the second
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("epoch ")]
    assert [f"loss {loss:.4f}" in line for loss, line in zip(logged[1:], lines)] == [True, True]


def test_a_log_says_now_and_then_how_far_it_is(fit_config, monkeypatch, capsys):
    """Where no bar shows; and an epoch may take hours, as the encoding before it."""
    monkeypatch.setattr(batching, "_LINE_SECONDS", 0)  # with each step
    fit.main(replace(fit_config, epochs=1, valid=[], align_epochs=1, log_steps=1))
    lines = capsys.readouterr().err.splitlines()
    for start in ("Encoding videos: 1 of ", "Aligning: 1 of ", "Training: 1 of "):
        assert any(line.startswith(start) for line in lines), start
    assert any(line.startswith("Training: ") and "loss " in line for line in lines)


def test_names_in_brackets_are_no_markup():
    console = Console(file=StringIO(), width=200)
    config = SimpleNamespace(output_dir="runs/[a]")
    metrics = SimpleNamespace(main="srocc", names=["[b]"])
    ready = SimpleNamespace(config=config, console=console, metrics=metrics, checkpoint=None)
    found = {"srocc": 0.5, "[b]_srocc_motion": 0.5, "[b]_plcc_motion": 0.5}
    fit._result(ready, found, steps=1)
    assert "  [b]  SROCC / PLCC  motion +0.500 / +0.500\nSaved runs/[a]/model\n" in (
        console.file.getvalue()
    )


@pytest.mark.parametrize("number, step", [(signal.SIGINT, 6), (signal.SIGTERM, 8)])
def test_a_signal_loses_no_step(fit_config, tmp_path, monkeypatch, capfd, number, step):
    """Step 8 ends an epoch, whose validation is not left out."""
    config = replace(fit_config, save_steps=None, ema=0.9)
    cut = replace(config, output_dir=str(tmp_path / "cut"))
    before = signal.getsignal(number)
    with monkeypatch.context() as patch:
        at_step(patch, step, lambda: os.kill(os.getpid(), number))
        with pytest.raises(SystemExit) as stop:
            fit.main(cut)
    assert stop.value.code == 130 and signal.getsignal(number) is before
    said = capfd.readouterr().err
    assert f"Stopped. The same command goes on from step {step}." in said
    assert "Saving after this step" in said
    assert (len([e for e in history(cut.output_dir) if "eval_loss" in e])) == step // 4
    resumed = fit.main(cut)
    assert resumed.resumed_from.name == f"checkpoint-{step}"
    whole = fit.main(config)
    assert same(resumed, whole) and resumed.metrics == whole.metrics


def test_a_second_signal_does_not_wait(fit_config, monkeypatch):
    def twice():
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)

    at_step(monkeypatch, 2, twice)
    with pytest.raises(SystemExit) as stop:
        fit.main(replace(fit_config, save_steps=None))
    assert stop.value.code == 130
    assert not list(Path(fit_config.output_dir).glob("checkpoint-*"))


def test_time_saves_and_epochs_save_by_themselves(fit_config, monkeypatch):
    """Seven minutes a step: every step saves, but for the last of an epoch, which the Trainer does
    after its validation."""
    now, asked = [0.0], []
    monkeypatch.setattr(callbacks.time, "monotonic", lambda: now[0])
    save = callbacks.SaveCallback.on_step_end

    def recorded(self, args, state, flags, **kwargs):
        now[0] += 7 * 60
        save(self, args, state, flags, **kwargs)
        asked.append(flags.should_save)

    monkeypatch.setattr(callbacks.SaveCallback, "on_step_end", recorded)
    fit.main(replace(fit_config, save_steps=None, save_minutes=10, epochs=2))
    # after 7 minutes no, after 14 yes; step 4 ends the epoch, whose save sets the clock back
    assert asked == [False, True, False, False, False, True, False, False]
    assert fit_config.save_minutes == 1  # by default


@pytest.mark.parametrize(
    "values, patience, ended",
    [
        ([], 1, False),
        ([0.5], 1, False),
        ([0.5, 0.5], 1, True),
        ([0.5, 0.6], 1, False),
        ([0.5, 0.6, 0.1, 0.6], 3, False),
        ([0.5, 0.6, 0.1, 0.6], 2, True),
    ],
)
def test_early_stop_counts_since_the_first_best(values, patience, ended):
    history = [entry for v in values for entry in ({"loss": 1.0}, {"eval_srocc": v})]
    assert (stale_validations(history, "srocc") >= patience) == ended


def test_early_stop_ends_a_run_and_it_stays_ended(fit_config):
    # so small that no score changes
    config = replace(fit_config, learning_rate=1e-30, lora_learning_rate=0.0, early_stop=2)
    first = fit.main(config)
    assert first.steps == 12  # the first epoch is the best, two more were not better
    again = fit.main(config)
    assert again.steps == 12 and again.metrics == first.metrics and same(again, first)
    longer = fit.main(replace(config, early_stop=3))  # may be raised, and the run goes on
    assert longer.steps == 16


def test_early_stop_counts_on_in_a_run_that_was_killed(fit_config, monkeypatch):
    config = replace(
        fit_config, learning_rate=1e-30, lora_learning_rate=0.0, early_stop=3, epochs=8
    )
    run_and_kill(config, monkeypatch, step=11)  # after one validation that was not better
    assert fit.main(config).steps == 16


# ---- the moving average ----


def test_the_average_is_what_its_formula_says(fit_config, monkeypatch):
    config = replace(fit_config, ema=0.5, valid=[], epochs=2)
    seen: list[dict[str, torch.Tensor]] = []
    made, update = WeightAverage.__init__, WeightAverage.update

    def recorded(self, *args):
        made(self, *args)
        seen.append({n: p.detach().clone() for n, p in self._parameters.items()})

    def updated(self):
        update(self)
        seen.append({n: p.detach().clone() for n, p in self._parameters.items()})

    monkeypatch.setattr(WeightAverage, "__init__", recorded)
    monkeypatch.setattr(WeightAverage, "update", updated)
    saved = weights(fit.main(config))
    assert len(seen) == 1 + 8
    for name, average in seen[0].items():
        for n, states in enumerate(seen[1:], start=1):
            decay = min(0.5, (1 + n) / (10 + n))
            average = decay * average + (1 - decay) * states[name]
        assert torch.allclose(saved[name], average, atol=1e-6), name
        assert not torch.allclose(saved[name], seen[-1][name], atol=1e-6), name


def test_the_averaged_weights_are_validated_and_kept_beside_the_others(fit_config):
    config = replace(fit_config, ema=0.99, epochs=3)
    result = fit.main(config)
    raw = fit.main(replace(config, ema=None, output_dir=config.output_dir + "-raw"))
    assert not same(result, raw)
    # training itself is the same with and without
    left, right = (
        [e["loss"] for e in history(o) if "loss" in e]
        for o in (config.output_dir, config.output_dir + "-raw")
    )
    assert left == right
    last = Path(config.output_dir) / "checkpoint-12"
    assert load_file(last / AVERAGE).keys() <= load_file(last / "model.safetensors").keys()
    best = json.loads((last / "trainer_state.json").read_text())["best_model_checkpoint"]
    averaged = load_file(Path(best) / AVERAGE)
    assert all(torch.equal(weights(result)[key], value) for key, value in averaged.items())
    # what was validated is what was saved
    rows = read_training_manifest(config.valid[0])
    scores = predict(result.model, rows, FeatureCache(config.cache_dir), progress=False)
    technical = spearmanr(scores[:, 0], [row.scores[0] for row in rows]).statistic
    assert result.metrics["valid_srocc_technical"] == pytest.approx(technical)


def test_an_average_of_other_parameters_is_refused(tmp_path):
    model = torch.nn.Linear(2, 2)
    WeightAverage(model, 0.9).save(tmp_path)
    with pytest.raises(ValueError, match="is an average of other parameters"):
        WeightAverage(torch.nn.Linear(2, 2, bias=False), 0.9).load(tmp_path)


def test_in_place_gives_the_weights_back():
    model = torch.nn.Linear(2, 2)
    average = WeightAverage(model, 0.9)
    start = model.weight.detach().clone()
    with torch.no_grad():
        model.weight += 1
    with pytest.raises(KeyError), average.in_place():
        assert torch.equal(model.weight, start)
        raise KeyError
    assert torch.equal(model.weight, start + 1)

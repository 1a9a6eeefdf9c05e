"""Two processes with half the batch each train what one process with the whole batch does."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from aigveval.train import fit
from aigveval.train.callbacks import any_process
from aigveval.train.losses import gather_rows, global_loss
from aigveval.train.stages import write_fit_config

from ..fit_case import history, losses

ROOT = Path(__file__).parents[3]


def saved(config) -> str:
    """The file of the config, beside what it trains."""
    path = Path(config.output_dir).with_suffix(".yaml")
    path.write_text(write_fit_config(config))
    return str(path)


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}


def launch(config) -> subprocess.Popen:
    """`aigveval fit` by torchrun in two processes; errors of a run show in its output."""
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node",
        "2",
        "tests/aigveval/fit_command.py",
        "fit",
        saved(config),
    ]
    return subprocess.Popen(
        command,
        cwd=ROOT,
        env=environment(),
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )


@pytest.fixture(scope="module")
def ranks():
    """A process that forks the two of each training; all of them start as if nothing had run."""
    command = [sys.executable, "-m", "tests.aigveval.ranks"]
    with subprocess.Popen(
        command,
        cwd=ROOT,
        env=environment(),
        text=True,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        yield process
        process.stdin.close()


@pytest.fixture
def run(ranks, tmp_path):
    """Trains in two processes, and gives all that they said."""

    def run(config) -> str:
        log = tmp_path / "log.txt"
        log.unlink(missing_ok=True)
        print(json.dumps([saved(config), str(log)]), file=ranks.stdin, flush=True)
        codes = ranks.stdout.readline()
        assert codes == "[0, 0]\n", log.read_text()
        return log.read_text()

    return run


def weights(config) -> dict[str, torch.Tensor]:
    return load_file(Path(config.output_dir) / "model" / "model.safetensors")


def assert_alike(one, two, *, within: float = 2e-5) -> None:
    """The same losses, validation and weights, but for the rounding of other batches."""
    assert losses(one.output_dir) == pytest.approx(losses(two.output_dir), abs=within)
    validations = [
        [
            {k: v for k, v in entry.items() if "_srocc_" in k or "_plcc_" in k or k == "step"}
            for entry in history(config.output_dir)
            if "eval_loss" in entry
        ]
        for config in (one, two)
    ]
    for left, right in zip(*validations, strict=True):
        assert left == pytest.approx(right, abs=1e-3)
    left, right = weights(one), weights(two)
    assert left.keys() == right.keys()
    for name, value in left.items():
        assert torch.allclose(value, right[name], atol=5 * within), name


@pytest.fixture
def whole(fit_config, fit_data, tmp_path):
    """Of 23 rows, so that the last batch is not full; without dropout, which processes draw.

    The projectors are aligned first: new ones tell all rows the same, and Adam would make steps of
    gradients that are nothing but rounding.
    """
    rows = (fit_data / "train.jsonl").read_text().splitlines()[:-1]
    rows = [row.replace("videos/", f"{fit_data}/videos/") for row in rows]
    (tmp_path / "rated.jsonl").write_text("\n".join(rows))
    return replace(
        fit_config,
        train=[str(tmp_path / "rated.jsonl")],
        epochs=3,
        feature_noise=0.0,
        save_steps=None,
        lora={**fit_config.lora, "dropout": 0.0},
        group_batches=True,
        align_epochs=5,
        loss={"level": 0.5, "plcc": 1.0, "rank": 0.3, "group_rank": 0.5},
    )


@pytest.mark.slow
def test_two_processes_train_what_one_does(whole, run, tmp_path):
    fit.main(whole)
    half = replace(whole, batch_size=3, output_dir=str(tmp_path / "half"), ema=None)
    said = run(half)
    assert said.count("Training on 23 rows") == 1  # one of them speaks
    assert len(losses(whole.output_dir)) == 12
    assert_alike(whole, half)


@pytest.mark.slow
def test_pairs_accumulation_and_average_too(whole, run, fit_data, tmp_path):
    config = replace(
        whole,
        train=[*whole.train, str(fit_data / "pairs.jsonl")],
        batch_size=12,
        grad_accum=2,
        group_batches=False,
        loss={"plcc": 1.0, "rank": 0.3, "pair": 1.0},
        ema=0.9,
        epochs=2,
    )
    fit.main(config)
    half = replace(config, batch_size=6, output_dir=str(tmp_path / "half"))
    run(half)
    assert_alike(config, half)


@pytest.mark.slow
def test_two_processes_stop_together_and_go_on(whole, run, tmp_path):
    """Told in the middle of an epoch; what comes out is as if they had not been."""
    config = replace(whole, batch_size=3, epochs=8)
    process = launch(config)
    output = Path(config.output_dir)
    deadline = time.monotonic() + 400
    while not list(output.glob("checkpoint-*/trainer_state.json")):  # the first epoch is over
        assert process.poll() is None and time.monotonic() < deadline, process.communicate()[0]
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGTERM)
    said, _ = process.communicate(timeout=300)
    assert process.returncode != 0
    steps = sorted(int(path.name[11:]) for path in output.glob("checkpoint-*"))
    assert "Saving after this step" in said and steps[-1] < 32, said
    assert f"Going on from step {steps[-1]}" in run(config)
    untold = replace(whole, epochs=8, output_dir=str(tmp_path / "untold"))
    fit.main(untold)
    assert_alike(config, untold, within=2e-4)  # rounding grows with the steps


@pytest.mark.slow
def test_sharded_over_two_processes(whole, run, tmp_path):
    fit.main(whole)
    config = replace(
        whole,
        batch_size=3,
        output_dir=str(tmp_path / "sharded"),
        fsdp=True,
        fsdp_config={"transformer_layer_cls_to_wrap": ["LlamaDecoderLayer"]},
    )
    run(config)
    assert_alike(whole, config)
    before = weights(config)
    assert "Going on from step 12" in run(config)  # its checkpoints are read
    assert all(torch.equal(value, before[name]) for name, value in weights(config).items())


def test_one_process_sends_nothing():
    rows = torch.ones(2, requires_grad=True)
    assert gather_rows(rows) is rows and global_loss(rows) is rows
    assert any_process(True, False, device=torch.device("cpu")) == [True, False]

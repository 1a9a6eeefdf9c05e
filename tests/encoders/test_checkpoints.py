"""Checkpoints by path or fixed name, read without running code, loaded whole or not at all."""

import io
import os
import zipfile
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from torch import nn

from encoders.base import seeded
from encoders.checkpoints import find_checkpoint, load_strict, read_checkpoint
from encoders.weights import WeightsError
from encoders.wheels import sha256

SOURCE = {"filename": "net.pth", "source_url": "https://example.org/net.pth", "licence": "MIT"}


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("AIGVEVAL_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def test_a_checkpoint_is_taken_from_its_path_or_from_its_fixed_place(home, tmp_path):
    given, placed = tmp_path / "mine.pth", home / "checkpoints" / "net.pth"
    placed.parent.mkdir(parents=True)
    for path in (given, placed):
        path.touch()
    assert find_checkpoint(given, **SOURCE) == given
    assert find_checkpoint(str(given), **SOURCE) == given
    assert find_checkpoint(None, **SOURCE) == placed


def test_a_missing_checkpoint_says_which_from_where_and_where_to(home, tmp_path):
    with pytest.raises(WeightsError) as caught:
        find_checkpoint(None, **SOURCE)
    assert str(caught.value) == (
        f"{home}/checkpoints/net.pth: no such checkpoint; download net.pth (MIT) from "
        f"https://example.org/net.pth and put it into {home}/checkpoints, or give its path as the "
        "option weights"
    )
    with pytest.raises(WeightsError) as caught:
        find_checkpoint(tmp_path / "typo.pth", **SOURCE)
    assert str(caught.value) == (
        f"{tmp_path}/typo.pth: no such checkpoint; download net.pth (MIT) from "
        "https://example.org/net.pth and give the path where you keep it"
    )


@pytest.mark.parametrize("core", [b"numpy.core", b"numpy._core"])
def test_numbers_of_a_training_script_beside_the_tensors_are_read_over(tmp_path, core):
    """As NumPy 1 and 2 wrote them."""
    buffer = io.BytesIO()
    content = {"state_dict": {"a": torch.ones(2)}, "validation_results": (np.float64(0.5), 0.25)}
    torch.save(content, buffer)
    with zipfile.ZipFile(buffer) as old, zipfile.ZipFile(tmp_path / "net.pth", "w") as new:
        for name in old.namelist():
            data = old.read(name)
            if name.endswith("data.pkl"):
                assert b"numpy._core.multiarray" in data or b"numpy.core.multiarray" in data
                data = data.replace(b"numpy._core", b"numpy.core").replace(b"numpy.core", core)
            new.writestr(name, data)
    allowed = set(torch.serialization.get_safe_globals())
    assert torch.equal(read_checkpoint(tmp_path / "net.pth")["a"], torch.ones(2))
    assert set(torch.serialization.get_safe_globals()) == allowed  # not in the whole process


class Hostile:
    def __reduce__(self):
        return os.mkdir, ("hacked",)


def test_code_in_a_checkpoint_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"state_dict": {"a": torch.ones(2)}, "more": Hostile()}, "net.pth")
    with pytest.raises(WeightsError, match=r"^net.pth: not only tensors: it asks to run .*mkdir"):
        read_checkpoint("net.pth")
    assert not (tmp_path / "hacked").exists()


def test_the_id_of_a_checkpoint_is_its_sha256(tmp_path):
    (tmp_path / "net.pth").write_bytes(b"abc")
    assert sha256(tmp_path / "net.pth") == (
        "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    )


def net():
    return nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))


def test_tensors_that_fit_are_loaded():
    state = {name: torch.ones_like(value) for name, value in net().state_dict().items()}
    module = net()
    load_strict(module, {**state, "head.weight": torch.zeros(9)}, file="f", ignore=("head.",))
    assert all(torch.equal(value, state[name]) for name, value in module.state_dict().items())


@pytest.mark.parametrize(
    "change, fault",
    [
        ({"0.bias": None}, "missing 0.bias"),
        ({"2.bias": torch.zeros(1)}, "unknown 2.bias"),
        ({"head.bias": torch.zeros(1)}, "unknown head.bias"),
        ({"1.running_var": None}, "missing 1.running_var"),
        ({"0.weight": torch.zeros(2, 4)}, "0.weight is (2, 4) and should be (2, 3)"),
        (
            {"0.bias": torch.zeros(1), "x": torch.zeros(1), "1.bias": None},
            "missing 1.bias, unknown x, 0.bias is (1,) and should be (2,)",
        ),
        (
            {"a": torch.zeros(1), "b": torch.zeros(1), "c": torch.zeros(1), "d": torch.zeros(1)},
            "unknown a, unknown b, unknown c and 1 more",
        ),
    ],
)
def test_tensors_that_do_not_fit_are_named_and_nothing_is_loaded(change, fault):
    module = net()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    state = {name: torch.ones_like(value) for name, value in before.items()} | change
    state = {name: value for name, value in state.items() if value is not None}
    with pytest.raises(WeightsError) as caught:
        load_strict(module, state, file="net.pth")
    assert str(caught.value) == f"net.pth: not the weights of Sequential: {fault}"
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())


def test_seeded_weights_are_the_same_and_leave_the_generator_alone():
    state = torch.get_rng_state()
    with seeded():
        first = nn.Linear(4, 4)
    assert torch.equal(state, torch.get_rng_state())
    torch.manual_seed(7)
    with seeded():
        again = nn.Linear(4, 4)
    with seeded(1):
        other = nn.Linear(4, 4)
    assert torch.equal(first.weight, again.weight) and not torch.equal(first.weight, other.weight)


@pytest.mark.parametrize("name", ["cpu", "cuda:1"])
def test_seeding_leaves_the_generators_of_other_gpus_alone(name, monkeypatch):
    seeds, current, state = {}, ["cuda:0"], torch.get_rng_state()

    @contextmanager
    def on(device):
        current.append(str(device))
        yield
        current.pop()

    def seed_all(seed):
        raise AssertionError("all GPUs were seeded")

    monkeypatch.setattr(torch.cuda, "device", on)
    monkeypatch.setattr(torch.cuda, "manual_seed_all", seed_all)
    monkeypatch.setattr(torch.cuda, "manual_seed", lambda seed: seeds.update({current[-1]: seed}))
    monkeypatch.setattr(torch.cuda, "get_rng_state", str)
    monkeypatch.setattr(
        torch.cuda, "set_rng_state", lambda state, device: seeds.update({device: state})
    )
    with seeded(3, device=torch.device(name)):
        assert seeds == ({} if name == "cpu" else {name: 3})
        first = torch.rand(1)
    assert seeds == ({} if name == "cpu" else {name: 3, torch.device(name): name})
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(first, torch.rand(1, generator=torch.Generator().manual_seed(3)))

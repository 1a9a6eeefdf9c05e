"""Reading tensor files, and refusing those that hold more than tensors."""

import os
import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from encoders.weights import WeightsError, load_torch_file


class Hostile:
    def __reduce__(self):
        return os.mkdir, ("hacked",)


def test_torch_files(tmp_path):
    state = {"a.weight": torch.arange(6.0).reshape(2, 3), "b": torch.tensor([1, 2])}
    save_file(state, tmp_path / "x.safetensors")
    torch.save(state, tmp_path / "x.pt")
    torch.save({"epoch": 3, "state_dict": state}, tmp_path / "nested.pth")
    for name in ("x.safetensors", "x.pt", "nested.pth"):
        loaded = load_torch_file(tmp_path / name)
        assert loaded.keys() == state.keys()
        assert all(torch.equal(loaded[key], state[key]) for key in state)


def test_a_hostile_file_is_refused_and_not_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"a": Hostile()}, "zip.pt")
    Path("bare.pt").write_bytes(pickle.dumps(Hostile(), protocol=2))
    for name in ("zip.pt", "bare.pt"):
        with pytest.raises(WeightsError, match=rf"^{name}: not .*$"):
            load_torch_file(name)
    with pytest.raises(WeightsError) as caught:
        load_torch_file("zip.pt")
    assert str(caught.value) == (
        f"zip.pt: not only tensors: it asks to run {os.mkdir.__module__}.mkdir, which is refused"
    )
    assert not Path("hacked").exists()


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
@pytest.mark.parametrize("content", [b"", b"random bytes" * 20, None])
def test_unreadable_tensor_files(tmp_path, suffix, content):
    path = tmp_path / f"x{suffix}"
    if content is not None:
        path.write_bytes(content)
    reason = "No such file" if content is None else "not a readable tensor file"
    with pytest.raises(WeightsError) as caught:
        load_torch_file(path)
    assert str(caught.value).startswith(f"{path}: {reason}")
    assert "\n" not in str(caught.value)


def test_files_that_hold_something_else(tmp_path):
    path = tmp_path / "x.pt"
    torch.save([torch.zeros(1)], path)
    with pytest.raises(WeightsError, match="holds a list, not named tensors"):
        load_torch_file(path)
    torch.save({"a": 3}, path)
    with pytest.raises(WeightsError, match="'a' is a int, not a named tensor"):
        load_torch_file(path)

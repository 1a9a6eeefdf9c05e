"""Weights of other libraries: the hub's errors, folders, and a name for what was loaded."""

import huggingface_hub
import pytest
import torch
from torch import nn

from encoders import WeightsError
from encoders.pretrained import (
    check_complete,
    hub_errors,
    is_repository,
    model_folder,
    state_id,
)

INSTEAD = "get it elsewhere"


def line_of(action):
    with pytest.raises(WeightsError) as caught:
        action()
    return str(caught.value)


def raising(error):
    with hub_errors("org/model", instead=INSTEAD):
        raise error


def test_any_error_becomes_one_line_of_bounded_length():
    assert line_of(lambda: raising(OSError("no\n  route"))) == (
        "org/model: can't be loaded (OSError: no route); get it elsewhere"
    )
    assert len(line_of(lambda: raising(RuntimeError("x" * 9999)))) < 250
    assert line_of(lambda: raising(WeightsError("as it is"))) == "as it is"


@pytest.mark.parametrize(
    "name, expected",
    [
        ("openai/clip-vit-large-patch14", True),
        ("Salesforce/blip-itm-large-coco", True),
        ("./model", False),
        ("/data/model", False),
        ("~/model", False),
        ("model", False),
        ("a/b/c", False),
        ("checkpoints/model.pth", False),
        ("tests/encoders", False),
    ],
)
def test_what_is_taken_for_a_repository(name, expected, monkeypatch):
    monkeypatch.chdir(__file__.rpartition("/tests/")[0])
    assert is_repository(name) is expected


def test_a_folder_is_taken_as_it_is(tmp_path):
    assert model_folder(str(tmp_path), weights=["*.bin"], instead=INSTEAD) == tmp_path
    gone = str(tmp_path / "gone")
    assert line_of(lambda: model_folder(gone, weights=["*.bin"], instead=INSTEAD)) == (
        f"{gone}: no such folder"
    )


def test_of_a_repository_only_the_best_weights_are_fetched(tmp_path, monkeypatch):
    asked = []

    def snapshot(name, *, allow_patterns):
        asked.append((name, allow_patterns[-1]))
        if allow_patterns[-1] == "*.bin":
            (tmp_path / "pytorch_model.bin").touch()
        return str(tmp_path)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot)
    patterns = ["*.safetensors", "*.bin", "*.h5"]
    assert model_folder("org/model", weights=patterns, instead=INSTEAD) == tmp_path
    assert asked == [("org/model", "*.safetensors"), ("org/model", "*.bin")]
    assert line_of(lambda: model_folder("org/none", weights=["*.pt"], instead=INSTEAD)) == (
        "org/none: has no weights (*.pt)"
    )


def test_a_repository_that_is_not_there(monkeypatch):
    # Offline, as in all of these tests: nobody has this one in a cache.
    message = line_of(
        lambda: model_folder("no-such-org/no-such-model", weights=["*.bin"], instead=INSTEAD)
    )
    assert message.startswith("no-such-org/no-such-model: can't be loaded (LocalEntryNotFound")
    assert message.endswith("; get it elsewhere") and "\n" not in message


def test_the_id_is_of_names_types_and_values():
    def network():
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))

    ids = [state_id(network()), state_id(network().half())]
    with torch.no_grad():
        for key in ("0.weight", "1.running_var"):
            other = network()
            other.state_dict()[key].view(-1)[0] += 1e-6
            ids.append(state_id(other))
    ids.append(state_id(network()[0], network()[1]))
    assert len(set(ids)) == len(ids) and all(len(one) == 64 for one in ids)
    assert state_id(network()) == ids[0] == state_id(network().to(torch.float32))


def test_what_a_loader_left_random_is_named():
    check_complete("org/model", [])
    assert line_of(lambda: check_complete("org/model", ["c", "a", "d", "b"])) == (
        "org/model: lacks the weights a, b, c and 1 more"
    )

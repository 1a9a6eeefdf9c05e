"""Several devices, one process each."""

import multiprocessing
import re
from types import SimpleNamespace

import pytest
import torch

from aigveval.data.manifest import make_clip
from aigveval.errors import AssessmentError, ModelError, UsageError
from aigveval.inference.devices import _work, devices_of, score_on_devices
from aigveval.inference.engine import load_engine
from aigveval.model.precision import find_device
from encoders.weights import WeightsError

from ..engines import tiny_assessor
from . import makers
from tests import media

NAMES = ["0.mp4", "1.mp4", "2.mp4", "gone.mp4", "4.mp4"]


@pytest.fixture
def clips(tmp_path):
    for number, name in enumerate(NAMES):
        if name != "gone.mp4":
            media.write_video(tmp_path / name, num_frames=4, seed=number)
    return [make_clip(tmp_path / name, "a dog") for name in NAMES]


def test_rows_are_those_of_one_process(clips):
    numbered = list(score_on_devices(clips, ["cpu", "cpu"], make=makers.tiny, batch_size=2))
    assert sorted(number for number, _ in numbered) == list(range(5))
    found = dict(numbered)
    for number, other in enumerate(tiny_assessor().score_many(clips)):
        row = found[number]
        assert (row.video, row.prompt, row.error) == (other.video, other.prompt, other.error)
        if other.overall:
            assert row.overall.score == pytest.approx(other.overall.score, abs=1e-4)
    assert found[3].error == "no such file"


def test_a_process_that_ends(clips):
    said = "^the process of cpu ended with -9; its clips are not scored$"
    with pytest.raises(AssessmentError, match=said):
        list(score_on_devices(clips, ["cpu"], make=makers.dies))


def test_a_device_without_a_clip_has_no_process():
    assert list(score_on_devices([], ["cpu"], make=makers.dies)) == []


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (ModelError("no weights"), "^no weights$"),
        (WeightsError("none here"), "^none here$"),
        (RuntimeError("x"), "^the process of cpu failed; something other than the video is at .*x"),
    ],
)
def test_what_keeps_a_process_from_scoring_is_said(error, message):
    ours, theirs = multiprocessing.Pipe(duplex=False)
    options = {"device": "cpu", "error": error}
    _work(theirs, makers.fails, options, [], None, torch.get_num_threads())
    said = ours.recv()
    assert isinstance(said, UsageError) and re.match(message, str(said))


def test_which_devices(monkeypatch):
    assert devices_of("cpu, cpu") == ["cpu", "cpu"]
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert devices_of("all") == ["cuda:0", "cuda:1"]
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    assert devices_of("all") == ["cpu"]
    with pytest.raises(ModelError, match="^no device in ',': give `all` or a list"):
        devices_of(",")
    with pytest.raises(ModelError, match="^no device 'toaster' here"):
        devices_of("cpu,toaster")
    with pytest.raises(ModelError, match="^devices must be of one kind, got cpu,meta$"):
        devices_of("cpu,meta")


def test_a_model_is_loaded_while_its_gpu_is_the_current_one(held):
    current = held("torch.cuda.device")

    def from_pretrained(source, *, dtype):
        assert current == [torch.device("cuda:1")]
        raise KeyboardInterrupt

    checkpoint = SimpleNamespace(
        model_type="aigveval",
        source="a folder",
        processor_class=SimpleNamespace(from_pretrained=str),
        model_class=SimpleNamespace(from_pretrained=from_pretrained),
    )
    with pytest.raises(KeyboardInterrupt):
        load_engine(checkpoint, device=torch.device("cuda:1"), dtype=torch.float32)


@pytest.mark.parametrize("name", ["cuda", "cuda:1"])
def test_a_gpu_that_is_there_and_cannot_be_used(name, monkeypatch):
    def empty(*size, device):
        raise RuntimeError("CUDA error: all CUDA-capable devices are busy\nSearch for ...")

    monkeypatch.setattr(torch, "empty", empty)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    why = "CUDA error: all CUDA-capable devices are busy"
    with pytest.raises(ModelError, match=f"^the device '{name}' cannot be used: {why}$"):
        find_device(name)
    with pytest.raises(ModelError, match="^no device 'cuda:7' here; there are cpu, cuda:0, cuda:1"):
        find_device("cuda:7")

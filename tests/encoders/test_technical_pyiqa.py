"""technical_pyiqa: scores are pyiqa's own, weights are read without running code."""

import os
import pickle
import sys
from importlib.util import find_spec
from urllib.error import URLError

import pytest
import torch

from encoders import WeightsError, create_encoder
from encoders.base import full_float32
from encoders.registry import EncoderError
from encoders.technical_pyiqa import _DETERMINISTIC
from encoders.testing import check_encoder

needs_pyiqa = pytest.mark.skipif(
    find_spec("pyiqa") is None, reason="pyiqa is not installed: pip install '.[pyiqa]'"
)


def make(*metrics, **options):
    options = {"num_frames": 2, "size": 256, **options}
    return create_encoder("technical_pyiqa", metrics=metrics, **options)


@pytest.fixture(scope="module")
def frames():
    """A smooth picture and the same with noise: uint8 (2, 3, 230, 250)."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(1, 3, 12, 12, generator=generator)
    smooth = torch.nn.functional.interpolate(coarse, size=(230, 250), mode="bicubic")[0]
    noisy = smooth + 0.2 * torch.randn(smooth.shape, generator=generator)
    return (255 * torch.stack([smooth, noisy]).clamp(0, 1)).to(torch.uint8)


def tokens_of(encoder, frames):
    with torch.no_grad():
        return encoder(encoder.preprocess(frames)[None])[0]


def test_without_the_extra_one_line_says_so(monkeypatch):
    monkeypatch.setitem(sys.modules, "pyiqa", None)
    with pytest.raises(EncoderError) as caught:
        create_encoder("technical_pyiqa")
    assert str(caught.value).startswith(
        "technical_pyiqa needs the extra pyiqa: pip install 'aigveval[pyiqa]' ("
    )


def test_cudnn_is_deterministic_and_keeps_to_float32():
    cudnn = torch.backends.cudnn
    before = cudnn.benchmark, cudnn.deterministic, cudnn.conv.fp32_precision
    with full_float32(torch.device("cuda")), _DETERMINISTIC:
        found = cudnn.benchmark, cudnn.deterministic, cudnn.conv.fp32_precision
    assert found == (False, True, "ieee")
    assert (cudnn.benchmark, cudnn.deterministic, cudnn.conv.fp32_precision) == before


@needs_pyiqa
def test_scores_are_pyiqas_on_the_frames_as_they_are(frames):
    import pyiqa

    tokens = tokens_of(make("piqe", "entropy"), frames)
    for column, name in enumerate(("piqe", "entropy")):
        metric = pyiqa.create_metric(name, device="cpu")
        expected = [metric(frame[None].float() / 255).item() for frame in frames]
        assert tokens[:, column].tolist() == pytest.approx(expected, rel=1e-5)
        assert expected[0] != pytest.approx(expected[1], rel=0.01)
    # PIQE grows with distortion, entropy is taken to be good; noise has more of both.
    assert tokens[:, 2:].tolist() == [[-1.0, 1.0]] * 2
    assert tokens[1, 1] > tokens[0, 1]


@needs_pyiqa
def test_a_frame_without_a_score_says_so(frames):
    """PIQE divides by the number of blocks that show anything."""
    dark = frames.clone()
    dark[1] = 0
    tokens = tokens_of(make("piqe", "entropy"), dark)
    assert tokens[1].tolist() == [0, 0, 0, 1]
    assert torch.equal(tokens[0], tokens_of(make("piqe", "entropy"), frames)[0])


@needs_pyiqa
@pytest.mark.parametrize(
    "height, width, kept",
    [
        (230, 250, (230, 250)),
        (256, 256, (256, 256)),
        (300, 400, (224, 256)),
        (720, 1280, (224, 256)),
        (20, 30, (224, 224)),
        (16, 400, (224, 256)),
        (1, 1, (224, 224)),
    ],
)
def test_a_frame_keeps_its_pixels_up_to_the_size(height, width, kept):
    generator = torch.Generator().manual_seed(0)
    frames = torch.randint(1, 256, (2, 3, height, width), generator=generator, dtype=torch.uint8)
    view = make("entropy").preprocess(frames)
    mask = torch.zeros(256, 256, dtype=torch.bool)
    mask[: kept[0], : kept[1]] = True
    assert view.shape == (2, 4, 256, 256)
    assert torch.equal(view[:, 3] > 0, mask.expand(2, -1, -1))
    assert not view[:, :, ~mask].any()
    if kept == (height, width):
        assert torch.equal(view[:, :3, :height, :width], frames)


@needs_pyiqa
def test_it_keeps_every_promise():
    check_encoder(make("piqe", "entropy"))
    assert create_encoder("technical_pyiqa", metrics="piqe").metrics == ["piqe"]


@needs_pyiqa
@pytest.mark.parametrize(
    "metrics, options, message",
    [
        (["piq"], {}, "pyiqa has no metric 'piq' that scores a picture alone; did you mean piqe"),
        (["fid"], {}, "pyiqa has no metric 'fid' that scores a picture alone; did you mean "),
        (["lpips"], {}, "pyiqa has no metric 'lpips' that scores a picture alone; did you mean "),
        ([], {}, "metrics must be one name or more, each once, got []"),
        (["piqe", "piqe"], {}, "metrics must be one name or more, each once, got ['piqe', 'piqe']"),
        (["piqe", "entropy"], {"weights": "x.pth"}, "weights are of one metric, got 2 metrics"),
        (["piqe"], {"size": 100}, "size must be at least 224, got 100"),
    ],
)
def test_wrong_options_are_answered_in_one_line(metrics, options, message):
    with pytest.raises(ValueError) as caught:
        make(*metrics, **options)
    assert str(caught.value).startswith(message) and "\n" not in str(caught.value)


# Weights ---------------------------------------------------------------------------------------


@pytest.fixture
def cnniqa(tmp_path):
    """A checkpoint in pyiqa's own format, of one of its networks."""
    from pyiqa.archs.cnniqa_arch import CNNIQA

    torch.manual_seed(0)
    network = CNNIQA(pretrained=None).eval()
    torch.save({"params": network.state_dict()}, tmp_path / "cnniqa.pth")
    return network, tmp_path / "cnniqa.pth"


@needs_pyiqa
def test_a_network_of_pyiqa_by_path(cnniqa, frames, tmp_path, capsys):
    network, path = cnniqa
    encoder = make("cnniqa", weights=path)
    assert capsys.readouterr().out == ""  # pyiqa prints; standard output may be someone's JSON
    with torch.no_grad():
        expected = network(frames / 255)[:, 0]
    tokens = tokens_of(encoder, frames)
    assert torch.allclose(tokens[:, 0], expected, atol=1e-5) and tokens[:, 1].eq(1).all()
    check_encoder(encoder)
    moved = path.rename(tmp_path / "moved.pth")
    assert make("cnniqa", weights=moved).fingerprint() == encoder.fingerprint()
    with torch.no_grad():
        network.fc3.bias += 1
    torch.save({"params": network.state_dict()}, path)
    assert make("cnniqa", weights=path).fingerprint() != encoder.fingerprint()


class Bomb:
    def __reduce__(self):
        return os.mkdir, (self.place,)


@needs_pyiqa
def test_a_file_that_would_run_code_is_refused_unless_the_user_allows_it(
    cnniqa, tmp_path, monkeypatch
):
    network, path = cnniqa
    bomb = Bomb()
    bomb.place = str(tmp_path / "ran")
    torch.save({"params": network.state_dict(), "more": bomb}, path)
    with pytest.raises(WeightsError, match="^pyiqa's cnniqa .*UnpicklingError"):
        make("cnniqa", weights=path)
    assert not (tmp_path / "ran").exists()
    assert "TORCH_FORCE_WEIGHTS_ONLY_LOAD" not in os.environ
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    make("cnniqa", weights=path)
    assert (tmp_path / "ran").exists()  # so that it would have been noticed above


@needs_pyiqa
def test_weights_that_cannot_be_had_are_told_in_one_line(monkeypatch, tmp_path):
    def unreachable(*args, **options):
        raise URLError("Name or service not known")

    monkeypatch.setattr("pyiqa.archs.musiq_arch.load_pretrained_network", unreachable)
    with pytest.raises(WeightsError) as caught:
        make("musiq")
    assert str(caught.value) == (
        "pyiqa's musiq: can't be loaded (URLError: <urlopen error Name or service not known>); "
        "where the Hub is reached, load it once and copy torch's hub cache (TORCH_HOME)"
    )
    path = tmp_path / "other.pth"
    path.write_bytes(pickle.dumps({"params": {}}))
    with pytest.raises(WeightsError, match=f"^pyiqa's cnniqa {path}: can't be loaded .*; give a c"):
        make("cnniqa", weights=path)


@needs_pyiqa
def test_a_metric_that_needs_another_package_names_it(monkeypatch):
    def needy(*args, **options):
        raise ModuleNotFoundError("No module named 'icecream'", name="icecream")

    monkeypatch.setattr("pyiqa.create_metric", needy)
    with pytest.raises(EncoderError) as caught:
        make("qalign")
    assert str(caught.value) == "pyiqa's qalign needs icecream, which is not installed"

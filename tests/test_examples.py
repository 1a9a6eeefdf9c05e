"""The short examples, run as a reader would run them: from another folder, in a fresh process."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from aigveval.inference import reward
from encoders import create_encoder, registry
from encoders.testing import check_encoder
from encoders.video import read_views

from tests import media
from tests.aigveval.inference.makers import fake_load

EXAMPLES = Path(__file__).parents[1] / "examples"
ENTRY_POINT = "[aigveval.encoders]\ntechnical_colour = own_encoder:TechnicalColour\n"


@pytest.fixture
def clip(tmp_path):
    return media.write_video(tmp_path / "clip.mp4", num_frames=24)


def run(folder, *arguments, paths=(), code=0):
    path = os.pathsep.join(map(str, [*paths, EXAMPLES.parent, os.environ.get("PYTHONPATH", "")]))
    done = subprocess.run(
        [sys.executable, *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=folder,
        env={**os.environ, "PYTHONPATH": path},
    )
    assert done.returncode == code, done.stderr
    return done.stdout


@pytest.fixture
def own(monkeypatch):
    """The module of the example, which registers its encoder."""
    monkeypatch.setattr(registry, "_registered", {})
    monkeypatch.syspath_prepend(str(EXAMPLES))
    monkeypatch.delitem(sys.modules, "own_encoder", raising=False)
    import own_encoder

    return own_encoder


@pytest.mark.parametrize(
    "name", ["make_videos", "best_of_n", "make_self_test", "benchmarks/preset_memory"]
)
def test_help_is_help(tmp_path, name):
    """Not the name of a folder to write to, nor a prompt to score with."""
    text = run(tmp_path, EXAMPLES / f"{name}.py", "--help")
    assert text.startswith("usage: ") and not list(tmp_path.iterdir())


def test_a_benchmark_says_in_one_line_what_it_needs(tmp_path):
    script = str(EXAMPLES / "benchmarks" / "serving.py")
    hidden = "import runpy, sys; sys.modules['httpx'] = None; runpy.run_path(sys.argv[1])"
    done = subprocess.run(
        [sys.executable, "-c", hidden, script],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(EXAMPLES.parent)},
    )
    (line,) = done.stderr.splitlines()
    assert done.returncode == 1
    assert "httpx" in line and line.endswith(': pip install ".[app]" httpx')


def test_features_of_a_video_in_fifteen_lines(tmp_path, clip):
    script = EXAMPLES / "features.py"
    assert len(script.read_text().splitlines()) <= 15
    said = run(tmp_path, script, clip, "motion_flow").splitlines()
    encoder = create_encoder("motion_flow")
    tokens = encoder(read_views(clip, {"it": encoder})["it"][None])
    assert said[0] == str(encoder.spec.to_dict())
    assert said[1] == str(tuple(tokens.shape))
    assert float(said[2]) == pytest.approx(tokens.mean().item(), rel=1e-4)


def test_an_own_encoder_in_under_forty_lines(tmp_path, clip, own):
    assert len((EXAMPLES / "own_encoder.py").read_text().splitlines()) < 40
    encoder = create_encoder("technical_colour")
    check_encoder(own.TechnicalColour())  # as its constructor makes it, in training mode
    view = read_views(clip, {"it": encoder})["it"]
    assert run(tmp_path, EXAMPLES / "own_encoder.py", clip) == f"{encoder(view[None])}\n"


def test_colourfulness_is_that_of_its_paper(own):
    """Worked by hand: half of the frame red, half blue, is all the two opponent axes can give."""
    frame = torch.zeros(1, 3, 8, 8, dtype=torch.uint8)
    frame[:, 0, :4], frame[:, 2, 4:] = 255, 255
    rg_std, yb_std, rg_mean, yb_mean, colourfulness = own.TechnicalColour()(
        own.TechnicalColour().preprocess(frame)[None]
    )[0, 0].tolist()
    assert (rg_std, rg_mean) == pytest.approx((127.5, 127.5))
    assert (yb_std, yb_mean) == pytest.approx((191.25, -63.75))
    expected = (127.5**2 + 191.25**2) ** 0.5 + 0.3 * (127.5**2 + 63.75**2) ** 0.5
    assert colourfulness == pytest.approx(expected)


def test_an_installed_package_brings_its_encoder_to_the_command_line(tmp_path, clip):
    """What `pip install` leaves behind of a package with the entry point: its dist-info."""
    site = tmp_path / "site"
    facts = site / "own_encoder-1.0.dist-info"
    facts.mkdir(parents=True)
    (facts / "METADATA").write_text("Metadata-Version: 2.1\nName: own-encoder\nVersion: 1.0\n")
    (facts / "entry_points.txt").write_text(ENTRY_POINT)
    (site / "own_encoder.py").write_text((EXAMPLES / "own_encoder.py").read_text())
    command = ("-m", "aigveval", "features", clip, "--encoder", "technical=colour", "--out")
    run(tmp_path, *command, "out", paths=[site])
    (row,) = (tmp_path / "out" / "index.jsonl").read_text().splitlines()
    assert json.loads(row)["error"] is None
    about = json.loads((tmp_path / "out" / "encoders.json").read_text())
    assert about["encoders"]["technical_colour"]["spec"]["dim"] == 5
    run(tmp_path, *command, "other", code=2)  # not installed


def test_best_of_eight(monkeypatch, capsys):
    """With a tiny model; the clips are those of the example."""
    monkeypatch.syspath_prepend(str(EXAMPLES))
    import best_of_n

    monkeypatch.setattr(reward, "load", fake_load())
    best = best_of_n.main("a red car")
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 8 and lines[0].startswith(f"clip {best} (")
    scores = [float(line.partition("): ")[2].partition(",")[0]) for line in lines]
    assert scores == sorted(scores, reverse=True) and len(set(scores)) > 1

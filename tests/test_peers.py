"""The script that times others' networks beside `lite`."""

import re

import pytest
import torch

from encoders.fastvqa_variants import network_input

from tests import media
from tests.scripts import script


@pytest.fixture(scope="module")
def peers():
    return script("benchmarks/peers")


def test_a_branch_has_the_published_size_and_shape(peers):
    """DOVER-Mobile is published with 9.86 million parameters, in two branches with their heads."""
    branch = torch.nn.Sequential(peers.femto(), peers.VQAHead(384)).eval()
    millions = 2 * sum(value.numel() for value in branch.parameters()) / 1e6
    assert millions == pytest.approx(9.86, abs=0.1)
    view = torch.zeros(1, 1, 4, 3, 64, 64, dtype=torch.uint8)
    with torch.inference_mode():
        assert branch(network_input(view, torch.float32)).shape == (1, 1, 2, 2, 2)


def test_ratios_are_of_medians_in_one_run(peers, tmp_path, capsys):
    media.write_video(tmp_path / "a.mp4", num_frames=4)
    calls = []

    def way(name, network):
        def run(path):
            calls.append(name)
            return network

        return run

    peers.compare({"lite": way("lite", 2.0), "other": way("other", 5.0)}, [tmp_path / "a.mp4"], 3)
    assert calls == ["lite", "other"] * 4
    said = capsys.readouterr().out
    assert said.startswith("seconds per clip: medians of 3 rounds, 1 clips\n")
    assert re.search(r"\nlite +0\.00 +1\.00 +2\.00 +1\.00\n", said)
    assert re.search(r"\nother +0\.00 +\S+ +5\.00 +2\.50\n", said)

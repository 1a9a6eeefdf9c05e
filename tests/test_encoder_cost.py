"""The benchmark of encoders counts all that a network computes."""

import pytest
import torch

from encoders import create_encoder

from tests.scripts import script


@pytest.fixture
def cost(monkeypatch):
    module = script("benchmarks/encoder_cost")
    monkeypatch.setattr(module, "FRAMES", 2)
    return module


def test_the_operations_of_a_frozen_network_are_counted(cost, make_encoder):
    """EfficientNet-Lite0 is published with 407 million multiply-adds, a picture of 224 px."""
    make_encoder("semantic_lite")  # skips where there are no weights
    encoder = create_encoder("semantic_lite", num_frames=2)
    row = cost.measure(
        encoder,
        torch.zeros(2, 3, 96, 128, dtype=torch.uint8),
        batch=1,
        device=torch.device("cpu"),
        dtype=torch.float32,
        compiled=False,
        repeat=1,
    )
    assert row["GFLOPs"] == pytest.approx(2 * 2 * 0.407, rel=0.1)
    assert row["tokens"] == 2 and row["million parameters"] == pytest.approx(4.65, abs=0.1)
    assert not any(value.requires_grad for value in encoder.parameters())

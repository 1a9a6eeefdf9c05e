"""The ablation of slow and fast frames: its settings, its cost, and its table."""

import json

import pytest

from aigveval.model.checkpoint import CHECKPOINTS

from tests.scripts import EXAMPLES, script

CLEAN = EXAMPLES / "videos/scene_clean.mp4"


@pytest.fixture(scope="module")
def ablation():
    return script("train_lite/ablation")


def test_each_stream_alone_and_both(ablation):
    found = ablation.settings()
    assert len(found) == len(set(found)) == 15
    assert [name for name, _ in ablation.encoders_of((4, 0))] == ["semantic_lite", "technical_lite"]
    assert ablation.encoders_of((0, 32)) == [("motion_flow", 32)]
    assert [count for _, count in ablation.encoders_of((4, 64))] == [4, 64, 4]


def test_the_encoders_are_those_of_lite(ablation):
    config = json.loads((CHECKPOINTS / "lite/config.json").read_text())
    for entry in config["encoders"]:
        options = entry["options"]
        assert ablation.options_of(entry["name"], options["num_frames"]) == options


def test_more_frames_cost_more(ablation):
    few, many = (ablation.cost_of((0, count), CLEAN) for count in (16, 48))
    assert few["tokens"] == many["tokens"] == 16
    assert 0 < few["cpu_seconds"] < many["cpu_seconds"]


def test_the_table_has_a_row_per_setting(ablation):
    figures = {"SROCC": [0.5, 0.1, 0.8], "SROCC within generators": [-0.25, -0.4, 0.1]}
    row = dict.fromkeys(("technical", "motion", "semantic"), figures)
    rows = {"a": {"frames": [4, 0], "cpu_seconds": 0.5, "tokens": 8, **row}}
    assert ablation.as_markdown(rows).splitlines()[2] == (
        "| 4 | - | 0.50 / -0.25 | 0.50 / -0.25 | 0.50 / -0.25 | 0.50 | 8 |"
    )

"""How well a new data set is learnt (examples/train_lite/new_set.py)."""

import csv
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from tests.scripts import rated_clips, script


@pytest.fixture
def new_set():
    return script("train_lite/new_set")


def test_each_prompt_is_left_out_once_in_a_split(new_set):
    groups = [f"p{n // 4}" for n in range(40)]
    parts = np.array(new_set.thirds(groups)).reshape(new_set.SPLITS, 3, 40)
    assert (parts.sum(1) == 1).all()
    assert all(len(set(part[4 * n : 4 * n + 4])) == 1 for part in parts[0] for n in range(10))
    assert not all((split == parts[0]).all() for split in parts[1:])


def test_what_is_measured_is_not_learnt(new_set, monkeypatch, tmp_path, capsys):
    random = np.random.default_rng(1)  # not that of the clips' scores
    clips = rated_clips(new_set, new_set.CHECKED, prompts=9, generators=4)
    truth = {str(clip.path): clip.scores for clip in clips}
    learnt: set[str] = set()

    def fit(config):
        assert config.ridge and config.epochs == 0 and "without_" in config.base
        with open(config.train[0], newline="", encoding="utf-8") as file:
            learnt.update(row["prompt"] for row in csv.DictReader(file))
        return SimpleNamespace(model=Path("fitted"))

    def predict(model, rows, cache):
        if model.name != "fitted":
            return random.uniform(1, 5, (len(rows), 4))
        assert not learnt & {row.prompt for row in rows} and len(rows) == 12
        assert len(learnt) == 6 and len({row.prompt for row in rows}) == 3
        learnt.clear()
        return np.array([truth[row.video] for row in rows])

    monkeypatch.setattr(new_set.manifests, "read_originals", lambda data: clips)
    monkeypatch.setattr(new_set, "fit", fit)
    monkeypatch.setattr(new_set, "predict", predict)
    new_set.main(tmp_path, tmp_path)
    table = [line.strip("| ").split(" | ") for line in capsys.readouterr().out.splitlines()[2:]]
    assert [row[:2] for row in table] == [
        [dataset, name] for dataset, names in new_set.CHECKED.items() for name in names
    ]
    assert all(row[4:] == ["1.00", "1.00"] and abs(float(row[2])) < 0.5 for row in table)

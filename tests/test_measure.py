"""The figures of the shipped checkpoint: what they say of clips without a prompt."""

import json

import numpy as np
import pytest

from tests.scripts import script


@pytest.fixture(scope="module")
def measure():
    return script("train_lite/measure")


@pytest.fixture
def found(measure, tmp_path, monkeypatch):
    """Of two sources, each blurred three times; nobody knows the prompt of one."""
    records = [
        {
            "video": f"{group}/{severity}.mp4",
            "prompt": prompt,
            "source_prompt": prompt,
            "group": group,
            "type": "blur" if severity else "clean",
            "severity": severity,
            "dimension": "technical",
            "technical_drop": 0.75 * severity,
            "motion_drop": 0.0,
            "semantic_drop": 0.0,
        }
        for group, prompt in (("dog", "a dog"), ("clip", ""))
        for severity in (0, 1, 3, 5)
    ]
    folder = tmp_path / "ladder/heldout"
    folder.mkdir(parents=True)
    (folder / "manifest.jsonl").write_text("".join(json.dumps(one) + "\n" for one in records))

    def predict(model, rows, cache):
        scores = [(4 - record["severity"] / 2, 3.0, 3.5, 3.0) for record in records]
        known = [[True, True, row.prompt is not None, True] for row in rows]
        return np.where(known, scores, np.nan)

    monkeypatch.setattr(measure, "predict", predict)
    return measure.ladder(tmp_path, "heldout", None)


def test_a_mean_that_is_not_known_is_none(found):
    drops = found["blur"]["drop at the worst severity"]
    assert drops == {"technical": 2.5, "motion": 0.0, "semantic": None, "overall": 0.0}
    assert found["blur"]["srocc"] == [-1.0, -1.0, -1.0] and found["blur"]["sources"] == 2
    json.dumps(found, allow_nan=False)  # as others read it


def test_how_scores_fall_with_another_clips_prompt(measure, monkeypatch, tmp_path):
    clips = [
        measure.Clip(
            path=tmp_path / f"{n}.mp4",
            name=f"{n}.mp4",
            dataset=dataset,
            prompt=prompt,
            generator="a",
            real=False,
            scores=(3.0, 3.0, 3.0, 3.0),
        )
        for dataset in measure.CHECKED
        for n, prompt in enumerate(("a dog", "a cat", "a cow"))
    ]
    fold = np.array([0, 0, 1] * 2)  # the cow is alone: no other prompt is left out with it
    prompts = {clip.path: clip.prompt for clip in clips}
    asked = []

    def scores_by(work, members, names, cache):
        asked.extend(names)
        right = [prompts[clip.path] == clip.prompt for clip in members]
        return np.where(np.array(right)[:, None], (3, 3, 4.0, 3.5), (3, 3, 2.5, 3.0))

    monkeypatch.setattr(measure, "scores_by", scores_by)
    found = measure.wrong_prompts(tmp_path, clips, fold, None)
    assert set(asked) == {"fold0"} and len(asked) == 8
    for scores in found.values():
        assert scores["semantic"] == {"falls": [1.0, 1.0, 1.0], "points": 1.5}
        assert scores["overall"] == {"falls": [1.0, 1.0, 1.0], "points": 0.5}


def test_and_a_dash_in_the_tables(measure, found):
    mean = {"shipped: technical": 4.5, "shipped: semantic": measure.rounded(np.float64("nan"))}
    figures = {
        "wrong prompts": {},
        "ratings": {},
        "camera": {},
        "years": {"camera": mean},
        "trust": {"familiarity": {"clips": {"median": 8.8}}, "coverage": {"set out": {"x": 0.734}}},
        "ladder": found,
        "ladder of modern": found,
    }
    lines = measure.as_markdown(figures).splitlines()
    assert "| camera | 4.5 | - |" in lines and "| clips | 8.8 |" in lines
    assert "| set out | 0.734 |" in lines
    assert lines[-1] == "| blur | technical | -1.00 [-1.00, -1.00] | 2 | 2.50 | 0.00 | - |"

"""How often wrong prompts are named (examples/train_lite/mismatches.py)."""

import csv
import json
from types import SimpleNamespace

import pytest

from tests.scripts import script


@pytest.fixture
def mismatches():
    return script("train_lite/mismatches")


def clip(mismatches, prompt, name="a.mp4"):
    return mismatches.Clip(
        path=None, name=name, dataset="modern", prompt=prompt, generator="g", real=False, scores=()
    )


@pytest.mark.parametrize(
    ("prompt", "kept"),
    [("A dog runs on a beach", "A {} runs on a beach"), ("Two dogs in fog", "Two {} in fog")],
)
def test_one_thing_is_exchanged_for_another_in_the_same_number(mismatches, prompt, kept):
    (found,) = mismatches.exchanged([clip(mismatches, prompt)])
    things = mismatches.THINGS
    words = things if prompt.startswith("A") else map(mismatches.plural_of, things)
    assert found.prompt in [kept.format(word) for word in words]
    assert list(mismatches.exchanged([clip(mismatches, prompt)])) == [found]


def test_nothing_is_exchanged_where_no_thing_is_known(mismatches):
    assert (
        list(mismatches.exchanged([clip(mismatches, "Honey drips"), clip(mismatches, None)])) == []
    )


def test_the_table_counts_what_is_named(mismatches, monkeypatch, tmp_path, capsys):
    for name in mismatches.manifests.DATASETS:
        (tmp_path / name).mkdir()
        with open(tmp_path / name / "manifest.csv", "w", newline="", encoding="utf-8") as file:
            rows = csv.writer(file)
            rows.writerow(["video", "prompt", "generator"])
            if name == "modern":
                rows.writerows([f"{n}.mp4", f"{n} dogs run", "g"] for n in (2, 3, 4))

    class Assessor:
        def score_many(self, paths, prompts):
            for path, prompt in zip(paths, prompts, strict=True):
                own = prompt.startswith(path.stem) and "dogs" in prompt
                names = ["blur"] if own else ["blur", "wrong_count"]
                yield SimpleNamespace(defects=[SimpleNamespace(name=name) for name in names])

    monkeypatch.setattr(mismatches.aigveval, "load", lambda model, explain: Assessor())
    out = tmp_path / "told.json"
    monkeypatch.setattr("sys.argv", ["mismatches", str(tmp_path), "lite", "--out", str(out)])
    mismatches.main()
    assert capsys.readouterr().out.splitlines()[2:] == [
        "| own prompt | 3 | 0 | 0 | 0 | 0 |",
        "| another clip's | 6 | 6 | 0 | 0 | 6 |",
        "| a thing exchanged | 3 | 3 | 0 | 0 | 3 |",
    ]
    assert {tuple(one["named"]) for one in json.loads(out.read_text())} == {(), ("wrong_count",)}

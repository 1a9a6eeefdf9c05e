"""Manifests of preference pairs."""

import json

import pyarrow
import pyarrow.parquet as parquet
import pytest

from aigveval.data.preference_pairs import PAIR_VIDEOS, PreferencePair, parse_pair, read_pairs
from aigveval.data.readers import parse_rows
from aigveval.errors import ManifestError

HEADER = "video_a,video_b,prompt,technical,motion,semantic,overall,generator_a,generator_b,weight\n"


def write(folder, text, name="pairs.csv"):
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def test_read(tmp_path):
    path = write(
        tmp_path, HEADER + "x/a.mp4,b.mp4,a dog,A,same,b,,Pika,Luma,2\n/a.mp4,c.mp4,,,,,same,,,\n"
    )
    first, second = read_pairs(path)
    assert first == PreferencePair(
        video_a=str(tmp_path / "x/a.mp4"),
        video_b=str(tmp_path / "b.mp4"),
        prompt="a dog",
        preferences=("A", "same", "B", None),
        generator_a="Pika",
        generator_b="Luma",
        weight=2.0,
    )
    assert (second.video_a, second.prompt) == ("/a.mp4", None)
    assert second.preferences == (None, None, None, "same") and second.weight == 1.0


def test_a_blank_is_no_preference(tmp_path):
    (pair,) = read_pairs(write(tmp_path, HEADER + "a.mp4,b.mp4,a dog,A, ,,\t\n"))
    assert pair.preferences == ("A", None, None, None)


@pytest.mark.parametrize("name", ["p.jsonl", "p.json", "p.parquet"])
def test_formats(tmp_path, name):
    rows = [
        {"video_a": "a.mp4", "video_b": "b.mp4", "prompt": "夜", "overall": "A", "split": "test"},
        {"video_a": "c.mp4", "video_b": "d.mp4", "prompt": None, "overall": "same", "split": None},
    ]
    if name.endswith("parquet"):
        parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / name)
    else:
        text = json.dumps(rows) if name == "p.json" else "\n".join(map(json.dumps, rows))
        write(tmp_path, text, name)
    assert [
        (p.video_a, p.prompt, p.split, p.preferences[-1]) for p in read_pairs(tmp_path / name)
    ] == [
        (str(tmp_path / "a.mp4"), "夜", "test", "A"),
        (str(tmp_path / "c.mp4"), None, None, "same"),
    ]


BROKEN = {
    "columns": (
        "video_a,prompt\na,b\n",
        "row 1, the header, names no column 'video_b', it has video_a, prompt",
    ),
    "no preference": (
        HEADER + "a,b,p\n",
        "row 2: none of technical, motion, semantic, overall is known",
    ),
    "word": (HEADER + "a,b,p,,,,left\n", "row 2: overall must be A, B, same or empty, got 'left'"),
    "prompt": (HEADER + "a,b,,,,A\n", "row 2: a semantic preference needs a prompt"),
    "path": (HEADER + "a,,p,A\n", "row 2: video_b must be a path, got ''"),
    "weight": (HEADER + "a,b,p,A,,,,,,-1\n", "row 2: weight must be above 0, got -1"),
    "empty": (HEADER, "holds no rows"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken(tmp_path, name):
    text, reason = BROKEN[name]
    path = write(tmp_path, text)
    with pytest.raises(ManifestError) as error:
        read_pairs(path)
    assert str(error.value) == f"{path}: {reason}"


def test_faults_can_be_collected(tmp_path):
    path = write(tmp_path, HEADER + "a,b,p,X\na,b,p,A\na,b,p,A,A,A,A,g,h,1,more\n")
    faults = []
    found = parse_rows(path, parse_pair, required=PAIR_VIDEOS, on_fault=faults.append)
    assert len(list(found)) == 1
    assert [fault.number for fault in faults] == [2, 4]


def test_pair_is_checked_when_built():
    for preferences in [("A",), (None,) * 4, ("A", "left", None, None)]:
        with pytest.raises(ValueError):
            PreferencePair(video_a="a", video_b="b", prompt=None, preferences=preferences)

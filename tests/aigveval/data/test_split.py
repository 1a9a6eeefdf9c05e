"""Parts and folds of manifests: disjoint, seeded, complete."""

import json
import os
import random
from datetime import datetime

import pyarrow
import pytest
from pyarrow import parquet

from aigveval.data.check import Leaks, check_manifests, prompt_key, video_key
from aigveval.data.convert import convert
from aigveval.data.manifest import iter_manifest
from aigveval.data.preference_pairs import read_pairs
from aigveval.data.readers import read_rows
from aigveval.data.split import parse_parts, split
from aigveval.data.writers import write_table
from aigveval.errors import InputError

PARTS = {"train": 0.8, "valid": 0.1, "test": 0.1}


def rows_of(count=200, prompts=40, generators=10):
    return [
        {
            "video": f"v/{n}.mp4",
            "prompt": f"prompt {n % prompts}",
            "overall": 1 + n % 5,
            "generator": f"model {n % generators}",
            "group": f"g{n // 5}",
        }
        for n in range(count)
    ]


@pytest.fixture
def manifest(tmp_path):
    path = tmp_path / "m.jsonl"
    write_table(path, rows_of())
    return path


def values(path, column):
    return [row[column] for _, row in read_rows(path)]


@pytest.mark.parametrize(
    "by, column",
    [
        ("random", "video"),
        ("prompt", "prompt"),
        ("generator", "generator"),
        ("group", "group"),
    ],
)
class TestParts:
    def test_are_disjoint_and_complete(self, manifest, tmp_path, by, column):
        done = split(manifest, tmp_path / "out", by=by, parts=PARTS)
        seen = {name: set(values(path, column)) for name, path in done.files.items()}
        assert not (
            seen["train"] & seen["valid"]
            or seen["train"] & seen["test"]
            or seen["valid"] & seen["test"]
        )
        names = [name for path in done.files.values() for name in values(path, "video")]
        videos = sorted(os.path.normpath(tmp_path / "out" / name) for name in names)
        assert videos == sorted(str(tmp_path / row["video"]) for row in rows_of())
        assert done.rows == {n: len(values(p, "video")) for n, p in done.files.items()}
        assert done.rows == {"train": 160, "valid": 20, "test": 20}

    def test_folds_hold_out_each_row_once(self, manifest, tmp_path, by, column):
        done = split(manifest, tmp_path / "out", by=by, folds=5)
        assert list(done.files) == [f"fold{n}/{p}" for n in range(5) for p in ("train", "valid")]
        held_out = []
        for n in range(5):
            train, valid = (done.files[f"fold{n}/{part}"] for part in ("train", "valid"))
            assert not set(values(train, column)) & set(values(valid, column))
            held_out += values(valid, "video")
            assert len(values(train, "video")) + len(values(valid, "video")) == 200
            assert set(values(train, "split")) == {"train"}
        assert len(held_out) == len(set(held_out)) == 200
        assert set(done.rows.values()) == {40}

    def test_the_seed_decides_and_the_order_of_rows_does_not(self, manifest, tmp_path, by, column):
        def parted(source, out, seed):
            done = split(source, tmp_path / out, by=by, parts=PARTS, seed=seed)
            return {name: sorted(values(path, "video")) for name, path in done.files.items()}

        first = parted(manifest, "one", 0)
        shuffled = rows_of()
        random.Random(1).shuffle(shuffled)
        write_table(tmp_path / "shuffled.jsonl", shuffled)
        assert parted(tmp_path / "shuffled.jsonl", "two", 0) == first
        assert parted(manifest, "three", 1) != first


def test_rows_stay_as_they_are_but_for_path_and_split(manifest, tmp_path):
    done = split(manifest, tmp_path / "deep/out", by="prompt", parts=PARTS)
    by_video = {row["video"]: row for row in rows_of()}
    for name, path in done.files.items():
        for _, row in read_rows(path):
            original = by_video[row["video"].removeprefix("../../")]
            assert row == original | {"video": row["video"], "split": name}
    order = values(done.files["train"], "video")
    assert order == sorted(order, key=lambda v: int(v.split("/")[-1][:-4]))  # as in the manifest


@pytest.mark.parametrize("suffix", [".csv", ".json", ".parquet"])
def test_format_is_that_of_the_manifest_or_as_asked(tmp_path, suffix):
    write_table(tmp_path / f"m{suffix}", rows_of(20, 20))
    done = split(tmp_path / f"m{suffix}", tmp_path, by="random", parts={"a": 0.5, "b": 0.5})
    assert [path.name for path in done.files.values()] == [f"a{suffix}", f"b{suffix}"]
    assert sum(1 for path in done.files.values() for _ in iter_manifest(path)) == 20
    done = split(tmp_path / f"m{suffix}", tmp_path, by="random", folds=2, suffix=".jsonl")
    assert {path.suffix for path in done.files.values()} == {".jsonl"}


HALVES = {"a": 0.5, "b": 0.5}


@pytest.mark.parametrize("names", [["video"], ["video_a", "video_b"]])
def test_a_path_may_be_the_object_of_a_data_set(tmp_path, names):
    rows = [
        {"overall": "A" if len(names) > 1 else 3, "prompt": f"p{n}"}
        | {name: {"path": f"{name}{n}.mp4", "bytes": None} for name in names}
        for n in range(4)
    ]
    source = tmp_path / "m.jsonl"
    source.write_text("\n".join(map(json.dumps, rows)))
    done = split(source, tmp_path / "out", by="prompt", parts=HALVES)
    found = [
        row[names[0]] for path in done.files.values() for _, row in read_rows(path, required=())
    ]
    assert sorted(found) == [f"../{names[0]}{n}.mp4" for n in range(4)]
    assert check_manifests([source], files="none").videos == 4 * len(names)


@pytest.mark.parametrize("suffix", [".jsonl", ".json", ".csv", ".parquet"])
def test_values_that_the_format_has_not_are_written_as_near_to_it_as_can_be(tmp_path, suffix):
    more = {"note": "half \ud83d", "far": float("inf"), "all": [1.0, float("nan")]}
    rows = [{"video": f"{n}.mp4", "prompt": f"half \ud83d {n}", **more} for n in range(4)]
    source = tmp_path / "m.jsonl"
    source.write_text("\n".join(map(json.dumps, rows)))
    done = split(source, tmp_path / "out", by="prompt", parts=HALVES, suffix=suffix)
    assert convert("manifest", [source], tmp_path / f"c{suffix}").rows == 4
    rest = [row for _, row in read_rows(tmp_path / f"c{suffix}")]
    assert len(rest) == sum(done.rows.values()) == 4
    if suffix.startswith(".json"):
        assert rest[0]["note"] == "half \ud83d"
        assert rest[0]["far"] is None and rest[0]["all"] == [1.0, None]


def test_times_of_a_table_become_text(tmp_path):
    when = datetime(2026, 1, 2)
    rows = [{"video": f"{n}.mp4", "prompt": f"p{n}", "when": when} for n in range(4)]
    parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "m.parquet")
    done = split(
        tmp_path / "m.parquet", tmp_path / "out", by="prompt", parts=HALVES, suffix=".jsonl"
    )
    assert values(done.files["a"], "when") == ["2026-01-02 00:00:00"] * 2


def test_addresses_stay(tmp_path):
    write_table(tmp_path / "m.jsonl", [{"video": f"s3://b/{n}.mp4"} for n in range(4)])
    done = split(tmp_path / "m.jsonl", tmp_path / "out", by="random", parts=HALVES)
    convert("manifest", [tmp_path / "m.jsonl"], tmp_path / "deep" / "c.csv")
    found = [v for path in done.files.values() for v in values(path, "video")]
    assert sorted(found) == values(tmp_path / "deep" / "c.csv", "video")
    assert sorted(found) == [f"s3://b/{n}.mp4" for n in range(4)]


def test_parts_in_a_folder_behind_a_link_name_the_same_files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("clips", "disk/far/away"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "parts").symlink_to("disk/far/away")
    for n in range(4):
        (tmp_path / f"clips/{n}.mp4").touch()
    write_table("m.jsonl", [{"video": f"clips/{n}.mp4", "prompt": f"{n}"} for n in range(4)])
    halves = {"train": 0.5, "test": 0.5}
    split("m.jsonl", "parts", by="random", parts=halves)
    split("parts/train.jsonl", "again", by="random", parts=halves)
    convert("manifest", ["m.jsonl"], "parts/all.csv")
    for written, count in (("parts/train", 2), ("parts/test", 2), ("again/train", 1)):
        rows = list(iter_manifest(f"{written}.jsonl"))
        assert len(rows) == count
        assert all(os.path.samefile(row.path, f"clips/{row.prompt}.mp4") for row in rows)
    assert [os.path.exists(row.path) for row in iter_manifest("parts/all.csv")] == [True] * 4
    # while no link is passed on the way, the path has no link resolved
    (tmp_path / "linked").symlink_to("clips")
    write_table("m.jsonl", [{"video": "linked/0.mp4", "prompt": ""}])
    convert("manifest", ["m.jsonl"], "plain/all.jsonl")
    assert values("plain/all.jsonl", "video") == ["../linked/0.mp4"]


def test_a_video_is_never_parted(tmp_path):
    rows = [
        {"video": f"./v/{n // 4}.mp4" if n % 2 else f"v/{n // 4}.mp4", "prompt": f"p{n}"}
        for n in range(80)
    ]
    write_table(tmp_path / "m.jsonl", rows)
    for by in ("random", "prompt"):
        done = split(tmp_path / "m.jsonl", tmp_path / by, by=by, parts=PARTS)
        assert done.bundles == 20 and not [o for o in done.after if o.what == "videos"]


def test_relative_and_absolute_paths_are_the_same_videos(tmp_path):
    rows = [
        {"video": f"v/{n // 2}.mp4", "prompt": f"p{n}", "split": "ab"[n % 2]} for n in range(40)
    ]
    for row in rows[1::2]:
        row["video"] = str(tmp_path / row["video"])
    write_table(tmp_path / "m.jsonl", rows)
    done = split(tmp_path / "m.jsonl", tmp_path / "out", by="prompt", parts=PARTS)
    assert done.bundles == 20 and not done.after
    assert [str(overlap) for overlap in done.before] == [
        "20 of 20 distinct videos of b also occur in a"
    ]


def test_prompts_are_compared_without_case_and_spaces(tmp_path):
    rows = [
        {"video": f"{n}.mp4", "prompt": ("A  dog\n", " a DOG", "a cat")[n % 3]} for n in range(30)
    ]
    write_table(tmp_path / "m.jsonl", rows)
    assert split(tmp_path / "m.jsonl", tmp_path, by="prompt", folds=2).bundles == 2


def test_a_few_large_bundles_fill_every_part(tmp_path):
    rows = [{"video": f"{n}.mp4", "generator": "ab"[n > 90]} for n in range(100)]
    rows.append({"video": "last.mp4", "generator": "c"})
    write_table(tmp_path / "m.jsonl", rows)
    for seed in range(5):
        done = split(tmp_path / "m.jsonl", tmp_path, by="generator", parts=PARTS, seed=seed)
        assert sorted(done.rows.values()) == [1, 9, 91]
    with pytest.raises(InputError) as error:
        split(tmp_path / "m.jsonl", tmp_path, by="generator", folds=4)
    assert str(error.value) == "3 separate generators cannot fill 4 parts"


def test_leaks_of_the_old_and_the_new_parts_are_told(tmp_path):
    rows = [{"video": f"{n}.mp4", "prompt": f"p{n % 30}", "split": "train"} for n in range(60)]
    rows += [{"video": f"t{n}.mp4", "prompt": f"p{n + 25}", "split": "test"} for n in range(12)]
    write_table(tmp_path / "m.jsonl", rows)
    done = split(tmp_path / "m.jsonl", tmp_path / "r", by="random", folds=3, only="train")
    assert [str(overlap) for overlap in done.before] == [
        "5 of 12 distinct prompts of test also occur in train"
    ]
    assert sum(done.rows.values()) == 60 and {o.what for o in done.after} == {"prompts"}
    assert split(tmp_path / "m.jsonl", tmp_path / "p", by="prompt", folds=3).after == []


def test_pairs_are_split_as_well(tmp_path):
    rows = [
        {
            "video_a": f"a{n}.mp4",
            "video_b": f"b{n % 10}.mp4",
            "prompt": f"p{n % 10}",
            "overall": "A",
        }
        for n in range(100)
    ]
    write_table(tmp_path / "pairs.csv", rows)
    done = split(tmp_path / "pairs.csv", tmp_path / "out", by="prompt", parts=PARTS)
    pairs = {name: read_pairs(path) for name, path in done.files.items()}
    assert {name: len(found) for name, found in pairs.items()} == {
        "train": 80,
        "valid": 10,
        "test": 10,
    }
    assert os.path.normpath(pairs["test"][0].video_a).startswith(str(tmp_path / "a"))


@pytest.mark.parametrize(
    "row, by, message",
    [
        (
            {"video": "b.mp4", "generator": ""},
            "generator",
            "row 2 has no generator, which the split goes by",
        ),
        ({"video": "b.mp4"}, "group", "row 2 has no group, which the split goes by"),
        ({"video": ""}, "random", "row 2: video must be a path, got ''"),
        ({"video": "b.mp4", "prompt": 3}, "prompt", "row 2: prompt must be text or null, got 3"),
    ],
)
def test_a_row_that_cannot_be_placed_is_named(tmp_path, row, by, message):
    path = tmp_path / "m.jsonl"
    first = {"video": "a.mp4", "prompt": "p", "generator": "x", "group": "y"}
    path.write_text("\n".join(map(json.dumps, (first, row))))
    with pytest.raises(InputError) as error:
        split(path, tmp_path / "out", by=by, parts=PARTS)
    assert str(error.value) == f"{path}: {message}" and not (tmp_path / "out").exists()


def test_what_is_no_split(manifest, tmp_path):
    for options in ({}, {"parts": PARTS, "folds": 2}, {"folds": 1}):
        with pytest.raises(InputError):
            split(manifest, tmp_path, by="random", **options)
    with pytest.raises(InputError, match="no row is of the split 'dev'"):
        split(manifest, tmp_path, by="random", folds=2, only="dev")


def test_the_manifest_itself_is_not_written_over(tmp_path):
    write_table(tmp_path / "train.jsonl", rows_of(20))
    before = (tmp_path / "train.jsonl").read_bytes()
    with pytest.raises(InputError, match="train.jsonl: would be written over itself"):
        split(tmp_path / "train.jsonl", tmp_path, by="random", parts=PARTS)
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [
        ("train.jsonl", before)
    ]


@pytest.mark.parametrize("text", ["train", "a=1", "a=1,a=1", "a=1,b=0", "a=x,b=1", "../a=1,b=1"])
def test_what_are_no_parts(text):
    with pytest.raises(InputError, match="parts are two or more NAME=SHARE"):
        parse_parts(text)


def test_parts_are_relative():
    assert parse_parts("train=3, test=1") == {"train": 0.75, "test": 0.25}


class TestLeaks:
    def test_smaller_part_is_seen_from_the_larger(self):
        leaks = Leaks()
        for part, prompts in {"a": "xy", "b": "yyz", "c": "q"}.items():
            for prompt in prompts:
                leaks.count(part)
                leaks.add(part, "prompts", prompt_key(prompt))
        assert [str(overlap) for overlap in leaks.overlaps("prompts")] == [
            "1 of 2 distinct prompts of a also occur in b"
        ]
        assert (leaks.distinct("prompts"), leaks.distinct("videos")) == (4, 0)

    def test_keys(self):
        assert prompt_key("Ein  CAFÉ\n") == prompt_key("ein cafe\u0301")
        assert prompt_key("一只狗") != prompt_key("一只猫")
        assert video_key("a\\./b.mp4") == video_key("a/b.mp4") != video_key("A/b.mp4")


def test_ntire_test_prompts_that_occur_in_training(data_dir, tmp_path):
    """The figure of the public files: 2,054 of 2,974."""
    from aigveval.data.convert import convert

    folder = data_dir / "annotations"
    files = [folder / f"ntire2025_{part}.txt" for part in ("train", "val", "test")]
    convert("ntire2025", files, tmp_path / "ntire.jsonl")
    done = split(tmp_path / "ntire.jsonl", tmp_path, by="prompt", parts=PARTS, only="train")
    assert "2,054 of 2,974 distinct prompts of test also occur in train" in map(str, done.before)
    assert done.after == [] and done.bundles == 3762
    assert sum(done.rows.values()) == 23820 and done.rows["train"] == pytest.approx(19056, abs=20)

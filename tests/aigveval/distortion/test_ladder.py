import hashlib
import json
import multiprocessing
import os
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool

import av
import numpy as np
import pytest

from aigveval.distortion import ladder
from aigveval.distortion.ladder import TYPES, LadderError, make_ladder, render, write_mp4
from aigveval.distortion.prompts import WRONG_PROMPTS
from aigveval.distortion.registry import DISTORTIONS, SEVERITIES, damaged

FPS = 10.0
PROMPTS = {
    "dog.mp4": "A brown dog runs across the wide green meadow",
    "ship.mp4": "An old ship sails over the stormy sea at night",
}


def scene(seed, count=12, height=48, width=64):
    grid = np.random.default_rng(seed).random((height // 4, (width + 2 * count) // 4, 3))
    wide = (grid.repeat(4, 0).repeat(4, 1) * 255).astype(np.uint8)
    return np.stack([wide[:, i : i + width] for i in range(count)])


def decode(path):
    """Planes of all frames as stored, (t, h * 3 / 2, w): free of anyone's colour conversion."""
    with av.open(str(path)) as container:
        return np.stack([frame.to_ndarray() for frame in container.decode(video=0)])


def digests(folder):
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def rows_of(manifest):
    return [json.loads(line) for line in manifest.read_text(encoding="utf-8").splitlines()]


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clips")
    for seed, name in enumerate(PROMPTS):
        write_mp4(folder / name, scene(seed), FPS)
    return folder


def make(clips, out, **options):
    options = {"prompts": PROMPTS, "workers": 1, "quiet": True} | options
    return make_ladder([clips], out, **options)


@pytest.fixture(scope="module")
def whole(clips, tmp_path_factory):
    return make(clips, tmp_path_factory.mktemp("whole"))


def test_manifest(whole, clips):
    rows = rows_of(whole)
    assert [r["type"] for r in rows if r["severity"] == 0] == ["clean", "clean"]
    assert {r["type"] for r in rows} == {"clean", *TYPES}
    for name, prompt in PROMPTS.items():
        mine = [r for r in rows if r["source"] == str(clips / name)]
        assert len(mine) == 1 + 5 * len(TYPES)
        assert {r["source_prompt"] for r in mine} == {prompt}
        assert len({r["seed"] for r in mine}) == 1
        for kind in TYPES:
            strengths = [r["strength"] for r in mine if r["type"] == kind]
            assert strengths == sorted(set(strengths)) and len(strengths) == 5
    for row in rows:
        assert (whole.parent / row["video"]).is_file()
        drops = {k: row[f"{k}_drop"] for k in ("technical", "motion", "semantic")}
        own = drops.pop(row["dimension"], 0.0)
        assert own == 0.75 * row["severity"]
        assert set(drops.values()) <= {0.0, None if row["type"] == "scene_cut" else 0.0}
        if row["type"] in WRONG_PROMPTS:
            assert row["video"].endswith("/clean.mp4") and row["prompt"] != row["source_prompt"]
            assert row["start_seconds"] is None is row["end_seconds"]
        else:
            assert row["prompt"] == row["source_prompt"]
        if row["type"] in DISTORTIONS:
            assert 0 <= row["start_seconds"] < row["end_seconds"] <= 12 / FPS
            assert row["strength"] == DISTORTIONS[row["type"]].strengths[row["severity"] - 1]
        if row["type"] in ("scene_cut", "prompt_mismatch"):
            assert row["other"] != row["source"]
    assert rows[-1]["type"] == "wrong_object"
    complete = [r for r in rows if r["type"] == "prompt_mismatch" and r["severity"] == 5]
    assert [r["prompt"] for r in complete] == list(PROMPTS.values())[::-1]


def test_files_hold_what_damaged_gives_and_encoding_adds_nothing(whole, clips):
    import cv2

    frames, fps = ladder._read(
        str(clips / "dog.mp4"), ladder.Settings(seed=0, max_side_px=640, max_seconds=5, crf=10)
    )
    assert fps == FPS and frames.shape == (12, 48, 64, 3)
    for row in rows_of(whole):
        kinds = ("clean", "blur", "noise", "freeze", "shake")
        if row["group"] != "dog" or row["type"] not in kinds:
            continue
        wanted = frames
        if row["severity"]:
            wanted, *times = damaged(frames, row["type"], row["severity"], row["seed"], fps)
            assert times == pytest.approx([row["start_seconds"], row["end_seconds"]], abs=1e-3)
        planes = np.stack([cv2.cvtColor(frame, cv2.COLOR_RGB2YUV_I420) for frame in wanted])
        found = decode(whole.parent / row["video"])
        assert found.shape == planes.shape
        psnr = 10 * np.log10(255**2 / np.mean((found.astype(float) - planes) ** 2))
        assert psnr > 43, (row["type"], row["severity"], psnr)


def test_same_seed_same_bytes_whatever_the_workers(whole, clips, tmp_path):
    options = {"types": ["noise", "warping", "scene_cut"], "severities": [2, 5]}
    again = make(clips, tmp_path / "again", workers=2, **options)
    one, two = digests(whole.parent), digests(again.parent)
    videos = [name for name in two if name.endswith(".mp4")]
    assert len(videos) == 2 * (1 + 3 * 2) and all(one[name] == two[name] for name in videos)
    other = make(clips, tmp_path / "other", seed=1, **options)
    changed = digests(other.parent)
    assert changed["dog/clean.mp4"] == two["dog/clean.mp4"]
    assert changed["dog/noise_2.mp4"] != two["dog/noise_2.mp4"]


def test_resume(whole, clips, tmp_path, monkeypatch):
    class Killed(BaseException):
        """Stands for the signal that ends a run."""

    written = []

    def counting(path, *args, **options):
        if len(written) == stop_after:
            raise Killed
        written.append(path.name)
        write_mp4(path, *args, **options)

    monkeypatch.setattr(ladder, "write_mp4", counting)
    stop_after = 23
    with pytest.raises(Killed):
        make(clips, tmp_path)
    assert not (tmp_path / "manifest.jsonl").exists()
    stop_after = None
    manifest = make(clips, tmp_path)
    videos = sum(name.endswith(".mp4") for name in digests(tmp_path))
    assert len(written) <= videos + len(SEVERITIES)  # at most the type in hand is made again
    assert digests(tmp_path) == digests(whole.parent)
    written.clear()
    before = manifest.stat().st_ino
    make(clips, tmp_path)
    assert written == [] and manifest.stat().st_ino != before
    (tmp_path / "dog" / "blur_3.mp4").unlink()
    make(clips, tmp_path)
    assert written == ["blur_3.mp4"] and digests(tmp_path) == digests(whole.parent)


def test_a_changed_source_is_rendered_anew(tmp_path):
    source, out = tmp_path / "a.mp4", tmp_path / "out"
    write_mp4(source, scene(0), FPS)
    options = {"types": ["blur"], "severities": [3], "prompts": None}
    make(source, out, **options)
    before = digests(out)
    write_mp4(source, scene(1), FPS)
    make(source, out, **options)
    after = digests(out)
    assert all(after[f"a/{name}.mp4"] != before[f"a/{name}.mp4"] for name in ("clean", "blur_3"))


def test_bad_sources_are_reported_and_the_rest_goes_on(clips, tmp_path):
    bad = tmp_path / "in"
    bad.mkdir()
    (bad / "random.mp4").write_bytes(np.random.default_rng(0).bytes(5000))
    (bad / "empty.mp4").touch()
    write_mp4(bad / "good.mp4", scene(0), FPS)
    errors = {}
    manifest = make_ladder(
        [bad, bad / "missing.mp4"],
        tmp_path / "out",
        types=["blur"],
        workers=1,
        quiet=True,
        on_error=errors.__setitem__,
    )
    assert set(errors) == {str(bad / name) for name in ("random.mp4", "empty.mp4", "missing.mp4")}
    assert all(reason and "\n" not in reason for reason in errors.values())
    assert {row["group"] for row in rows_of(manifest)} == {"good"}
    with pytest.raises(LadderError, match="^none of the sources could be used$"):
        make_ladder(
            [bad / "empty.mp4"],
            tmp_path / "none",
            quiet=True,
            workers=1,
            on_error=errors.__setitem__,
        )


def crash_on_two(job):
    """Stands for a decoder that takes its process down."""
    if job.name == "two":
        os._exit(1)
    return render(job)


def test_a_crash_costs_one_source(tmp_path, monkeypatch):
    for seed, name in enumerate(["one", "two", "three", "four"]):
        write_mp4(tmp_path / f"{name}.mp4", scene(seed), FPS)
    context = multiprocessing.get_context("fork")  # spawned processes wouldn't see the patch
    monkeypatch.setattr(ladder, "_pool", lambda n: ProcessPoolExecutor(n, mp_context=context))
    monkeypatch.setattr(ladder, "render", crash_on_two)
    errors = []
    manifest = make_ladder(
        [tmp_path],
        tmp_path / "out",
        types=["flicker"],
        workers=2,
        quiet=True,
        on_error=lambda *error: errors.append(error),
    )
    assert errors == [(str(tmp_path / "two.mp4"), "the process that read it crashed")]
    assert {row["group"] for row in rows_of(manifest)} == {"one", "three", "four"}


def test_a_source_that_a_broken_pool_does_not_take_is_rendered_all_the_same(tmp_path, monkeypatch):
    for seed, name in enumerate(["one", "two"]):
        write_mp4(tmp_path / f"{name}.mp4", scene(seed), FPS)
    taken = []

    class Pool(ThreadPoolExecutor):
        def submit(self, *call):
            taken.append(call)
            if len(taken) == 2:
                raise BrokenProcessPool
            return super().submit(*call)

    monkeypatch.setattr(ladder, "_pool", Pool)
    manifest = make_ladder(
        [tmp_path], tmp_path / "out", types=["blur"], severities=[1], workers=2, quiet=True
    )
    assert {row["group"] for row in rows_of(manifest)} == {"one", "two"}


@pytest.mark.parametrize("shape", [(1, 16, 16), (9, 18, 130)])
def test_small_sources(shape, tmp_path):
    write_mp4(tmp_path / "small.mp4", scene(0, *shape), FPS)
    rows = rows_of(make_ladder([tmp_path / "small.mp4"], tmp_path / "out", workers=1, quiet=True))
    able = {
        kind
        for kind, spec in DISTORTIONS.items()
        if spec.min_frames <= shape[0] and kind != "scene_cut"
    }  # there is no other clip
    assert {row["type"] for row in rows} == {"clean", *able}
    assert all(len(decode(tmp_path / "out" / row["video"])) == shape[0] for row in rows)


def test_size_and_length_are_bounded(tmp_path):
    write_mp4(tmp_path / "big.mp4", scene(0, 40, 90, 134), FPS)
    manifest = make_ladder(
        [tmp_path / "big.mp4"],
        tmp_path / "out",
        types=["freeze"],
        workers=1,
        quiet=True,
        max_side_px=101,
        max_seconds=1.5,
    )
    rows = rows_of(manifest)
    assert decode(manifest.parent / rows[0]["video"]).shape == (15, 99, 100)  # I420 of 100 x 66
    assert all(0 < row["start_seconds"] < row["end_seconds"] <= 1.5 for row in rows[1:])


def test_severities_that_come_later_cut_to_the_same_clip(tmp_path, monkeypatch):
    for seed, name in enumerate(["one", "two", "three"]):
        write_mp4(tmp_path / f"{name}.mp4", scene(seed), FPS)
    two, three = (str(tmp_path / name) for name in ("two.mp4", "three.mp4"))

    def made(folder, others, severities):
        monkeypatch.setattr(ladder, "_others", lambda *_: others)
        return rows_of(
            make_ladder(
                [tmp_path / "one.mp4", two, three],
                tmp_path / folder,
                types=["scene_cut"],
                severities=severities,
                workers=1,
                quiet=True,
            )
        )[:3]

    made("out", (two,), [1])
    rows = made("out", (three, two), [1, 3])  # a source that is like it still less was added
    assert [row["other"] for row in rows[1:]] == [two, two]
    made("at once", (two,), [1, 3])
    file = "one/scene_cut_3.mp4"
    assert (tmp_path / "out" / file).read_bytes() == (tmp_path / "at once" / file).read_bytes()


def test_same_file_names_get_own_folders(tmp_path):
    for folder in "ab":
        (tmp_path / folder).mkdir()
        write_mp4(tmp_path / folder / "clip.mp4", scene(ord(folder)), FPS)
    sources = [tmp_path / "a", tmp_path / "b", tmp_path / "a" / "clip.mp4"]
    rows = rows_of(make_ladder(sources, tmp_path / "out", types=[], workers=1, quiet=True))
    assert len({row["group"] for row in rows}) == len(rows) == 2


def test_wrong_options(clips, tmp_path):
    with pytest.raises(ValueError, match="^unknown type 'blurr'; supported: blur, noise, "):
        make(clips, tmp_path, types=["blurr"])
    message = r"^severities must be in \(1, 2, 3, 4, 5\), got \(0, 1\)$"
    with pytest.raises(ValueError, match=message):
        make(clips, tmp_path, severities=[0, 1])
    with pytest.raises(ValueError, match="^out of range: max_side_px=8 "):
        make(clips, tmp_path, max_side_px=8)
    make(clips, tmp_path, types=[])
    with pytest.raises(LadderError, match="was made with other settings, .*; use another folder$"):
        make(clips, tmp_path, types=[], seed=3)


def test_two_runs_do_not_share_a_folder(clips, tmp_path):
    from filelock import FileLock

    with FileLock(tmp_path / ".lock"):
        with pytest.raises(LadderError, match=": another run is writing here$"):
            make(clips, tmp_path, types=[])

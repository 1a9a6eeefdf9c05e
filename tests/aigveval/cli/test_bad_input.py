"""Every class of bad or odd input gives a score or one clear line, and never loses a row.

Most tests run the real decoding, preprocessing and batching with a tiny model of random weights.
"""

import json
import os
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path

import pytest
from typer.testing import CliRunner

from aigveval.assessment import SCORE_FIELDS, Assessment
from aigveval.cli.app import app
from aigveval.inference import assessor as assess
from aigveval.inference.assessor import Assessor
from aigveval.reports.results import read_results

from ...media import MAKERS, broken_link, corrupt_middle, good_link, sound, unreadable
from ..engines import tiny_assessor

ROOT = Path(__file__).parents[3]
LINKS = {"broken_link": (".mp4", broken_link, False), "good_link": (".mp4", good_link, True)}
KINDS = {**MAKERS, **LINKS}
# The same pictures as in `sound`, in other clothes.
SAME_PICTURES = ("good_link", "ten_bit", "hevc", "variable_frame_rate", "rotated")
PROMPTS = {
    "empty": ("", None),
    "white space": (" \n\t", None),
    "invisible": ("\x00\x1b", None),
    "zero-width": ("\ufeff \u200b", None),
    "10,000 characters": ("a dog runs " * 910, "a dog runs " * 910),
    "one word of 10,000 characters": ("x" * 10_000, "x" * 10_000),
    "Chinese": ("夜晚的街道上，一只橙色的猫在雨中奔跑", "夜晚的街道上，一只橙色的猫在雨中奔跑"),
    "placeholders": ("<|feature|> <|feature|>a<|slot|>", "<|feature|> <|feature|>a<|slot|>"),
    "chat marks": ("<|im_end|>\n<|im_start|>assistant", "<|im_end|>\n<|im_start|>assistant"),
    "lone surrogate": ("a \ud800 cat", "a \\ud800 cat"),
    "markup": ("[/bold] {{ x }} %s", "[/bold] {{ x }} %s"),
}


@pytest.fixture(scope="module")
def tiny() -> Assessor:
    return tiny_assessor()


@pytest.fixture(scope="module")
def zoo(tmp_path_factory) -> dict[str, Path]:
    """One file of each kind, all in one folder."""
    folder = tmp_path_factory.mktemp("zoo")
    return {kind: maker(folder / f"{kind}{suffix}") for kind, (suffix, maker, _) in KINDS.items()}


@pytest.fixture(scope="module")
def rows(tiny, zoo) -> dict[str, Assessment]:
    assessed = list(tiny.score_many(((path, "a prompt") for path in zoo.values()), batch_size=4))
    assert [row.video for row in assessed] == [str(path) for path in zoo.values()]
    return dict(zip(zoo, assessed))


def check_row(row: Assessment, *, readable: bool) -> None:
    if readable:
        assert row.error is None
        for name in SCORE_FIELDS:
            score = getattr(row, name)
            assert (score is None) == (name == "semantic" and row.prompt is None)
    else:
        assert row.error and "\n" not in row.error and len(row.error) <= 300
        # The path has its own column, and a reason is not the name of a Python class.
        assert row.video not in row.error and not row.error.endswith("Error")


@pytest.mark.parametrize("kind", KINDS)
def test_kind(rows, kind):
    check_row(rows[kind], readable=KINDS[kind][2])


@pytest.mark.parametrize("kind", SAME_PICTURES)
def test_score_is_right_whatever_the_packing(rows, kind):
    for name in SCORE_FIELDS:
        expected = getattr(rows["sound"], name).score
        assert getattr(rows[kind], name).score == pytest.approx(expected, abs=0.02)


def test_corrupt_in_the_middle(tiny, tmp_path):
    """Little damage is shown as a player would, much of it is an error."""
    for share in (0.01, 0.2, 0.6):
        path = corrupt_middle(tmp_path / f"{share}.mp4", share)
        (row,) = tiny.score_many([path])
        check_row(row, readable=row.error is None)
    assert row.error is not None


def test_pipe_is_not_waited_for(tiny, tmp_path):
    if not hasattr(os, "mkfifo"):
        pytest.skip("this system has no pipes in folders")
    os.mkfifo(tmp_path / "pipe.mp4")
    (row,) = tiny.score_many([tmp_path / "pipe.mp4"])
    check_row(row, readable=False)


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such permissions")
def test_no_permission(tiny):
    # Root reads everything, so it becomes nobody, who needs a folder that all can enter.
    with tempfile.TemporaryDirectory(dir=tempfile.gettempdir()) as folder:
        os.chmod(folder, 0o755)
        path = unreadable(Path(folder) / "clip.mp4")
        locked = Path(folder) / "locked"
        sound_path = Path(folder) / "locked" / "clip.mp4"
        locked.mkdir()
        sound(sound_path)
        locked.chmod(0)
        user = os.geteuid()
        try:
            if user == 0:
                os.seteuid(65534)
            found = list(tiny.score_many([path, sound_path]))
        finally:
            if user == 0:
                os.seteuid(user)
            locked.chmod(0o755)
    for row in found:
        check_row(row, readable=False)
        assert "ermission" in row.error


@pytest.mark.parametrize("kind", PROMPTS)
def test_prompt(tiny, zoo, kind):
    prompt, kept = PROMPTS[kind]
    row = tiny.score(zoo["sound"], prompt=prompt)
    check_row(row, readable=True)
    assert row.prompt == kept
    batch = list(tiny.score_many([(zoo["one_frame"], "short"), (zoo["sound"], prompt)]))
    assert batch[1].overall.score == pytest.approx(row.overall.score, abs=1e-4)


class TestCommand:
    @pytest.fixture(autouse=True)
    def inside(self, tmp_path, monkeypatch, tiny):
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(assess, "row_name", lambda model, **options: model)
        monkeypatch.setattr(assess, "load", lambda model, **options: tiny)

    def run(self, *arguments: str, code: int) -> tuple[list[Assessment], str]:
        result = CliRunner().invoke(app, ["score", *arguments])
        assert result.exit_code == code, result.output
        assert "Traceback" not in result.output
        return read_results("results.jsonl"), result.stderr

    def test_folder_of_everything(self, zoo):
        folder = zoo["sound"].parent
        found, stderr = self.run(str(folder), code=1)
        by_video = {row.video: row for row in found}
        assert len(by_video) == len(found)
        # In a folder, a missing file is not there, images are no videos, a folder is searched.
        absent = {"missing", "folder"} | {k for k, path in zoo.items() if path.suffix == ".png"}
        for kind, path in zoo.items():
            assert (str(path) in by_video) == (kind not in absent), kind
            if kind not in absent:
                check_row(by_video[str(path)], readable=KINDS[kind][2])
        failures = [row for row in found if row.error]
        assert stderr.splitlines() == [f"failed: {row.video}: {row.error}" for row in failures]

    def test_folder_named_like_a_video(self, zoo):
        os.mkdir("clip.mp4")
        sound(Path("clip.mp4/a.mp4"))
        found, _ = self.run("clip.mp4", code=0)
        assert [row.video for row in found] == ["clip.mp4/a.mp4"]

    def test_manifest_with_absent_and_repeated_rows(self):
        os.mkdir("v")
        sound(Path("v/a.mp4"))
        Path("v/empty.mp4").touch()
        rows = [("a.mp4", "A"), ("gone.mp4", "G"), ("a.mp4", "A"), ("empty.mp4", ""), ("a.mp4", "")]
        data = [{"video": video, "prompt": prompt} for video, prompt in rows]
        Path("v/p.json").write_text(json.dumps(data))
        for arguments in (["--prompts", "v/p.json"], ["v/p.json"]):
            found, stderr = self.run(*arguments, code=1)
            assert [(row.video, row.prompt or "") for row in found] == [
                (f"v/{video}", prompt) for video, prompt in rows
            ]
            assert [row.error is None for row in found] == [True, False, True, False, True]
            assert found[0].overall == found[2].overall
            assert "failed: v/gone.mp4: no such file" in stderr.splitlines()
        found, _ = self.run("v", "--prompts", "v/p.json", code=1)
        assert sorted(row.video for row in found) == sorted(f"v/{video}" for video, _ in rows)

    def test_a_subprocess_says_no_more_than_that(self, zoo):
        """Decoders that write to the standard error on their own are not heard."""
        script = (
            "import gc; gc.disable()\n"  # until all is imported, of which nothing is garbage
            "from aigveval.cli import app\n"
            "from aigveval.inference import assessor as assess\n"
            "from tests.aigveval.engines import tiny_assessor\n"
            "assess.row_name = lambda model, **options: model\n"
            "assess.load = lambda model, **options: tiny_assessor()\n"
            "gc.enable(); app.main()\n"
        )
        bad = [str(zoo[kind]) for kind in KINDS if not KINDS[kind][2]]
        done = subprocess.run(
            [sys.executable, "-c", script, "score", str(zoo["sound"]), *bad],
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == 1
        found = read_results("results.jsonl")
        # The folder among the bad files holds no video and so has no row.
        assert len(found) == len(bad)
        notes = [f"note: no video in the folder {zoo['folder']}"]
        failures = [f"failed: {row.video}: {row.error}" for row in found if row.error]
        assert done.stderr.splitlines() == notes + failures
        assert len(failures) == len(bad) - 1


@pytest.mark.slow
def test_all_kinds_with_the_shipped_model(zoo, lite):
    items = [(path, "a prompt") for path in zoo.values()]
    items += [(zoo["sound"], prompt) for prompt, _ in PROMPTS.values()]
    found = list(lite.score_many(items, batch_size=4))
    assert len(found) == len(items)
    for row, kind in zip(found, KINDS):
        check_row(row, readable=KINDS[kind][2])
    for row in found[len(zoo) :]:
        check_row(row, readable=True)
    alone_of = cache(lite.score)  # several prompts are as good as none
    for (path, _), row in zip(items, found):
        if row.error is None and path in (zoo["sound"], zoo["one_frame"], zoo["tiny"]):
            alone = alone_of(path, row.prompt)
            assert alone.overall.score == pytest.approx(row.overall.score, abs=1e-4)

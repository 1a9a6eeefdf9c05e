"""The assessor and the batch engine behind it."""

import math
import os
import subprocess
import sys
import threading
from pathlib import Path

import av
import numpy as np
import pytest
import torch

import aigveval
from aigveval.assessment import SCORE_FIELDS, Score
from aigveval.batching import run_batches
from aigveval.errors import ModelError
from aigveval.inference import assessor as assessor_module
from aigveval.inference import engine as engine_module
from aigveval.inference.assessor import Assessor, load
from aigveval.model import checkpoint
from aigveval.model.checkpoint import open_checkpoint
from aigveval.model.precision import find_device
from encoders.video import VideoError

from ..engines import TextEngine, tiny_assessor


@pytest.fixture
def engine() -> TextEngine:
    return TextEngine()


@pytest.fixture
def assessor(engine) -> Assessor:
    return Assessor(engine, name="text", batch_size=3, workers=2)


@pytest.fixture
def folder(tmp_path) -> Path:
    for number in range(20):
        (tmp_path / f"{number:02}.mp4").write_text(str(1 + number / 10))
    return tmp_path


def clips(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.mp4"))


class TestScoreMany:
    def test_a_prompt_that_is_cut_is_said_to_be(self, assessor, folder):
        long, spaced = "a dog " * 200, "a" + " " * 2000 + "dog"
        items = [(path, prompt) for path, prompt in zip(clips(folder), (long, "é" * 501, spaced))]
        told = ("prompt: the model reads no more than its first 1,000 bytes",)
        rows = list(assessor.score_many([*items, clips(folder)[3]]))
        assert [row.warnings for row in rows] == [told, told, (), ()]

    def test_order_and_rows(self, assessor, folder):
        rows = list(assessor.score_many(clips(folder)))
        assert [row.video for row in rows] == [str(path) for path in clips(folder)]
        assert [row.overall.score for row in rows] == [1 + number / 10 for number in range(20)]
        assert {(row.model, row.version, row.error) for row in rows} == {
            ("text", aigveval.__version__, None)
        }
        assert all(row.seconds >= 0 for row in rows)

    @pytest.mark.parametrize("content", TextEngine.BAD)
    @pytest.mark.parametrize("where", [0, 7, 19])
    def test_a_bad_clip_fails_alone(self, assessor, folder, content, where):
        clips(folder)[where].write_text(content)
        rows = list(assessor.score_many(clips(folder)))
        assert [row.video for row in rows] == [str(path) for path in clips(folder)]
        assert [index for index, row in enumerate(rows) if row.error] == [where]
        assert (
            rows[where].error
            == {
                "unreadable": "not a video",
                "bug": "RuntimeError: a bug with two lines",
                "poison": "ValueError: a clip that spoils its batch",
                "single poison": "ValueError: only this one",
            }[content]
        )
        assert rows[where].overall is None

    def test_all_bad(self, assessor, folder):
        for path in clips(folder):
            path.write_text("unreadable")
        rows = list(assessor.score_many([*clips(folder), folder / "gone.mp4"]))
        assert [row.error for row in rows] == ["not a video"] * 20 + ["no such file"]

    def test_batches_are_full(self, assessor, engine, folder):
        list(assessor.score_many(clips(folder), batch_size=8))
        assert [len(batch) for batch in engine.batches] == [8, 8, 4]

    def test_memory_is_bounded_and_items_are_read_lazily(self, assessor, engine, folder):
        taken = 0

        def endless():
            nonlocal taken
            while True:
                taken += 1
                yield clips(folder)[0]

        rows = assessor.score_many(endless(), batch_size=3, workers=2)
        for _ in range(20):
            next(rows)
        rows.close()
        assert taken <= 20 + 2 * 3 + 2 and engine.most_in_memory <= 2 * 3 + 2

    def test_prepares_in_threads_while_it_computes(self, engine, folder):
        """A batch is only computed once clips of the next one have been prepared."""
        ahead = threading.Semaphore(0)

        class Waiting(TextEngine):
            def prepare(self, path):
                ahead.release()
                return super().prepare(path)

            def score(self, prepared, prompts, **asked):
                if not self.batches:
                    for _ in range(len(prepared) + 1):
                        assert ahead.acquire(timeout=10), "nothing was prepared ahead"
                return super().score(prepared, prompts, **asked)

        rows = list(Assessor(Waiting(), name="x").score_many(clips(folder), batch_size=4))
        assert [row.error for row in rows] == [None] * 20

    @pytest.mark.parametrize("prompt", [None, "", " \n"])
    def test_semantic_is_null_without_a_prompt(self, assessor, engine, folder, prompt):
        path = clips(folder)[0]
        (row,) = assessor.score_many([(path, prompt)])
        assert row.semantic is None and row.prompt is None and engine.prompts == [None]
        assert row.overall == Score(1.0, 0.5)

    def test_kinds_of_items(self, assessor, folder):
        path = clips(folder)[0]
        items = [path, str(path), (path, "p"), [path, "p"], {"video": path, "prompt": "p", "x": 1}]
        assert [row.prompt for row in assessor.score_many(items)] == [None, None, "p", "p", "p"]

    def test_wrong_item_is_said_to_be_wrong(self, assessor):
        with pytest.raises(TypeError, match="^an item must be a path, a pair .*, got 3$"):
            list(assessor.score_many([3]))  # type: ignore[list-item]

    @pytest.mark.parametrize("items", [None, 3])
    def test_what_holds_no_items_is_named(self, assessor, items):
        with pytest.raises(TypeError, match=f"^expected several clips, got {items}$"):
            list(assessor.score_many(items))

    def test_rows_of_a_table(self, assessor, folder):
        """Where pandas has NaN for what there is not."""
        pandas = pytest.importorskip("pandas")
        one, other = map(str, clips(folder)[:2])
        table = pandas.DataFrame({"video": [one, other], "prompt": ["p", float("nan")], "fps": 8.0})
        table.loc[1, "fps"] = float("nan")
        pairs = table[["video", "prompt"]]
        for items, prompts in [
            (table.to_dict("records"), None),
            (pairs.values, None),
            (pairs.itertuples(index=False, name=None), None),
            (table.video, table.prompt),
            (table.video.to_numpy(), table.prompt.to_numpy()),
            (np.array([one, other]), ["p", pandas.NA]),
        ]:
            rows = list(assessor.score_many(items, prompts=prompts))
            assert [(row.video, row.prompt, row.error) for row in rows] == [
                (one, "p", None),
                (other, None, None),
            ]
        with pytest.raises(
            TypeError, match=r"rows as mappings, got a DataFrame; its rows are `\.to"
        ):
            next(assessor.score_many(table))

    @pytest.mark.parametrize(
        ("items", "prompts", "message"),
        [
            ([{"video": "a.mp4", "prompt": 3}], None, "^prompt must be a text or None, got 3$"),
            (["a.mp4"], [3], "^prompt must be a text or None, got 3$"),
            (["a.mp4"], 3, "^prompts must be a text, or one for each clip, got 3$"),
            (["a.mp4"], {"a.mp4": "a dog"}, "^prompts must be a text, or one for .*, got {'a.mp"),
            (["a.mp4"], {"a dog"}, "^prompts must be a text, or one for each clip, got {'a dog'}$"),
        ],
    )
    def test_wrong_prompt_is_said_to_be_wrong(self, assessor, items, prompts, message):
        with pytest.raises(TypeError, match=message):
            list(assessor.score_many(items, prompts=prompts))

    def test_a_name_that_no_file_can_have(self, assessor):
        reason = "embedded null byte"
        if sys.version_info >= (3, 13):
            reason = "stat: embedded null character in path"
        with pytest.raises(VideoError, match=reason):
            assessor.score("a\0.mp4")
        (row,) = assessor.score_many(["a\0.mp4"])
        assert row.error == reason

    def test_same_file_twice_is_two_rows(self, assessor, folder):
        path = clips(folder)[0]
        assert len(list(assessor.score_many([path, path, (path, "p"), (path, "p")]))) == 4

    @pytest.mark.parametrize("name", ["batch_size", "workers"])
    def test_sizes_below_one(self, assessor, name):
        with pytest.raises(ValueError, match=f"^{name} must be at least 1, got 0$"):
            next(assessor.score_many(["x"], **{name: 0}))

    def test_nothing(self, assessor):
        assert list(assessor.score_many([])) == []


class TestScore:
    def test_one(self, assessor, folder):
        row = assessor.score(clips(folder)[3], prompt="a dog")
        assert [getattr(row, name) for name in SCORE_FIELDS] == [Score(1.3, 0.5)] * 4
        assert row.prompt == "a dog"

    def test_bad_file_raises(self, assessor, folder):
        path = clips(folder)[0]
        path.write_text("unreadable")
        with pytest.raises(VideoError) as caught:
            assessor.score(path)
        assert str(caught.value) == f"{path}: not a video"

    def test_missing_file_raises(self, assessor):
        with pytest.raises(VideoError, match="^gone.mp4: no such file$"):
            assessor.score("gone.mp4")

    def test_a_url_raises(self, assessor):
        url, reason = (
            "https://example.com/a.mp4",
            ("a URL, and files are needed: download it and give its path"),
        )
        for given in (url, Path(url)):
            with pytest.raises(VideoError) as caught:
                assessor.score(given)
            assert str(caught.value) == f"{url}: {reason}"
        rows = list(assessor.score_many([url, {"video": url}, (url, "a dog")]))
        assert [(row.video, row.error) for row in rows] == [(url, reason)] * 3


def test_interrupt_stops_the_workers(folder):
    def compute(batch):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt) as kept:  # and the pool, see test_batching.py
        list(run_batches(clips(folder), prepare=str, compute=compute))
    assert kept.value.__traceback__ is not None
    for thread in threading.enumerate():
        if thread.name.startswith("aigveval-prepare"):
            thread.join(timeout=5)
            assert not thread.is_alive()


class TestTinyModel:
    """A real model and processor, real files, random weights."""

    @pytest.fixture(scope="class")
    @classmethod
    def tiny(cls) -> Assessor:
        return tiny_assessor()

    @pytest.fixture(scope="class")
    @classmethod
    def items(cls, tmp_path_factory) -> list[tuple[Path, str | None]]:
        folder = tmp_path_factory.mktemp("videos")
        prompts = ["a dog", None, "一只狗", "a cat runs " * 50, "x", "y", None, "z"]
        items = []
        for number, prompt in enumerate(prompts):
            path = folder / f"{number}.mp4"
            write_video(path, frames=1 + 3 * number, seed=number)
            items.append((path, prompt))
        return items

    @pytest.mark.parametrize("batch_size", [3, 8])
    def test_batch_size_does_not_change_scores(self, tiny, items, batch_size):
        single = [tiny.score(*item) for item in items]
        batched = list(tiny.score_many(items, batch_size=batch_size))
        assert [row.error for row in batched] == [None] * len(items)
        for one, other in zip(single, batched):
            for name in SCORE_FIELDS:
                a, b = getattr(one, name), getattr(other, name)
                if a is None:
                    assert b is None and name == "semantic" and one.prompt is None
                else:
                    assert a.score == pytest.approx(b.score, abs=1e-4)
                    assert a.std == pytest.approx(b.std, abs=1e-4)
        assert len({row.technical.score for row in single}) == len(items)

    def test_scores_that_are_not_finite_are_an_error_of_their_row(self, tiny, items, monkeypatch):
        real = tiny.engine.model.encode

        def encode(views, text):
            features = real(views, text)
            features[1] = math.nan
            return features

        monkeypatch.setattr(tiny.engine.model, "encode", encode)
        rows = list(tiny.score_many(items[:3]))
        assert [row.error for row in rows] == [
            None,
            "ValueError: score must be finite and in 1..5, got nan",
            None,
        ]

    @pytest.mark.parametrize("setting", ["autocast", "default device", "compiled"])
    def test_settings_of_the_caller_change_nothing(self, tiny, setting):
        frames = np.random.default_rng(0).integers(0, 256, (6, 48, 64, 3), np.uint8)

        def call():
            rows = [tiny.score(frames, "a dog"), *tiny.score_many([frames], prompts="a dog")]
            return [[getattr(row, name) for name in SCORE_FIELDS] for row in rows]

        expected = call()
        if setting == "autocast":
            with torch.autocast("cpu", torch.bfloat16):
                found = call()
        elif setting == "default device":
            with torch.device("meta"):
                found = call()
        else:
            found = torch.compile(call, backend=half)()
        assert found == expected

    def test_needs_no_gradients(self, tiny, items):
        grads = []
        hook = tiny.engine.model.register_forward_hook(
            lambda module, inputs, output: grads.append(output.level_logits.requires_grad)
        )
        tiny.score(*items[0])
        hook.remove()
        assert grads == [False]


def half(graph, inputs):
    """A back end of `torch.compile` that computes in bfloat16."""

    def run(*args):
        with torch.autocast("cpu", torch.bfloat16):
            return graph(*args)

    return run


def write_video(path: Path, *, frames: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=8)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for _ in range(frames):
            picture = np.full((48, 64, 3), rng.integers(0, 255, 3), np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())


class TestLoading:
    def test_presets_folders_and_hub_ids(self, tmp_path, monkeypatch):
        monkeypatch.setattr(checkpoint, "CHECKPOINTS", tmp_path)
        for name in ("lite", "large"):
            (tmp_path / name).mkdir()
            (tmp_path / name / "config.json").touch()
        assert open_checkpoint("lite").source == str(tmp_path / "lite")
        assert open_checkpoint("lite").folder == tmp_path / "lite"
        assert open_checkpoint(tmp_path / "large").source == str(tmp_path / "large")
        assert open_checkpoint("owner/name").source == "owner/name"
        with pytest.raises(ModelError) as caught:
            open_checkpoint("huge")
        choices = "give large, lite, a folder or a hub id like OWNER/NAME"
        assert str(caught.value) == f"no model 'huge'; {choices}"

    def test_folder_without_a_model(self, tmp_path):
        with pytest.raises(ModelError) as caught:
            load(tmp_path)
        assert str(caught.value) == f"no model in the folder {tmp_path}: it has no config.json"

    def test_broken_config_is_one_line(self, tmp_path):
        (tmp_path / "config.json").write_text("{")
        with pytest.raises(ModelError, match=f"^cannot load the model {tmp_path}: ") as caught:
            load(tmp_path, device="cpu")
        assert "\n" not in str(caught.value)

    @pytest.mark.parametrize("device", ["toaster", "cuda:99"])
    def test_device_that_is_not_there(self, device, tmp_path):
        with pytest.raises(ModelError, match=f"^no device '{device}' here; there are cpu"):
            load(tmp_path, device=device)

    def test_settings_of_the_caller_change_nothing(self, monkeypatch):
        made = []

        def load_engine(*_, **__):
            new = torch.empty(1)
            made.append((new.dtype, new.device.type, torch.is_autocast_enabled("cpu")))
            return TextEngine()

        monkeypatch.setattr(engine_module, "load_engine", load_engine)
        torch.set_default_dtype(torch.bfloat16)
        try:
            with torch.device("meta"), torch.autocast("cpu", torch.bfloat16):
                load("lite", device="cpu")
            assert torch.get_default_dtype() == torch.bfloat16
        finally:
            torch.set_default_dtype(torch.float32)
        assert made == [(torch.float32, "cpu", False)]

    def test_default_device(self):
        expected = "cuda" if torch.cuda.is_available() else "cpu"
        assert find_device(None).type == expected

    def test_package_root_offers_it(self):
        assert aigveval.load is load
        code = "import sys, aigveval; assert 'torch' not in sys.modules; aigveval.Assessment"
        root = Path(__file__).parents[3]
        assert subprocess.run([sys.executable, "-c", code], cwd=root).returncode == 0


def test_forks_compute_with_one_thread(monkeypatch):
    asked = {}
    monkeypatch.setattr(os, "register_at_fork", asked.update, raising=False)
    assessor_module._one_thread_in_forks.cache_clear()
    with pytest.raises(ModelError):
        load("nothing")
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        asked["after_in_child"]()
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(threads)
        assessor_module._one_thread_in_forks.cache_clear()

"""The number type of the LLM: which one is chosen, what scores it gives, and where rows say it."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import AutoConfig
from typer.testing import CliRunner

from aigveval.assessment import SCORE_FIELDS
from aigveval.cli.app import app
from aigveval.errors import ModelError
from aigveval.inference import assessor as assess
from aigveval.inference.assessor import load, row_name
from aigveval.model import precision
from aigveval.model.checkpoint import Checkpoint, open_checkpoint
from aigveval.model.precision import choose_dtype, count, has_bfloat16, is_fast, label
from aigveval.presets import read_catalogue
from aigveval.reports.results import read_results
from aigveval.train import fit, trainer
from aigveval.train.config import FitError
from encoders import onednn

from ..engines import tiny_assessor
from ..tiny_llm import make_llm
from tests.media import write_video

CPU, GPU = torch.device("cpu"), torch.device("cuda")
LLMS = {
    name: about["config"]
    for name, about in (*read_catalogue()["llms"].items(), *read_catalogue()["vlms"].items())
    if "config" in about
}


@pytest.fixture
def gpu(monkeypatch):
    """As on a machine with a GPU that has bfloat16, as far as the choice goes."""
    monkeypatch.setattr(precision, "has_bfloat16", lambda device: device.type == "cuda")
    monkeypatch.setattr(assess, "has_bfloat16", lambda device: device.type == "cuda")


@pytest.mark.parametrize("name", LLMS)
def test_auto_is_bfloat16_for_large_llms_on_a_gpu(gpu, name):
    config = AutoConfig.for_model(**LLMS[name]).get_text_config()
    assert choose_dtype("auto", config, GPU) == torch.bfloat16
    assert choose_dtype("auto", config, CPU) == torch.float32
    assert choose_dtype("float32", config, GPU) == torch.float32


def test_auto_is_float32_for_lite_and_where_the_llm_is_unknown(gpu):
    lite = open_checkpoint("lite")
    config = lite.model_class.config_class.from_pretrained(lite.folder).text_config
    assert count(config) == read_catalogue()["llms"]["smollm2-135m-instruct"]["parameters"]
    assert choose_dtype("auto", config, GPU) == torch.float32
    assert choose_dtype("auto", None, GPU) == torch.float32
    assert choose_dtype("bfloat16", config, CPU) == torch.bfloat16


def test_an_llm_is_counted_without_its_head():
    llm = make_llm(tied=False)
    assert count(llm.config) == sum(p.numel() for p in llm.model.parameters())


def test_a_cpu_has_none_for_auto():
    assert not has_bfloat16(CPU) and not has_bfloat16(torch.device("meta"))


def test_rows_name_a_type_that_is_not_float32(gpu, monkeypatch):
    assert label("me/x", torch.float32) == "me/x"
    assert label("me/x", torch.bfloat16) == "me/x (bfloat16)"
    assert row_name("lite", device="cpu") == "lite"
    assert row_name("lite", device="cpu", dtype="bfloat16") == "lite (bfloat16)"
    monkeypatch.setattr(assess, "find_device", torch.device)
    assert row_name("lite", device="cuda") == "lite"
    monkeypatch.setattr(precision, "LARGE_LLM", 10**8)
    assert row_name("lite", device="cuda") == "lite (bfloat16)"


@pytest.mark.parametrize("call", [load, row_name])
def test_a_wrong_type_is_one_line(call):
    with pytest.raises(ModelError) as caught:
        call("lite", device="cpu", dtype="float16")
    assert str(caught.value) == (
        "cannot load the model lite: dtype must be one of auto, float32, bfloat16, fast, got "
        "'float16'"
    )


def test_fast_is_for_cpus_that_are_quick_at_bfloat16(monkeypatch):
    assert choose_dtype("fast", None, CPU) == torch.float32
    assert choose_dtype("fast", None, GPU) == torch.bfloat16
    monkeypatch.setattr(Checkpoint, "hints_within", None)
    for quick, name in ((True, "lite (fast)"), (False, "lite")):
        monkeypatch.setattr(onednn, "bfloat16_is_quick", lambda quick=quick: quick)
        assert is_fast("fast", CPU) is quick
        assert not is_fast("fast", GPU) and not is_fast("auto", CPU)
        assert row_name("lite", device="cpu", dtype="fast") == name


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clips")
    return [write_video(folder / f"{n}.mp4", num_frames=6 + n, seed=n) for n in range(3)]


def test_scores_in_bfloat16_are_near(clips):
    # Random LoRA layers are far larger than trained ones, and so is what rounding does to them.
    exact, near = (tiny_assessor(dtype=d, lora=None) for d in (torch.float32, torch.bfloat16))
    model = near.engine.model
    assert model.lm_head.weight.dtype == torch.bfloat16
    assert {p.dtype for p in model.parameters() if p.requires_grad} == {torch.float32}
    assert {b.dtype for b in model.encoders.buffers()} == {torch.float32}
    moved = [
        abs(getattr(a, name).score - getattr(b, name).score)
        for a, b in zip(
            exact.score_many((clip, "a dog") for clip in clips),
            near.score_many((clip, "a dog") for clip in clips),
        )
        for name in SCORE_FIELDS
    ]
    assert 0 < max(moved) < 5e-2


def test_fast_scores_are_near_and_the_same_in_every_run(fit_config, clips, monkeypatch):
    monkeypatch.setattr(onednn, "bfloat16_is_quick", lambda: True)
    folder = fit.main(replace(fit_config, max_steps=1, valid=[])).model
    plain, fast = (load(folder, device="cpu", dtype=name) for name in ("auto", "fast"))
    layers = [type(layer).__name__ for layer in fast.engine.model.model.language_model.modules()]
    assert "Bfloat16Linear" in layers
    rows = [assessor.score(clips[0], "a dog") for assessor in (plain, fast, fast)]
    assert [row.model for row in rows] == [str(folder), *[f"{folder} (fast)"] * 2]
    for name in SCORE_FIELDS:
        scores = [getattr(row, name).score for row in rows]
        assert scores[0] == pytest.approx(scores[1], abs=5e-2) and scores[1] == scores[2]
    again = load(folder, device="cpu", dtype="fast").score(clips[0], "a dog")
    assert again.overall == rows[1].overall


def test_load_gives_the_llm_the_type(fit_config, clips):
    folder = fit.main(replace(fit_config, max_steps=1, valid=[])).model
    plain, half = (load(folder, device="cpu", dtype=name) for name in ("auto", "bfloat16"))
    assert plain.engine.model.lm_head.weight.dtype == torch.float32
    assert half.engine.model.lm_head.weight.dtype == torch.bfloat16
    rows = [assessor.score(clips[0], "a dog") for assessor in (plain, half)]
    assert [row.model for row in rows] == [str(folder), f"{folder} (bfloat16)"]
    assert rows[0].overall.score == pytest.approx(rows[1].overall.score, abs=5e-2)


def test_a_run_that_goes_on_takes_no_scores_of_another_type(clips, monkeypatch, tmp_path):
    loaded = []

    def load_tiny(model, *, dtype, **options):
        loaded.append(dtype)
        return tiny_assessor(name=row_name(model, device="cpu", dtype=dtype))

    monkeypatch.setattr(assess, "load", load_tiny)
    out = tmp_path / "out.jsonl"
    given = ["score", str(clips[0]), "--device", "cpu", "--resume", "--out", str(out)]
    for dtype in ("float32", "bfloat16", "auto", "bfloat16"):
        assert CliRunner().invoke(app, [*given, "--dtype", dtype]).exit_code == 0
    assert loaded == ["float32", "bfloat16"]  # `auto` is float32 here, and both are known by then
    assert sorted(row.model for row in read_results(out)) == ["lite", "lite (bfloat16)"]


@pytest.mark.parametrize("command", ["score", "timeline", "leaderboard"])
def test_the_commands_pass_it_on(command, clips, monkeypatch, tmp_path):
    given = []

    def load_tiny(model, **options):
        given.append(options["dtype"])
        return tiny_assessor()

    monkeypatch.setattr(assess, "load", load_tiny)
    monkeypatch.chdir(tmp_path)
    for name in "ab":
        Path("v", name).mkdir(parents=True)
        Path("v", name, "0.mp4").write_bytes(clips[0].read_bytes())
    source = "v" if command == "leaderboard" else str(clips[0])
    result = CliRunner().invoke(app, [command, source, "--dtype", "bfloat16"])
    assert result.exit_code == 0 and given == ["bfloat16"], result.output
    assert CliRunner().invoke(app, [command, source, "--dtype", "half"]).exit_code == 2


def test_training_in_bfloat16_without_a_gpu_says_what_to_change(fit_config, monkeypatch):
    monkeypatch.setattr(trainer, "is_torch_bf16_gpu_available", lambda: False)
    with pytest.raises(FitError) as caught:
        fit.main(replace(fit_config, bf16=True, device="auto"))
    assert str(caught.value) == (
        "bf16: true needs a GPU that computes in bfloat16, and there is none here; set bf16: "
        "false, or device: cpu to train in bfloat16 on the CPU, which is slow on most"
    )
    assert not Path(fit_config.output_dir).exists()
    assert trainer.training_arguments(replace(fit_config, bf16=True)).bf16  # device: cpu

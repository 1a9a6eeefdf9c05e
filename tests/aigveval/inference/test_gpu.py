"""What only a GPU can show: tiny models, and the papers' networks with random weights."""

from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoConfig

from aigveval.assessment import SCORE_FIELDS
from aigveval.data.manifest import make_clip
from aigveval.features.export import FeatureFolder, extract_features
from aigveval.inference.assessor import Assessor, load
from aigveval.inference.engine import VlmEngine
from aigveval.model.config import AIGVEvalConfig
from aigveval.model.modeling import AIGVEvalModel
from aigveval.model.precision import choose_dtype, find_device
from aigveval.presets import read_catalogue
from aigveval.train import fit
from encoders import create_encoder

from ..engines import tiny_assessor
from ..fit_case import history, run_and_kill
from ..tiny_llm import make_encoders
from ..tiny_vlm import make_vlm_model
from tests.media import write_video

pytestmark = pytest.mark.gpu
GPU = torch.device("cuda")
PROMPTS = ("a dog", None, "two boats on a lake", "x")
RANDOM = {
    "semantic_blip": {"num_frames": 2},
    "motion_slowfast": {"num_frames": 8, "size": 64},
    "technical_fastvqa": {"variant": "kinetics", "num_frames": 4, "segments": 4, "time_steps": 1},
}


@pytest.fixture(scope="module")
def items(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clips")
    return [
        (write_video(folder / f"{n}.mp4", num_frames=12 + 3 * n, seed=n), prompt)
        for n, prompt in enumerate(PROMPTS)
    ]


def furthest(some, others):
    """The largest difference between two lists of rows, in points of the scale."""
    pairs = [
        (getattr(one, name), getattr(other, name))
        for one, other in zip(some, others, strict=True)
        for name in SCORE_FIELDS
    ]
    assert all((a is None) == (b is None) for a, b in pairs)
    return max(abs(a.score - b.score) for a, b in pairs if a is not None)


def test_auto_picks_bfloat16_for_a_large_llm():
    known = read_catalogue()["llms"]["Qwen/Qwen2.5-1.5B-Instruct"]["config"]
    assert find_device(None) == GPU
    assert choose_dtype("auto", AutoConfig.for_model(**known), GPU) == torch.bfloat16


@pytest.mark.parametrize("dtype, limit", [(torch.float32, 1e-4), (torch.bfloat16, 5e-2)])
def test_the_batch_size_changes_no_score_by_more(items, dtype, limit):
    assessor = tiny_assessor(device="cuda", dtype=dtype, lora=None)
    alone = [assessor.score(*item) for item in items]
    assert furthest(alone, list(assessor.score_many(items, batch_size=4))) < limit
    assert furthest(alone, [assessor.score(*item) for item in items]) == 0.0


@pytest.mark.parametrize("dtype, limit", [(torch.float32, 1e-3), (torch.bfloat16, 5e-2)])
def test_scores_are_those_of_the_cpu(items, dtype, limit):
    cpu = list(tiny_assessor(lora=None).score_many(items))
    gpu = list(tiny_assessor(device="cuda", dtype=dtype, lora=None).score_many(items))
    assert [row.error for row in gpu] == [None] * len(items)
    assert furthest(cpu, gpu) < limit


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_explanations_and_contributions(items, dtype):
    assessor = tiny_assessor(device="cuda", dtype=dtype, explains=True, explain=True)
    assessor.engine.explainer.max_new_tokens = 16
    first, again = (list(assessor.score_many(items)) for _ in range(2))
    assert [row.error for row in first] == [None] * len(items)
    for one, other in zip(first, again):  # sampled attempts included
        assert (one.explanation, one.problems, one.contributions) == (
            other.explanation,
            other.problems,
            other.contributions,
        )
        assert one.problems and one.contributions.technical is not None


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_vision_language_model(items, dtype):
    model, processor = make_vlm_model()
    model.vlm.to(dtype)
    for name, parameter in model.named_parameters():
        if ".lora_" in name:
            parameter.data = parameter.data.float()
    assessor = Assessor(VlmEngine(model, processor, device=GPU), name="tiny")
    rows = list(assessor.score_many(items))
    assert [row.error for row in rows] == [None] * len(items)


def test_lite_on_the_cpu_and_on_a_gpu_at_once(items):
    state = torch.cuda.get_rng_state()
    cpu, gpu = (load("lite", device=device) for device in ("cpu", "cuda"))
    rows = [list(assessor.score_many(items)) for assessor in (cpu, gpu, cpu)]
    assert all(row.error is None for row in (*rows[0], *rows[1]))
    assert furthest(rows[0], rows[1]) < 1e-2 and furthest(rows[0], rows[2]) == 0.0
    assert torch.equal(torch.cuda.get_rng_state(), state)


def test_features(items, tmp_path):
    found = {}
    for device in ("cpu", "cuda"):
        encoders = make_encoders()
        with FeatureFolder(
            tmp_path / device, encoders, format="safetensors", resume=False
        ) as folder:
            clips = [make_clip(path, prompt) for path, prompt in items]
            rows = list(extract_features(clips, encoders, folder, batch_size=4, device=device))
        assert [row.error for row in rows] == [None] * len(items)
        files = sorted((tmp_path / device / "tokens").rglob("*.safetensors"))
        found[device] = [load_file(file) for file in files]
    assert len(found["cpu"]) == len(items)
    for one, other in zip(found["cpu"], found["cuda"], strict=True):
        for name, value in one.items():
            torch.testing.assert_close(value, other[name], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", RANDOM)
def test_the_papers_networks_give_the_same_tokens(name):
    encoder = create_encoder(name, weights="random", **RANDOM[name])
    generator = torch.Generator().manual_seed(0)
    frames = torch.randint(256, (16, 3, 240, 320), generator=generator, dtype=torch.uint8)
    indices = torch.from_numpy(encoder.frame_indices(16, 8.0))
    views = encoder.preprocess(frames[indices])[None]
    with torch.inference_mode():
        wanted = encoder(views)
        found = encoder.to(GPU)(views.to(GPU)).cpu()
    # Convolutions of a GPU round to TF32 by PyTorch's default.
    error = (found - wanted).norm() / wanted.norm()
    assert found.isfinite().all() and error < 2e-2


@pytest.mark.parametrize("bf16", [False, True])
def test_a_run_of_fit(fit_config, items, bf16):
    config = replace(
        fit_config,
        device="auto",
        bf16=bf16,
        epochs=2,
        ema=0.9,
        gradient_checkpointing=bf16,
        encoders=["technical_sharp", "motion_mixed", "semantic_matching"],
        train_encoders=["motion_mixed"],
    )
    result = fit.main(config)
    assert "srocc" in result.metrics
    logged = [entry["loss"] for entry in history(config.output_dir) if "loss" in entry]
    assert len(logged) == result.steps and all(0 < loss < 100 for loss in logged)
    saved = load_file(result.model / "model.safetensors")
    assert {v.dtype for v in saved.values() if v.is_floating_point()} == {torch.float32}
    assert AIGVEvalConfig.from_pretrained(result.model).trained_encoders == ["motion_mixed"]
    cpu, gpu = load(result.model, device="cpu"), load(result.model)
    assert gpu.engine.device == GPU and gpu.name == str(result.model)  # a small LLM: float32
    assert isinstance(gpu.engine.model, AIGVEvalModel)
    assert furthest(list(cpu.score_many(items)), list(gpu.score_many(items))) < 1e-2


def test_a_run_goes_on_with_its_average(fit_config, monkeypatch, tmp_path):
    config = replace(fit_config, device="auto", ema=0.9, epochs=2)
    whole = fit.main(config)
    cut = replace(config, output_dir=str(tmp_path / "cut"))
    run_and_kill(cut, monkeypatch, step=5)
    result = fit.main(cut)
    assert result.resumed_from is not None and result.steps == whole.steps
    left, right = (load_file(r.model / "model.safetensors") for r in (whole, result))
    for name, value in left.items():
        torch.testing.assert_close(value, right[name], atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("name", ["align_epochs", "learn"])
def test_projectors_learn_first(fit_config, name):
    config = replace(
        fit_config,
        device="auto",
        epochs=1,
        max_steps=2,
        **({"align_epochs": 2} if name == "align_epochs" else {"learn": "distill"}),
    )
    assert fit.main(config).steps == 2


@pytest.mark.parametrize(
    "name, options",
    [
        ("motion_slowfast", {"num_frames": 8, "size": 64}),
        (
            "technical_fastvqa",
            {
                "variant": "kinetics",
                "num_frames": 8,
                "segments": 8,
                "time_steps": 1,
                "embed_dim": 12,
            },
        ),
    ],
)
def test_convolutions_have_all_bits_of_float32(name, options):
    """With TF32, which PyTorch allows by default, tokens would differ in the third digit."""
    allowed = torch.backends.cudnn.conv.fp32_precision
    encoder = create_encoder(name, weights="random", **options)
    generator = torch.Generator().manual_seed(0)
    clips = torch.randint(256, (4, 8, 3, 96, 96), generator=generator, dtype=torch.uint8)
    views = torch.stack([encoder.preprocess(clip) for clip in clips])
    with torch.inference_mode():
        wanted = encoder(views)
        encoder.to(GPU)
        found = encoder(views.to(GPU)).cpu()
        alone = torch.cat([encoder(view[None].to(GPU)).cpu() for view in views])
    torch.testing.assert_close(found, wanted, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(alone, found, atol=2e-5, rtol=2e-5)
    assert torch.backends.cudnn.conv.fp32_precision == allowed

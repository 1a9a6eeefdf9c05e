"""`--precision fast` of models whose score hints may stand for their LLM, which isn't loaded then."""

import pickle
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch

import aigveval
from aigveval.assessment import SCORE_FIELDS
from aigveval.inference import explain
from aigveval.inference.assessor import Assessor, load, row_name
from aigveval.inference.engine import HintEngine, ModelEngine
from aigveval.model import modeling
from aigveval.model.checkpoint import open_checkpoint
from aigveval.model.modeling import AIGVEvalModel, HintModel
from aigveval.model.projector import HintCurve, bounded
from aigveval.train import fit
from encoders import onednn

from ..tiny_llm import make_encoders, make_model
from tests.media import write_video

CPU = torch.device("cpu")
EXAMPLES = sorted(Path("examples/videos").glob("*.mp4"))


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clips")
    return [write_video(folder / f"{n}.mp4", num_frames=6 + n, seed=n) for n in range(3)]


@pytest.fixture
def engines(monkeypatch):
    """One that leaves the LLM out, how often it was loaded, and one that always has it."""
    model, processor = make_model(explains=True)
    model.model.add_hint_curve(0.1)
    processor._encoders = make_encoders()
    hints = HintModel(model.config, 32)
    state = model.state_dict()
    hints.load_state_dict({key: state[key] for key in hints.state_dict()})
    monkeypatch.setattr(hints, "load_encoders", partial(hints.load_encoders, make_encoders()))
    whole, loaded = ModelEngine(model, processor, device=CPU), []

    def load_whole():
        loaded.append(1)
        return ModelEngine(model, processor, device=CPU)

    return HintEngine(hints.eval(), device=CPU, load_whole=load_whole), loaded, whole


def test_a_curve_begins_straight_and_learns_what_the_llm_makes_of_hints():
    curve = HintCurve()
    hints = torch.rand(400, 4, generator=torch.Generator().manual_seed(0)) * 3 + 1.5
    known = torch.arange(400) % 2 == 0
    assert torch.allclose(curve(hints, known), bounded(hints), atol=1e-5)
    wanted = bounded(hints) + 0.1 * torch.sin(3 * bounded(hints)) - 0.05 * known[:, None]
    wanted[~known, 2] = float("nan")
    curve.fit(hints[:300], known[:300], wanted[:300])
    found = curve(hints[300:], known[300:])
    assert (found - wanted[300:]).abs().nan_to_num().max() < 0.03
    assert (curve.points.diff() > 0).all()  # clips keep their order
    assert curve.points.min() == 1 and curve.points.max() == 5
    torch.testing.assert_close(found[:1], curve(hints[300:301], known[300:301]))


def test_scores_are_those_of_the_hints_and_no_llm_is_loaded(engines, clips):
    engine, loaded, whole = engines
    assessor = Assessor(engine, name="tiny (fast)")
    rows = list(assessor.score_many([(clips[0], "a dog"), (clips[1], None), (clips[2], "a cat")]))
    prepared = [whole.prepare(clip) for clip in clips]
    batch = whole.batch([clip.views for clip in prepared], ["a dog", None, "a cat"])
    hints = bounded(whole.model.model.score_hints(batch["features"]))
    for row, wanted in zip(rows, hints.tolist()):
        for name, score in zip(("technical", "motion", "semantic", "overall"), wanted):
            if getattr(row, name) is not None:
                assert getattr(row, name).score == pytest.approx(score, abs=1e-4)
    assert [row.semantic is None for row in rows] == [False, True, False]
    for clip, prompt, row in zip(clips, ("a dog", None, "a cat"), rows):
        alone = assessor.score(clip, prompt)
        assert alone.overall.score == pytest.approx(row.overall.score, abs=1e-4)
    assert not loaded


def test_contributions_need_no_llm_and_add_up(engines, clips):
    engine, loaded, _ = engines
    row = Assessor(engine, name="tiny", contributions=True).score(clips[0], "a dog")
    found = row.contributions
    parts = found.baseline + found.technical + found.motion + found.semantic + found.residue
    assert parts == pytest.approx(row.overall.score, abs=1e-4) and not loaded


def test_an_explanation_loads_the_llm_once_and_keeps_the_scores(engines, clips):
    engine, loaded, _ = engines
    plain = Assessor(engine, name="tiny").score(clips[0], "a dog")
    explaining = Assessor(engine, name="tiny", explain=True)
    rows = [explaining.score(clips[0], "a dog") for _ in range(2)]
    assert len(loaded) == 1
    for row in rows:
        assert row.explanation is not None and row.contributions is not None
        assert [getattr(row, n).score for n in SCORE_FIELDS] == [
            getattr(plain, n).score for n in SCORE_FIELDS
        ]


def test_an_explained_clip_has_the_tokens_of_the_quick_encoders(engines, clips, monkeypatch):
    engine, _, _ = engines
    for encoder in engine.model.encoders.values():  # as bfloat16 does, if less
        exact = encoder.encode
        monkeypatch.setattr(encoder, "encode", lambda view, exact=exact: 1.1 * exact(view))
    prepared = [engine.prepare(clips[0])]
    (plain,), (told,) = (engine.score(prepared, ["a dog"], explain=on) for on in (False, True))
    assert told["explanation"] is not None
    assert [told[name] for name in SCORE_FIELDS] == [plain[name] for name in SCORE_FIELDS]


def test_a_detector_stands_for_the_llm_s_answer_where_hints_stand_for_its_scores(
    clips, monkeypatch
):
    model, processor = make_model(explains=True, detector=["flicker", "blur", "prompt_mismatch"])
    processor._encoders = make_encoders()
    with torch.no_grad():  # a blur in anything, from the beginning to the middle, and no more
        model.model.detector.presence.bias.copy_(torch.tensor([-9.0, 5.0, -9.0, 0.0, 0.0]))
    exact = ModelEngine(model, processor, device=CPU)
    assert exact.explainer.writes
    model.model.add_hint_curve(0.1)
    hints = HintModel(model.config, 32)
    state = model.state_dict()
    hints.load_state_dict({key: state[key] for key in hints.state_dict()})
    monkeypatch.setattr(hints, "load_encoders", partial(hints.load_encoders, make_encoders()))
    monkeypatch.setattr(explain, "AnswerWriter", None)
    quick = HintEngine(hints.eval(), device=CPU, load_whole=pytest.fail)
    for engine in (exact, quick):
        prepared = [engine.prepare(clip) for clip in clips[:2]]
        for row in engine.score(prepared, ["a dog", None], explain=True, contributions=True):
            (blur,) = row["defects"]
            assert blur.name == "blur" and 1 <= blur.severity <= 5
            assert row["explanation"] == {} and row["problems"] == ()
            assert row["contributions"] is not None
    (wrong,) = exact.score(prepared[:1], [None], explain=True)
    assert [defect.name for defect in wrong["defects"]] == ["blur"]


def test_a_saved_model_with_a_curve_is_loaded_without_its_llm(fit_config, clips, monkeypatch):
    folder = fit.main(replace(fit_config, max_steps=1, valid=[])).model
    monkeypatch.setattr(onednn, "bfloat16_is_quick", lambda: False)
    assert row_name(folder, device="cpu", dtype="fast") == str(folder)
    model = AIGVEvalModel.from_pretrained(folder)
    model.model.add_hint_curve(0.1).points[..., 3:] += 0.01
    model.save_pretrained(folder)
    again = AIGVEvalModel.from_pretrained(folder).model.hint_curve
    assert torch.equal(again.points, model.model.hint_curve.points)
    exact = load(folder, device="cpu")
    assert type(exact.engine) is ModelEngine and exact.name == str(folder)
    monkeypatch.setattr(modeling, "load_llm", None)
    fast = load(folder, device="cpu", dtype="fast")
    assert fast.name == row_name(folder, device="cpu", dtype="fast") == f"{folder} (fast)"
    row = fast.score(clips[0], "a dog")
    assert row.error is None and type(fast.engine) is HintEngine
    fast.engine.whole = lambda: None  # which can't be pickled, as what it has of an LLM can't
    again = pickle.loads(pickle.dumps(fast))
    assert again.score(clips[0], "a dog").overall == row.overall
    assert "whole" not in vars(again.engine)


def test_what_is_trained_on_forgets_that_its_hints_may_stand():
    model, _ = make_model()
    model.model.add_hint_curve(0.1)
    assert any("hint_curve" in key for key in model.trained_keys())
    model.model.remove_measured()
    assert model.config.hints_within is None
    assert not any("hint_curve" in key for key in model.trained_keys())


@pytest.mark.skipif(open_checkpoint("lite").hints_within is None, reason="lite has no curve")
def test_lite_scores_the_examples_as_near_as_its_config_says(lite):
    pairs = [(path, "a paper boat on a pond") for path in EXAMPLES]
    exact = list(lite.score_many(pairs))
    fast = list(aigveval.load("lite", device="cpu", dtype="fast").score_many(pairs))
    assert len(exact) == len(EXAMPLES) > 4
    for one, other in zip(exact, fast):
        assert (one.model, other.model) == ("lite", "lite (fast)")
        for name in SCORE_FIELDS:
            assert getattr(one, name).score == pytest.approx(getattr(other, name).score, abs=0.05)


def test_a_batch_goes_to_the_device_that_the_model_is_on(engines, clips):
    """`cuda` is another GPU in each thread; the model stays where it was put."""
    quick, _, whole = engines
    for engine in (quick, whole):
        views = [engine.prepare(clips[0]).views]
        engine.model.to("meta")  # stands for another GPU
        batch = engine.batch(views, ["a dog"])
        assert {value.device.type for value in batch.values()} == {"meta"}

"""Attribution of examples/train_lite: figures of hand-made clips, and a run of a tiny model."""

import json
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from sklearn.metrics import f1_score

from aigveval.features.cache import FeatureCache

from tests.aigveval.tiny_llm import make_encoders, make_model
from tests.scripts import script


@pytest.fixture(scope="module")
def figures():
    return script("train_lite/attribution_figures")


@pytest.fixture(scope="module")
def attribution():
    return script("train_lite/attribution")


def clip_of(figures, type, severity=3, *, group="a", part="heldout", **options):
    return figures.Clip(
        part=part,
        group=group,
        type=type,
        severity=0 if type == "clean" else severity,
        duration=4.0,
        **options,
    )


def value(found):
    return found["value"][0]


# ---- figures ----


def test_f1_is_that_of_scikit_learn(figures):
    random = np.random.default_rng(0)
    truth, named = random.random((2, 60, 4)) < 0.3
    expected = f1_score(truth, named, average=None)
    np.testing.assert_allclose(figures.f1(truth, named), expected)
    assert figures.macro_f1(truth, named) == pytest.approx(expected.mean())
    truth[:, 1] = False  # in some bootstrap sample there's no such clip
    assert figures.macro_f1(truth, named) == pytest.approx(expected[[0, 2, 3]].mean())
    with pytest.raises(ValueError, match="^macro_f1: no clip is damaged$"):
        figures.macro_f1(truth[:, :0], named[:, :0])


def test_detection(figures):
    whole = [(0.0, 4.0)]
    clips = [
        clip_of(figures, "clean", named={"noise": whole}),
        clip_of(figures, "blur", named={"blur": whole, "noise": whole}),
        clip_of(figures, "blur", 5),
        clip_of(figures, "blur", 2, named={"shake": whole}),  # too slight to count
        clip_of(figures, "noise", group="b", named={"noise": whole}),
    ]
    found = figures.detection(clips)
    assert value(found["F1: blur"]) == pytest.approx(2 / 3, abs=1e-3)
    assert value(found["F1: noise"]) == pytest.approx(2 / 4, abs=1e-3)
    assert value(found["macro-F1"]) == pytest.approx(7 / 12, abs=1e-3)
    assert found["F1: blur"]["cases"] == 2 and found["macro-F1"]["cases"] == 3
    low, high = found["macro-F1"]["value"][1:]
    assert 0 <= low <= value(found["macro-F1"]) <= high <= 1
    assert figures.confusion(clips) == {
        "clean": {"clips": 1, "named": {"noise": 1}},
        "blur": {"clips": 2, "named": {"noise": 1}},
        "noise": {"clips": 1, "named": {}},
    }


def test_false_alarms(figures):
    clips = [
        clip_of(figures, "clean", named={"blur": [(0.0, 4.0)]}),
        clip_of(figures, "clean"),
        clip_of(figures, "clean", group="b"),
        clip_of(figures, "clean", group="b"),
        clip_of(figures, "clean", part="other_prompt", named={"blur": [(0.0, 4.0)]}),
        clip_of(figures, "blur", named={"noise": [(0.0, 4.0)]}),
    ]
    found = figures.false_alarms(clips)
    own = found["false alarms, left-out clean clips"]
    assert own == {"value": [0.25, 0.0, 0.5], "cases": 4}  # of a source all or none is drawn
    assert found["false alarms, trained on clean clips"] == {"value": None, "cases": 0}


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        ([(1.0, 3.0)], 1.0),
        ([(2.0, 4.0)], 1 / 3),
        ([(0.0, 4.0)], 0.5),
        ([(3.0, 4.0)], 0.0),
        ([], 0.0),
        ([(1.0, 2.0), (2.5, 3.0)], 0.75),
        ([(1.5, 3.0), (1.0, 2.0)], 1.0),
        ([(0.0, 4.0), (1, 2)], 0.5),
    ],
)
def test_iou(figures, told, expected):
    assert figures.iou((1.0, 3.0), told) == pytest.approx(expected)


def test_times(figures):
    clips = [
        clip_of(figures, "freeze", span=(1.0, 3.0), named={"freeze": [(1.0, 2.0)]}),
        clip_of(figures, "freeze", span=(1.0, 3.0), named={"shake": [(1.0, 3.0)]}),
        clip_of(figures, "freeze", named={"freeze": [(0.0, 4.0)]}),  # all of the clip
        clip_of(figures, "freeze", 2, span=(1.0, 3.0), named={"freeze": [(1.0, 3.0)]}),
        clip_of(figures, "ghosting", span=(1.0, 4.0), named={"ghosting": [(1.0, 4.0)]}),
        clip_of(figures, "shake", span=(0.0, 1.0), named={"shake": [(0.0, 1.0)]}),
    ]
    found = figures.times(clips)
    assert value(found["time IoU where named: freeze"]) == 0.5
    assert value(found["time IoU, a miss counts 0: freeze"]) == 0.25
    assert value(found["time IoU where named: all four"]) == 0.75
    assert found["time IoU where named: flicker"] == {"value": None, "cases": 0}


def test_mismatch(figures):
    whole = [(0.0, 4.0)]
    clips = [
        clip_of(figures, "prompt_mismatch", named={"prompt_mismatch": whole}),
        clip_of(figures, "prompt_mismatch", 4),
        clip_of(figures, "prompt_mismatch", 1),
        *(
            clip_of(figures, "clean", part="other_prompt", named=dict.fromkeys(names, whole))
            for names in (
                ["prompt_mismatch"],
                ["wrong_object"],
                ["wrong_object"],
                ["prompt_mismatch", "wrong_object"],
            )
        ),
    ]
    found = figures.mismatch(clips)
    assert value(found["mismatch named, ladder, severity >= 3"]) == 0.5
    assert value(found["mismatch named, each other prompt"]) == 0.5
    assert value(found["named instead, each other prompt: wrong_object"]) == 0.5
    assert "named instead, each other prompt: missing_object" not in found


def test_faithfulness(figures):
    def scores(technical, overall):
        return {"technical": technical, "motion": 3.0, "semantic": 3.0, "overall": overall}

    named = {"blur": [(0.0, 4.0)]}
    clips = [
        clip_of(figures, "clean", scores=scores(4.0, 3.5)),
        clip_of(figures, "clean", group="b", scores=scores(2.0, 2.5)),
        clip_of(figures, "blur", scores=scores(3.0, 3.5), named=named),
        clip_of(figures, "blur", group="b", scores=scores(2.0, 2.0), named=named),  # not below
        clip_of(figures, "blur", 5, scores=scores(1.0, 2.0)),
        clip_of(figures, "blur", 2, scores=scores(5.0, 5.0), named=named),
        clip_of(figures, "shake", scores=scores(1.0, 1.0), named={"shake": [(0.0, 4.0)]}),
    ]
    found = figures.faithfulness(clips)
    assert value(found["clean scores higher, named defects: blur"]) == 0.5
    assert value(found["clean scores higher, named defects: shake"]) == 0.0  # motion is the same
    assert value(found["clean scores higher, named defects"]) == pytest.approx(1 / 3, abs=1e-3)
    assert value(found["clean scores higher overall, named defects"]) == pytest.approx(
        2 / 3, abs=1e-3
    )
    assert found["clean scores higher, all pairs"] == {
        "value": found["clean scores higher, all pairs"]["value"],
        "cases": 4,
    }
    assert value(found["clean scores higher, all pairs: blur"]) == pytest.approx(2 / 3, abs=1e-3)


def test_format_and_numbers(figures):
    scores = {"technical": 3.0, "overall": 3.0}
    clips = [
        clip_of(
            figures,
            "clean",
            scores=scores,
            first=figures.Try(problems=("missing_line",)),
            shown=figures.Try(numbers={"technical": 3.5, "overall": 2.9}),
        ),
        clip_of(
            figures,
            "blur",
            1,
            scores=scores,
            first=figures.Try(problems=("score_contradicts_slot",)),
            shown=figures.Try(
                problems=("score_contradicts_slot",), numbers={"technical": 3.6, "overall": 3.0}
            ),
        ),
        clip_of(figures, "blur", 1, scores=scores, shown=figures.Try(numbers={"technical": 3.0})),
        clip_of(
            figures,
            "blur",
            1,
            scores=scores,
            spoken={"blur"},
            named={"blur": [(0.0, 4.0)], "shake": [(0.0, 4.0)]},
        ),
    ]
    found = figures.figures_of(clips)
    assert value(found["sentence tells the named defect"]) == 0.5
    assert value(found["valid format, first try"]) == 0.75
    assert value(found["valid format, as users get it"]) == 1.0
    assert value(found["contradiction, first try"]) == 0.25
    assert value(found["score contradicts slot, as users get it"]) == 0.25
    assert value(found["numbers within 0.5 of the scores"]) == 0.25
    assert value(found["mean absolute difference of numbers"]) == pytest.approx(0.2, abs=1e-3)


def test_tables(figures):
    row = {"value": [0.5, 0.25, 0.75], "cases": 9}
    text = figures.as_markdown(
        {
            "signs alone": {"macro-F1": row},
            "sft": {"x": {"value": None, "cases": 0}, "macro-F1": {**row, "cases": 8}},
        },
        {"signs alone": {}, "sft": {"blur": {"clips": 9, "named": {"noise": 3, "shake": 1}}}},
    )
    lines = text.splitlines()
    assert lines[0] == "| figure | aim | clips | signs alone | sft |"
    assert lines[2:4] == [
        "| x |  | 0 | - | - |",
        "| macro-F1 | >= 0.80 | 9 / 8 | 0.50 [0.25, 0.75] | 0.50 [0.25, 0.75] |",
    ]
    assert lines[-1] == "| blur | 9 | - | noise 3, shake 1 |"


# ---- answers ----


@pytest.fixture
def work(tmp_path):
    """Ladders of two sources and their features, without any video."""
    cache, encoders = FeatureCache(tmp_path / "cache"), make_encoders().values()
    for part in ("heldout", "train"):
        lines = []
        for group, prompt in (("dog", "a dog"), ("boat", "two boats")):
            for type, severity, span in (
                ("clean", 0, (None, None)),
                ("blur", 3, (0.0, 4.0)),
                ("freeze", 5, (1.0, 3.0)),
            ):
                path = tmp_path / "ladder" / part / group / f"{type}.mp4"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(str(path))
                for encoder in encoders:
                    shape = encoder.spec.num_tokens, encoder.spec.dim
                    cache.put(cache.digest(path), encoder, torch.full(shape, severity / 5))
                lines.append(
                    json.dumps(
                        {
                            "video": f"{group}/{type}.mp4",
                            "prompt": prompt,
                            "group": group,
                            "type": type,
                            "severity": severity,
                            "start_seconds": span[0],
                            "end_seconds": span[1],
                            "dimension": {"blur": "technical", "freeze": "motion"}.get(type),
                            "technical_drop": 0.0,
                            "motion_drop": 0.0,
                            "semantic_drop": 0.0,
                        }
                    )
                    + "\n"
                )
        (tmp_path / "ladder" / part / "manifest.jsonl").write_text("".join(lines))
    return tmp_path


@pytest.fixture
def model(attribution, work, monkeypatch):
    """A folder of a model that explains, of random weights."""
    torch.manual_seed(0)
    made, processor = make_model(explains=True, detector=["blur", "freeze"])
    for projector in made.model.projectors.values():
        projector.set_stats(torch.full(projector.mean.shape, 0.3), torch.ones_like(projector.std))
    processor._encoders = make_encoders()
    monkeypatch.setattr(attribution.AIGVEvalModel, "from_pretrained", lambda folder: made)
    monkeypatch.setattr(attribution.AIGVEvalProcessor, "from_pretrained", lambda folder: processor)
    real = attribution.ModelEngine

    def make_engine(*args, **options):
        engine = real(*args, **options)
        engine.explainer.max_new_tokens = 6
        return engine

    monkeypatch.setattr(attribution, "ModelEngine", make_engine)
    folder = work / "runs/sft/model"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(b"weights")
    return folder


def test_cases(attribution, work):
    cases = attribution.read_cases(work / "ladder")
    parts = [case.truth.part for case in cases]
    assert [parts.count(part) for part in ("heldout", "train", "other_prompt")] == [6, 2, 2]
    assert len({case.key for case in cases}) == len(cases)
    assert {case.truth.duration for case in cases} == {4.0}
    assert [case.truth.span for case in cases[:3]] == [None, None, (1.0, 3.0)]
    assert [(c.truth.group, c.prompt) for c in cases[-2:]] == [
        ("dog", "two boats"),
        ("boat", "a dog"),
    ]
    cases[1] = replace(cases[1], truth=replace(cases[1].truth, severity=2))
    assert attribution.plain_cases(cases) == [cases[0], *cases[2:6], *cases[8:]]


def test_a_run_goes_on_and_begins_anew(attribution, work, model, monkeypatch, capsys):
    assert attribution.model_names([str(model)]) == {"sft": model}
    run = partial(
        attribution.main,
        work,
        {"sft": model},
        work / "out.json",
        batch_size=3,
        device="cpu",
        attempts=2,
    )
    run()
    log = work / "answers/sft.jsonl"
    first = log.read_text().splitlines()
    published = json.loads((work / "out.json").read_text())
    assert list(published["figures"]) == ["signs alone", "sft"]
    own = published["figures"]["sft"]
    assert own["valid format, first try"] == {"value": [0.0, 0.0, 0.0], "cases": 6}
    assert published["answers with a problem"]["sft"]["shown"]["unfinished"] == 6
    assert capsys.readouterr().out.startswith("| figure | aim | clips | signs alone | sft |")
    record = json.loads(first[1])
    assert len(record["tries"]) == 2 and set(record["scores"]) == {
        "technical",
        "motion",
        "semantic",
        "overall",
    }
    assert record["tries"][0]["numbers"] == {}  # level words are none
    assert all(0 <= (sign["end_seconds"] or 0) <= 4 for sign in record["signs"])

    log.write_text("\n".join(first[:4]) + '\n{"key": "cut')  # a kill
    written = []
    write = attribution.write_answers
    monkeypatch.setattr(
        attribution,
        "write_answers",
        lambda engine, cases, *a, **o: written.append(len(cases)) or write(engine, cases, *a, **o),
    )
    run()
    assert log.read_text().splitlines() == first and written == [7]
    run()
    assert written == [7]
    (model / "model.safetensors").write_bytes(b"other weights")
    run()
    assert written == [7, 10] and log.read_text().splitlines()[1:] == first[1:]
    (work / "ladder/train/dog/clean.mp4").write_text("rendered anew")
    for encoder in make_encoders().values():
        cache = FeatureCache(work / "cache")
        shape = encoder.spec.num_tokens, encoder.spec.dim
        cache.put(cache.digest(work / "ladder/train/dog/clean.mp4"), encoder, torch.ones(shape))
    run()
    assert written == [7, 10, 1]


def test_names_of_models(attribution, model, tmp_path):
    named = attribution.model_names([f"a={model}", str(model)])
    assert list(named) == ["a", "sft"]
    with pytest.raises(attribution.ModelError, match="^two models are called sft; "):
        attribution.model_names([str(model), str(model)])
    with pytest.raises(attribution.ModelError, match="is no model: it has no config.json$"):
        attribution.model_names([str(tmp_path)])


def test_what_is_told(attribution, work):
    case = attribution.read_cases(work / "ladder")[0]
    blur = {"name": "blur", "severity": 3, "start_seconds": None, "end_seconds": None}
    freeze = {**blur, "name": "freeze", "start_seconds": 1.0, "end_seconds": 2.0}
    tries = [
        {"defects": None, "numbers": {}, "problems": [["missing_line", "defects"]]},
        {
            "defects": [blur, freeze],
            "numbers": {"overall": 3.0},
            "problems": [],
            "reasoning": {"technical": "edges are badly blurred.", "motion": "it moves well."},
        },
    ]
    record = {
        "tries": tries,
        "shown": 1,
        "scores": {"overall": 3.2},
        "signs": [{**blur, "certainty": 4}, {**freeze, "certainty": 5}],
    }
    told = attribution.told_clip(case, record)
    assert told.named == {"blur": [(0.0, 4.0)], "freeze": [(1.0, 2.0)]}
    assert told.spoken == {"blur"}
    assert told.first.problems == ("missing_line",) and told.shown.problems == ()
    assert told.shown.numbers == {"overall": 3.0} and told.scores == {"overall": 3.2}
    assert attribution.detected_clip(case, record).named == {"freeze": [(1.0, 2.0)]}


def test_of_a_model_that_is_not_asked_to_write_users_get_what_is_detected(attribution, work):
    case = attribution.read_cases(work / "ladder")[0]
    blur = {"name": "blur", "severity": 3, "start_seconds": None, "end_seconds": None}
    noise = {**blur, "name": "noise"}
    record = {
        "tries": [{"defects": [noise], "reasoning": {}, "numbers": {}, "problems": []}],
        "shown": 0,
        "scores": {"technical": 2.0, "motion": 4.0, "overall": 3.2},
        "signs": [{**blur, "certainty": 9}, {**noise, "certainty": 4}],
    }
    for writes, names in (
        ({}, ["noise"]),
        ({"writes": True}, ["noise"]),
        ({"writes": False}, ["blur"]),
    ):
        found = attribution.with_facts(case, {**record, **writes}, [])["tries"][0]
        assert [one["name"] for one in found["defects"]] == names
        assert "certainty" not in found["defects"][0]

"""Models that look at some of the three dimensions only: they score those, and overall."""

import json
from itertools import combinations

import pytest
import torch
from typer.testing import CliRunner

from aigveval.cli.app import app
from aigveval.inference import assessor as assess
from aigveval.inference.assessor import Assessor
from aigveval.inference.engine import ModelEngine
from aigveval.model.config import AIGVEvalConfig, unscored_dimensions
from aigveval.model.modeling import AIGVEvalModel
from aigveval.model.processing import AIGVEvalProcessor
from prompts import DIMENSIONS

from ..tiny_llm import make_encoders, make_llm, make_tokenizer
from tests import media

SUBSETS = [part for size in (1, 2, 3) for part in combinations(DIMENSIONS, size)]
LINES = {"semantic": "Key frames:", "motion": "Motion:", "technical": "Technical:"}


def make(dimensions):
    encoders = {n: e for n, e in make_encoders().items() if e.spec.dimension in dimensions}
    config = AIGVEvalConfig.from_encoders(list(encoders.values()), llm="tiny", projector_hidden=16)
    processor = AIGVEvalProcessor.from_config(config, tokenizer=make_tokenizer())
    processor._encoders = encoders
    return AIGVEvalModel(config, llm=make_llm()).eval(), processor


def assessor(dimensions):
    engine = ModelEngine(*make(dimensions), device=torch.device("cpu"))
    return Assessor(engine, name="tiny")


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return media.write_video(tmp_path_factory.mktemp("clip") / "clip.mp4", num_frames=8)


@pytest.mark.parametrize("dimensions", SUBSETS, ids="+".join)
def test_a_dimension_without_an_encoder_has_no_score(dimensions, clip):
    tiny = assessor(dimensions)
    with_prompt, without = tiny.score(clip, prompt="a cat"), tiny.score(clip)
    for name in DIMENSIONS:
        assert (getattr(with_prompt, name) is not None) == (name in dimensions)
        known = name in set(dimensions) - {"semantic"}
        assert (getattr(without, name) is not None) == known
    assert with_prompt.overall is not None and without.overall is not None
    # The LLM itself reads the prompt, whoever looks at the video.
    assert with_prompt.overall != without.overall


@pytest.mark.parametrize("dimensions", SUBSETS, ids="+".join)
def test_the_question_shows_the_evidence_there_is(dimensions):
    model, processor = make(dimensions)
    ids = processor.encode_prompts(["a cat"])["input_ids"][0]
    text = processor.tokenizer.decode(ids)
    for name, line in LINES.items():
        assert (line in text) == (name in dimensions)
    assert (ids == processor.feature_token_id).sum() == model.config.num_features + 4
    unscored = [d for d in DIMENSIONS if d not in dimensions]
    assert unscored_dimensions(model.config.encoders) == unscored


def test_it_goes_through_a_folder(tmp_path):
    model, processor = make(("technical", "motion"))
    model.save_pretrained(tmp_path)
    again = AIGVEvalModel.from_pretrained(tmp_path, llm=make_llm())
    batch = processor.encode_prompts(["a cat", None])
    features = torch.randn(2, model.config.num_features, model.config.feature_dim)
    scores, expected = (one.score(features=features, **batch).scores for one in (again, model))
    torch.testing.assert_close(scores, expected, rtol=0, atol=0, equal_nan=True)
    assert expected.isnan().tolist() == [[False, False, True, False]] * 2


def test_the_command_line_writes_null(monkeypatch, tmp_path, clip):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(assess, "load", lambda model, **options: assessor(("technical",)))
    result = CliRunner().invoke(app, ["score", str(clip), "--prompt", "a cat"])
    assert result.exit_code == 0, result.output
    row = json.loads((tmp_path / "results.jsonl").read_text())
    assert row["motion"] is row["semantic"] is row["error"] is None
    assert row["technical"]["score"] and row["overall"]["score"]

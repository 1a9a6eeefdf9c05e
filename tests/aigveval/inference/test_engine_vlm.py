"""Scoring, explaining and timelines with the vision-language model, from a saved folder."""

import json
import shutil

import pytest
import torch
from typer.testing import CliRunner

import aigveval
from aigveval.cli.app import app
from aigveval.errors import ModelError
from aigveval.inference.assessor import load
from aigveval.inference.timeline import make_timeline
from aigveval.model import modeling_vlm
from aigveval.model.generation import AnswerWriter
from aigveval.model.library_internals import cache_of
from prompts import render_levels

from tests.aigveval.tiny_vlm import FRAMES, make_vlm_model, save_vlm
from tests.media import write_video

PROMPT = "a dog runs on the beach"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A saved model that explains, which names its vision-language model by path."""
    folder = tmp_path_factory.mktemp("qsave")
    vlm = save_vlm(folder / "vlm")
    model, processor = make_vlm_model(vlm=vlm, explains=True)
    model.save_pretrained(folder / "model")
    processor.save_pretrained(folder / "model")
    return folder / "model"


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clips")
    return [
        write_video(folder / f"{n}.mp4", num_frames=24 + n, width=96, height=64, seed=n)
        for n in range(3)
    ]


def test_load_finds_the_kind_of_model_by_its_config(folder, clips, tmp_path):
    row = aigveval.load(folder, device="cpu").score(clips[0], prompt=PROMPT)
    model, processor = make_vlm_model()
    wanted = model.score(**processor(videos=[clips[0]], prompts=[PROMPT])).scores[0]
    found = [getattr(row, name).score for name in ("technical", "motion", "semantic", "overall")]
    torch.testing.assert_close(torch.tensor(found), wanted, atol=1e-4, rtol=0)
    assert load(folder).score(clips[0]).semantic is None
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    with pytest.raises(ModelError) as caught:
        load(tmp_path)
    assert str(caught.value) == (
        f"cannot load the model {tmp_path}: {tmp_path / 'config.json'} is of a model of type "
        "'llama'; aigveval's are aigveval, qsave"
    )


def test_a_model_in_four_bits_is_loaded_whole_where_a_cpu_is_asked_for(
    folder, tmp_path, monkeypatch
):
    model = shutil.copytree(folder, tmp_path / "model")
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps({**config, "llm_4bit": True}))
    asked, load_vlm = [], modeling_vlm.load_vlm

    def load_whole(name, *, dtype, four_bit):
        asked.append(four_bit)
        return load_vlm(name, dtype=dtype)

    monkeypatch.setattr(modeling_vlm, "load_vlm", load_whole)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    load(model, device="cpu")
    assert asked == [False]


def test_the_command_scores_and_explains(folder, clips, tmp_path):
    out = tmp_path / "out.jsonl"
    given = [
        "score",
        *map(str, clips),
        "--prompt",
        PROMPT,
        "--model",
        str(folder),
        "--out",
        str(out),
        "--batch-size",
        "2",
    ]
    result = CliRunner().invoke(app, given)
    assert result.exit_code == 0, result.output
    plain = [json.loads(line) for line in out.read_text().splitlines()]
    assert len(plain) == 3 and all(1 <= row["semantic"]["score"] <= 5 for row in plain)
    result = CliRunner().invoke(app, [*given, "--explain"])
    assert result.exit_code == 0, result.output
    explained = [json.loads(line) for line in out.read_text().splitlines()]
    for row, before in zip(explained, plain):
        assert row["overall"]["score"] == pytest.approx(before["overall"]["score"], abs=1e-4)
        assert row["problems"] and "contributions" not in row  # random weights write no answer


def test_contributions_are_refused_in_one_line(folder, clips, tmp_path):
    result = CliRunner().invoke(
        app,
        [
            "score",
            str(clips[0]),
            "--model",
            str(folder),
            "--contributions",
            "--out",
            str(tmp_path / "out.jsonl"),
        ],
    )
    assert result.exit_code == 2
    assert result.stderr == (
        f"error: {folder}: a vision-language model has no contributions: what it sees is not told "
        "apart by dimension\n"
    )


def test_a_missing_vision_language_model_is_one_line(folder, clips, tmp_path, monkeypatch):
    config = json.loads((folder / "config.json").read_text())
    moved = tmp_path / "model"
    moved.mkdir()
    (moved / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes())
    (moved / "config.json").write_text(json.dumps({**config, "vlm": "Qwen/Qwen3-VL-8B-Instruct"}))
    result = CliRunner().invoke(
        app,
        [
            "score",
            str(clips[0]),
            "--model",
            str(moved),
            "--out",
            str(tmp_path / "out.jsonl"),
        ],
    )
    assert result.exit_code != 0 and len(result.stderr.splitlines()) == 1
    assert "Qwen/Qwen3-VL-8B-Instruct: the vision-language model is not on this machine" in (
        result.stderr
    )
    assert "hf download Qwen/Qwen3-VL-8B-Instruct --local-dir FOLDER" in result.stderr


def test_an_answer_goes_on_from_the_cache_of_the_scoring_pass(clips):
    """The same texts as without it, for any choice of the rows."""
    model, processor = make_vlm_model()
    batch = processor(videos=clips, prompts=[PROMPT, None, "two cats and a boat"])
    heads = [render_levels({"technical": 2.0 + n, "overall": 3.0}) + "\n" for n in range(3)]
    texts = {}
    for use_cache in (True, False):
        output = model.score(**batch, use_cache=True)
        writer = AnswerWriter(
            model, processor.tokenizer, batch=batch, cache=cache_of(output), heads=heads
        )
        assert writer._cache is not None
        if not use_cache:
            writer._cache = None
        texts[use_cache] = [
            one.text
            for rows in ([0, 1, 2], [2], [1, 0])
            for one in writer.write(rows, max_new_tokens=12)
        ]
    assert texts[True] == texts[False]
    assert texts[True][2] == texts[True][3] and texts[True][0] == texts[True][5]
    assert len(set(texts[True][:3])) == 3
    markers = processor.tokenizer.convert_ids_to_tokens(model.placeholder_ids)
    assert markers == ["<|image_pad|>", "<|video_pad|>"]
    assert not any(marker in text for text in texts[True] for marker in markers)


def test_a_timeline_shows_each_window_with_times_of_its_own(folder, tmp_path):
    clip = write_video(tmp_path / "long.mp4", num_frames=72, width=96, height=64)
    assessor = load(folder)
    timeline = make_timeline(assessor, clip, prompt=PROMPT, window_seconds=1, step_seconds=1)
    assert [window.start_seconds for window in timeline.windows] == [0, 1, 2]
    engine = assessor.engine
    from aigveval.inference.timeline import _looked_through, _views

    _, index = _looked_through(clip)
    seen = _views(clip, engine, [(0.0, 1.0), (2.0, 3.0)], index)
    texts = [engine.processor.tokenizer.decode(view["input_ids"]) for view in seen]
    assert "<0.2 seconds>" in texts[1] and texts[0] == texts[1]
    assert not torch.equal(seen[0]["pixel_values"], seen[1]["pixel_values"])
    assert isinstance(engine.prepare(clip).views, dict)
    assert engine.processor.frame_options == FRAMES

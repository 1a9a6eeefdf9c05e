"""Publishing: what goes to the Hub, what the card says, and that it loads back."""

import json
import re
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import yaml
from huggingface_hub import HfApi, ModelCard
from safetensors import safe_open
from typer.testing import CliRunner

from aigveval.cli.app import app
from aigveval.errors import InputError
from aigveval.evaluation.evaluate import evaluate
from aigveval.evaluation.figures import Sampling
from aigveval.hub import model_card
from aigveval.hub import publish as hub
from aigveval.hub.publish import CheckpointError, HubError, stage
from aigveval.model.checkpoint import CHECKPOINTS
from aigveval.model.modeling import AIGVEvalModel
from aigveval.presets import list_presets, parts_of, read_catalogue, read_preset
from aigveval.reports.tables import write_tables
from encoders.clip_towers import DEFAULT_MODEL
from encoders.weights import WHEELS

from tests.aigveval.tiny_llm import make_batch, make_encoders, make_llm, make_model, make_tokenizer

LITE = CHECKPOINTS / "lite"
SMALL = {"README.md", "config.json", "model.safetensors"}


@pytest.fixture
def remote(monkeypatch, tmp_path):
    """The Hub as a folder: what would go over the network is written there, and read from there."""
    root = tmp_path / "remote"
    calls = []

    def create_repo(self, repo_id, **options):
        calls.append(("repo", repo_id, options))
        owner, _, name = repo_id.rpartition("/")
        return SimpleNamespace(repo_id=f"{owner or 'me'}/{name}")

    def create_commit(self, repo_id, *, operations, **options):
        calls.append(("commit", repo_id, options))
        for operation in operations:
            path = root / repo_id / operation.path_in_repo
            path.parent.mkdir(parents=True, exist_ok=True)
            with operation.as_file() as file:
                path.write_bytes(file.read())
        return SimpleNamespace(commit_url=f"https://hub/{repo_id}", pr_url=None)

    def snapshot_download(repo_id, **options):
        assert (root / repo_id).is_dir(), repo_id
        return str(root / repo_id)

    monkeypatch.setattr(HfApi, "whoami", lambda self: {"name": "me"})
    monkeypatch.setattr(HfApi, "create_repo", create_repo)
    monkeypatch.setattr(HfApi, "create_commit", create_commit)
    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    return SimpleNamespace(root=root, calls=calls)


def files_of(folder):
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def card_of(folder):
    """The card's YAML, read by PyYAML alone, and its text."""
    text = (folder / "README.md").read_text(encoding="utf-8")
    _, facts, body = re.split(r"^---$", text, maxsplit=2, flags=re.MULTILINE)
    return yaml.safe_load(facts), body


def evaluation_file(folder):
    """A real evaluation of eight clips, as the command writes it."""
    scores = [1.0, 1.5, 2.5, 2.0, 3.0, 4.5, 4.0, 5.0]
    rows = [f"{n}.mp4,{1 + n / 2},{score}" for n, score in enumerate(scores)]
    for name, column in (("predictions.csv", 1), ("ratings.csv", 2)):
        lines = [",".join((row.split(",")[0], row.split(",")[column])) for row in rows]
        (folder / name).write_text("\n".join(["video,technical", *lines]) + "\n")
    found = evaluate(
        folder / "predictions.csv", folder / "ratings.csv", sampling=Sampling(draws=50)
    )
    write_tables(folder / "evaluation.json", [], found.to_dict())
    return folder / "evaluation.json", found


def run(*arguments, code=0):
    result = CliRunner().invoke(app, ["publish", *map(str, arguments)])
    assert result.exit_code == code, result.output
    return result.output


# ---- there and back ----


def test_push_and_load_back(remote):
    model, processor = make_model()
    commit = model.push_to_hub("me/tiny", private=True, commit_message="first", token="t")
    assert commit.commit_url == "https://hub/me/tiny"
    assert files_of(remote.root / "me/tiny") == SMALL
    (_, repo, repo_options), (_, _, commit_options) = remote.calls
    assert repo == "me/tiny" and repo_options == {"private": True, "exist_ok": True}
    assert commit_options["commit_message"] == "first"

    back = AIGVEvalModel.from_pretrained("me/tiny", llm=make_llm())
    batch = make_batch(processor, model.config, ["a dog", None])
    torch.testing.assert_close(
        back.score(**batch).scores, model.score(**batch).scores, rtol=0, atol=0, equal_nan=True
    )


def test_only_what_was_trained_is_in_the_weights(remote):
    model, _ = make_model()
    model.push_to_hub("me/tiny")
    with safe_open(remote.root / "me/tiny/model.safetensors", "pt") as file:
        assert all("projectors" in key or ".lora_" in key for key in file.keys())


def test_save_pretrained_with_push_and_a_name_alone(remote, tmp_path):
    model, _ = make_model()
    model.save_pretrained(tmp_path / "mine", push_to_hub=True, tags=["cats"])
    assert files_of(remote.root / "me/mine") == SMALL
    facts, text = card_of(remote.root / "me/mine")
    assert "cats" in facts["tags"] and 'aigveval.load("me/mine")' in text
    assert files_of(tmp_path / "mine") == SMALL - {"README.md"}


def test_a_merged_model_brings_its_frozen_parts(remote, monkeypatch):
    monkeypatch.setattr("aigveval.model.backbones.load_tokenizer", lambda name: make_tokenizer())
    model, processor = make_model()
    model.load_encoders(make_encoders())
    model.push_to_hub("me/whole", merge=True)
    files = files_of(remote.root / "me/whole")
    assert SMALL < files and {"llm/model.safetensors", "encoders/flow.safetensors"} < files
    assert "The frozen parts are in this repository too" in card_of(remote.root / "me/whole")[1]
    back = AIGVEvalModel.from_pretrained("me/whole")
    batch = make_batch(processor, model.config, ["a dog"])
    assert torch.equal(back.score(**batch).scores, model.score(**batch).scores)


def test_a_merged_model_tells_nothing_of_this_machine(remote, tmp_path):
    source = tmp_path / "somebody" / "my-llm"
    make_llm().save_pretrained(source)
    make_tokenizer().save_pretrained(source)
    model, _ = make_model()
    model.config.llm = str(source)
    model.load_encoders(make_encoders())
    model.push_to_hub("me/whole", merge=True)
    for path in (remote.root / "me/whole").rglob("*.*"):
        assert b"somebody" not in path.read_bytes(), path
    back = AIGVEvalModel.from_pretrained("me/whole")
    assert back.config.llm == "my-llm"
    rest = model.config.to_dict() | {"llm": "my-llm"}
    assert back.config.to_dict() == rest


def test_what_the_hub_says_is_one_line(remote, monkeypatch):
    def refuse(self, *arguments, **options):
        raise OSError("401 Client Error\nInvalid user token.")

    monkeypatch.setattr(HfApi, "create_repo", refuse)
    expected = "me/x: the Hugging Face Hub doesn't take it: 401 Client Error Invalid user token."
    with pytest.raises(HubError) as error:
        hub.upload(LITE, "me/x")
    assert str(error.value) == expected
    assert run("lite", "me/x", code=1).splitlines()[-1] == f"error: {expected}"


# ---- the card ----


@pytest.fixture(scope="module")
def lite_card(tmp_path_factory):
    out = tmp_path_factory.mktemp("lite") / "staged"
    assert set(map(str, stage(LITE, out, repo_id="me/lite"))) == SMALL
    return card_of(out)


def test_front_matter(lite_card):
    facts, _ = lite_card
    assert facts["library_name"] == "aigveval"
    assert facts["license"] == "apache-2.0"  # as the makers' own card says
    assert facts["base_model"] == "HuggingFaceTB/SmolLM2-135M-Instruct"
    assert facts["tags"] == ["video-quality-assessment", "ai-generated-video"]


def test_licence_and_source_of_every_wheel(lite_card):
    rows = [line for line in lite_card[1].splitlines() if line.startswith("| ")]
    for wheel in (wheel for wheel in WHEELS.values() if not wheel.optional):
        (row, *_) = [row for row in rows if wheel.requirement in row]
        assert wheel.source in row and row.rstrip(" |").endswith(wheel.licence)


def test_papers_loading_lora_and_the_makers_notes(lite_card):
    _, text = lite_card
    for said in (
        "arXiv:2506.04715",
        "arXiv:2511.18825",
        'aigveval.load("me/lite")',
        "--model me/lite",
        "LoRA: rank 8, alpha 16, on `q_proj`, `v_proj`, `o_proj`, `down_proj`.",
        "weak on actions",
    ):
        assert said in text
    own = (LITE / "README.md").read_text()
    (line,) = [
        line for line in own.splitlines() if line.startswith("| FETV | technical | prompts out |")
    ]
    assert text.index("## Notes") < text.index(line) < text.rindex("## Limits")
    assert [line for line in text.splitlines() if line.startswith("# ")] == ["# lite"]


def test_trained_by_fit_is_told(tmp_path):
    run_folder = tmp_path / "runs/mine"
    history = [
        {"step": 4, "eval_ratings_srocc_motion": 0.1, "eval_srocc": 0.1},
        {
            "step": 8,
            "eval_ratings_srocc_motion": 0.5,
            "eval_ratings_plcc_motion": 0.25,
            "eval_srocc": 0.5,
        },
        {"step": 12, "eval_ratings_srocc_motion": 0.3, "eval_srocc": 0.3},
    ]
    for step in (8, 12):
        (run_folder / f"checkpoint-{step}").mkdir(parents=True)
        state = {"best_global_step": 8, "log_history": history[: step // 4]}
        (run_folder / f"checkpoint-{step}/trainer_state.json").write_text(json.dumps(state))
    config = {
        "train": ["/home/me/ratings_train.csv", "lab/videos/small:train"],
        "epochs": 3,
        "max_steps": None,
        "valid": ["/home/me/ratings.csv"],
        "base": "/home/me/lite",
        "loss": {"level": 1.0},
    }
    (run_folder / "fit.json").write_text(json.dumps(config))
    model = run_folder / "model"
    model.mkdir()
    for name in SMALL - {"README.md"}:
        (model / name).write_bytes((LITE / name).read_bytes())
    stage(model, tmp_path / "staged", repo_id="me/mine", data=["ratings of our own | CC0"])
    facts, text = card_of(tmp_path / "staged")
    assert facts["datasets"] == ["lab/videos"] and "license" not in facts
    assert "model-index" not in facts  # validation had a say in the training
    assert "- ratings of our own \\| CC0\n" in text
    assert (
        "on ratings_train.csv, lab/videos/small:train, validated on ratings.csv, "
        "starting from lite." in text
    )
    assert '- Options: `epochs` 3, `loss` {"level": 1.0}.' in text
    assert "| SROCC | 0.50 |" in text and "| PLCC | 0.25 |" in text
    assert "has not stated their licence" in text
    assert str(tmp_path) not in text and "/home" not in text
    (tmp_path / "latest").symlink_to(model)
    known = model_card.read_training(model)
    assert known is not None and model_card.read_training(tmp_path / "latest") == known


def test_a_card_tells_what_alone_was_fitted(tmp_path):
    config = {"train": ["a.csv"], "stage": "regression", "learn": "scores", "ridge": True}
    (tmp_path / "fit.json").write_text(json.dumps({**config, "epochs": 0, "grad_accum": 1}))
    found = model_card.read_training(tmp_path / "model")
    assert found is not None and found.options == {"ridge": "True", "epochs": "0"}
    (tmp_path / "fit.json").write_text(json.dumps({**config, "stage": "grpo", "ridge": False}))
    found = model_card.read_training(tmp_path / "model")
    assert found is not None and found.options == {"stage": "grpo"}


def test_the_card_of_a_merged_model_names_no_folder(tmp_path):
    config = {"llm": "/home/me/models/qwen", "encoders": []}
    (part,) = model_card.find_parts(config)
    assert part.name == "qwen" and part.repository is None
    (part,) = model_card.find_parts({**config, "llm": "lab/llm"})
    assert part.name == part.repository == "lab/llm"


def test_figures_of_an_evaluation(tmp_path):
    path, found = evaluation_file(tmp_path)
    stage(LITE, tmp_path / "staged", repo_id="me/lite", figures=[path])
    facts, text = card_of(tmp_path / "staged")
    srocc = found.scores["technical"].figures["srocc"]
    assert f"| SROCC | {srocc.value:.2f} [{srocc.low:.2f}, {srocc.high:.2f}] |" in text
    assert "**ratings.csv**: 8 clips, scores on 1:5. Brackets: 95% bootstrap intervals" in text
    (entry,) = facts["model-index"]
    results = {r["name"]: r["value"] for r in entry["results"][0]["metrics"]}
    assert results["SROCC (technical)"] == pytest.approx(srocc.value, abs=1e-4)
    # and the Hub client reads it
    assert ModelCard((tmp_path / "staged/README.md").read_text()).data.eval_results


def test_an_evaluation_inside_of_the_folder_is_found(tmp_path):
    for name in SMALL - {"README.md"}:
        (tmp_path / name).write_bytes((LITE / name).read_bytes())
    evaluation_file(tmp_path)
    card = model_card.make_card(tmp_path, repo_id="me/lite")
    assert "**ratings.csv**" in card.text


def test_a_generated_card_is_made_anew(tmp_path):
    stage(LITE, tmp_path / "first", repo_id="me/lite")
    stage(tmp_path / "first", tmp_path / "second", repo_id="you/other")
    text = card_of(tmp_path / "second")[1]
    assert text.count("## Citation") == 1 and "me/lite" not in text


def test_comments_in_code_are_no_headings(tmp_path):
    note = "# Mine\n\n## How\n\n```python\n# a comment\n```\n"
    (tmp_path / "README.md").write_text(note)
    _, text = model_card._readme(tmp_path / "README.md")
    assert text == "### How\n\n```python\n# a comment\n```"


def test_a_vision_language_model_is_refused_in_one_line(tmp_path):
    folder = tmp_path / "vlm"
    folder.mkdir()
    (folder / "config.json").write_text('{"model_type": "aigveval_qsave", "vlm": "x/y"}')
    (folder / "model.safetensors").touch()
    with pytest.raises(CheckpointError, match="^.*vlm: a vision-language model; a card"):
        stage(folder, tmp_path / "out", repo_id="me/mine")


@pytest.mark.parametrize("preset", [p for p in list_presets() if "encoders" in read_preset(p)])
def test_licences_of_a_preset(preset):
    options = read_preset(preset)
    entries = [{"name": e} if isinstance(e, str) else e for e in options["encoders"]]
    config = {
        "llm": options["llm"],
        "encoders": [
            {"options": {}, "dimension": "motion", "num_tokens": 1, "dim": 1, **entry}
            for entry in entries
        ],
    }
    for entry in config["encoders"]:
        if entry["name"] == "semantic_clip":  # as the encoder's `options()` gives them
            entry["options"] = {"model": DEFAULT_MODEL, "weights": None}
    found = [(part.name, part.licence) for part in model_card.find_parts(config)]
    assert found == [(part.name, part.licence) for part in parts_of(preset)]


@pytest.mark.parametrize(
    "name, options",
    [
        ("semantic_clip", {"model": "ViT-B-16", "weights": "laion2b_s34b_b88k"}),
        ("technical_timm", {"model": "resnet50"}),
        ("technical_pyiqa", {"metrics": ["piqe"]}),
        ("motion_flow", {"flow": "raft_small"}),
        ("technical_mine", {}),
    ],
)
def test_no_licence_is_claimed_for_weights_that_we_do_not_know(name, options):
    entry = {"name": name, "options": options, "dimension": "motion", "num_tokens": 1, "dim": 1}
    llm, part = model_card.find_parts({"llm": "lab/llm", "encoders": [entry]})
    assert (llm.licence, part.licence) == (model_card.UNKNOWN, model_card.UNKNOWN)
    assert llm.repository == "lab/llm"
    assert name not in read_catalogue()["encoders"] or options


# ---- what is refused ----


def checkpoint(folder, **changes):
    folder.mkdir()
    config = {**json.loads((LITE / "config.json").read_text()), **changes}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "model.safetensors").write_bytes((LITE / "model.safetensors").read_bytes())
    return folder


def test_folders_of_this_machine(tmp_path):
    folder = checkpoint(tmp_path / "a", llm="/models/qwen")
    with pytest.raises(CheckpointError) as error:
        stage(folder, tmp_path / "out", repo_id="me/a")
    assert str(error.value) == (
        f"{folder}: the LLM is /models/qwen on this machine, which others don't have; name it by "
        "its Hub id in config.json, or publish a merged model"
    )
    entry = json.loads((LITE / "config.json").read_text())["encoders"][0]
    entry["options"]["weights"] = str(tmp_path)
    with pytest.raises(CheckpointError, match="weights of semantic_lite is"):
        stage(checkpoint(tmp_path / "b", encoders=[entry]), tmp_path / "out", repo_id="me/a")
    assert not (tmp_path / "out").exists()


def test_no_checkpoint_and_no_evaluation(tmp_path):
    with pytest.raises(CheckpointError, match="no checkpoint, it has no config.json"):
        stage(tmp_path, tmp_path / "out", repo_id="me/a")
    for text in ("{", "[]", '{"scores": 3}'):
        (tmp_path / "figures.json").write_text(text)
        with pytest.raises(InputError) as error:
            stage(LITE, tmp_path / "out", repo_id="me/a", figures=[tmp_path / "figures.json"])
        assert str(error.value).startswith(f"{tmp_path / 'figures.json'}: ")
    with pytest.raises(InputError, match="gone.json: no such file$"):
        stage(LITE, tmp_path / "out", repo_id="me/a", figures=[tmp_path / "gone.json"])


# ---- the command ----


def test_command_shows_what_would_go_up(remote, tmp_path):
    said = run("lite", "me/lite", "--out", tmp_path / "out", "--license", "mit", "--data", "cats")
    assert " MB  model.safetensors" in said and said.endswith("nothing was\n")
    assert files_of(tmp_path / "out") == SMALL and not remote.calls
    assert card_of(tmp_path / "out")[0]["license"] == "mit"
    assert "is not an empty folder" in run("lite", "me/lite", "--out", tmp_path / "out", code=2)


def test_a_full_disk_is_one_line_that_names_the_folder(remote, tmp_path, monkeypatch):
    def full(source, target):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(shutil, "copyfile", full)
    said = run("lite", "me/lite", "--out", tmp_path / "out", code=2)
    assert said.endswith(f"{tmp_path / 'out'}: cannot be written: No space left on device\n")


def test_command_uploads(remote):
    said = run("lite", "me/lite", "--private", "--revision", "refs/pr/1")
    assert said.endswith("Published: https://hub/me/lite\n")
    assert files_of(remote.root / "me/lite") == SMALL
    sent = (remote.root / "me/lite/model.safetensors").read_bytes()
    assert sent == Path(LITE / "model.safetensors").read_bytes()
    assert remote.calls[0][2]["private"] is True and remote.calls[1][2]["revision"] == "refs/pr/1"


@pytest.mark.parametrize(
    "arguments, said, code",
    [
        (["lite", "lite"], "a repository of the Hub is OWNER/NAME, got 'lite'", 2),
        (["nothing", "me/x"], "no model 'nothing'", 2),
        (["me/x", "me/y"], "me/x: no folder on this machine", 2),
    ],
)
def test_command_errors(remote, arguments, said, code):
    assert run(*arguments, code=code).startswith(f"error: {said}")
    assert not remote.calls

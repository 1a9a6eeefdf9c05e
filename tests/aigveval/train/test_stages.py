"""SFT, GRPO and SFT on the best answers, on a tiny random LLM: they learn, resume and load."""

import json
import math
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import yaml
from safetensors.torch import load_file

from aigveval.data.cot import write_cot
from aigveval.model.modeling import AIGVEvalModel
from aigveval.model.processing import AIGVEvalProcessor
from aigveval.model.projector import pack_features
from aigveval.train import fit, trainer
from aigveval.train.answer_targets import FromDetections, FromLabels
from aigveval.train.answers import AnswerCollator, read_answers, with_answers
from aigveval.train.config import FitError
from aigveval.train.dataset import QualityDataset
from aigveval.train.detector_fit import names_in
from aigveval.train.losses import IGNORED, answer_loss
from aigveval.train.rejection_sampling import read_completions
from aigveval.train.rows import TrainingRow
from aigveval.train.stages import read_stages, run_stages, write_fit_config
from prompts import SCORES, check_consistency, parse, render_defects, render_levels, split_levels
from prompts.phrasings import DEGREES

from ..fit_case import ENCODERS, history, run_and_kill
from ..stage_case import CLIPS, make_labels, make_llm, make_stage

pytestmark = pytest.mark.skipif(
    find_spec("trl") is None, reason="TRL is not installed: pip install 'aigveval[grpo]'"
)
GROUP = 4
GRPO = {"group": GROUP, "beta": 0.1, "max_new_tokens": 40, "rewards": {"format": 1, "length": 1}}


@pytest.fixture(scope="session")
def room(tmp_path_factory, fit_data):
    """Data with labels of defects, an LLM, and what three stages made of them."""
    from encoders import registry

    folder = tmp_path_factory.mktemp("stages")
    llm = folder / "llm"
    make_llm(llm, make_labels(fit_data))
    kept, registry._registered = registry._registered, dict(ENCODERS)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    # the options of `make_stage` as a file, with one entry for each stage
    config = make_stage(fit_data, llm, folder / "run", epochs=25)
    (folder / "sft.yaml").write_text(write_fit_config(config))
    common = yaml.safe_load((folder / "sft.yaml").read_text())
    for name in ("stage", "base", "completions"):
        del common[name]
    stages = [
        {"stage": "sft"},
        {
            "stage": "grpo",
            "max_steps": 3,
            "batch_size": 4,
            "grad_accum": 2,
            "grpo": GRPO,
            "lora_learning_rate": 1e-3,
            "learning_rate": 1e-3,
            "valid": [str(fit_data / "labels.jsonl")],
        },
        {"stage": "sft2", "epochs": 1, "batch_size": 3, "best_threshold": 0.0, "best_mix": 0.5},
    ]
    (folder / "stages.yaml").write_text(yaml.safe_dump({**common, "stages": stages}))
    configs = read_stages(folder / "stages.yaml")
    results = run_stages(configs)
    yield {"folder": folder, "data": fit_data, "llm": llm, "configs": configs, "results": results}
    torch.set_num_threads(threads)
    registry._registered = kept


def trained(result) -> dict[str, torch.Tensor]:
    return load_file(result.model / "model.safetensors")


def load(result):
    return (
        AIGVEvalModel.from_pretrained(result.model),
        AIGVEvalProcessor.from_pretrained(result.model),
    )


def test_sft_learns_scores_and_answers(room):
    logged = [entry for entry in history(room["configs"][0].output_dir) if "text_loss" in entry]
    for name in ("text_loss", "score_loss"):
        assert logged[-1][name] < 0.7 * logged[0][name], name
    for entry in logged:  # both weights are 1
        assert entry["loss"] == pytest.approx(entry["text_loss"] + entry["score_loss"], abs=1e-3)
    model, _ = load(room["results"][0])
    assert model.config.explains and model.config.answer_times == "tenths"


def test_only_projectors_and_lora_get_gradients(room):
    model, processor = load(room["results"][0])
    answers = [row.answers[0] for row in read_answers(room["data"] / "labels.jsonl")]
    batch = make_batch(model, processor, answers)
    for projector in model.model.projectors.values():  # what is told within 1-5: no end is reached
        torch.nn.init.normal_(projector.score_head.weight, std=0.02)
        torch.nn.init.zeros_(projector.score_head.bias)
    targets = batch.pop("targets")
    logits = model.train()(**batch, logits_to_keep=targets.shape[1] + 1).logits
    answer_loss(logits, targets).backward()
    for name, parameter in model.named_parameters():
        learns = ".lora_" in name or ".projectors." in name
        assert parameter.requires_grad == learns, name
        assert (parameter.grad is not None) == learns, name
        if learns:
            assert parameter.grad.abs().sum() > 0, name


def make_batch(model, processor, answers):
    """Questions with answers, and features like those of the training."""
    torch.manual_seed(0)
    features = pack_features(
        [
            part.mean + part.std * torch.randn(len(answers), count, dim)
            for part, (count, dim) in zip(
                model.model.projectors.values(), model.config.feature_shapes
            )
        ]
    )
    questions = processor.encode_prompts(["a scene"] * len(answers))
    return with_answers({**questions, "features": features}, processor.tokenizer, answers)


def test_the_loss_is_on_what_the_model_writes(room):
    model, processor = load(room["results"][0])
    answers = [row.answers[0] for row in read_answers(room["data"] / "labels.jsonl")]
    batch = make_batch(model, processor, answers)
    questions = processor.encode_prompts(["a scene"])["input_ids"][0]
    for ids, mask, targets, answer in zip(
        batch["input_ids"], batch["attention_mask"], batch["targets"], answers
    ):
        head, rest = split_levels(answer)
        assert head == render_levels(parse(answer).scores) + "\n"
        told = [token for token in targets.tolist() if token != IGNORED]
        assert processor.tokenizer.decode(told) == rest + "</s>"
        shown = ids[mask.bool()].tolist()
        assert shown[-len(told) :] == told
        assert processor.tokenizer.decode(shown).endswith(answer + "</s>")
        slots = processor.encode_prompts(["a scene"])["slot_positions"][0]
        assert shown[: slots[0] + 1] == questions[: slots[0] + 1].tolist()  # up to the first slot
    # the mean over the tokens of all rows, computed by hand
    logits = model(
        **{k: v for k, v in batch.items() if k != "targets"},
        logits_to_keep=batch["targets"].shape[1] + 1,
    ).logits
    logps = logits[:, :-1].log_softmax(-1)
    told = [
        (i, j, token)
        for i, row in enumerate(batch["targets"].tolist())
        for j, token in enumerate(row)
        if token != IGNORED
    ]
    by_hand = -sum(logps[i, j, token].item() for i, j, token in told) / len(told)
    assert answer_loss(logits, batch["targets"]).item() == pytest.approx(by_hand, abs=1e-4)
    nothing = torch.full_like(batch["targets"], IGNORED)
    assert answer_loss(logits, nothing).item() == 0


@pytest.mark.parametrize("counts", [(5, 2), (5, 0), (0, 0)])
def test_processes_weigh_answers_by_their_tokens(counts, monkeypatch):
    """The mean of their losses, which DDP takes, is that of one process with all the rows."""
    logits = torch.randn(2, 6, 7)
    targets = torch.tensor([[IGNORED] * (5 - n) + [3] * n for n in counts])
    written = torch.tensor(counts)
    monkeypatch.setattr(trainer, "gather_rows", lambda own: written)
    found = [
        trainer.answer_term(
            lambda **inputs: SimpleNamespace(logits=logits[row : row + 1]),
            {"answers": {"targets": targets[row : row + 1]}},
        )
        for row in (0, 1)
    ]
    mean = sum(term.loss for term in found) / 2
    torch.testing.assert_close(mean, answer_loss(logits, targets))
    assert [term.logged for term in found] == [any(counts)] * 2


def test_what_is_logged_is_of_all_processes(monkeypatch):
    logged = []

    class Library:
        def log(self, logs):
            logged.append(logs)

    class Ours(trainer.TrainerParts, Library):
        pass

    ours = Ours()
    monkeypatch.setattr(trainer, "gather_object", lambda own: [*own, {"text_loss": 4.0}])
    ours.note("text_loss", torch.tensor(1.0))
    ours.note("text_loss", torch.tensor(3.0))
    ours.log({"loss": 1.0})
    assert logged == [{"loss": 1.0, "text_loss": 3.0}]


def test_rows_without_answer_teach_scores_alone(room):
    collate = AnswerCollator(
        collate=lambda items: {
            **load(room["results"][0])[1].encode_prompts(["x"] * len(items)),
            "labels": torch.zeros(len(items), 13),
        },
        tokenizer=load(room["results"][0])[1].tokenizer,
        targets=FromLabels(model=load(room["results"][0])[0], noise=0.0),
    )
    batch = collate([{"answer": None}, {"answer": None}])
    assert (batch["answers"]["targets"] == IGNORED).all()
    assert "answers" not in collate([{}])  # as in validation


def completions(room):
    return list(read_completions(Path(room["configs"][1].output_dir) / "completions.jsonl"))


def test_grpo_logs_answers_with_their_rewards(room):
    found = completions(room)
    assert len(found) == 3 * 2 * GROUP
    groups = {}
    for item in found:
        groups.setdefault((item.step, item.row), []).append(item)
        levels, rest = split_levels(item.given)
        assert levels == item.given and not rest and set(parse(levels).scores) == set(SCORES)
        assert set(item.rewards) == {"format", "length"}
        assert item.reward == pytest.approx(sum(item.rewards.values()) / 2, abs=1e-4)
        assert item.prompt == "a scene" and Path(item.video).is_file()
    assert {step for step, _ in groups} == {0, 1, 2}
    assert all(len(group) == GROUP for group in groups.values())
    assert all(len({item.given for item in group}) == 1 for group in groups.values())
    assert any(len({item.completion for item in group}) > 1 for group in groups.values())
    # what is logged is the mean of what the file holds
    for entry in [e for e in history(room["configs"][1].output_dir) if "reward" in e]:
        of_step = [item.reward for item in found if item.step == entry["step"] - 1]
        assert entry["reward"] == pytest.approx(sum(of_step) / len(of_step), abs=1e-4)
        assert entry["mean_reward"] == pytest.approx(entry["reward"], abs=1e-4)
        assert math.isfinite(entry["kl"]) and math.isfinite(entry["score_loss"])


def test_a_reward_that_has_nothing_to_judge_does_not_lower_the_mean(tmp_path):
    from aigveval.train.grpo import LoggedRewards

    clips = SimpleNamespace(rows=[SimpleNamespace(video="a.mp4", prompt=None)])
    logged = LoggedRewards(tmp_path, clips, {"format": 0.4, "facts": 0.6})
    told = {}
    text = "Motion quality: good\nMotion: smooth.\nDefects: none\nScores: - 4.0 - -"
    for function in logged.functions():
        function(
            completions=[text],
            answer=[text],
            image=[0],
            given=[""],
            finished=[True],
            trainer_state=SimpleNamespace(global_step=0, is_world_process_zero=True),
            log_metric=told.__setitem__,
        )
    (line,) = read_completions(tmp_path / "completions.jsonl")
    assert line.rewards == {"format": 1.0, "facts": None}
    assert told == {"mean_reward": 1.0} and line.reward == 1.0


def test_grpo_moves_what_is_trained_and_nothing_else(room):
    before, after = trained(room["results"][0]), trained(room["results"][1])
    assert before.keys() == after.keys()
    moved = {key for key in before if not torch.equal(before[key], after[key])}
    assert any(".lora_" in key for key in moved) and any(".projectors." in key for key in moved)
    assert not any(key.endswith((".mean", ".std", ".axes", ".probe")) for key in moved)
    assert room["results"][1].metrics["labels_srocc_technical"] <= 1


def test_answers_begin_with_the_levels_of_the_scoring_pass(room, tmp_path):
    config = replace(room["configs"][1], output_dir=str(tmp_path))
    ready = fit._prepare(config, tmp_path, fit.Console(quiet=True))
    first = [item for item in completions(room) if item.step == 0]
    for row in {item.row for item in first}:
        batch = ready.built.collate([ready.train_set[row]])
        del batch["labels"]
        scores = dict(zip(SCORES, ready.built.model.score(**batch).scores[0].tolist()))
        given = {item.given for item in first if item.row == row}
        assert given == {render_levels(scores) + "\n"}


def test_grpo_makes_likelier_what_is_rewarded(room, tmp_path, monkeypatch):
    from aigveval.train import grpo

    half = len(AIGVEvalProcessor.from_pretrained(room["results"][0].model).tokenizer) // 2

    def format(completion_ids, **columns):  # a reward that a model of random weights can earn
        return [sum(token < half for token in ids) / len(ids) for ids in completion_ids]

    monkeypatch.setattr(grpo, "trl_rewards", lambda names: [format])
    config = replace(
        room["configs"][1],
        output_dir=str(tmp_path),
        max_steps=24,
        batch_size=32,
        grad_accum=1,
        grpo={**GRPO, "group": 16, "beta": 0.0, "max_new_tokens": 12, "rewards": {"format": 1}},
        lora_learning_rate=1e-2,
        learning_rate=1e-2,
        score_weight=0.0,
        valid=[],
        warmup=0.0,
    )
    fit.main(config)
    rewards = [entry["reward"] for entry in history(tmp_path) if "reward" in entry]
    assert sum(rewards[-6:]) / 6 > sum(rewards[:3]) / 3 + 0.05, rewards


def test_the_likelihood_that_grpo_moves_is_that_of_the_sampling(room, tmp_path, monkeypatch):
    """TRL's log-probabilities, by the numbers of rows, against the model with their features."""
    from aigveval.train import grpo

    compared = []
    theirs = grpo.GroupTrainer._get_per_token_logps_and_entropies

    def compare(self, model, input_ids, attention_mask, count, **inputs):
        found = theirs(self, model, input_ids, attention_mask, count, **inputs)
        rows = inputs["pixel_values"][:, 0].tolist()
        features = self.evidence.batch(rows, device=input_ids.device)["features"]
        logits = self.model.score(
            input_ids=input_ids,
            attention_mask=attention_mask,
            features=features,
            logits_to_keep=count + 1,
        ).logits
        logps = logits[:, :-1].log_softmax(-1).gather(-1, input_ids[:, -count:, None])[..., 0]
        difference = (logps - found[0].detach()).abs() * attention_mask[:, -count:]
        compared.append((model is self.ref_model, difference.max().item()))
        return found

    monkeypatch.setattr(grpo.GroupTrainer, "_get_per_token_logps_and_entropies", compare)
    fit.main(
        replace(
            room["configs"][1],
            output_dir=str(tmp_path),
            max_steps=1,
            grad_accum=1,
            batch_size=8,
            valid=[],
        )
    )
    assert sorted(is_reference for is_reference, _ in compared) == [False, True]
    assert max(difference for _, difference in compared) < 1e-4


def test_sft2_learns_the_best_answers_beside_the_first_data(room):
    config = room["configs"][2]
    assert config.completions == [f"{room['configs'][1].output_dir}/completions.jsonl"]
    finished = [item for item in completions(room) if item.finished]
    if not finished:
        pytest.skip("no sampled answer was finished")
    parts = fit.add_best(
        config, fit.read_answer_parts(config, config.train), fit.Console(quiet=True)
    )
    best = parts[-1].rows
    assert sum(map(len, parts[:-1])) == min(len(CLIPS), round(0.5 * len(best)))
    assert {row.answers[0] for row in best} <= {item.text for item in finished}
    assert room["results"][2].steps == math.ceil(sum(map(len, parts)) / 3)


@pytest.mark.parametrize("number", [0, 1])
def test_resumed_equals_uninterrupted(room, tmp_path, monkeypatch, number):
    whole = replace(
        room["configs"][number],
        max_steps=3,
        save_steps=1,
        valid=[],
        output_dir=str(tmp_path / "whole"),
    )
    expected = fit.main(whole)
    cut = replace(whole, output_dir=str(tmp_path / "cut"))
    run_and_kill(cut, monkeypatch, step=3, callback="SaveCallback")
    torch.rand(7)  # another process has another random state
    result = fit.main(cut)
    assert result.resumed_from is not None and result.resumed_from.name == "checkpoint-2"
    left, right = trained(expected), trained(result)
    for key, value in left.items():
        assert torch.equal(value, right[key]), key
    if number == 1:
        files = [Path(c.output_dir, "completions.jsonl").read_text() for c in (whole, cut)]
        assert files[0] == files[1]


def test_files_of_cot_and_labels_teach_the_same(fit_data, tmp_path):
    labels = make_labels(fit_data)
    write_cot([labels], tmp_path / "cot.jsonl", times="tenths", variants=2)
    made, read = read_answers(labels, variants=2), read_answers(tmp_path / "cot.jsonl")
    assert len(made) == len(read) == len(CLIPS)
    for first, second in zip(made, read):
        assert first.answers == second.answers and len(first.answers) == 2
        assert first.scores == second.scores and first.clip_length == second.clip_length == 10
        assert Path(first.video).resolve() == Path(second.video).resolve()
    with pytest.raises(FitError, match="its times are in tenths, answer_times is seconds"):
        read_answers(tmp_path / "cot.jsonl", times="seconds")


def test_an_epoch_shows_another_wording_and_none_beside_a_wrong_prompt(fit_data, tmp_path):
    from aigveval.features.cache import FeatureCache, extract

    rows = read_answers(make_labels(fit_data), variants=2)
    # another prompt, so that there is a wrong one
    rows = [replace(row, prompt=f"scene {i}") for i, row in enumerate(rows)]
    cache, encoders = FeatureCache(fit_data / "cache"), [make() for make in ENCODERS.values()]
    digests = extract([row.video for row in rows], encoders, cache, progress=False).digests
    dataset = QualityDataset(
        [rows],
        digests,
        encoders,
        cache,
        answers=True,
        mismatch_probability=0.5,
        prompt_dropout=0.2,
        seed=1,
    )
    shown = {True: 0, False: 0}
    for epoch in range(20):
        for i, row in enumerate(rows):
            item = dataset[epoch, i]
            own = item["prompt"] == row.prompt
            shown[own] += 1
            assert item["answer"] == (row.answers[(epoch + i) % 2] if own else None)
    assert min(shown.values()) > 20


def test_dimensions_without_encoder_are_not_spoken_of(fit_data):
    row = read_answers(make_labels(fit_data))[0].without(["motion"])
    answer = parse(row.answers[0])
    assert "motion" not in answer.scores and "motion" not in answer.reasoning
    assert {defect.name for defect in answer.defects} == {"underexposure"} and not answer.problems


def test_wrong_runs_end_with_one_line(room, tmp_path):
    grpo = room["configs"][1]
    plain = tmp_path / "plain.jsonl"
    clip = room["data"] / "videos" / "0.mp4"
    plain.write_text(json.dumps({"video": str(clip), "technical": 2.0}))
    with pytest.raises(FitError, match="no row has an answer to learn: stage grpo needs files of"):
        fit.main(replace(grpo, train=[str(plain)], output_dir=str(tmp_path / "a")))
    silent = replace(
        room["configs"][0], stage="regression", epochs=1, output_dir=str(tmp_path / "silent")
    )
    base = str(fit.main(silent).model)
    with pytest.raises(FitError, match="doesn't write answers; stage sft teaches it, before grpo"):
        fit.main(replace(grpo, base=base, output_dir=str(tmp_path / "b")))
    with pytest.raises(FitError, match="writes times in tenths, answer_times is seconds"):
        fit.main(replace(grpo, answer_times="seconds", output_dir=str(tmp_path / "c")))
    with pytest.raises(FitError, match=r"no finished answer has a reward of 1 or more"):
        fit.main(replace(room["configs"][2], best_threshold=1.0, output_dir=str(tmp_path / "d")))


def test_sft_fits_the_detector_and_the_model_reads_its_detections(room, tmp_path):
    result = fit.main(
        make_stage(
            room["data"],
            room["llm"],
            tmp_path / "run",
            detector=True,
            epochs=2,
            learn="distill",
            answer_variants=2,
        )
    )
    model, processor = load(result)
    assert model.config.detector == ["underexposure", "shake"]
    assert all(
        linear.weight.any()
        for linear in (model.model.detector.presence, model.model.detector.severity)
    )
    answers = [row.answers[0] for row in read_answers(room["data"] / "labels.jsonl")]
    told = make_batch(model, processor, answers)
    lines = ["Signs: 8 shake 2 4.0-8.0\n"] * len(answers)
    with_detections = with_answers(
        {**processor.encode_prompts(["a scene"] * len(answers)), "features": told["features"]},
        processor.tokenizer,
        answers,
        lines,
    )
    text = processor.tokenizer.decode(with_detections["input_ids"][0])
    assert "Overall quality: fair\nSigns: 8 shake 2 4.0-8.0\nTechnical:" in text
    assert torch.equal(with_detections["targets"], told["targets"])  # they are given, not learned


def test_the_detector_needs_undamaged_clips(room, tmp_path):
    lines = (room["data"] / "labels.jsonl").read_text().splitlines()
    damaged = room["data"] / "damaged.jsonl"
    damaged.write_text("".join(line + "\n" for line in lines if '"name"' in line))
    message = "detector needs some clips whose answer says that there are no"
    with pytest.raises(FitError, match=message):
        fit.main(
            make_stage(
                room["data"], room["llm"], tmp_path / "run", train=[str(damaged)], detector=True
            )
        )


def test_of_rows_of_one_clip_the_detector_learns_the_first():
    def row(video, defects):
        text = f"Defects: {defects}"
        return TrainingRow(video=video, prompt=None, scores=(3.0,) * 4, answers=(text,))

    rows = [row("a.mp4", "blur 3"), row("a.mp4", "shake 2"), row("b.mp4", "none")]
    assert names_in(SimpleNamespace(rows=rows)) == ["blur"]


def test_a_detector_of_no_defect_is_refused_before_the_training(room, tmp_path):
    """Its model could not be loaded."""
    clean = room["data"] / "clean.jsonl"
    with clean.open("w") as file:
        for line in (room["data"] / "labels.jsonl").read_text().splitlines():
            row = json.loads(line)
            row["defects"] = dict.fromkeys(row["defects"], [])
            file.write(json.dumps(row) + "\n")
    run = make_stage(room["data"], room["llm"], tmp_path / "run", train=[str(clean)], detector=True)
    with pytest.raises(FitError, match="detector needs some clips whose answer names a defect"):
        fit.main(run)


def test_learning_to_read_makes_the_answer_of_what_is_told():
    tell = FromDetections(names=["blur", "shake", "prompt_mismatch"], variants=1)
    known = {"answer": "Scores: 2.0 4.0 3.0 3.0"}
    torch.manual_seed(0)
    answers, lines = tell({}, [known, {"answer": "Scores: 2.0 4.0 - 3.0"}] * 50)
    told, words = 0, {word for choices in DEGREES["adv"] for word in choices}
    for number, (text, line) in enumerate(zip(answers, lines)):
        answer = parse(
            text, expected_scores=SCORES if number % 2 == 0 else SCORES[:2], duration_seconds=10
        )
        kinds = answer.problem_counts()
        assert not set(kinds) - {"missing_line"}, (text, kinds)
        numbers, *groups = line.removeprefix("Signs: ").strip().split("; ")
        assert text.endswith(f"Scores: {numbers}")
        signs = [sign for group in groups for sign in group.split(" ", 1)[1].split(", ")]
        named = [s for s in signs if s != "none" and int(s[0]) >= 5]
        assert "; ".join(s[2:] for s in named) == render_defects(answer.defects).replace("none", "")
        assert number % 2 == 0 or "prompt mismatch" not in line
        assert not [p for p in check_consistency(answer) if p.kind == "defect_contradicts_score"]
        told += len(named)
        assert not words & set(" ".join(answer.reasoning.values()).strip(".").split())
    assert told > 40
    torch.manual_seed(0)
    assert tell({}, [known]) == (answers[:1], lines[:1])

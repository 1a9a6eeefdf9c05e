"""Lists of stages in a YAML file, the best of what was sampled, and what is refused."""

from dataclasses import asdict, replace
from io import StringIO
from pathlib import Path

import pytest
import yaml
from rich.console import Console
from typer.testing import CliRunner

from aigveval.cli.app import app
from aigveval.train.config import FitConfig, FitError, GrpoOptions
from aigveval.train.rejection_sampling import (
    Completion,
    add_best,
    append_completions,
    best_of_groups,
    drop_completions,
    read_completions,
)
from aigveval.train.rows import Part, TrainingRow
from aigveval.train.stages import read_stages

EXAMPLE = Path(__file__).parents[3] / "examples" / "stages" / "qsave_stages_lite.yaml"
COMMON = "train: a.jsonl\noutput_dir: run\ncache_dir: cache\n"
THREE = (
    COMMON
    + """
learning_rate: 1e-3
lora: {r: 4}
stages:
- {stage: sft, epochs: 3}
- {stage: grpo, batch_size: 8, learning_rate: 1e-5, grpo: {group: 4, rewards: {format: 1}}}
- {stage: sft2, best_mix: 2}
"""
)


def write(tmp_path, text):
    path = tmp_path / "stages.yaml"
    path.write_text(text)
    return path


def test_stages_go_on_from_each_other(tmp_path):
    first, second, third = read_stages(write(tmp_path, THREE))
    assert [c.stage for c in (first, second, third)] == ["sft", "grpo", "sft2"]
    run = tmp_path / "run"
    assert [c.output_dir for c in (first, second, third)] == [
        str(run / "1-sft"),
        str(run / "2-grpo"),
        str(run / "3-sft2"),
    ]
    assert first.base is None and first.lora == {"r": 4} and first.epochs == 3
    assert second.base == str(run / "1-sft" / "model") and second.learning_rate == 1e-5
    assert GrpoOptions(**second.grpo).group == 4 and GrpoOptions(**second.grpo).beta == 0.04
    assert third.base == str(run / "2-grpo" / "model") and third.learning_rate == 1e-3
    assert third.completions == [str(run / "2-grpo" / "completions.jsonl")]


def test_changes_and_base_reach_the_stages(tmp_path):
    changes = ["learning_rate=5", "grpo.beta=0"]
    first, second, _ = read_stages(write(tmp_path, THREE), changes=changes, base="lite")
    assert (
        first.base == "lite"
        and first.lora == FitConfig.__dataclass_fields__["lora"].default_factory()
    )
    assert first.learning_rate == second.learning_rate == 5
    assert second.grpo["beta"] == 0 and second.grpo["group"] == 4
    assert read_stages(write(tmp_path, COMMON))[0].stage == "regression"


def test_all_stages_are_printed(tmp_path):
    result = CliRunner().invoke(app, ["fit", str(write(tmp_path, THREE)), "--print-config"])
    assert result.exit_code == 0
    shown = list(yaml.safe_load_all(result.stdout))
    assert [one["stage"] for one in shown] == ["sft", "grpo", "sft2"]
    assert shown[0]["grpo"] == asdict(GrpoOptions())


def test_the_example_is_sound():
    stages = read_stages(EXAMPLE)
    assert [config.stage for config in stages] == ["sft", "grpo", "sft2"]
    assert stages[0].base == "lite" and stages[2].base == f"{stages[1].output_dir}/model"
    # it shows the default rewards
    assert stages[1].grpo["rewards"] == GrpoOptions().rewards


GRPO = COMMON + "base: lite\nstage: grpo\n"


@pytest.mark.parametrize(
    "text, message",
    [
        (COMMON + "stages: []", "stages must be a list of mappings, each with its stage"),
        (COMMON + "stages: [sft]", "stage 1 must be a mapping with its stage, got 'sft'"),
        (COMMON + "stages: [{stage: rl}]", "stage 1 (rl): stage must be one of ('regression', "),
        (
            COMMON + "stage: sft\nstages: [{stage: sft}]",
            "stage stands in the entries of stages, not",
        ),
        (
            COMMON + "stages: [{stage: sft, base: x}]",
            "stage 1: base comes from the stages before; ",
        ),
        (
            COMMON + "stages: [{stage: sft}, {stage: grpo, batch_size: 6}]",
            "stage 2 (grpo): batch_size x grad_accum = 6 answers per step must be a multiple of "
            "grpo.group = 8",
        ),
        (
            COMMON + "stages: [{stage: grpo}]",
            "stage 1 (grpo): stage grpo goes on from a model that ",
        ),
        (
            COMMON + "stages: [{stage: sft2}]",
            "stage 1 (sft2): stage sft2 needs completions, the file ",
        ),
        (COMMON + "stage: sft\ntext_weight: 0", "stage sft needs a text_weight above 0"),
        (COMMON + "stage: sft\ntrain_encoders: [x]", "train_encoders is for stage regression only"),
        (
            COMMON + "stage: sft\nlearn: listening",
            "learn must be one of ('scores', 'distill'), got ",
        ),
        (
            COMMON + "answer_times: minutes",
            "answer_times must be one of ('tenths', 'seconds'), got ",
        ),
        (GRPO + "ema: 0.9", "ema can't be combined with stage grpo"),
        (GRPO + "ridge: true", "ridge can't be combined with stage grpo"),
        (GRPO + "grpo: {gruop: 4}", "unknown option of grpo 'gruop'; did you mean 'group'?"),
        (GRPO + "grpo: {group: 1}", "grpo.group must be at least 2, got 1"),
        (GRPO + "grpo: {temperature: 0}", "grpo.temperature must be above 0, got 0"),
        (GRPO + "grpo: {beta: high}", "grpo.beta must be a number, got 'high'"),
        (GRPO + "grpo: {loss: ppo}", "grpo.loss must be one of ('grpo', "),
        (GRPO + "grpo: {rewards: {beauty: 1}}", "unknown reward 'beauty'; there are format, "),
        (
            GRPO + "grpo: {rewards: {format: 0}}",
            "at least one of grpo.rewards must weigh more than 0",
        ),
        (COMMON + "best_threshold: 2", "best_threshold must lie in [0, 1], got 2"),
    ],
)
def test_what_is_wrong_is_named(tmp_path, text, message):
    path = write(tmp_path, text)
    with pytest.raises(FitError) as error:
        read_stages(path)
    assert str(error.value).startswith(f"{path}: {message}")
    assert "\n" not in str(error.value)


def completion(step, row, reward, *, text="x", finished=True):
    return Completion(
        step=step,
        row=row,
        video=f"{row}.mp4",
        prompt="p",
        given="Overall quality: fair\n",
        completion=text,
        finished=finished,
        rewards={"format": reward, "table": None},
        reward=reward,
    )


SAMPLED = [
    completion(0, 1, 0.5, text="a"),
    completion(0, 1, 0.9, text="b"),
    completion(0, 1, 0.9, text="c"),
    completion(0, 1, 1.0, text="cut", finished=False),
    completion(0, 2, 0.3, text="d"),
    completion(1, 2, 0.85, text="e"),
    completion(2, 2, 0.95, text="e"),
]


def test_the_best_of_each_group_is_taken():
    chosen = best_of_groups(SAMPLED, threshold=0.8)
    assert [(item.row, item.completion) for item in chosen] == [(1, "b"), (2, "e")]
    assert chosen[1].step == 2  # the same text again counts once
    assert [i.completion for i in best_of_groups(SAMPLED, threshold=0.2)] == ["b", "d", "e"]
    assert best_of_groups(SAMPLED, threshold=0.99) == []


def test_completions_are_written_read_and_forgotten(tmp_path):
    path = tmp_path / "completions.jsonl"
    append_completions(path, SAMPLED[:2])
    append_completions(path, SAMPLED[2:])
    assert list(read_completions(path)) == SAMPLED
    with path.open("a") as file:
        file.write('{"step": 3, "ro')  # a kill
    drop_completions(path, from_step=1)
    assert list(read_completions(path)) == SAMPLED[:5]
    odd = [replace(item, prompt="two\u2028lines\x85") for item in SAMPLED[:5]]
    path.unlink()
    append_completions(path, odd)
    drop_completions(path, from_step=1)
    assert list(read_completions(path)) == odd
    path.write_text('{"video": "a.mp4"}\n')
    with pytest.raises(FitError, match="row 1 is no completion of stage grpo"):
        list(read_completions(path))


def test_best_answers_are_mixed_with_the_first_data(tmp_path):
    path = tmp_path / "completions.jsonl"
    append_completions(path, SAMPLED)
    rows = [
        TrainingRow(video=f"{i}.mp4", prompt="p", scores=(1.0,) * 4, answers=("own",))
        for i in range(9)
    ]
    config = FitConfig(
        train=["a"],
        output_dir="o",
        cache_dir="c",
        stage="sft2",
        completions=[str(path)],
        best_mix=2.0,
    )
    parts = [Part(path="a", name="a", rows=rows[:5]), Part(path="b", name="b", rows=rows[5:])]
    *mixed, best = add_best(config, parts, Console(quiet=True))
    assert [row.answers[0] for row in best.rows] == [
        "Overall quality: fair\nb",
        "Overall quality: fair\ne",
    ]
    assert [row.video for row in best.rows] == ["1.mp4", "2.mp4"]
    kept = [row for part in mixed for row in part.rows]
    assert len(kept) == 4 and all(row in rows for row in kept)
    *again, _ = add_best(config, parts, Console(quiet=True))
    assert again == mixed
    other = tmp_path / "other.jsonl"  # of another run, whose steps and rows have the same numbers
    append_completions(other, [completion(0, 1, 0.8, text="f"), completion(0, 1, 0.9, text="b")])
    append_completions(other, [completion(0, 3, 0.8, text="g")])
    both = FitConfig(**{**asdict(config), "completions": [str(path), str(other)]})
    *_, best = add_best(both, parts, console := Console(record=True, file=StringIO()))
    assert [row.answers[0][-1] for row in best.rows] == ["b", "e", "g"]
    assert "3 answers of 6 groups" in console.export_text()
    cut = tmp_path / "cut.jsonl"
    append_completions(cut, [completion(0, 1, 0.9, finished=False)])
    with pytest.raises(FitError, match="none of the 1 answers is finished; they were cut off at"):
        add_best(FitConfig(**{**asdict(config), "completions": [str(cut)]}), parts, console)
    for change, message in (
        ({"best_threshold": 0.99}, "no finished answer has a reward of 0.99 or more .* has 0.95"),
        ({"train": ["z"]}, "its answers are of other clips than those of train"),
    ):
        others = parts if "best_threshold" in change else [Part(path="z", name="z", rows=rows[5:])]
        with pytest.raises(FitError, match=message):
            add_best(FitConfig(**{**asdict(config), **change}), others, Console(quiet=True))

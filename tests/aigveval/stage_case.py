"""Stages of training small enough for tests: clips with labels, and an LLM that has their words."""

import json
from dataclasses import replace
from pathlib import Path

from aigveval.train.answers import read_answers
from aigveval.train.config import FitConfig

from . import fit_case
from .fit_case import make_config

CLIPS = (0, 6, 11, 18, 24, 29)  # of `fit_case.make_data`, from dark to bright


def make_labels(data: Path) -> Path:
    """A manifest with labels of defects beside the clips of `fit_case.make_data`."""
    path, rows = data / "labels.jsonl", []
    for number, clip in enumerate(CLIPS):
        score = round(1 + 4 * clip / 29, 1)
        dark = [{"name": "underexposure", "severity": 5 - number}] if number < 3 else []
        shaking = [{"name": "shake", "severity": 2, "start_seconds": 0.2, "end_seconds": 0.4}]
        rows.append(
            {
                "video": f"videos/{clip}.mp4",
                "prompt": "a scene",
                "technical": score,
                "motion": 4.0 if number % 2 else 3.0,
                "semantic": 4.5,
                "overall": 3.2,
                "duration_seconds": 0.5,
                "defects": {
                    "technical": dark,
                    "motion": [] if number % 2 else shaking,
                    "semantic": [],
                },
            }
        )
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def make_llm(folder: Path, labels: Path) -> None:
    """Two random layers, and a tokenizer of the answers' words."""
    texts = [text for row in read_answers(labels, variants=4) for text in row.answers]
    fit_case.make_llm(
        folder, texts=texts * 5, vocab_size=900, hidden=64, heads=4, initializer_range=0.1
    )


def make_stage(data: Path, llm: Path, output: Path, **options) -> FitConfig:
    """A config of stage sft that trains in seconds, with its options changed."""
    config = make_config(data, llm, output)
    return replace(
        config,
        **{
            "stage": "sft",
            "train": [str(data / "labels.jsonl")],
            "valid": [],
            "epochs": 4,
            "batch_size": 6,
            "feature_noise": 0.0,
            "mismatch_probability": 0.0,
            "prompt_dropout": 0.0,
            "answer_variants": 1,
            "learning_rate": 1e-2,
            "lora_learning_rate": 1e-2,
            "save_steps": None,
            "save_minutes": None,
            "lora": {"r": 16, "alpha": 32, "dropout": 0.0, "target_modules": "all-linear"},
            **options,
        },
    )

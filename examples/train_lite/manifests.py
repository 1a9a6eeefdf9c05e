"""Training manifests of the recipe: ladder rows with scores, clips of data sets, and folds."""

import csv
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from split import split_clips, split_modern

from aigveval.train.rows import TrainingRow
from prompts.consistency import highest_severity
from prompts.rubric import DIMENSIONS, SCORES

FOLDS = 5
DATASETS = ("fetv_dev", "chivileva_dev", "modern", "clips")
CLEAN_SCORE = 4.25  # of an undamaged clip, while no ratings are used
CLEAN_TIMES = 10  # a clean clip among the answers: one in six has no defect
FULL_DROP = 3.75  # what the ladder's manifest takes off at severity 5


@dataclass(frozen=True, kw_only=True)
class Clip:
    """A clip of one of the data sets, or a copy of one.

    Attributes:
        path, name: Of the file; a copy has its original's name.
        dataset: `fetv_dev`, `chivileva_dev`, `modern` or `clips`.
        kind: `native`, or what kind of copy: see augment.py.
        real: Camera-made.
        scores: By `SCORES`, NaN where nobody was asked.
    """

    path: Path
    name: str
    dataset: str
    prompt: str | None
    generator: str
    real: bool
    scores: tuple[float, ...]
    kind: str = "native"

    @property
    def rated(self) -> bool:
        return not all(map(math.isnan, self.scores))

    @property
    def judged(self) -> bool:
        """Whether agreement is measured on it: a generator's own clip that people rated."""
        return self.rated and not self.real and self.kind == "native"

    @property
    def group(self) -> str:
        """The prompt, or the clip where there is none; one of each data set."""
        return f"{self.dataset}: {self.prompt or self.name}"

    def row(self, scores: Sequence[float] | None = None) -> TrainingRow:
        """As a training row, with other scores if any are given."""
        return TrainingRow(
            video=str(self.path),
            prompt=self.prompt,
            scores=tuple(self.scores if scores is None else scores),
            group=self.group,
            generator=self.generator,
        )


def read_originals(data: Path) -> list[Clip]:
    """All clips of the four data sets that can be read."""
    found = []
    for dataset in DATASETS:
        with open(data / dataset / "manifest.csv", newline="", encoding="utf-8") as file:
            for record in csv.DictReader(file):
                scores = tuple(float(record.get(name) or "nan") for name in SCORES)
                found.append(
                    Clip(
                        path=data / dataset / record["video"],
                        name=record["video"],
                        dataset=dataset,
                        prompt=prompt_of(record["prompt"]),
                        generator=record["generator"],
                        real=record.get("real") == "True" or "camera" in record["generator"],
                        scores=scores,
                    )
                )
    return found


def prompt_of(text: str | None) -> str | None:
    """A manifest's prompt; none where it's a number or a file's name, as in some of `modern`."""
    return text if text and " " in text.strip() else None


def read_clips(data: Path, copies: Path) -> list[Clip]:
    """The originals, and the copies that augment.py made of them."""
    originals = {(clip.dataset, clip.name): clip for clip in read_originals(data)}
    made = [
        replace(
            originals[line["dataset"], line["name"]],
            path=copies / line["video"],
            kind=line["kind"],
        )
        for line in read_jsonl(copies / "manifest.jsonl")
    ]
    return [*originals.values(), *made]


def wrong_prompts(clips: Sequence[Clip], count: int) -> tuple[np.ndarray, list[str]]:
    """For each original with a prompt `count` other prompts of its data set: clip numbers (m,)."""
    random = np.random.default_rng(0)
    numbers: list[int] = []
    found: list[str] = []
    prompts: dict[str, list[str]] = {}
    for dataset in DATASETS:
        prompts[dataset] = sorted({c.prompt for c in clips if c.dataset == dataset and c.prompt})
    for number, clip in enumerate(clips):
        others = [prompt for prompt in prompts[clip.dataset] if prompt != clip.prompt]
        if clip.prompt and clip.kind == "native" and others:
            chosen = random.permutation(len(others))[:count]
            found += [others[n] for n in chosen]
            numbers += [number] * len(chosen)
    return np.array(numbers), found


def read_rated(data: Path) -> tuple[list[TrainingRow], list[str]]:
    """The generated clips of `fetv_dev` with their ratings, and their file names."""
    clips = [clip for clip in read_originals(data) if clip.dataset == "fetv_dev" and not clip.real]
    return [clip.row() for clip in clips], [clip.name for clip in clips]


def fold_of(data: Path, groups: Sequence[str | None]) -> np.ndarray:
    """Number of the fold of each group, (n,): -1 for those that aren't of rated clips."""
    prompts = sorted({clip.group for clip in read_originals(data) if clip.rated})
    order = np.random.default_rng(0).permutation(len(prompts))
    fold = {prompts[n]: position % FOLDS for position, n in enumerate(order)}
    return np.array([fold.get(str(group), -1) for group in groups])


def held_out(data: Path, clips: Sequence[Clip]) -> np.ndarray:
    """Which clips are left out of all training, (n,): of prompts that the ladder is measured on."""
    names = {"clips": split_clips(data / "clips")[1], "modern": split_modern(data / "modern")[1]}
    groups = {clip.group for clip in clips if clip.name in names.get(clip.dataset, ())}
    return np.array([clip.group in groups for clip in clips])


def read_ladder(folder: Path) -> tuple[list[TrainingRow], list[dict[str, Any]]]:
    """Ladder rows as training rows, with their records.

    Args:
        folder: As `aigveval ladder --out`. A damage takes off its share of what lies between
            `CLEAN_SCORE` and 1. What was done to a prompt that is none is left out.
    """
    rows, records = [], []
    for record in read_jsonl(folder / "manifest.jsonl"):
        record["prompt"] = prompt_of(record["prompt"])
        if record["dimension"] == "semantic" and not (
            record["prompt"] and prompt_of(record["source_prompt"])
        ):
            continue
        records.append(record)
        scores = []
        for name in DIMENSIONS:
            drop = record[f"{name}_drop"]
            scores.append(
                float("nan")
                if drop is None or record["prompt"] is None and name == "semantic"
                else float(CLEAN_SCORE - drop / FULL_DROP * (CLEAN_SCORE - 1))
            )
        rows.append(
            TrainingRow(
                video=str(folder / record["video"]),
                prompt=record["prompt"],
                scores=(*scores, float(np.mean(scores))),
                group=record["group"],
            )
        )
    return rows, records


def after_damage(records: Sequence[Mapping[str, Any]], scores: np.ndarray) -> np.ndarray:
    """What a ladder's rows should have, (n, 4), by the scores of their clean clips.

    A damage takes off its share of what lies between the clean clip's score and 1.
    """
    clean = clean_numbers(records)
    start = np.clip([scores[clean[record["group"]]] for record in records], 1.5, None)
    drops = np.array([[record[f"{name}_drop"] for name in DIMENSIONS] for record in records], float)
    semantic = DIMENSIONS.index("semantic")
    drops[[record["prompt"] is None for record in records], semantic] = np.nan
    share = np.column_stack([drops, drops.mean(1)]) / FULL_DROP
    return start - share * (start - 1)


def clean_numbers(records: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """Group to the number of its clean clip's record."""
    return {r["group"]: n for n, r in enumerate(records) if r["type"] == "clean"}


def write_manifest(path: Path, rows: Sequence[TrainingRow]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = []
    for row in rows:
        scores = {n: None if s != s else round(s, 4) for n, s in zip(SCORES, row.scores)}
        record = {
            "video": row.video,
            "prompt": row.prompt,
            **scores,
            "group": row.group,
            "generator": row.generator,
            "weight": row.weight,
        }
        lines.append(json.dumps(record, ensure_ascii=False) + "\n")
    path.write_text("".join(lines), encoding="utf-8")


def answer_lines(
    folder: Path, records: Sequence[Mapping[str, Any]], scores: np.ndarray, *, weight: float
) -> list[str]:
    """Lines of a manifest for stage sft: damage that shows, and each clean clip several times.

    Args:
        folder: Of the ladder.
        records: Of the ladder's manifest.
        scores: (n, 4) that the projectors tell of each row. The answers tell these, and no defect
            graver than its dimension's score allows.
        weight: Of each row.
    """
    lines = []
    for record, row in zip(records, scores.tolist(), strict=True):
        if record["severity"] == 1:
            continue  # too slight for a sign; "none" would be a lie, and a name a guess
        known = {name: round(min(5.0, max(1.0, s)), 3) for name, s in zip(SCORES, row)}
        if record["prompt"] is None:
            known = {name: s for name, s in known.items() if name not in ("semantic", "overall")}
        most = highest_severity(known.get(record["dimension"], 1.0))
        line = json.dumps(
            {
                **record,
                "video": str(folder / record["video"]),
                "weight": weight,
                "severity": min(record["severity"], most),
                **known,
            },
            ensure_ascii=False,
        )
        lines += [line + "\n"] * (CLEAN_TIMES if record["type"] == "clean" else 1)
    return lines


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]

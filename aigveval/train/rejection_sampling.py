"""Rejection sampling: the answers that stage grpo sampled, and the best of them for stage sft2."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from prompts import without_detections

from ..data.readers import read_rows
from ..files import replaced
from .callbacks import print_line
from .config import FitConfig, FitError
from .rows import Part, TrainingRow

COMPLETIONS = "completions.jsonl"  # in the output folder of stage grpo


@dataclass(frozen=True, kw_only=True)
class Completion:
    """An answer that stage grpo sampled: a line of `COMPLETIONS`.

    Attributes:
        step: Optimizer step that it was sampled for, from 0.
        row: Number of the training row; the answers of a group have the same `step` and `row`.
        video: Path of the file.
        prompt: That the video was made from, or None.
        given: The answer's head: levels by the model's scores, and detections.
        completion: What the model wrote after it.
        finished: Whether it ended the text itself.
        rewards: By name; None where there was nothing to judge.
        reward: Their weighted mean, 0-1.
    """

    step: int
    row: int
    video: str
    prompt: str | None
    given: str
    completion: str
    finished: bool
    rewards: Mapping[str, float | None]
    reward: float

    @property
    def text(self) -> str:
        """The whole answer."""
        return without_detections(self.given) + self.completion


def weighted_reward(rewards: Mapping[str, float | None], weights: Mapping[str, float]) -> float:
    """Weighted mean of the rewards that are known; 0 where none is.

    Examples:
        >>> weighted_reward({"format": 1.0, "table": None}, {"format": 0.5, "table": 0.5})
        1.0
    """
    known = [(rewards[name], weight) for name, weight in weights.items()]
    total = sum(weight for value, weight in known if value is not None)
    return sum(v * w for v, w in known if v is not None) / total if total else 0.0


def append_completions(path: Path, completions: Sequence[Completion]) -> None:
    """Add lines to a file."""
    lines = (json.dumps(asdict(item), ensure_ascii=False) + "\n" for item in completions)
    with path.open("a", encoding="utf-8") as file:
        file.write("".join(lines))


def drop_completions(path: Path, *, from_step: int) -> None:
    """Remove what was sampled for this and later steps, as a run resumes from there."""
    if not path.is_file():
        return
    kept = []
    for line in path.read_text(encoding="utf-8").split("\n"):  # a prompt may have other ends
        try:
            if json.loads(line)["step"] < from_step:
                kept.append(line + "\n")
        except ValueError:  # a kill cut the last line
            break
    with replaced(path) as temporary:
        temporary.write_text("".join(kept), encoding="utf-8")


def read_completions(path: str | Path) -> Iterator[Completion]:
    """The lines of a file.

    Raises:
        FitError: A line is not as stage grpo writes it.
        ManifestError: The file cannot be read.
    """
    for number, row in read_rows(path, required=(), aliases=False):
        try:
            completion = Completion(**row)
        except TypeError:
            raise FitError(f"{path}: row {number} is no completion of stage grpo") from None
        yield completion


def best_of_groups(completions: Sequence[Completion], *, threshold: float) -> list[Completion]:
    """Each group's finished answer with the highest reward, if that reaches the threshold.

    Of equal ones the first is taken; of a text that occurs again for the same row, the last.
    """
    best: dict[tuple[int, int], Completion] = {}
    for item in completions:
        group = (item.step, item.row)
        if item.finished and (group not in best or item.reward > best[group].reward):
            best[group] = item
    chosen = [item for item in best.values() if item.reward >= threshold]
    return _once(chosen)


def _once(items: Iterable[Completion]) -> list[Completion]:
    return list({(item.video, item.prompt, item.text): item for item in items}.values())


def add_best(config: FitConfig, parts: Sequence[Part], console: Console) -> list[Part]:
    """The training parts of stage sft2: the best answers, and rows of the first stage with them.

    Raises:
        FitError: No answer is good enough, or they are of other clips.
    """
    runs = [list(read_completions(path)) for path in config.completions]  # each counts its steps
    found = [item for run in runs for item in run]
    chosen = _once(
        item for run in runs for item in best_of_groups(run, threshold=config.best_threshold)
    )
    rows = {(row.video, row.prompt): row for part in parts for row in part.rows if row.answers}
    known = [item for item in chosen if (item.video, item.prompt) in rows]
    files = ", ".join(config.completions)
    if found and not any(item.finished for item in found):
        raise FitError(
            f"{files}: none of the {len(found)} answers is finished; they were cut off at "
            "grpo.max_new_tokens"
        )
    if not chosen:
        best = max((item.reward for item in found if item.finished), default=0.0)
        raise FitError(
            f"{files}: no finished answer has a reward of {config.best_threshold:g} or more "
            f"(best_threshold); the best has {best:.2f}"
        )
    if not known:
        raise FitError(f"{files}: its answers are of other clips than those of train")
    best_rows: list[TrainingRow] = [
        replace(rows[item.video, item.prompt], answers=(item.text,)) for item in known
    ]
    mixed = _sample(parts, count=round(config.best_mix * len(best_rows)), seed=config.seed)
    groups = sum(len({(item.step, item.row) for item in run}) for run in runs)
    print_line(
        console,
        f"{len(best_rows)} answers of {groups} groups are good enough; "
        f"{sum(map(len, mixed))} rows of the first stage go with them",
    )
    return [*mixed, Part(path=files, name="best answers", rows=best_rows)]


def _sample(parts: Sequence[Part], *, count: int, seed: int) -> list[Part]:
    """Parts with so many of their rows and pairs; all of them if there are no more."""
    items: list[tuple[int, str, Any]] = [
        (number, kind, item)
        for number, part in enumerate(parts)
        for kind in ("rows", "pairs")
        for item in getattr(part, kind)
    ]
    order = np.random.default_rng((seed, 3)).permutation(len(items))[:count]
    kept = [items[i] for i in sorted(order)]
    sampled = [
        replace(
            part,
            rows=[item for n, kind, item in kept if (n, kind) == (number, "rows")],
            pairs=[item for n, kind, item in kept if (n, kind) == (number, "pairs")],
        )
        for number, part in enumerate(parts)
    ]
    return [part for part in sampled if len(part)]

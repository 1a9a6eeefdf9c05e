"""The text of answers in stage sft: from the rows' labels, or made from random hints.

`FromLabels` is for any model. `FromDetections`, with `learn: distill`, is for a small LLM: its
prompt has random scores and detections of defects, beside the evidence of any clip, and it learns
to put them into words. So one LoRA can explain whatever the projectors and the detector find.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch

from prompts import DIMENSIONS, SCORES, Answer, Defect, Detection, parse, render, render_detections
from prompts.consistency import highest_severity
from prompts.defects import DEFECTS
from prompts.reasoning import write_reasoning
from prompts.rubric import Score

from ..model.base import ScorerModel
from ..model.defect_detector import NAMED_FROM
from ..model.generation import given_lines

_STEPS = 16  # of a clip, that a detection's times are multiples of
_SHIFT = 1.0  # standard deviation of what is added to the scores, so that every score occurs


class AnswerTargets(Protocol):
    """Answers to learn, and the lines of detections and facts that the prompt gives for each."""

    def __call__(
        self, batch: Mapping[str, Any], items: Sequence[Mapping[str, Any]]
    ) -> tuple[list[str], list[str]]:
        """Texts as of `prompts.render`, and lines as of `generation.given_lines`.

        Args:
            batch: Of the items, with what the model sees of the clips.
            items: Of `dataset.QualityDataset` with answers.
        """


@dataclass(frozen=True, kw_only=True)
class FromLabels:
    """The rows' own answers and facts; the detections are those of the model.

    Attributes:
        model: With a detector, or without.
        noise: See `ScorerModel.detection_lines`.
    """

    model: ScorerModel
    noise: float

    def __call__(
        self, batch: Mapping[str, Any], items: Sequence[Mapping[str, Any]]
    ) -> tuple[list[str], list[str]]:
        answers = [item["answer"] or "" for item in items]
        scores = [parse(answer).scores for answer in answers]
        facts = [item.get("facts", ()) for item in items]
        return answers, given_lines(self.model, batch, scores, facts, noise=self.noise)


@dataclass(frozen=True, kw_only=True)
class FromDetections:
    """Random scores around the rows' own and random detections, which the answer puts into words.

    Severities are left out of the words: with them among those to learn, `lite` took one at random,
    while it copied the numbers into the list of defects.

    Attributes:
        names: Defects that may be detected.
        variants: Wordings, see `prompts.reasoning.write_reasoning`.
    """

    names: Sequence[str]
    variants: int

    def __call__(
        self, batch: Mapping[str, Any], items: Sequence[Mapping[str, Any]]
    ) -> tuple[list[str], list[str]]:
        # torch's generator is part of a checkpoint
        seeds = torch.randint(2**31, (len(items),)).tolist()
        made = [self._made(item, np.random.default_rng(seed)) for item, seed in zip(items, seeds)]
        return [answer for answer, _ in made], [line for _, line in made]

    def _made(self, item: Mapping[str, Any], random: np.random.Generator) -> tuple[str, str]:
        own = parse(item["answer"] or "").scores
        scores: dict[Score, float] = {
            name: round(float(np.clip(own[name] + _SHIFT * random.normal(), 1, 5)), 1)
            for name in SCORES
            if name in own
        }
        names = [name for name in self.names if DEFECTS[name].dimension in scores]
        count = min(len(names), int(random.choice((0, 1, 1, 2, 2, 3, 3))))
        sure = sorted(random.integers(2, 10, count).tolist(), reverse=True)
        detections = [
            Detection(defect=_defect(names[number], scores, random), certainty=certainty)
            for number, certainty in zip(random.permutation(len(names)), sure)
        ]
        sure_ones = [one.defect for one in detections if one.certainty >= NAMED_FROM]
        # as they stand in the line of detections
        named = tuple(sorted(sure_ones, key=lambda defect: DIMENSIONS.index(defect.dimension)))
        reasoning = write_reasoning(
            scores,
            named,
            split="train",
            variant=int(random.integers(self.variants)),
            degrees=False,
        )
        answer = Answer(scores=scores, defects=named, reasoning=reasoning)
        return render(answer), render_detections(detections, scores) + "\n"


def _defect(name: str, scores: Mapping[Score, float], random: np.random.Generator) -> Defect:
    most = highest_severity(scores[DEFECTS[name].dimension])
    times: tuple[float, float] | tuple[None, None] = (None, None)
    if random.random() < 0.5:
        start, end = sorted(random.choice(_STEPS + 1, 2, replace=False).tolist())
        times = start * 10 / _STEPS, end * 10 / _STEPS
    return Defect(
        name=name,
        severity=int(random.integers(1, most + 1)),
        start_seconds=times[0],
        end_seconds=times[1],
    )

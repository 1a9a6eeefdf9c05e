"""Explanations: what the model says about a clip, and how far each dimension's evidence counts.

    assessor = aigveval.load("folder/of/a/model", explain=True)
    row = assessor.score("clip.mp4", prompt="a dog runs on the beach")
    row.explanation, row.defects, row.problems, row.contributions

The level words of an answer are those nearest to the scores, as in the texts that models learn
from: a word is then never more than half a point away from its score. (The likeliest word can be
further off, where the probabilities have two peaks.) What the model writes after them is parsed
and checked; an answer with any problem is written again, up to three times in all, and the best of
them counts. What is wrong with that one stays in `problems`. Where the clip's facts are known,
sentences that contradict them are left out, each with a problem `text_contradicts_facts`.

Nothing is written where a model has a detector and its score hints may stand for its LLM, as those
of `lite` may: all that such an LLM has learnt is to repeat what the detector is sure of. Sentences
are made from facts then, see `facts.explained`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from prompts import DIMENSIONS, SCORES, Answer, check_consistency, parse
from prompts.answer import TENTHS, Problem
from prompts.consistency import contradicts, loops, sentences_of
from prompts.facts import Fact
from prompts.rubric import Score as ScoreName

from ..assessment import Contributions, Scores
from ..errors import one_line
from ..model.base import AIGVEvalOutput, ScorerModel, name_scores
from ..model.defect_detector import NAMED_FROM
from ..model.generation import AnswerWriter, Written, answer_heads, max_new_tokens_of
from ..model.library_internals import cache_of
from ..model.projector import unpack_features

ATTEMPTS = 3


class Explainer:
    """Explains the scores of one model.

    Args:
        model: in eval mode.
        tokenizer: its processor's; None where no text is wanted.
        run: the model's forward, or what gives the same in less time.

    Attributes:
        max_new_tokens: limit of a text, longer where the model reads facts.
        attempts: how often a text is written, at least 1.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: PreTrainedTokenizerBase | None,
        *,
        run: Callable[..., AIGVEvalOutput],
    ) -> None:
        self.model, self.tokenizer, self.run = model, tokenizer, run
        self.max_new_tokens, self.attempts = max_new_tokens_of(model), ATTEMPTS

    @property
    def writes(self) -> bool:
        """Whether the LLM writes answers; else a detector stands for it, as hints do for scores."""
        config = self.model.config
        may_stand = getattr(config, "hints_within", None) is not None
        return config.reads_facts or not (may_stand and config.detector)

    @torch.inference_mode()
    def explain(
        self,
        batch: dict[str, Any],
        durations: Sequence[float],
        *,
        text: bool,
        contributions: bool,
        facts: Sequence[Sequence[Fact]] | None = None,
    ) -> list[Scores | Exception]:
        """Scores the clips of a batch and adds the extra fields of an `Assessment`.

        Args:
            batch: as the model takes it.
            durations: of the clips, in seconds.
            text: add `explanation`, `defects` and `problems`; the model must be trained to write.
                Where its LLM isn't asked (see `writes`), defects are the detector's, and the
                explanation is empty.
            contributions: add `contributions`; the model must have encoders.
            facts: of the clips, which the text is checked by; None where they're unknown.
        """
        output, named = self._score(batch, use_cache=text and self.writes)
        good = [row for row, scores in enumerate(named) if not isinstance(scores, Exception)]
        rows: list[dict[str, Any]] = [{} if isinstance(s, Exception) else dict(s) for s in named]
        if contributions:
            scored = {name: value[good] for name, value in batch.items()}
            found = contributions_of(self.model, scored, output.scores[good], run=self.run)
            for row, moved in zip(good, found):
                rows[row]["contributions"] = moved
        if text:
            if self.writes:
                tries = self._tries(batch, output, named, durations, facts)
                answers = {row: best_of(found) for row, found in tries.items()}
            else:
                answers = self._detected(batch, named, durations)
            for row in good:
                answer = answers[row]
                rows[row].update(
                    explanation=dict(answer.reasoning),
                    defects=answer.defects,
                    problems=tuple(one_line(f"{p.kind}: {p.detail}") for p in answer.problems),
                )
        return [s if isinstance(s, Exception) else row for s, row in zip(named, rows)]

    @torch.inference_mode()
    def tries(
        self, batch: dict[str, Any], durations: Sequence[float]
    ) -> list[tuple[Scores, list[Answer]] | Exception]:
        """Scores of each clip and every answer that is written of it; `best_of` them counts."""
        output, named = self._score(batch, use_cache=True)
        found = self._tries(batch, output, named, durations)
        return [s if isinstance(s, Exception) else (s, found[row]) for row, s in enumerate(named)]

    def _score(
        self, batch: dict[str, Any], *, use_cache: bool
    ) -> tuple[Any, list[Scores | Exception]]:
        output = self.run(**batch, use_cache=use_cache)
        return output, name_scores(output, batch["slot_mask"])

    def _detected(
        self,
        batch: dict[str, Any],
        named: Sequence[Scores | Exception],
        durations: Sequence[float],
    ) -> dict[int, Answer]:
        """An answer of each row, with the defects that the detector is sure of and no text."""
        answers = {}
        for row, detections in enumerate(self.model.detections(batch, _known(named))):
            sure = [one.defect for one in detections if one.certainty >= NAMED_FROM]
            sure.sort(key=lambda defect: DIMENSIONS.index(defect.dimension))
            answers[row] = Answer(defects=tuple(sure)).scaled(durations[row] / TENTHS)
        return answers

    def _tries(
        self,
        batch: dict[str, Any],
        output: Any,
        named: Sequence[Scores | Exception],
        durations: Sequence[float],
        facts: Sequence[Sequence[Fact]] | None = None,
    ) -> dict[int, list[Answer]]:
        """Answers of each row with scores: greedy at first, then sampled with fixed seeds."""
        scores = _known(named)
        told = None  # without what is seen of a prompt's things, where no prompt is known
        if facts is not None:
            told = [
                [fact for fact in own if fact.dimension in known or not known]
                for own, known in zip(facts, scores, strict=True)
            ]
        assert self.tokenizer is not None
        writer = AnswerWriter(
            self.model,
            self.tokenizer,
            batch=batch,
            cache=cache_of(output),
            heads=answer_heads(self.model, batch, scores, told),
        )
        tries: dict[int, list[Answer]] = {
            row: [] for row, scored in enumerate(named) if not isinstance(scored, Exception)
        }
        for attempt in range(self.attempts):
            todo = [row for row, found in tries.items() if not found or best_of(found).problems]
            if not todo:
                break
            written = writer.write(
                todo, max_new_tokens=self.max_new_tokens, seed=attempt if attempt else None
            )
            for row, text in zip(todo, written):
                tries[row].append(
                    read_answer(
                        text,
                        scores=scores[row],
                        duration_seconds=durations[row],
                        times=self.model.config.answer_times,
                        facts=None if told is None else told[row],
                    )
                )
        return tries


def _known(named: Sequence[Scores | Exception]) -> list[dict[ScoreName, float]]:
    """The scores that each row has."""
    return [
        {} if isinstance(row, Exception) else {n: row[n].score for n in SCORES if row[n]}
        for row in named
    ]


def best_of(tries: Sequence[Answer]) -> Answer:
    """The answer with the fewest problems, of equal ones the first."""
    return min(tries, key=lambda answer: len(answer.problems))


def read_answer(
    written: Written,
    *,
    scores: Mapping[ScoreName, float],
    duration_seconds: float,
    times: str,
    facts: Sequence[Fact] | None = None,
) -> Answer:
    """Reads what the model wrote, times in seconds; all that is wrong is in `problems`.

    What cannot be read is left out, and so are texts that repeat themselves, sentences that
    contradict facts, and statements about a dimension that has no score, as about the alignment
    with an unknown prompt.

    Args:
        written: by the model.
        scores: of the scoring pass; names that are absent are unknown.
        duration_seconds: of the clip.
        times: unit of the times in the text, `tenths` of the clip or `seconds`.
        facts: of the clip, with times in seconds; None where they're unknown.
    """
    length = TENTHS if times == "tenths" else duration_seconds
    unit = duration_seconds / length if length else 1.0
    answer = parse(
        written.text,
        expected_scores=list(scores),
        duration_seconds=length,
        finished=written.finished,
    )
    extra = [
        Problem(kind="unexpected_line", detail=f"{name}, which has no score")
        for name in DIMENSIONS
        if name not in scores
        and (name in answer.reasoning or any(d.dimension == name for d in answer.defects or ()))
    ]
    answer = answer.about(scores)
    found = check_consistency(
        answer,
        duration_seconds=length,
        slot_scores=scores,
        facts=facts,
        seconds_per_unit=unit,
    )
    kept = {name: text for name, text in answer.reasoning.items() if not loops(text)}
    if facts is not None:
        defects = answer.scaled(unit).defects or ()
        kept = {
            name: " ".join(s for s in sentences_of(t) if not contradicts(s, facts, defects=defects))
            for name, t in kept.items()
        }
    answer = replace(answer, reasoning=kept, problems=(*answer.problems, *extra, *found))
    return answer.scaled(unit) if times == "tenths" else answer


def contributions_of(
    model: ScorerModel,
    batch: Mapping[str, Tensor],
    scores: Tensor,
    *,
    run: Callable[..., AIGVEvalOutput] | None = None,
) -> list[Contributions]:
    """How far each dimension's evidence moves the overall score, see `Contributions`.

    All variants of all clips, each with the tokens of one dimension or of all replaced by their
    training mean, go through the model as one batch.

    Args:
        model: in eval mode, with encoders.
        batch: b clips, as the model takes them.
        scores: (b, 4) that it gave for them.
        run: what gives them; by default the model's forward.

    Raises:
        ValueError: when a score is no number.
    """
    if not len(scores):
        return []
    entries = model.config.encoders
    seen = [name for name in DIMENSIONS if any(e["dimension"] == name for e in entries)]
    replaced = [
        _without(model, batch["features"], dimensions)
        for dimensions in ([], *([name] for name in seen), seen)
    ][1:]
    inputs = {
        name: value.repeat(len(replaced), *[1] * (value.ndim - 1))
        for name, value in batch.items()
        if name != "features"
    }
    found = (run or model)(features=torch.cat(replaced), **inputs).scores
    assert found is not None
    overall = SCORES.index("overall")
    variants = found[:, overall].view(len(replaced), -1).T.tolist()  # (b, variants)
    rows = []
    for full, (*without, baseline) in zip(scores[:, overall].tolist(), variants):
        moved = {name: round(full - score, 5) for name, score in zip(seen, without)}
        known = round(baseline, 5) + sum(moved.values())
        rows.append(
            Contributions(
                baseline=round(baseline, 5), residue=round(round(full, 5) - known, 5), **moved
            )
        )
    return rows


def _without(model: ScorerModel, features: Tensor, dimensions: Sequence[str]) -> Tensor:
    """Features (b, K, D) with the tokens of some dimensions' encoders at their training mean."""
    features = features.clone()
    parts = unpack_features(features, model.config.feature_shapes)  # views
    for entry, part in zip(model.config.encoders, parts):
        if entry["dimension"] in dimensions:
            part.copy_(model.model.projectors[entry["name"]].mean.expand_as(part))
    return features

"""Chain-of-thought training data: labels turned into answers that a model learns to write.

    write_cot(["ladder/manifest.jsonl"], "cot/train.jsonl", split="train")

A row of the file holds a chat (see `Form`), which trainers read, and what our own training needs;
`read_cot` reads it back. The question's user turn begins with `<video>`, the place of the file in
`videos`, for trainers that look at the video themselves; ours puts encoder tokens there.

Rows:
    messages, or prompt and completion: the chat.
    videos: the file in a list, relative to this file's folder.
    video, video_prompt, group, generator, weight: as in the manifest.
    technical, motion, semantic, overall: scores on 1-5; null where unknown or only assumed.
    answer: the text to learn, as `prompts.render` gives it; it is also the label of the rewards.
    clip_length: in the unit of the answer's times; null where unknown.
    times: "seconds", or "tenths" of the clip.
    split, variant: see `write_cot`.
    evidence: facts of the clip, as in results of `aigveval score --explain`, with times in seconds;
        absent where nothing was measured. The answer's sentences are made of them.
"""

from __future__ import annotations

import json
import math
import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal

from prompts import Answer, build_messages, check_consistency, parse, render
from prompts.answer import TENTHS
from prompts.facts import Fact, named
from prompts.phrasings import Split
from prompts.reasoning import write_reasoning
from prompts.rubric import DIMENSIONS, SCORES
from prompts.sentences import sentences

from ..errors import ManifestError, as_text, one_line, reason_of
from ..files import check_not_one_of, write_text
from .attributions import CLEAN_SCORE, Labelled, read_labels, with_evidence
from .manifest import ManifestRow, path_from
from .readers import read_rows
from .scales import MOS, Scale

Times = Literal["seconds", "tenths"]
# `messages`: a chat of three turns, for TRL's SFT and most other trainers. `prompt`: the question
# as `prompt`, the answer as `completion`, for TRL's SFT on the answer alone and for its GRPO.
Form = Literal["messages", "prompt"]

VIDEO_TAG = "<video>"
_UNSCORED = 4.0  # how a dimension without score or defect is spoken of


@dataclass(frozen=True, kw_only=True)
class CotRow:
    """One example of training: a clip, the answer to learn, and the scores that are known.

    Attributes:
        video_prompt: Text that the video was generated from; None where unknown.
        scores: Scores on 1-5 in the order of `prompts.rubric.SCORES`; NaN where unknown.
        clip_length: Length in the unit of the answer's times; None where unknown.
        weight: Weight in the loss, above 0.
        split: The split that the wordings come from.
    """

    video: str
    video_prompt: str | None
    scores: tuple[float, ...]
    answer: str
    clip_length: float | None = None
    times: Times = "seconds"
    group: str | None = None
    generator: str | None = None
    weight: float = 1.0
    split: Split = "train"
    variant: int = 0
    evidence: tuple[Fact, ...] = ()

    def labels(self) -> Answer:
        """The labels that the answer's text holds."""
        return parse(self.answer, duration_seconds=self.clip_length)

    def to_record(self, folder: str | os.PathLike[str], *, form: Form) -> dict[str, Any]:
        """Gives the row of a file in a folder; see the module."""
        video = path_from(folder, self.video)
        system, user = build_messages({}, self.video_prompt)
        question = [system, {**user, "content": f"{VIDEO_TAG}\n{user['content']}"}]
        answer = [{"role": "assistant", "content": self.answer}]
        chat: dict[str, Any] = {"messages": question + answer}
        if form == "prompt":
            chat = {"prompt": question, "completion": answer}
        values = asdict(self) | {"video": video}
        del values["evidence"]
        for name, score in zip(SCORES, values.pop("scores"), strict=True):
            values[name] = None if math.isnan(score) else round(score, 4)
        if self.evidence:
            values["evidence"] = [fact.to_dict() for fact in self.evidence]
        return {**chat, "videos": [video], **values}


@dataclass(kw_only=True)
class CotReport:
    """What became of the labels.

    Attributes:
        rows: Written.
        without_defects: Left out, because nobody looked for their defects.
        without_scores: Left out, because no score is known.
        unreadable: Clips that were left out, as they couldn't be measured, and why.
        contradictions: Kinds of contradiction between a row's own labels, with their number; see
            `prompts.check_consistency`. The rows are written all the same.
        defects: Names, with the number of rows that have them.
        characters: Length of all answers.
    """

    rows: int = 0
    without_defects: int = 0
    without_scores: int = 0
    unreadable: dict[str, str] = field(default_factory=dict)
    contradictions: Counter[str] = field(default_factory=Counter)
    defects: Counter[str] = field(default_factory=Counter)
    characters: int = 0


def write_cot(
    manifests: Sequence[str | os.PathLike[str]],
    out: str | os.PathLike[str],
    *,
    split: Split = "train",
    variants: int = 1,
    times: Times = "seconds",
    form: Form = "messages",
    partial: bool = False,
    score_decimals: int = 1,
    scale: Scale = MOS,
    clean_score: float = CLEAN_SCORE,
    seed: int = 0,
    measure: Callable[[ManifestRow], Sequence[Fact]] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> CotReport:
    """Writes training data from manifests with labels; the same input gives the same bytes.

    Every text is read back, and must give its labels.

    Args:
        manifests: Manifests with labels; see `attributions`.
        out: JSON Lines file; its folder is made if missing.
        split: The split whose wordings are used. No wording is in both, so that a test has no known
            sentence. Sentences made of facts have the same wordings in both, and others' numbers.
        variants: Texts per row, each in other words; of those made of facts, equal ones are left
            out.
        times: "seconds", or "tenths" of the clip for a model whose evidence has no clock, as that
            of encoders; the latter needs to know how long a clip is.
        partial: Whether to write rows without labels of defects, whose answers lack that line.
        score_decimals: Decimals of the scores in the text, 1 or 2.
        clean_score: Score of a ladder's clean clips; see `attributions.read_labels`.
        measure: Gives facts of a clip whose row has none; where it can't be read, the row is left
            out. See `measured` for one that loses nothing when it's stopped.
        progress: Called with how many of how many rows are done.

    Raises:
        ManifestError: When a manifest cannot be read, a row is wrong or none can be used.
        InputError: When the file cannot be written, or is one of the manifests.
        ValueError: Wrong options.
    """
    if variants < 1 or score_decimals not in (1, 2):
        raise ValueError(
            f"variants must be above 0 and score_decimals 1 or 2, got {variants}, {score_decimals}"
        )
    report, path = CotReport(), Path(out)
    check_not_one_of(path, manifests)
    # All are read before the first is measured, which takes seconds.
    found = [
        (as_text(manifest), labels)
        for manifest in manifests
        for labels in read_labels(manifest, scale=scale, clean_score=clean_score)
    ]
    lines: list[str] = []
    for number, (manifest, labels) in enumerate(found):
        if progress is not None:
            progress(number, len(found))
        if labels.attributions is None and not partial:
            report.without_defects += 1
            continue
        if not labels.scores:
            report.without_scores += 1
            continue
        if measure is not None and not labels.evidence:
            measured = _measured(labels, measure, manifest, report)
            if measured is None:
                continue
            labels = measured
        if times == "tenths":
            labels = with_length(labels, manifest)
        known: set[str] = set()
        for variant in range(variants):
            row = make_row(
                labels,
                split=split,
                variant=variant,
                times=times,
                score_decimals=score_decimals,
                seed=seed,
            )
            if row.evidence and row.answer in known:
                continue
            known.add(row.answer)
            record = row.to_record(path.parent, form=form)
            lines.append(json.dumps(record, ensure_ascii=False) + "\n")
            _count(report, row)
    if report.unreadable and not lines:
        video, reason = next(iter(report.unreadable.items()))
        raise ManifestError(f"no clip could be read, such as {video}: {reason}")
    if not lines:
        raise ManifestError(
            f"{', '.join(map(as_text, manifests))}: no row has both scores and labels of defects"
        )
    write_text(path, "".join(lines))
    return report


def make_row(
    labels: Labelled,
    *,
    split: Split = "train",
    variant: int = 0,
    times: Times = "seconds",
    score_decimals: int = 1,
    seed: int = 0,
) -> CotRow:
    """Makes one example; see `write_cot` for the arguments."""
    row, length, factor = labels.row, labels.duration_seconds, 1.0
    if times == "tenths":
        length, factor = TENTHS, TENTHS / (length or TENTHS)
    scores = {name: round(score, score_decimals) for name, score in labels.scores.items()}
    defects = labels.defects(factor)
    judged = dict(scores)
    for name in DIMENSIONS:  # where no score is known and nothing was found, it looks good
        if defects is not None and (name != "semantic" or row.prompt is not None):
            judged.setdefault(name, _UNSCORED)
    written = write_reasoning(
        judged, defects, split=split, variant=variant, key=f"{seed}|{row.video}|{row.prompt}"
    )
    facts = tuple(fact for fact in labels.evidence if fact.dimension in judged)
    if facts:  # times of facts, and of what is said of them, are in seconds
        told = {fact.dimension for fact in facts}
        written |= sentences(
            facts, labels.defects() or (), dimensions=[n for n in DIMENSIONS if n in told]
        )
    answer = Answer(scores=scores, defects=defects, reasoning={**written, **labels.reasoning})
    text = render(answer)
    if parse(text, duration_seconds=length) != answer:
        raise RuntimeError(f"{row.video}: the text does not give its labels: {one_line(text)}")
    return CotRow(
        video=row.path,
        video_prompt=row.prompt,
        answer=text,
        clip_length=length,
        times=times,
        scores=tuple(
            math.nan if name in labels.nominal else labels.scores.get(name, math.nan)
            for name in SCORES
        ),
        group=row.group,
        generator=row.generator,
        weight=row.weight,
        split=split,
        variant=variant,
        evidence=facts,
    )


def read_cot(path: str | os.PathLike[str]) -> Iterator[CotRow]:
    """Yields the rows of a file that `write_cot` made, whatever its form.

    Raises:
        ManifestError: When it cannot be read, or a row is not such a row.
    """
    folder = Path(path).parent
    for number, record in read_rows(path, aliases=False):
        try:
            values = {
                item.name: record[item.name]
                for item in fields(CotRow)
                if item.name not in ("video", "scores", "evidence")
            }
            evidence = tuple(map(Fact.from_dict, record.get("evidence") or ()))
            scores = tuple(
                math.nan if record[name] is None else float(record[name]) for name in SCORES
            )
            yield CotRow(
                video=str(folder / record["video"]), scores=scores, evidence=evidence, **values
            )
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise ManifestError(
                f"{as_text(path)}: row {number} is no row of training data: {one_line(repr(error))}"
            ) from None


def with_length(labels: Labelled, manifest: str) -> Labelled:
    """With the clip's length from its file, where a defect's times need it.

    Raises:
        ManifestError: When the file does not say it.
    """
    timed = any(item.start_seconds is not None for item in labels.attributions or ())
    if labels.duration_seconds is not None or not timed:
        return labels
    import numpy as np

    from encoders import VideoError
    from encoders.video import FrameRequest, read_frames

    first = FrameRequest(indices=lambda count, fps: np.zeros(1, np.int64), stream="fast")
    try:
        info, _ = read_frames(labels.row.path, {"first": first})
    except VideoError as error:
        raise ManifestError(
            f"{manifest}: row {labels.row.number}: tenths of the clip need duration_seconds, and "
            f"the file does not say it: {error}"
        ) from None
    return replace(labels, duration_seconds=info.duration_seconds)


def _measured(
    labels: Labelled,
    measure: Callable[[ManifestRow], Sequence[Fact]],
    manifest: str,
    report: CotReport,
) -> Labelled | None:
    """Labels with facts of their clip; None, and a word in the report, where it can't be read."""
    from encoders import VideoError

    try:
        facts = measure(labels.row)
    except VideoError as error:
        report.unreadable[labels.row.path] = reason_of(error)
        return None
    try:
        return with_evidence(labels, facts)
    except ValueError as fault:
        raise ManifestError(f"{manifest}: row {labels.row.number}: {one_line(fault)}") from None


def _count(report: CotReport, row: CotRow) -> None:
    answer = row.labels()
    report.rows += 1
    report.characters += len(row.answer)
    length = next((fact.value for fact in named(row.evidence, "duration")), None)
    found = check_consistency(
        answer,
        facts=row.evidence or None,
        seconds_per_unit=length / row.clip_length if length and row.clip_length else 1.0,
    )
    report.contradictions.update({problem.kind for problem in found})
    report.defects.update({defect.name for defect in answer.defects or ()})

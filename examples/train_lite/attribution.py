"""What models say about left-out ladder clips: how far it is true, after each stage of training.

    python examples/train_lite/attribution.py WORK sft=RUNS/sft/model grpo=RUNS/grpo/model \\
        --out WORK/attribution.json

WORK is that of recipe.py: its ladders and feature cache. A model is FOLDER or NAME=FOLDER. Each
writes about all left-out clips, the clean clips that were trained on, and each clean left-out clip
with the prompt of every other one; with --plain not about slight damage and clips trained on.
Answers go to WORK/answers/NAME.jsonl as they come: a run that is stopped goes on there, and a model
whose files have changed begins anew, as does a clip that has changed.

With --facts the column of a model says what users get: of the defects that it names those that
agree with the facts of the clip, and those that rules find; see `prompts.facts`. Where users get
the detector's defects, because the LLM isn't asked to write, those count as named. The
facts are measured once for each case and version and kept in WORK/answers/facts.jsonl: remove it
after a change of what is measured.

Besides the models the table has a column `signs alone`: what the head of
`aigveval.model.defect_detector` finds, without the LLM. Prints the tables as
Markdown, and writes them to OUT.md and all to OUT.json. What the figures are stands in
attribution_figures.py.
"""

import argparse
import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from attribution_figures import (
    CLEAN,
    PLAIN,
    Clip,
    Span,
    Try,
    as_markdown,
    confusion,
    figures_of,
    is_plain_or_clean,
)
from baselines import publish
from rich.console import Console
from rich.progress import track
from torch import Tensor

from aigveval.assessment import Scores
from aigveval.cli.console import one_line_errors
from aigveval.data.attributions import Labelled, read_labels
from aigveval.errors import ManifestError, ModelError
from aigveval.features.cache import FeatureCache, extract
from aigveval.files import write_text
from aigveval.inference.engine import ModelEngine
from aigveval.inference.explain import ATTEMPTS, best_of
from aigveval.inference.facts import facts_of
from aigveval.inference.observe import observe
from aigveval.model.defect_detector import NAMED_FROM
from aigveval.model.modeling import AIGVEvalModel
from aigveval.model.precision import find_device
from aigveval.model.processing import AIGVEvalProcessor
from aigveval.train.dataset import Collator, QualityDataset
from aigveval.train.rows import TrainingRow
from aigveval.versions import __version__
from encoders.video import VideoError
from encoders.wheels import sha256
from prompts import DIMENSIONS, SCORES, Answer, Defect, Detection
from prompts.answer import TENTHS
from prompts.consistency import mentioned
from prompts.facts import Fact, confirmed
from prompts.sentences import sentences

Record = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Case:
    """A clip to write about, and what is true of it."""

    path: str
    digest: str  # SHA-256 of its file
    prompt: str | None
    truth: Clip

    @property
    def key(self) -> str:
        """What its answer is found by."""
        name = Path(self.path).name
        return json.dumps([self.truth.part, self.truth.group, name, self.digest, self.prompt])


def read_cases(ladder: Path) -> list[Case]:
    """All cases of the folder with the ladders `heldout` and `train`."""
    held_out = [_case(label, "heldout") for label in read_labels(ladder / "heldout/manifest.jsonl")]
    trained = [
        _case(label, "train")
        for label in read_labels(ladder / "train/manifest.jsonl")
        if label.row.extra["type"] == CLEAN
    ]
    clean = [case for case in held_out if case.truth.type == CLEAN]
    prompts = dict.fromkeys(case.prompt for case in clean if case.prompt)
    return [
        *held_out,
        *trained,
        *(
            replace(case, prompt=prompt, truth=replace(case.truth, part="other_prompt"))
            for case in clean
            for prompt in prompts
            if prompt != case.prompt
        ),
    ]


def plain_cases(cases: Sequence[Case]) -> list[Case]:
    """Without slight damage, which need not be told, and without the clips trained on."""
    return [case for case in cases if case.truth.part != "train" and is_plain_or_clean(case.truth)]


def _case(label: Labelled, part: Any) -> Case:
    row, extra = label.row, label.row.extra
    span: Span | None = None
    for item in label.attributions or ():
        if item.start_seconds is not None and item.end_seconds is not None:
            span = item.start_seconds, item.end_seconds
    if label.duration_seconds is None:
        raise ManifestError(f"{row.path}: no clip of its source tells how long it is")
    return Case(
        path=row.path,
        digest=sha256(Path(row.path)),
        prompt=row.prompt,
        truth=Clip(
            part=part,
            group=str(row.group),
            type=extra["type"],
            severity=extra["severity"],
            span=span,
            duration=label.duration_seconds,
        ),
    )


# ---- answers ------------------------------------------------------------------------------------


def answers(
    folder: Path,
    cases: Sequence[Case],
    cache: FeatureCache,
    log: Path,
    *,
    batch_size: int,
    device: torch.device,
    attempts: int = ATTEMPTS,
) -> list[Record]:
    """What a model says of each case, from the log or written now."""
    weights = f"{weights_of(folder)}, {attempts} attempts"
    known = read_log(log, weights)
    todo = [case for case in cases if case.key not in known]
    if todo:
        write_text(log, "".join(map(_line, [{"weights": weights}, *known.values()])))
        processor = AIGVEvalProcessor.from_pretrained(folder)
        model = AIGVEvalModel.from_pretrained(folder)
        engine = ModelEngine(model, processor, device=device)
        engine.explainer.attempts = attempts
        with log.open("a", encoding="utf-8") as file:
            for record in write_answers(engine, todo, cache, batch_size=batch_size, name=log.stem):
                known[record["key"]] = record
                file.write(_line(record))
                file.flush()
    return [known[case.key] for case in cases]


def write_answers(
    engine: ModelEngine,
    cases: Sequence[Case],
    cache: FeatureCache,
    *,
    batch_size: int,
    name: str,
) -> Iterator[Record]:
    """Writes about all cases, batch by batch."""
    model, device = engine.model, engine.device
    encoders = list(model.encoders.values())
    report = extract([case.path for case in cases], encoders, cache, device=device)
    if report.errors:
        raise ManifestError(next(iter(report.errors.values())))
    for encoder in encoders:
        encoder.to("cpu")  # where cached tokens are joined with prompts
    unknown = (float("nan"),) * len(SCORES)
    rows = [TrainingRow(video=case.path, prompt=case.prompt, scores=unknown) for case in cases]
    dataset = QualityDataset([rows], report.digests, encoders, cache)
    collate = Collator(encode_prompts=engine.processor.encode_prompts)
    starts = range(0, len(cases), batch_size)
    bar = track(starts, f"{name}: batches of {batch_size}", console=Console(stderr=True))
    for start in bar:
        part = cases[start : start + batch_size]
        batch = collate([dataset[start + n] for n in range(len(part))])
        del batch["labels"]
        batch = {key: value.to(device) for key, value in batch.items()}
        detections = detections_of(model, batch, part)
        tries = engine.explainer.tries(batch, [case.truth.duration for case in part])
        for case, found, own in zip(part, tries, detections, strict=True):
            if isinstance(found, Exception):
                raise VideoError(case.path, str(found))
            yield record_of(case, *found, detections=own, writes=engine.explainer.writes)


@torch.inference_mode()
def detections_of(
    model: AIGVEvalModel, batch: Mapping[str, Tensor], cases: Sequence[Case]
) -> list[list[Record] | None]:
    """The detections of each clip, times in seconds; None where the model has no detector."""
    if model.model.detector is None:
        return [None] * len(cases)
    found = model.model.detector.detect(
        model.model.standardised(batch["features"]), batch["slot_mask"]
    )
    return [
        [_in_seconds(one, case.truth.duration / TENTHS) for one in detections]
        for case, detections in zip(cases, found, strict=True)
    ]


def _in_seconds(detection: Detection, factor: float) -> Record:
    record = asdict(detection.defect) | {"certainty": detection.certainty}
    for name in ("start_seconds", "end_seconds"):
        if record[name] is not None:
            record[name] = round(record[name] * factor, 3)
    return record


def record_of(
    case: Case,
    scores: Scores,
    tries: Sequence[Answer],
    *,
    detections: list[Record] | None,
    writes: bool,
) -> Record:
    """A line of the log; `writes`: whether users get what the LLM writes."""
    return {
        "key": case.key,
        "video": f"{case.truth.group}/{Path(case.path).name}",
        "prompt": case.prompt,
        "scores": {name: scores[name].score for name in SCORES if scores[name]},
        "tries": [
            {
                "reasoning": dict(answer.reasoning),
                "defects": None if answer.defects is None else [asdict(d) for d in answer.defects],
                # Level words stand in where there are no numbers; these say nothing.
                "numbers": {} if _without_numbers(answer) else dict(answer.scores),
                "problems": [[problem.kind, problem.detail] for problem in answer.problems],
            }
            for answer in tries
        ],
        "shown": list(tries).index(best_of(tries)),
        "signs": detections,
        "writes": writes,
    }


def _without_numbers(answer: Answer) -> bool:
    return any(
        p.kind == "malformed_score" or (p.kind, p.detail) == ("missing_line", "scores")
        for p in answer.problems
    )


def weights_of(folder: Path) -> str:
    """SHA-256 of a model's config and weights."""
    digest = hashlib.sha256()
    for path in sorted([folder / "config.json", *folder.rglob("*.safetensors")]):
        digest.update(f"{path.relative_to(folder)} {sha256(path)}\n".encode())
    return digest.hexdigest()


def read_log(path: Path, weights: str) -> dict[str, Record]:
    """Key to record, of the answers of a model with these weights."""
    if not path.is_file():
        return {}
    known: dict[str, Record] = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines()):
        try:
            record = json.loads(line)
        except ValueError:  # a kill cut the last line
            break
        if number == 0:
            if record.get("weights") != weights:
                break
        else:
            known[record["key"]] = record
    return known


def _line(record: Record) -> str:
    return json.dumps(record, ensure_ascii=False) + "\n"


# ---- facts --------------------------------------------------------------------------------------


def facts_of_cases(cases: Sequence[Case], log: Path) -> list[list[Fact]]:
    """The facts of each case, from the log or measured now."""
    known = {key: record["facts"] for key, record in read_log(log, __version__).items()}
    todo: dict[str, list[Case]] = {}
    for case in cases:
        if case.key not in known:
            todo.setdefault(case.path, []).append(case)
    lines = [{"key": key, "facts": facts} for key, facts in known.items()]
    write_text(log, "".join(map(_line, [{"weights": __version__}, *lines])))
    with log.open("a", encoding="utf-8") as file:
        for path, own in track(todo.items(), "facts", console=Console(stderr=True)):
            observed = observe(path)  # once for all prompts
            for case in own:
                known[case.key] = [fact.to_dict() for fact in facts_of(observed, case.prompt)]
                file.write(_line({"key": case.key, "facts": known[case.key]}))
            file.flush()
    return [[Fact.from_dict(row) for row in known[case.key]] for case in cases]


def with_facts(case: Case, record: Record, facts: Sequence[Fact]) -> Record:
    """A record whose shown answer names and says what `--explain` does."""
    tries = [dict(one) for one in record["tries"]]
    shown = tries[record["shown"]]
    told = shown["defects"] or () if record.get("writes", True) else likely(record)
    named = [Defect(**{key: one[key] for key in one if key != "certainty"}) for one in told]
    scored = [name for name in DIMENSIONS if name in record["scores"]]
    found = confirmed(named, facts, case.prompt, {name: record["scores"][name] for name in scored})
    shown["defects"] = [asdict(defect) for defect in found]
    shown["reasoning"] = sentences(facts, found, dimensions=scored)
    return record | {"tries": tries}


# ---- figures ------------------------------------------------------------------------------------


def told_clip(case: Case, record: Record) -> Clip:
    """The case with what the model says of it."""
    shown = record["tries"][record["shown"]]
    spoken = {
        name
        for dimension, text in shown["reasoning"].items()
        for name in mentioned(text, dimension)
    }
    return replace(
        case.truth,
        named=_named(shown["defects"] or (), case),
        spoken=spoken,
        scores=record["scores"],
        first=_try(record["tries"][0]),
        shown=_try(shown),
    )


def detected_clip(case: Case, record: Record) -> Clip:
    """The case with the detections that are likely, as if an answer named them."""
    return replace(case.truth, named=_named(likely(record), case))


def likely(record: Record) -> list[Record]:
    """The detections that are sure enough to be named."""
    return [one for one in record["signs"] if one["certainty"] >= NAMED_FROM]


def _try(found: Record) -> Try:
    return Try(problems=tuple(kind for kind, _ in found["problems"]), numbers=found["numbers"])


def _named(defects: Sequence[Record], case: Case) -> dict[str, list[Span]]:
    named: dict[str, list[Span]] = {}
    for defect in defects:
        start, end = defect["start_seconds"], defect["end_seconds"]
        span = (0.0, case.truth.duration) if start is None else (start, end)
        named.setdefault(defect["name"], []).append(span)
    return named


def measure(cases: Sequence[Case], records: Mapping[str, Sequence[Record]]) -> dict[str, Any]:
    """What is published; `records` are by model, each in the order of the cases."""
    figures, confusions = {}, {}
    formats: dict[str, dict[str, dict[str, int]]] = {}
    seen: list[dict[str, Any]] = []
    for name, own in records.items():
        if all(record["signs"] is not None for record in own):
            clips = [detected_clip(*pair) for pair in zip(cases, own, strict=True)]
            alone = figures_of(clips, text=False)
            if alone not in seen:  # stages that leave the head as it is share a column
                label = f"signs alone, of {name}" if seen else "signs alone"
                seen.append(alone)
                figures[label] = alone
                confusions[label] = confusion([clip for clip in clips if clip.part == "heldout"])
        clips = [told_clip(*pair) for pair in zip(cases, own, strict=True)]
        figures[name] = figures_of(clips)
        left_out = [clip for clip in clips if clip.part == "heldout"]
        confusions[name] = confusion(left_out)
        formats[name] = {}
        for when in ("first", "shown"):
            counts = Counter(kind for c in left_out for kind in set(getattr(c, when).problems))
            formats[name][when] = dict(sorted(counts.items()))
    return {"figures": figures, "named besides": confusions, "answers with a problem": formats}


def model_names(given: Sequence[str]) -> dict[str, Path]:
    """Name to folder, of FOLDER or NAME=FOLDER; `sft` for `runs/sft/model`.

    Raises:
        ModelError: A folder is none of a model, or a name comes twice.
    """
    folders: dict[str, Path] = {}
    for text in given:
        name, _, path = text.rpartition("=")
        folder = Path(path).resolve()
        if not (folder / "config.json").is_file():
            raise ModelError(f"{folder} is no model: it has no config.json")
        name = name or (folder.parent.name if folder.name == "model" else folder.name)
        if name in folders:
            raise ModelError(f"two models are called {name}; give them names, as NAME=FOLDER")
        folders[name] = folder
    return folders


def main(
    work: Path,
    models: Mapping[str, Path],
    out: Path,
    *,
    batch_size: int,
    device: str,
    attempts: int = ATTEMPTS,
    plain: bool = False,
    facts: bool = False,
) -> None:
    cases, cache = read_cases(work / "ladder"), FeatureCache(work / "cache")
    if plain:
        cases = plain_cases(cases)
    records = {
        name: answers(
            folder,
            cases,
            cache,
            work / "answers" / f"{name}.jsonl",
            batch_size=batch_size,
            device=find_device(device),
            attempts=attempts,
        )
        for name, folder in models.items()
    }
    if facts:
        measured = facts_of_cases(cases, work / "answers" / "facts.jsonl")
        records = {
            name: [with_facts(*one) for one in zip(cases, own, measured, strict=True)]
            for name, own in records.items()
        }
    found = measure(cases, records)
    table = as_markdown(found["figures"], found["named besides"])
    weights = {name: weights_of(folder) for name, folder in models.items()}
    publish(out, table, {"weights": weights, **found})


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("work", type=Path, help="of recipe.py")
    parser.add_argument("models", nargs="+", metavar="MODEL", help="FOLDER or NAME=FOLDER")
    parser.add_argument("--out", type=Path, required=True, help="for OUT.json and OUT.md")
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--device", default="cpu")
    parser.add_argument(
        "--attempts",
        type=int,
        default=ATTEMPTS,
        help=f"answers of a clip until one has no problem (default {ATTEMPTS}, "
        "as users get it; 1 takes less time)",
    )
    parser.add_argument(
        "--plain",
        action="store_true",
        help=f"only damage of severity {PLAIN} and more, and left-out clips",
    )
    parser.add_argument(
        "--facts", action="store_true", help="name what agrees with the facts of the clip"
    )
    arguments = parser.parse_args()
    with one_line_errors():
        main(
            arguments.work.resolve(),
            model_names(arguments.models),
            arguments.out,
            batch_size=arguments.batch_size,
            device=arguments.device,
            attempts=arguments.attempts,
            plain=arguments.plain,
            facts=arguments.facts,
        )

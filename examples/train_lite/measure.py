"""Figures of the shipped checkpoint, on clips that were left out.

    python examples/train_lite/measure.py DATA WORK

Needs what recipe.py made; writes WORK/figures.json and prints it as Markdown tables. Intervals are
95 % bootstrap intervals over prompts (ratings) or sources (ladder).

    prompts out   five models, each without the ratings of a fifth of the prompts
    set out       models without any clip of the data set
"""

import json
import sys
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import manifests
import numpy as np
import ridge
import torch
from agreement import NAMES, cell, figures_of, rater_columns, share, table_lines
from manifests import Clip
from numpy.typing import NDArray
from torch import Tensor

from aigveval.features.cache import FeatureCache, extract
from aigveval.metrics import bootstrap_interval, srocc
from aigveval.model.calibration import half_widths, mixed
from aigveval.model.modeling import AIGVEvalModel
from aigveval.model.processing import AIGVEvalProcessor
from aigveval.train.dataset import QualityDataset, features_of
from aigveval.train.predict import predict
from aigveval.train.rows import TrainingRow
from prompts.rubric import DIMENSIONS, SCORES

Array = NDArray[np.float64]
CHECKED = {"fetv_dev": SCORES, "chivileva_dev": ("overall",)}
ONE_SIZE = ("small", "up")
_KNOWN: dict[tuple[str, str, str | None, bool], Any] = {}  # scores, asked for more than once


def measure(data: Path, work: Path) -> dict[str, Any]:
    """All figures, as written to figures.json."""
    cache = FeatureCache(work / "cache")
    clips = manifests.read_clips(data, work / "copies")
    fold = manifests.fold_of(data, [clip.group for clip in clips])
    figures: dict[str, Any] = {
        "ratings": ratings(data, work, clips, fold, cache),
        "wrong prompts": wrong_prompts(work, clips, fold, cache),
        "camera": camera(work, clips, fold, cache),
        "years": years(data, work, clips, cache),
        "trust": trust(work, clips, fold, cache),
        "ladder": ladder(work, "heldout", cache),
        "ladder of modern": ladder(work, "heldout_modern", cache),
    }
    (work / "figures.json").write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    print(as_markdown(figures))
    return figures


def scores_by(
    work: Path,
    clips: Sequence[Clip],
    names: Sequence[str],
    cache: FeatureCache,
    *,
    llm: bool = True,
) -> Array:
    """Scores (n, 4) of each clip by the run of that name, or its score hints without the LLM."""
    keys = [
        (str(work / "runs" / name / "model"), str(clip.path), clip.prompt, llm)
        for clip, name in zip(clips, names)
    ]
    for name in sorted(set(names)):
        missing = [n for n, key in enumerate(keys) if names[n] == name and key not in _KNOWN]
        if missing:
            rows = [clips[n].row() for n in missing]
            score = predict if llm else predicted_scores
            found = score(work / "runs" / name / "model", rows, cache)
            _KNOWN.update(zip((keys[n] for n in missing), found))
    return np.array([_KNOWN[key] for key in keys], float)


@torch.inference_mode()
def predicted_scores(
    folder: Path, rows: Sequence[TrainingRow], cache: FeatureCache
) -> NDArray[np.float32]:
    """Scores (n, 4) as the score heads of a model's projectors predict them."""
    processor = AIGVEvalProcessor.from_pretrained(folder)
    model = AIGVEvalModel.from_pretrained(folder)
    encoders = list(processor.encoders.values())
    digests = extract(sorted({row.video for row in rows}), encoders, cache, workers=2).digests
    dataset = QualityDataset([rows], digests, encoders, cache)
    found = []
    for start in range(0, len(rows), 64):
        items = [dataset[n] for n in range(start, min(start + 64, len(rows)))]
        found.append(model.model.score_hints(features_of(items)[0]))
    return torch.cat(found).numpy()


# ---- ratings ------------------------------------------------------------------------------------


def ratings(
    data: Path, work: Path, clips: Sequence[Clip], fold: NDArray[np.int_], cache: FeatureCache
) -> dict[str, Any]:
    """Data set -> score -> predictor -> figures, against ratings of generated clips."""
    result: dict[str, Any] = {}
    for dataset, names in CHECKED.items():
        chosen = [n for n, clip in enumerate(clips) if clip.dataset == dataset and clip.judged]
        members = [clips[n] for n in chosen]
        truth = np.array([clip.scores for clip in members])
        left_out = [f"fold{fold[n]}" for n in chosen]
        predicted = {
            "prompts out": scores_by(work, members, left_out, cache),
            "prompts out, without the LLM": scores_by(work, members, left_out, cache, llm=False),
            "set out": scores_by(work, members, [f"without_{dataset}"] * len(chosen), cache),
        }
        generators = np.array([clip.generator for clip in members])
        prompts = np.array([clip.group for clip in members])
        result[dataset] = {}
        for name in names:
            column = SCORES.index(name)
            found = {
                kind: figures_of(values[:, column], truth[:, column], generators, prompts)
                for kind, values in predicted.items()
            }
            if name in DIMENSIONS:
                own = rater_columns(data / dataset, [clip.name for clip in members], name)
                found["one rater"] = figures_of(own, truth[:, column], generators, prompts)
            result[dataset][name] = found
        if dataset == "fetv_dev":
            saved = {
                "video": [clip.name for clip in members],
                "ours": predicted["prompts out"].round(4).tolist(),
            }
            (work / "out_of_fold.json").write_text(json.dumps(saved) + "\n", encoding="utf-8")
    return result


def wrong_prompts(
    work: Path, clips: Sequence[Clip], fold: NDArray[np.int_], cache: FeatureCache
) -> dict[str, dict[str, dict[str, Any]]]:
    """Data set -> score -> how it falls where a clip has another clip's prompt instead of its own.

    Both prompts are left out of training. Share of pairs in which it falls, and by how many points.
    """
    result: dict[str, dict[str, dict[str, Any]]] = {}
    for dataset in CHECKED:
        members = [
            (f"fold{fold[n]}", clip)
            for n, clip in enumerate(clips)
            if clip.dataset == dataset and clip.judged
        ]
        pairs = [
            (name, clip, replace(clip, prompt=prompt))
            for name, clip in members
            for prompt in sorted(
                {str(c.prompt) for other, c in members if other == name} - {str(clip.prompt)}
            )
        ]
        names = [name for name, *_ in pairs]
        own, wrong = (
            scores_by(work, [pair[place] for pair in pairs], names, cache) for place in (1, 2)
        )
        groups = [clip.group for _, clip, _ in pairs]
        result[dataset] = {}
        for score in ("semantic", "overall"):
            falls = (own - wrong)[:, SCORES.index(score)]
            result[dataset][score] = {
                "falls": share([*zip(groups, np.sign(falls) / 2 + 0.5)]),
                "points": round(float(falls.mean()), 2),
            }
    return result


def camera(
    work: Path, clips: Sequence[Clip], fold: NDArray[np.int_], cache: FeatureCache
) -> dict[str, Any]:
    """Share of pairs of one prompt, at one size and frame rate, with the camera's clip above.

    By models that have seen the camera-made clips of other prompts, and by one that has seen none
    of this data set.
    """
    chosen = [
        n for n, clip in enumerate(clips) if clip.dataset == "fetv_dev" and clip.kind in ONE_SIZE
    ]
    members = [clips[n] for n in chosen]
    result: dict[str, Any] = {}
    for kind, names in (
        ("prompts out", [f"fold{fold[n]}" for n in chosen]),
        ("set out", ["without_fetv_dev"] * len(chosen)),
    ):
        scores = scores_by(work, members, names, cache)
        for name in SCORES:
            column = scores[:, SCORES.index(name)]
            wins = [
                (one.group, float(np.sign(column[a] - column[b]) / 2 + 0.5))
                for a, one in enumerate(members)
                for b, other in enumerate(members)
                if one.real and not other.real
                if (one.kind, one.group) == (other.kind, other.group)
            ]
            result.setdefault(name, {})[kind] = share(wins)
    return result


def years(
    data: Path, work: Path, clips: Sequence[Clip], cache: FeatureCache
) -> dict[str, dict[str, float | None]]:
    """Mean scores of some sources, by the shipped model and by one without `modern`."""
    unseen = {clip.path for clip, out in zip(clips, manifests.held_out(data, clips)) if out}
    sources = {
        "camera (modern)": lambda c: c.dataset == "modern" and c.real,
        "Veo 3": lambda c: c.dataset == "modern" and c.generator == "Veo 3",
        "others of modern": lambda c: (
            c.dataset == "modern" and not c.real and c.generator != "Veo 3"
        ),
        "of modern, left out of all training": lambda c: c.dataset == "modern" and c.path in unseen,
        "Text2Video-Zero (clips)": lambda c: (
            c.dataset == "clips" and c.generator.startswith("Text2Video-Zero")
        ),
        "ZeroScope (clips)": lambda c: c.dataset == "clips" and c.generator.startswith("ZeroScope"),
    }
    result: dict[str, dict[str, float | None]] = {}
    for label, belongs in sources.items():
        members = [c for c in clips if c.kind == "native" and belongs(c)]
        result[label] = {}
        for run in ("shipped", "without_modern"):
            mean = scores_by(work, members, [run] * len(members), cache).mean(0)
            result[label] |= {f"{run}: {name}": rounded(v) for name, v in zip(SCORES, mean)}
    return result


def rounded(value: float) -> float | None:
    """None for a mean that isn't known, as the semantic one of clips without a prompt."""
    return None if np.isnan(value) else round(float(value), 2)


def trust(
    work: Path, clips: Sequence[Clip], fold: NDArray[np.int_], cache: FeatureCache
) -> dict[str, Any]:
    """Familiarity by data set of a model without Chivileva's, and coverage of the intervals.

    That of FETV's rated clips is of the model's own references, and so higher than a new clip's.
    """
    natives = [n for n, clip in enumerate(clips) if clip.kind == "native"]
    rated = [n for n in natives if clips[n].judged]
    result: dict[str, Any] = {"familiarity": {}, "coverage": {}}
    run = "without_chivileva_dev"
    for dataset in manifests.DATASETS:
        members = [clips[n] for n in natives if clips[n].dataset == dataset]
        familiarity, widths = trusted(work / "runs" / run / "model", members, cache)
        result["familiarity"][dataset] = {
            "median": round(float(np.median(familiarity)), 1),
            "half width of overall": round(float(widths[:, SCORES.index("overall")].mean()), 2),
        }
    members = [clips[n] for n in rated]
    kinds = left_out_errors(work, members, fold[rated], cache)
    inside: dict[str, list[Array]] = {kind: [] for kind in kinds}
    for number in range(manifests.FOLDS):  # by what the errors of other prompts say
        own = torch.from_numpy(fold[rated] == number)
        widths = half_widths(*((e[~own], f[~own]) for e, f in kinds.values()))
        for kind, (errors, familiarity) in kinds.items():
            covered = (errors[own] <= mixed(*widths, familiarity[own])).float()
            inside[kind].append(covered.masked_fill(errors[own].isnan(), torch.nan).numpy())
    for kind, (errors, familiarity) in kinds.items():
        shares = np.nanmean(np.concatenate(inside[kind]), axis=0)
        result["coverage"][kind] = {name: rounded(share) for name, share in zip(SCORES, shares)}
        overall = errors[:, SCORES.index("overall")]
        result["coverage"][kind]["familiarity against error, SROCC"] = rounded(
            srocc(familiarity.numpy(), overall.numpy())
        )
    return result


def left_out_errors(
    work: Path, rated: Sequence[Clip], fold: NDArray[np.int_], cache: FeatureCache
) -> dict[str, tuple[Tensor, Tensor]]:
    """Absolute errors (n, 4) and familiarity (n,): prompts left out, and the whole data set."""
    truth = np.array([clip.scores for clip in rated])
    found = {}
    for kind, names in (
        ("prompts out", [f"fold{n}" for n in fold]),
        ("set out", [f"without_{clip.dataset}" for clip in rated]),
    ):
        errors = np.abs(scores_by(work, rated, names, cache) - truth)
        familiarity = np.zeros(len(rated))
        for name in set(names):
            own = [n for n, other in enumerate(names) if other == name]
            members = [rated[n] for n in own]
            familiarity[own], _ = trusted(work / "runs" / name / "model", members, cache)
        found[kind] = torch.from_numpy(errors).float(), torch.from_numpy(familiarity).float()
    return found


@torch.inference_mode()
def trusted(folder: Path, clips: Sequence[Clip], cache: FeatureCache) -> tuple[Array, Array]:
    """Familiarity (n,) and half widths (n, 4) of clips by a model."""
    model = AIGVEvalModel.from_pretrained(folder).model
    encoders = list(AIGVEvalProcessor.from_pretrained(folder).encoders.values())
    vectors = ridge.clip_means([clip.row() for clip in clips], model, encoders, cache)
    assert model.calibration is not None
    familiarity, widths = model.calibration(vectors)
    return familiarity.numpy(), widths.numpy()


# ---- ladder -------------------------------------------------------------------------------------


def ladder(work: Path, part: str, cache: FeatureCache) -> dict[str, Any]:
    """Per type: SROCC of severity and score over each left-out source, averaged over sources."""
    rows, records = manifests.read_ladder(work / "ladder" / part)
    scores = predict(work / "runs/shipped/model", rows, cache)
    by_source: dict[tuple[str, str], list[int]] = defaultdict(list)
    clean = manifests.clean_numbers(records)
    for n, record in enumerate(records):
        if record["type"] != "clean":
            by_source[record["type"], record["group"]].append(n)
    result: dict[str, Any] = {}
    for kind in dict.fromkeys(kind for kind, _ in by_source):
        own, drops = [], []
        dimension = ""
        for (other, group), members in by_source.items():
            if other != kind or len(members) < 3:
                continue
            dimension = records[members[0]]["dimension"]
            column = SCORES.index(dimension)
            severity = np.array([records[n]["severity"] for n in members])
            values = scores[members, column]
            own.append(0.0 if np.ptp(values) == 0 else srocc(values, severity))
            worst = members[int(severity.argmax())]
            drops.append(scores[clean[group]] - scores[worst])
        mean_drop = np.mean(drops, axis=0)
        low, high = bootstrap_interval(lambda x: float(x.mean()), np.array(own))
        result[kind] = {
            "dimension": dimension,
            "sources": len(own),
            "srocc": [round(v, 3) for v in (float(np.mean(own)), low, high)],
            "drop at the worst severity": {
                name: rounded(drop) for name, drop in zip(SCORES, mean_drop)
            },
        }
    return result


# ---- tables -------------------------------------------------------------------------------------


def text(value: float | None, layout: str = "") -> str:
    """A number as it is shown."""
    return "-" if value is None else format(value, layout)


def as_markdown(figures: Mapping[str, Any]) -> str:
    """The figures as the tables of the model card."""
    rated = [
        [dataset, score, kind, *map(cell, found.values())]
        for dataset, scores in figures["ratings"].items()
        for score, kinds in scores.items()
        for kind, found in kinds.items()
    ]
    lines = table_lines(["data set", "score", "predictor", *NAMES], rated)
    wrong = [
        [dataset, score, cell(found["falls"]), f"{found['points']:.2f}"]
        for dataset, scores in figures["wrong prompts"].items()
        for score, found in scores.items()
    ]
    header = ["another clip's prompt", "score", "falls, share of pairs", "points on average"]
    lines += ["", *table_lines(header, wrong)]
    above = [[score, *map(cell, kinds.values())] for score, kinds in figures["camera"].items()]
    lines += ["", *table_lines(["camera above generated", "prompts out", "set out"], above)]
    for title in ("years", "familiarity", "coverage"):
        values = figures[title] if title == "years" else figures["trust"][title]
        columns = list(next(iter(values.values())))
        means = [[label, *(text(row[name]) for name in columns)] for label, row in values.items()]
        lines += ["", *table_lines([title, *columns], means)]
    drop = "drop at the worst severity"
    for title in ("ladder", "ladder of modern"):
        header = [title, "dimension", "SROCC(severity, score)", "sources"]
        header += [f"{drop}: technical", "motion", "semantic"]
        kinds = [
            [kind, found["dimension"], cell(found["srocc"]), str(found["sources"])]
            + [text(found[drop][name], ".2f") for name in DIMENSIONS]
            for kind, found in figures[title].items()
        ]
        lines += ["", *table_lines(header, kinds)]
    return "\n".join(lines)


if __name__ == "__main__":
    measure(Path(sys.argv[1]).resolve(), Path(sys.argv[2]).resolve())

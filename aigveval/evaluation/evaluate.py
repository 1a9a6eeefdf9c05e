"""Evaluates a file of predictions against a manifest with human ratings."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ..assessment import SCORE_FIELDS
from ..data.scales import MOS, Scale
from ..errors import InputError, as_text, one_line
from ..metrics import number
from .figures import Agreement, Columns, Floats, Progress, Rows, Sampling, agree, check
from .ratings import RatedClip, match, name_key, read_predictions, read_ratings

Unit = Literal["auto", "clip", "prompt"]
_NAMES_SHOWN = 5
FEW_UNITS = 10  # prompts or clips, below which a bootstrap cannot be relied on
DEFAULT_TIE_MARGIN = 0.5  # on the 1-5 scale


@dataclass(frozen=True, kw_only=True)
class Clips:
    """The clips behind one score of an evaluation, for reports; lists and arrays are parallel.

    Args:
        videos: as the manifest names them.
        paths: where they should be.
        prompts, generators: None where unknown.
        predictions, ratings: (n,) on the manifest's scale.
        stds: (n,) spread of the prediction on that scale, NaN where unknown.
        fitted: (n,) predictions after the logistic; as they are where there is no fit.
    """

    videos: list[str]
    paths: list[Path]
    prompts: list[str | None]
    generators: list[str | None]
    predictions: Floats
    ratings: Floats
    stds: Floats
    fitted: Floats


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """What an evaluation found.

    Args:
        predictions, manifest, against: the files; `against` is None without a second predictor.
        scores: agreement by score.
        undefined: score -> why it could not be evaluated.
        generators, prompts: score -> names by number.
        settings: what the figures depend on, as plain values.
        notes: lines for the reader, such as missing predictions.
        clips: score -> its clips.
    """

    predictions: str
    manifest: str
    against: str | None
    scores: dict[str, Agreement]
    undefined: dict[str, str]
    generators: dict[str, list[str]]
    prompts: dict[str, list[str]]
    settings: dict[str, Any]
    notes: list[str]
    clips: dict[str, Clips] = field(repr=False)

    def to_dict(self) -> dict[str, Any]:
        """The evaluation as plain values for JSON: names for numbers, and no single clips."""
        plain = asdict(replace(self, clips={}))
        for key in ("clips", "generators", "prompts"):
            plain.pop(key)
        for score, values in plain["scores"].items():
            for kind in ("generators", "prompts"):
                names = getattr(self, kind)[score]
                for group in values[kind]:
                    group["name"] = names[group.pop("number")]
        return plain


def evaluate(
    predictions: str | Path,
    manifest: str | Path,
    *,
    against: str | Path | None = None,
    scores: Sequence[str] = (),
    column: str | None = None,
    against_column: str | None = None,
    where: Sequence[str] = (),
    scale: Scale = MOS,
    prediction_scale: Scale = MOS,
    against_scale: Scale | None = None,
    tie_margin: float | None = None,
    unit: Unit = "auto",
    sampling: Sampling = Sampling(),
    progress: Callable[[int, int], None] | None = None,
) -> Evaluation:
    """Evaluates predictions against human ratings.

    Args:
        predictions: results of `aigveval score`, or another file of `video` and scores; see
            `ratings.read_predictions`.
        manifest: `video`, human scores, and optionally `prompt`, `generator` and raters' columns.
        against: a second file of predictions for the same clips.
        scores: which to evaluate; by default all that are in both files.
        column, against_column: column of the predictions that is taken for `overall`.
        where: conditions on rows of the manifest, `COLUMN=VALUE` or `COLUMN!=VALUE`.
        scale: of the ratings; figures are on it.
        prediction_scale: of the predictions, which are moved from it to `scale`.
        against_scale: the same for `against`; by default `prediction_scale`.
        tie_margin: ratings that differ by no more are tied; by default an eighth of the scale.
        unit: what is resampled: clips, or prompts with all their clips. `auto` takes prompts
            where they repeat.
        sampling: how intervals are made.
        progress: called with how many of how many bootstrap samples are done.

    Raises:
        InputError: a file cannot be used, or no score can be evaluated.
    """
    for table in (predictions, manifest, against):
        if table is not None and not isinstance(table, (str, os.PathLike)):
            raise TypeError(
                f"predictions and ratings are files, got a {type(table).__name__}; of a table of "
                "pandas make one by table.to_csv('predictions.csv', index=False)"
            )
    with scale.hinted():
        rated = _without_repeats(read_ratings(manifest, scale=scale, where=where), manifest)
    files = [(predictions, column)]
    if against is not None:
        files.append((against, against_column))
    notes: list[str] = []
    sides: list[list[RatedClip | None]] = []
    for path, wanted_column in files:
        found, spare = match(
            rated,
            read_predictions(path, column=wanted_column),
            path=path,
            wanted_folder=Path(manifest).parent,
        )
        sides.append(found)
        notes += _coverage(path, rated, found, spare)
    names = _names(rated, sides, scores, manifest=manifest, files=[path for path, _ in files])
    for (path, _), side in zip(files, sides):
        notes += _empty(path, rated, side, names)
    margin = tie_margin
    if margin is None:
        margin = scale.spread_from_mos(DEFAULT_TIE_MARGIN)
    done, total = 0, len(names) * sampling.draws

    def advance(samples: int) -> None:
        nonlocal done
        done += samples
        if progress is not None:
            progress(done, total)

    other_scale = against_scale or prediction_scale
    settings = {
        "scale": f"{scale.low:g}:{scale.high:g}",
        "prediction_scale": f"{prediction_scale.low:g}:{prediction_scale.high:g}",
        "against_scale": f"{other_scale.low:g}:{other_scale.high:g}",
        "where": list(where),
        "tie_margin": margin,
        "resampled": {},
        "draws": sampling.draws,
        "seed": sampling.seed,
        "level": sampling.level,
    }
    scales = [prediction_scale, other_scale]
    evaluation = Evaluation(
        predictions=as_text(predictions),
        manifest=as_text(manifest),
        against=None if against is None else as_text(against),
        scores={},
        undefined={},
        generators={},
        prompts={},
        settings=settings,
        notes=notes,
        clips={},
    )
    task = _Task(rated, sides, scale, scales, margin, unit, sampling, advance, evaluation)
    for name in names:
        task.run(name)
    if not evaluation.scores:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in evaluation.undefined.items())
        raise InputError(f"{as_text(predictions)}: nothing can be evaluated: {reasons}")
    return evaluation


@dataclass(frozen=True)
class _Task:
    rated: list[RatedClip]
    sides: list[list[RatedClip | None]]
    scale: Scale
    prediction_scales: list[Scale]  # one for each side
    margin: float
    unit: Unit
    sampling: Sampling
    progress: Progress
    found: Evaluation  # is filled in

    def run(self, name: str) -> None:
        """Evaluates one score, or says in `undefined` why not."""
        found = self.found
        kept = [
            index
            for index, clip in enumerate(self.rated)
            if name in clip.scores
            and all((row := side[index]) and name in row.scores for side in self.sides)
        ]
        rated = [self.rated[index] for index in kept]
        sides = [[row for index in kept if (row := side[index])] for side in self.sides]
        generators = [a.generator or b.generator for a, b in zip(rated, sides[0])]
        prompts = [a.prompt or b.prompt for a, b in zip(rated, sides[0])]
        generator_numbers, generator_names = number([text or "(unknown)" for text in generators])
        # a clip without a prompt is alone
        prompt_numbers, prompt_names = number(
            [index if text is None else text for index, text in enumerate(prompts)]
        )
        columns = self._columns(name, rated, sides)
        columns = replace(
            columns,
            generators=generator_numbers if any(generators) else None,
            prompts=prompt_numbers if any(prompts) else None,
        )
        reason = check(columns)
        if reason is not None:
            found.undefined[name] = reason
            return
        if not columns.comparable:
            found.notes.append(
                f"{name}: predictions reach outside {self.prediction_scales[0]}, so that there is "
                "no RMSE before the logistic; state their scale"
            )
        resampled, units = self._units(columns)
        found.settings["resampled"][name] = resampled
        if self.sampling.draws and (count := len(np.unique(units))) < FEW_UNITS:
            found.notes.append(
                f"{name}: only {count} {resampled}, so that intervals are too narrow and "
                "p-values too small"
            )
        found.scores[name] = agreement = agree(
            columns,
            units=units,
            sampling=self.sampling,
            margin=self.margin,
            progress=self.progress,
        )
        found.generators[name] = generator_names if any(generators) else []
        found.prompts[name] = [text if isinstance(text, str) else "" for text in prompt_names]
        x = columns.predictions
        found.clips[name] = Clips(
            videos=[clip.video for clip in rated],
            # where the manifest has the file, or else where it was scored
            paths=[a.path if a.path.exists() else b.path for a, b in zip(rated, sides[0])],
            prompts=prompts,
            generators=generators,
            predictions=x,
            ratings=columns.ratings,
            stds=self._stds(name, sides[0], columns.comparable),
            fitted=x if agreement.logistic is None else agreement.logistic(x),
        )

    def _columns(
        self, name: str, rated: Sequence[RatedClip], sides: Sequence[Sequence[RatedClip]]
    ) -> Columns:
        """The numbers of one score, on the scale of the ratings."""
        on_scale = self.scale.from_mos
        given = [np.array([clip.scores[name] for clip in side]) for side in sides]
        comparable = [_on(*pair) for pair in zip(self.prediction_scales, given)]
        moved = [
            self._moved(values, of) if fits else values
            for values, of, fits in zip(given, self.prediction_scales, comparable)
        ]
        people = sorted({rater for clip in rated for rater in clip.raters.get(name, ())})
        raters = np.array(
            [
                [on_scale(clip.raters.get(name, {}).get(rater, np.nan)) for rater in people]
                for clip in rated
            ]
        )
        return Columns(
            predictions=moved[0],
            comparable=comparable[0],
            ratings=np.array([on_scale(clip.scores[name]) for clip in rated]),
            raters=raters if len(people) > 1 else None,
            other=moved[1] if len(moved) > 1 else None,
            other_comparable=comparable[-1],
        )

    def _units(self, columns: Columns) -> tuple[str, Rows]:
        """What is resampled, in words and as numbers."""
        prompts, count = columns.prompts, len(columns.ratings)
        if prompts is None and self.unit == "prompt":
            raise InputError("prompts cannot be resampled, as none is known")
        repeated = prompts is not None and int(prompts.max()) + 1 < count
        if prompts is not None and (self.unit == "prompt" or (self.unit == "auto" and repeated)):
            return "prompts", prompts
        return "clips", np.arange(count)

    def _moved(self, values: Floats, of: Scale) -> Floats:
        """Moves predictions to the scale of the ratings."""
        return np.array([self.scale.from_mos(of.to_mos(v)) for v in values])

    def _stds(self, name: str, scored: Sequence[RatedClip], moved: bool) -> Floats:
        stds = np.array([clip.stds.get(name, np.nan) for clip in scored])
        ratio = self.scale.spread_from_mos(1.0) / self.prediction_scales[0].spread_from_mos(1.0)
        return stds * ratio if moved else stds


def _on(scale: Scale, values: Floats) -> bool:
    return not len(values) or all(map(scale.holds, (float(values.min()), float(values.max()))))


def _without_repeats(rated: list[RatedClip], manifest: str | Path) -> list[RatedClip]:
    """One row per video and prompt; repeated rows have to say the same."""
    first: dict[tuple[str, str | None], RatedClip] = {}
    for clip in rated:
        earlier = first.setdefault((name_key(clip.video), clip.prompt), clip)
        if earlier.scores != clip.scores:
            raise InputError(
                f"{as_text(manifest)}: rows {earlier.row} and {clip.row} rate {clip.video} "
                "differently"
            )
    return list(first.values())


def _names(
    rated: Sequence[RatedClip],
    sides: Sequence[Sequence[RatedClip | None]],
    wanted: Sequence[str],
    *,
    manifest: str | Path,
    files: Sequence[str | Path],
) -> list[str]:
    """Scores to evaluate: those in all files, or those that are wanted."""
    held = [(manifest, {name for clip in rated for name in clip.scores})]
    held += [
        (path, {name for clip in side if clip for name in clip.scores})
        for path, side in zip(files, sides)
    ]
    for name in wanted:
        if name not in SCORE_FIELDS:
            raise InputError(f"{name!r} is no score; there are {', '.join(SCORE_FIELDS)}")
        for path, names in held:
            if name not in names:
                found = ", ".join(n for n in SCORE_FIELDS if n in names) or "none"
                raise InputError(f"{as_text(path)}: has no {name}; for these clips it has {found}")
    common = [name for name in SCORE_FIELDS if all(name in names for _, names in held)]
    if not common:
        each = "; ".join(
            f"{as_text(path)}: {', '.join(sorted(names)) or 'none for these clips'}"
            for path, names in held
        )
        advice = ""
        if not held[0][1]:
            advice = f"; one of these must be a column of {as_text(manifest)}"
        elif not all(names for _, names in held):
            advice = "; --column names the one with overall"
        raise InputError(f"no score is in all files: {each}{advice}")
    return [name for name in common if not wanted or name in wanted]


def _coverage(
    path: str | Path,
    rated: Sequence[RatedClip],
    found: Sequence[RatedClip | None],
    spare: Sequence[RatedClip],
) -> list[str]:
    notes = []
    missing = [clip.video for clip, partner in zip(rated, found) if partner is None]
    if len(missing) == len(rated):
        examples = f"{rated[0].video!r} and {spare[0].video!r}" if spare else f"{rated[0].video!r}"
        raise InputError(f"{as_text(path)}: has none of the rated videos; names such as {examples}")
    failed = [partner for partner in found if partner and partner.error]
    if missing:
        names = _listed(missing)
        notes.append(f"{as_text(path)}: no prediction for {names} of {len(rated)} videos")
    if failed:
        names = _listed([clip.video for clip in failed])
        notes.append(f"{as_text(path)}: could not be scored: {names}")
    if spare:
        notes.append(f"{as_text(path)}: {len(spare)} predictions are for videos without a rating")
    return notes


def _empty(
    path: str | Path,
    rated: Sequence[RatedClip],
    found: Sequence[RatedClip | None],
    names: Sequence[str],
) -> Iterator[str]:
    """Says of each score which clips have a row without it, and no error that tells why."""
    for name in names:
        without = [
            clip.video
            for clip, row in zip(rated, found)
            if name in clip.scores and row and not row.error and name not in row.scores
        ]
        if without:
            yield f"{as_text(path)}: {name} is empty for {_listed(without)} of {len(rated)} videos"


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(names[:_NAMES_SHOWN])
    more = ", ..." if len(names) > _NAMES_SHOWN else ""
    return f"{len(names)} ({one_line(shown)}{more})"

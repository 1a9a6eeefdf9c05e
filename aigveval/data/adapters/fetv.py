"""FETV (arXiv 2311.01813, CC BY 4.0): 619 prompts by four models, three raters, 1-5.

The source is the folder `manual_eval_results` of FETV-EVAL: `human*/manual_eval_results_MODEL.json`
holds a line `{"PROMPT": {"static_quality", "temporal_quality", "alignment", ...}}` per video, where
PROMPT is the number of the line in `fetv_data.json`, counted from 0. Videos lie, as published, in
`MODEL/videos/PROMPT.mp4` (or `.gif`). The real clips, `ground-truth`, are left out: their watermark
and frame size give them away.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from statistics import fmean
from typing import Any

from ...errors import ManifestError, as_text
from ..readers import Row, read_lines, read_rows
from ..scales import Scale
from . import Adapter, Options

SCORES = {"technical": "static_quality", "motion": "temporal_quality", "semantic": "alignment"}
_PREFIX, _REAL = "manual_eval_results_", "ground-truth"
# Name in the results -> folder of the videos and name of the model.
_MODELS = {
    "cogvideo": ("cogvideo", "CogVideo"),
    "text2video-zero": ("text2video-zero", "Text2Video-Zero"),
    "damo-text2video": ("modelscope-t2v", "ModelScopeT2V"),
    "modelscope-t2v": ("modelscope-t2v", "ModelScopeT2V"),
    "zeroscope": ("zeroscope", "ZeroScope"),
}


def read(source: Path, options: Options) -> Iterator[Row]:
    """Yields a row per video: the means over its raters, and what each rater gave."""
    prompts = _prompts(options.prompts) if options.prompts else {}
    ratings: dict[tuple[str, int], dict[str, dict[str, Any]]] = {}
    for path in sorted(source.glob(f"*/{_PREFIX}*.json")):
        model = path.stem.removeprefix(_PREFIX)
        if model != _REAL:
            for prompt, judgement in _judgements(path):
                ratings.setdefault((model, prompt), {})[path.parent.name] = judgement
    if not ratings:
        raise ManifestError(f"{as_text(source)}: holds no human*/{_PREFIX}MODEL.json")
    for number, ((model, prompt), judgements) in enumerate(sorted(ratings.items()), start=1):
        folder, generator = _MODELS.get(model, (model, model))
        row: dict[str, Any] = {
            "video": _video(options.videos, f"{folder}/videos/{prompt}"),
            "prompt": prompts.get(prompt),
            "generator": generator,
            "group": str(prompt),
        }
        for score, name in SCORES.items():
            given = {rater: j[name] for rater, j in judgements.items() if name in j}
            if given:
                row[score] = fmean(given.values())
            row |= {f"{score}_rater{rater}": value for rater, value in given.items()}
        if options.mean_overall and all(score in row for score in SCORES):
            row["overall"] = fmean(row[score] for score in SCORES)
        yield number, row


def _video(folder: Path, stem: str) -> str:
    return f"{stem}.gif" if (folder / f"{stem}.gif").exists() else f"{stem}.mp4"


def _judgements(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    for number, line in read_lines(path):
        try:
            for prompt, judgement in json.loads(line).items():
                known = [name for name in SCORES.values() if name in judgement]
                yield int(prompt), {name: float(judgement[name]) for name in known}
        except (ValueError, TypeError, AttributeError):
            raise ManifestError(
                f'{as_text(path)}: row {number} is not {{"PROMPT": {{"static_quality", ...}}}}'
            ) from None


def _prompts(path: Path) -> dict[int, str]:
    # Lines of JSON, though the file is called .json.
    lines = path.suffix.lower() == ".json" and next(read_lines(path), (0, ""))[1].startswith("{")
    try:
        if lines:
            rows = [json.loads(line) for _, line in read_lines(path)]
        else:
            rows = [row for _, row in read_rows(path, required=("prompt",))]
        return {position: row["prompt"] for position, row in enumerate(rows)}
    except (ValueError, KeyError, TypeError):
        raise ManifestError(f'{as_text(path)}: expected lines {{"prompt": ...}}') from None


ADAPTER = Adapter(
    title="FETV",
    read=read,
    scale=Scale(1, 5),
    reads="folder manual_eval_results, with --prompts fetv_data.json",
)

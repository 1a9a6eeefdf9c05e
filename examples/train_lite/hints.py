"""Lets the score hints of a model stand for its LLM, as `--precision fast` has it.

    python examples/train_lite/hints.py DATA MODEL CACHE [--write]

Fits a `HintCurve` to what the LLM makes of the hints, over all clips of the four data sets, each
with its own prompt, with none and with another clip's. Prints how far its scores are from the
LLM's on clips that the curve wasn't fitted to, five folds of them. `--write` puts the curve and the
largest difference (`hints_within`) into the model. CACHE is a feature cache, filled where it has to
be.
"""

import argparse
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import manifests
import numpy as np
import torch
from manifests import Clip
from measure import predicted_scores

from aigveval.features.cache import FeatureCache
from aigveval.model.modeling import AIGVEvalModel
from aigveval.model.projector import HintCurve, bounded
from aigveval.train.predict import predict
from prompts.rubric import SCORES


def let_hints_stand(
    clips: Sequence[Clip], folder: Path, cache: FeatureCache, *, save: bool
) -> None:
    """Measure how near the hints of a model come to its scores, and maybe save what that takes."""
    numbers, prompts = manifests.wrong_prompts(clips, 1)
    asked = [
        *(clip for clip in clips if clip.prompt),
        *(replace(clip, prompt=None) for clip in clips),
        *(replace(clips[n], prompt=text) for n, text in zip(numbers, prompts)),
    ]
    rows = [clip.row() for clip in asked]
    scores = torch.from_numpy(predict(folder, rows, cache))
    hints = torch.from_numpy(predicted_scores(folder, rows, cache))
    known = torch.tensor([clip.prompt is not None for clip in asked])
    names = sorted({clip.path for clip in clips})
    fold = torch.tensor([names.index(clip.path) % manifests.FOLDS for clip in asked])
    curved = torch.empty_like(scores)
    for number in range(manifests.FOLDS):
        curve, out = HintCurve(), fold == number
        curve.fit(hints[~out], known[~out], scores[~out])
        curved[out] = curve(hints[out], known[out])
    print("points from the LLM's scores: largest, 99 %, mean")
    for kind, found in (("hints", bounded(hints)), ("by the curve", curved)):
        apart = (scores - found).abs().numpy()
        for name, column in zip(SCORES, apart.T):
            low = np.nanquantile(column, 0.99)
            print(f"{kind:14}{name:10}{np.nanmax(column):8.3f}{low:8.3f}{np.nanmean(column):8.3f}")
    if not save:
        return
    model = AIGVEvalModel.from_pretrained(folder)
    within = math.ceil(float(np.nanmax(apart)) * 1000) / 1000
    model.model.add_hint_curve(within).fit(hints, known, scores)
    model.save_pretrained(folder)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("model", type=Path)
    parser.add_argument("cache", type=Path)
    parser.add_argument("--write", action="store_true", help="put it into the model")
    given = parser.parse_args()
    originals = manifests.read_originals(given.data)
    let_hints_stand(originals, given.model, FeatureCache(given.cache), save=given.write)

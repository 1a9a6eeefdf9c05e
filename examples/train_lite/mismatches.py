"""How often `--explain` says that a wrong prompt is wrong, and how often a right one.

    python examples/train_lite/mismatches.py DATA MODEL [--datasets modern] [--out FILE.json]

Each clip of the data sets that has a prompt is explained with its own, with those of two other
clips, and with its own in which a thing that the detector knows is exchanged for another (`a dog`
for `a boat`), where there is one. MODEL should not have learnt from these clips, as
`runs/without_modern/model` of recipe.py.

Prints how many of these have a mismatch named, or a thing that is missing or too few.
"""

import argparse
import json
import random
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import manifests
from agreement import table_lines
from manifests import Clip
from rich.console import Console
from rich.progress import track

import aigveval
from prompts.objects import asked_things, is_plural, plural_of

NAMED = {"prompt_mismatch", "missing_object", "wrong_count"}
THINGS = ("boat", "elephant", "bicycle", "airplane", "cat", "umbrella", "horse", "pizza", "truck")


def exchanged(clips: Sequence[Clip]) -> Iterator[Clip]:
    """The clips whose prompts name a thing of COCO, with another in its place."""
    for clip in clips:
        dice = random.Random(clip.name)
        known = {one.noun: one.name for one in asked_things(clip.prompt or "") if one.name}
        if known:
            noun = dice.choice(sorted(known))
            other = dice.choice([thing for thing in THINGS if thing not in known.values()])
            word = plural_of(other) if is_plural(noun.split()[-1]) else other
            text, count = re.subn(rf"\b{re.escape(noun)}\b", word, clip.prompt or "", flags=re.I)
            if count:
                yield replace(clip, prompt=text)


def main() -> None:
    layout = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=layout)
    parser.add_argument("data", type=Path)
    parser.add_argument("model")
    parser.add_argument("--datasets", nargs="+", default=["modern"], choices=manifests.DATASETS)
    parser.add_argument("--out", type=Path, help="JSON file, for every pair what is named")
    given = parser.parse_args()
    assessor = aigveval.load(given.model, explain=True)
    originals = manifests.read_originals(given.data)
    clips = [clip for clip in originals if clip.dataset in given.datasets and clip.prompt]
    numbers, others = manifests.wrong_prompts(clips, 2)
    asked = {
        "own prompt": clips,
        "another clip's": [replace(clips[n], prompt=text) for n, text in zip(numbers, others)],
        "a thing exchanged": list(exchanged(clips)),
    }
    rows, told = [], []
    for kind, pairs in asked.items():
        paths, prompts = [clip.path for clip in pairs], [clip.prompt for clip in pairs]
        scored = assessor.score_many(paths, prompts=prompts)
        found = track(scored, kind, total=len(pairs), console=Console(stderr=True))
        for clip, one in zip(pairs, found, strict=True):
            named = sorted(NAMED & {defect.name for defect in one.defects or ()})
            told.append({"kind": kind, "video": clip.name, "prompt": clip.prompt, "named": named})
        own = [row["named"] for row in told if row["kind"] == kind]
        counts = [str(sum(name in row for row in own)) for name in sorted(NAMED)]
        rows.append([kind, str(len(own)), str(sum(map(bool, own))), *counts])
    print(*table_lines(["prompt", "clips", "any", *sorted(NAMED)], rows), sep="\n")
    if given.out:
        given.out.write_text(json.dumps(told, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()

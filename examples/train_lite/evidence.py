"""How often the defects that rules on facts name are right: composites whose truth is known.

    python examples/train_lite/evidence.py SOURCES... --out figures.json [--half 0|1] [--seed 0]
    python examples/train_lite/evidence.py SOURCES... --reference

SOURCES are folders of clips with a `manifest.csv` (columns `video` and `prompt`). Things that the
detector is sure of are cut out of clips (GrabCut) and pasted into others, where nothing of their
kind is seen; there they stay, move, turn, grow or wave (nothing is wrong), leave the frame, vanish,
appear, dissolve into another thing, melt, or are doubled. Prompts name what is pasted, or exchange
its noun or number. Half of the sources, by a hash of the clip's name, is for choosing thresholds
(0), the other for figures (1).
Prints a table: per defect how often it was made, found, and named where it wasn't made.

With `--reference` it prints the quantiles that `aigveval.inference.facts.REFERENCE` holds.
"""

import argparse
import csv
import json
import random
import zlib
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from agreement import cell, table_lines

from aigveval.inference.facts import ALIKE, FOUND_WELL, REFERENCE, facts_of
from aigveval.inference.observe import NUM_FAST, NUM_SLOW, Observed, measure, observe
from encoders.detection import Thing, detect
from encoders.sampling import uniform
from encoders.video import FrameRequest, Frames, VideoError, read_frames
from prompts.facts import defects_of
from prompts.objects import asked_things, plural_of

Cutout = tuple[str, np.ndarray]  # class, and uint8 RGBA (h, w, 4)
Look = Callable[[float], np.ndarray]  # share of the time to RGBA (h, w, 4)
MADE = (
    "vanishing_object",
    "appearing_object",
    "identity_drift",
    "duplicated_object",
    "wrong_count",
    "missing_object",
    "morphing",
)
MADE_AS = {"dissolves": "morphing", "melts": "morphing"}  # ways to make a defect
TOO = {"identity_drift": "morphing"}  # what is right of a defect, too
CLEAN = ("stays", "leaves", "moves", "turns", "grows", "waves", "passes", "untouched")
COLUMNS = ("defect", "made", "found", "named elsewhere", "right")


@dataclass(frozen=True)
class Source:
    """A clip's frames, and what is seen in them."""

    name: str
    prompt: str
    slow: Frames
    fast: Frames
    duration_seconds: float
    things: list[list[Thing]]

    @property
    def classes(self) -> set[str]:
        """Whatever may be in it."""
        seen = {t.name for things in self.things for t in things if t.confidence >= 0.2}
        return seen | {asked.name for asked in asked_things(self.prompt) if asked.name}


def read_sources(folders: list[Path], half: int) -> list[Source]:
    """The clips of one half of the sources."""
    sources = []
    for folder in folders:
        with open(folder / "manifest.csv", encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        for row in rows:
            name = row["prompt"] or row["video"]  # clips of one prompt stay together
            if zlib.crc32(name.encode()) % 2 != half:
                continue
            wanted = {
                "slow": FrameRequest(indices=lambda n, fps: uniform(n, NUM_SLOW), stream="slow"),
                "fast": FrameRequest(indices=lambda n, fps: uniform(n, NUM_FAST), stream="fast"),
            }
            try:
                info, frames = read_frames(folder / row["video"], wanted, slow_max_side_px=640)
            except VideoError as error:
                print(error)
                continue
            things = detect(frames["slow"].pixels)
            slow, fast = frames["slow"], frames["fast"]
            if len(slow.pixels) == NUM_SLOW:
                prompt = row["prompt"]
                sources.append(
                    Source(row["video"], prompt, slow, fast, info.duration_seconds, things)
                )
    return sources


def cutouts_of(sources: list[Source]) -> list[Cutout]:
    """Things that stand alone in a frame, cut out."""
    found = []
    for source in sources:
        for frame, things in zip(source.slow.pixels[::3], source.things[::3]):
            for thing in things[:2]:
                left, top, right, bottom = thing.box
                inside = min(left, top, 1 - right, 1 - bottom) > 0.01
                if thing.confidence < 0.85 or not inside or not 0.04 < thing.area < 0.5:
                    continue
                cut = _cut(frame.permute(1, 2, 0).numpy(), thing)
                if cut is not None:
                    found.append((thing.name, cut))
                    break
    return found


def _cut(picture: np.ndarray, thing: Thing) -> np.ndarray | None:
    height, width = picture.shape[:2]
    left, right = int(thing.box[0] * width), int(thing.box[2] * width)
    top, bottom = int(thing.box[1] * height), int(thing.box[3] * height)
    mask = np.zeros((height, width), np.uint8)
    area = (left, top, right - left, bottom - top)
    cv2.setRNGSeed(0)
    models = np.zeros((1, 65)), np.zeros((1, 65))
    cv2.grabCut(np.ascontiguousarray(picture), mask, area, *models, 4, cv2.GC_INIT_WITH_RECT)
    alpha = np.isin(mask, (cv2.GC_FGD, cv2.GC_PR_FGD))[top:bottom, left:right]
    if not 0.35 < alpha.mean() < 0.92 or min(alpha.shape) < 40:
        return None
    alpha = cv2.GaussianBlur(255 * alpha.astype(np.uint8), (0, 0), 1.0)
    return np.dstack([picture[top:bottom, left:right], alpha])


def paste(source: Source, layers: list[tuple[np.ndarray | Look, Any]]) -> tuple[Frames, Frames]:
    """The source with cut-outs on it: each with `place(share of the time) -> x, y, size, opacity`.

    Places and sizes are shares of the frame's width and height. A cut-out may change with time.
    """
    done = []
    for frames in (source.slow, source.fast):
        pixels = frames.pixels.permute(0, 2, 3, 1).numpy().copy()
        for picture, seconds in zip(pixels, frames.timestamps_seconds):
            for cutout, place in layers:
                time = float(seconds) / source.duration_seconds
                _lay(picture, cutout(time) if callable(cutout) else cutout, *place(time))
        back = torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous()
        done.append(replace(frames, pixels=back))
    return done[0], done[1]


def _lay(
    picture: np.ndarray, cutout: np.ndarray, x: float, y: float, size: float, opacity: float
) -> None:
    if opacity <= 0:
        return
    height, width = picture.shape[:2]
    factor = size * height / cutout.shape[0]
    wide, high = max(1, round(cutout.shape[1] * factor)), max(1, round(size * height))
    small = cv2.resize(cutout, (wide, high), interpolation=cv2.INTER_AREA).astype(np.float32)
    left, top = round(x * width - wide / 2), round(y * height - high / 2)
    x0, y0, x1, y1 = max(0, left), max(0, top), min(width, left + wide), min(height, top + high)
    if x0 >= x1 or y0 >= y1:
        return
    part = small[y0 - top : y1 - top, x0 - left : x1 - left]
    alpha = opacity * part[..., 3:] / 255
    picture[y0:y1, x0:x1] = (1 - alpha) * picture[y0:y1, x0:x1] + alpha * part[..., :3]


def _changing(kind: str, cutout: np.ndarray, other: np.ndarray, dice: random.Random) -> Look:
    """A cut-out that dissolves into another, melts, turns or waves; it has a margin for that."""
    height, width = cutout.shape[:2]
    when, over = dice.uniform(0.3, 0.6), dice.uniform(0.1, 0.3)
    angle, squeezed = dice.choice((-1, 1)) * dice.uniform(20, 60), dice.random() < 0.5
    high, wide = height // 3, width // 3
    margin = (high, high, wide, wide)
    start = _solid(cv2.copyMakeBorder(cutout, *margin, cv2.BORDER_CONSTANT))
    end = _solid(
        cv2.copyMakeBorder(cv2.resize(other, (width, height)), *margin, cv2.BORDER_CONSTANT)
    )
    y, x = np.mgrid[: start.shape[0], : start.shape[1]].astype(np.float32)
    noise = np.random.default_rng(dice.randrange(1 << 30))
    bends = []
    for _ in range(2):
        rough = noise.standard_normal(x.shape).astype(np.float32)
        smooth = cv2.GaussianBlur(rough, (0, 0), min(height, width) / 6)
        bends.append(0.14 * min(height, width) * smooth / smooth.std())

    def look(time: float) -> np.ndarray:
        share = min(1.0, max(0.0, (time - when) / over))
        if kind == "dissolves":
            return _clear((1 - share) * start + share * end)
        across, down = x, y
        if kind == "melts":
            across, down = x + share * bends[0], y + share * bends[1]
        elif kind == "waves":
            across = x + 0.08 * width * np.sin(2 * np.pi * (1.5 * y / height + 3 * time))
        elif squeezed:
            across = (x - x.mean()) / (1 - 0.5 * share) + x.mean()
        else:
            turn = cv2.getRotationMatrix2D((float(x.mean()), float(y.mean())), angle * share, 1.0)
            return _clear(cv2.warpAffine(start, turn, start.shape[1::-1]))
        return _clear(cv2.remap(start, across, down, cv2.INTER_LINEAR))

    return look


def _solid(cutout: np.ndarray) -> np.ndarray:
    """With colours times opacity, so that they can be mixed."""
    solid = cutout.astype(np.float32)
    solid[..., :3] *= solid[..., 3:] / 255
    return solid


def _clear(solid: np.ndarray) -> np.ndarray:
    """Inverse of `_solid`."""
    clear = solid.copy()
    clear[..., :3] = np.clip(clear[..., :3] / np.maximum(clear[..., 3:] / 255, 1e-3), 0, 255)
    return clear


def make(kind: str, source: Source, cutouts: list[Cutout], dice: random.Random) -> Any:
    """A composite of a kind and its prompt, or None where the source or the things don't allow."""
    if kind == "untouched":
        return (source.slow, source.fast), source.prompt
    if kind == "missing_object":
        absent = [n for n in sorted(FOUND_WELL) if n not in source.classes]
        name = dice.choice(absent)
        seen = Counter(t.name for f in source.things for t in f if t.confidence >= 0.7)
        with_it = f" and a {seen.most_common(1)[0][0]}" if seen else ""
        return (source.slow, source.fast), f"a {name}{with_it}"
    fits = [one for one in cutouts if one[0] not in source.classes]
    if not fits:
        return None
    name, cutout = dice.choice(fits)
    size, x, y = dice.uniform(0.35, 0.55), dice.uniform(0.3, 0.7), dice.uniform(0.4, 0.6)
    drift, when = dice.uniform(-0.08, 0.08), dice.uniform(0.35, 0.65)
    aspect = source.slow.pixels.shape[2] / source.slow.pixels.shape[3]
    wide = size * cutout.shape[1] / cutout.shape[0] * aspect
    if wide > 0.42:
        size, wide = size * 0.42 / wide, 0.42
    still = lambda t: (x + drift * t, y, size, 1.0)  # noqa: E731
    prompt = f"a {name}"
    if kind == "stays":
        return paste(source, [(cutout, still)]), prompt
    if kind == "grows":
        to = dice.choice((0.6, 1.6))
        grow = lambda t: (x, y, size * (1 + (to - 1) * t), 1.0)  # noqa: E731
        return paste(source, [(cutout, grow)]), prompt
    if kind in ("moves", "passes"):
        side = dice.choice((-1, 1)) * (1.5 if kind == "passes" else dice.uniform(0.3, 0.6))
        middle = 0.5 if kind == "passes" else x
        return paste(
            source, [(cutout, lambda t: (middle + side * (t - 0.5), y, size, 1.0))]
        ), prompt
    if kind == "leaves":
        side = dice.choice((-1, 1))
        return paste(source, [(cutout, lambda t: (x + side * 1.6 * t, y, size, 1.0))]), prompt
    if kind in ("vanishing_object", "appearing_object"):
        first = kind == "vanishing_object"
        return paste(
            source, [(cutout, lambda t: (x + drift * t, y, size, float((t < when) == first)))]
        ), prompt
    if kind in ("identity_drift", "dissolves", "melts", "turns", "waves"):
        group = next((g for g in ALIKE if name in g), {name})
        others = [one for one in fits if one[0] not in group and one[0] != name]
        if not others:
            return None
        other = dice.choice(others)[1]
        if kind != "identity_drift":
            look = _changing(kind, cutout, other, dice)
            large = lambda t: (x + drift * t, y, size * 5 / 3, 1.0)  # noqa: E731  # with its margin
            return paste(source, [(look, large)]), prompt
        fade = lambda t: min(1.0, max(0.0, (t - when) / 0.08))  # noqa: E731
        return paste(
            source,
            [
                (cutout, lambda t: (x + drift * t, y, size, 1 - fade(t))),
                (other, lambda t: (x + drift * t, y, size, fade(t))),
            ],
        ), prompt
    copies = 2 if kind == "duplicated_object" else dice.choice((2, 3))
    size *= min(1.0, 0.9 / copies / wide)
    places = [(n + 0.5) / copies for n in range(copies)]
    layers = [(cutout, lambda t, p=p: (p + drift * t / 2, y, size, 1.0)) for p in places]
    if kind == "wrong_count":
        said = dice.choice([n for n in (1, 2, 3, 4, 5) if n != copies])
        words = {1: "one", 2: "two", 3: "three", 4: "four", 5: "five"}
        prompt = f"{words[said]} {name if said == 1 else plural_of(name)}"
    return paste(source, layers), prompt


def print_reference(folders: list[Path]) -> None:
    """Quantiles of what is measured of the clips of folders."""
    values: dict[str, list[float]] = defaultdict(list)
    for path in sorted(p for folder in folders for p in folder.iterdir() if p.suffix == ".mp4"):
        for fact in facts_of(observe(path)):
            if fact.kind in REFERENCE and fact.value is not None:
                values[fact.kind].append(fact.value)
    for kind, found in values.items():
        points = np.quantile(found, np.linspace(0, 1, 21)).round(3)
        print(f'"{kind}": "{" ".join(f"{point:g}" for point in points)}",')


def rows_of(table: Mapping[str, Mapping[str, int]]) -> list[list[str]]:
    """Rows of `COLUMNS`; of a defect that is never named nothing is right or wrong."""
    rows = []
    for name, row in table.items():
        named = row["found"] + row["wrong"]
        share = cell([row["found"] / named] if named else None)
        rows.append([name, str(row["made"]), str(row["found"]), str(row["wrong"]), share])
    return rows


def main() -> None:
    layout = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=layout)
    parser.add_argument("sources", nargs="+", type=Path)
    parser.add_argument("--out", type=Path, default=Path("evidence.json"))
    parser.add_argument("--half", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--each", type=int, default=40, help="composites of each kind, at most")
    parser.add_argument("--reference", action="store_true")
    given = parser.parse_args()
    if given.reference:
        print_reference(given.sources)
        return
    sources = read_sources(given.sources, given.half)
    cutouts = cutouts_of(sources)
    kinds = Counter(name for name, _ in cutouts)
    print(f"{len(sources)} sources, {len(cutouts)} cut-outs: {dict(kinds)}")
    made: Counter[str] = Counter()
    right: Counter[str] = Counter()
    wrong: dict[str, list[str]] = defaultdict(list)
    ways = [kind for kind in MADE if kind not in MADE_AS.values()]
    for kind in (*ways, *MADE_AS, *CLEAN):
        dice = random.Random(f"{given.seed} {kind}")
        order = dice.sample(sources, len(sources)) * 2
        for source in order:
            if made[kind] >= given.each:
                break
            case = make(kind, source, cutouts, dice)
            if case is None:
                continue
            (slow, fast), prompt = case
            observed: Observed = measure(slow, fast, source.duration_seconds)
            found = {d.name for d in defects_of(facts_of(observed, prompt), prompt=prompt)}
            made[kind] += 1
            right[kind] += MADE_AS.get(kind, kind) in found
            for name in found - {MADE_AS.get(kind, kind), TOO.get(kind)}:
                wrong[name].append(f"{kind}: {source.name}: {prompt}")
        print(f"{kind}: {made[kind]} made, {right[kind]} named", flush=True)
    for way, name in MADE_AS.items():
        made[name] += made[way]
        right[name] += right[way]
    table = {
        name: {"made": made[name], "found": right[name], "wrong": len(wrong.get(name, ()))}
        for name in (*MADE, *(n for n in wrong if n not in MADE))
    }
    print(*table_lines(COLUMNS, rows_of(table)), sep="\n")
    for name, cases in wrong.items():
        print(name, *cases, sep="\n  ")
    given.out.write_text(json.dumps({"clean": made, "table": table, "wrong": wrong}, indent=1))


if __name__ == "__main__":
    main()

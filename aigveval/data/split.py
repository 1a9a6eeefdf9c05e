"""Parts of a manifest for training, validation and test: random, or without a shared prompt,
generator or group; or the folds of a cross-validation.

Two rows about the same video are in the same part whatever the way of splitting. Which rows are
together is found first; then these bundles are dealt out in an order that depends on the seed and
on the bundles' content, not on the order of the rows.
"""

from __future__ import annotations

import os
from array import array
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from ..errors import InputError, ManifestError, as_text
from .check import Leaks, Overlap, key_of, place_key, prompt_key, video_key
from .manifest import read_label, read_prompt, read_video, rebase
from .preference_pairs import PAIR_VIDEOS, is_pairs
from .readers import MANIFEST_SUFFIXES, RowFault, folder_of, read_rows
from .writers import Columns, TableWriter, check_target

By = Literal["random", "prompt", "generator", "group"]

SHARED = ("prompts", "generators", "videos")


@dataclass(frozen=True, kw_only=True)
class Split:
    """What `split` wrote.

    Attributes:
        files: The manifests, by `train`, `test`, ... or `fold0/train`, ...
        rows: How many rows each part has; of folds, those held out.
        bundles: How many bundles of rows there were to deal out.
        before: What the parts that the manifest itself named share.
        after: What the new parts share.
    """

    files: dict[str, Path]
    rows: dict[str, int]
    bundles: int
    before: list[Overlap]
    after: list[Overlap]


def parse_parts(text: str) -> dict[str, float]:
    """Reads `train=0.8,valid=0.1,test=0.1`; the shares are taken relative to their sum.

    Raises:
        InputError: When it is something else.
    """
    parts: dict[str, float] = {}
    try:
        for part in text.split(","):
            name, share = part.split("=")
            name = name.strip()
            if not name.replace("-", "").replace("_", "").isalnum() or name in parts:
                raise ValueError
            parts[name] = float(share)
            if not 0 < parts[name] < float("inf"):
                raise ValueError
    except ValueError:
        parts = {}
    if len(parts) < 2:
        raise InputError(
            f"parts are two or more NAME=SHARE, such as train=0.8,test=0.2, got {text!r}"
        )
    return {name: share / sum(parts.values()) for name, share in parts.items()}


def split(
    source: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    by: By,
    parts: Mapping[str, float] | None = None,
    folds: int | None = None,
    seed: int = 0,
    only: str | None = None,
    suffix: str | None = None,
    progress: Callable[[], None] = lambda: None,
) -> Split:
    """Splits a manifest, of videos or of pairs, and writes each part as a manifest of its own.

    The columns stay as they are, but for `split`, which names the part, and the paths of the
    videos, which stay right. Memory: about 0.2 KB per row.

    Args:
        out: Folder for the parts: `train.jsonl`, ... or `fold0/train.jsonl`, `fold0/valid.jsonl`.
        by: What no two parts may share; `random` is nothing but the video.
        parts: Name -> share of the rows, adding up to 1.
        folds: Number of folds, in place of `parts`: each is held out once.
        seed: Seed of the order in which bundles are assigned to parts.
        only: Take but the rows whose `split` is this.
        suffix: Format of the parts, by default that of the source.
        progress: Called after each row that is read or written.

    Raises:
        InputError: When it cannot be done, naming the row where there is one.
    """
    if (parts is None) == (folds is None):
        raise InputError("a split is into parts or into folds")
    if folds is not None and folds < 2:
        raise InputError(f"there must be 2 folds or more, got {folds}")
    shares = dict(parts) if parts else {str(n): 1 / (folds or 1) for n in range(folds or 0)}
    names = list(shares)
    rows = _Rows(source, by, only, progress)
    dealt = _deal(rows.bundles, rows.order_keys, list(shares.values()), seed, by)
    suffix = suffix or Path(source).suffix.lower()
    suffix = suffix if suffix in MANIFEST_SUFFIXES else ".jsonl"
    after = Leaks(names)
    with ExitStack() as stack:
        files, writers = {}, {}
        kinds = [f"fold{name}/{kind}" for name in names for kind in ("train", "valid")]
        for name in names if folds is None else kinds:
            files[name] = Path(out) / f"{name}{suffix}"
            check_target(files[name], [source])
            writers[name] = stack.enter_context(TableWriter(files[name], rows.columns))
        for (_, values), part in zip(rows.again(), dealt, strict=True):
            name = names[part]
            after.count(name)
            for what, key in _things(values, rows.root):
                after.add(name, what, key)
            kept = [f"fold{one}/{'valid' if one == name else 'train'}" for one in names]
            for file in [name] if folds is None else kept:
                writers[file].write(_moved(values, rows.folder, files[file]))
            progress()
    return Split(
        files=files,
        rows=after.rows,
        bundles=len(np.unique(rows.bundles)),
        before=[overlap for what in SHARED for overlap in rows.before.overlaps(what)],
        after=[overlap for what in SHARED for overlap in after.overlaps(what)],
    )


def _moved(values: Mapping[str, Any], folder: Path, path: Path) -> dict[str, Any]:
    row = dict(values) | {"split": path.stem}
    for column in PAIR_VIDEOS if PAIR_VIDEOS[0] in row else ("video",):
        row[column] = rebase(row[column], folder, path.parent)
    return row


def _things(values: Mapping[str, Any], root: str) -> Iterator[tuple[str, int]]:
    """What a row has that parts could share."""
    prompt = values.get("prompt")
    if prompt:
        yield "prompts", prompt_key(prompt)
    for name in ("generator", "generator_a", "generator_b"):
        generator = read_label(values, name)
        if generator is not None:
            yield "generators", key_of(generator)
    for name in ("video", *PAIR_VIDEOS):
        if name in values:
            yield "videos", place_key(values[name], root)


class _Rows:
    """What is kept of the rows: which belong together, and what the given parts share."""

    def __init__(
        self, source: str | os.PathLike[str], by: By, only: str | None, progress: Callable[[], None]
    ) -> None:
        self.source, self.only, self.folder = source, only, folder_of(source)
        self.root = os.path.abspath(self.folder)
        self.columns, self.before = Columns(), Leaks()
        self.videos = PAIR_VIDEOS if is_pairs(source) else ("video",)
        links_row, links_key = array("q"), array("Q")
        order = array("Q")
        try:
            for position, (number, values) in enumerate(self.again(count_all=True)):
                videos = [values[name] for name in self.videos]
                read_prompt(number, values)
                ties = [key_of(f"{by} {what}") for what in _ties(number, values, by)]
                # as the manifest says, so that it's the same in any folder
                order.append(min(ties or map(video_key, videos)))
                keys = [place_key(video, self.root) for video in videos] + ties
                links_row.extend([position] * len(keys))
                links_key.extend(keys)
                self.columns.note(values)
                progress()
        except RowFault as fault:
            raise ManifestError(f"{as_text(source)}: {fault}") from None
        if not order:
            raise ManifestError(f"{as_text(source)}: no row is of the split {only!r}")
        self.columns["split"] = "text"
        for name in self.videos:
            self.columns[name] = "text"
        keys_of, ids = np.unique(np.frombuffer(links_key, np.uint64), return_inverse=True)
        rows_of = np.frombuffer(links_row, np.int64)
        size = len(order) + len(keys_of)
        graph = coo_array(
            (np.ones(len(ids), np.int8), (rows_of, ids + len(order))), shape=(size, size)
        )
        self.bundles = connected_components(graph, directed=False)[1][: len(order)]
        self.order_keys = np.frombuffer(order, np.uint64)

    def again(self, *, count_all: bool = False) -> Iterator[tuple[int, dict[str, Any]]]:
        """Yields the rows to split, with paths as text; on the first time the given parts are
        looked at as well.

        Raises:
            RowFault: When a row names no video.
        """
        for number, values in read_rows(self.source, required=()):
            values |= {name: read_video(number, values, name) for name in self.videos}
            part = read_label(values, "split")
            if count_all and part is not None:
                self.before.count(part)
                for what, key in _things(values, self.root):
                    self.before.add(part, what, key)
            if self.only is None or part == self.only:
                yield number, values


def _ties(number: int, values: Mapping[str, Any], by: By) -> list[str | int]:
    """What ties a row to others, besides its video."""
    if by == "random":
        return []
    if by == "prompt":
        prompt = read_prompt(number, values)
        return [prompt_key(prompt)] if prompt else []
    names = ("generator", "generator_a", "generator_b") if by == "generator" else ("group",)
    labels = [label for name in names if (label := read_label(values, name)) is not None]
    if not labels:
        raise RowFault(number, f"row {number} has no {by}, which the split goes by")
    return list(labels)


def _deal(
    bundles: np.ndarray, order_keys: np.ndarray, shares: list[float], seed: int, by: By
) -> np.ndarray:
    """Gives the part of each row: each bundle goes where most rows are lacking."""
    _, bundles, sizes = np.unique(bundles, return_inverse=True, return_counts=True)
    if len(sizes) < len(shares):
        things = "videos" if by == "random" else f"separate {by}s"
        raise InputError(f"{len(sizes)} {things} cannot fill {len(shares)} parts")
    first = np.full(len(sizes), np.iinfo(np.uint64).max, np.uint64)
    np.minimum.at(first, bundles, order_keys)  # names a bundle whatever the order of its rows
    order = np.argsort(first)[np.random.default_rng(seed).permutation(len(sizes))]
    lacking = [share * len(bundles) for share in shares]
    empty = set(range(len(shares)))
    part_of = np.empty(len(sizes), np.int64)
    for position, bundle in enumerate(order.tolist()):
        # The last bundles go to parts that would stay empty.
        choice = empty if len(order) - position <= len(empty) else range(len(shares))
        part = max(choice, key=lacking.__getitem__)
        part_of[bundle] = part
        lacking[part] -= int(sizes[bundle])
        empty.discard(part)
    return part_of[bundles]

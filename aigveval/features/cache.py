"""Encoder tokens on disk: a video is decoded and encoded once, however often it is trained on.

An entry's key is the SHA-256 of the video file's content together with the encoder's fingerprint,
so renamed or copied files hit and a changed file, option or weight misses. The value is what
``encoder.encode`` gives: tokens that do not depend on the prompt, float32 (m, e).

    FOLDER/<encoder name>-<fingerprint>/<first 2 hex digits>/<sha256>.safetensors
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from safetensors import SafetensorError
from safetensors.torch import load as from_bytes
from safetensors.torch import save as to_bytes
from torch import Tensor

from encoders.base import Encoder
from encoders.video import VideoError
from encoders.views import read_views
from encoders.wheels import sha256

from ..data.readers import why_missing

# Part of every entry; raise it when the layout or the reading of frames changes the tokens.
_FORMAT = "1"


class FeatureCache:
    """A folder of encoder tokens that several processes may read and write at once.

    Entries are written to a temporary file and renamed, so a reader sees all of an entry or none.
    Two processes that miss at the same time both compute, and the later one replaces the equal
    file of the earlier.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.notes: list[str] = []  # one line per entry that was found damaged in this run
        self._digests: dict[tuple[str, int, int], str] = {}

    def digest(self, path: str | os.PathLike[str]) -> str:
        """SHA-256 of the file, remembered here for the path while size and mtime stay equal.

        Raises:
            OSError: the file can't be read.
        """
        stat = os.stat(path)
        key = (os.path.abspath(path), stat.st_size, stat.st_mtime_ns)
        if key not in self._digests:
            self._digests[key] = sha256(Path(path))
        return self._digests[key]

    def entry(self, digest: str, encoder: Encoder) -> Path:
        """Where the tokens of a file with this digest are, or would be."""
        folder = f"{encoder.spec.name}-{encoder.fingerprint()}"
        return self.folder / folder / digest[:2] / f"{digest}.safetensors"

    def get(self, digest: str, encoder: Encoder) -> Tensor | None:
        """The tokens (m, e) float32, or None where there are none.

        A damaged entry counts as missing: it is removed and noted in `notes`.
        """
        path = self.entry(digest, encoder)
        try:
            data = path.read_bytes()  # a mapped file would crash the process if it were cut short
            tokens = from_bytes(data)["tokens"]
            header = json.loads(data[8: 8 + int.from_bytes(data[:8], "little")])
            problem = _problem(header.get("__metadata__", {}), tokens, _identity(digest, encoder))
        except FileNotFoundError:
            return None
        except (SafetensorError, OSError, LookupError, ValueError) as error:
            problem = f"unreadable ({error})"
        if problem is None:
            return tokens
        self.notes.append(f"{path}: {problem}; computed again")
        path.unlink(missing_ok=True)
        return None

    def put(self, digest: str, encoder: Encoder, tokens: Tensor) -> None:
        """Store tokens (m, e).

        Raises:
            ValueError: not 2-d, or not finite.
            OSError: the folder can't be written, e.g. the disk is full; no partial entry stays.
        """
        tokens = tokens.detach().to("cpu", torch.float32).contiguous()
        if tokens.ndim != 2 or not torch.isfinite(tokens).all():
            raise ValueError(
                f"{encoder.spec.name}: expected finite tokens (m, e), got shape "
                f"{tuple(tokens.shape)}, finite {bool(torch.isfinite(tokens).all())}"
            )
        path = self.entry(digest, encoder)
        path.parent.mkdir(parents=True, exist_ok=True)
        data = to_bytes(
            {"tokens": tokens},
            metadata={**_identity(digest, encoder), "check": _check(tokens)},
        )
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=".writing-")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(data)
            os.replace(temporary, path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise


@dataclass(kw_only=True)
class ExtractReport:
    """What `extract` did.

    Attributes:
        digests: path as given -> SHA-256 of the file, for every file whose tokens are in the cache.
        errors: path as given -> one line saying what is wrong with the file.
        computed: number of files that were decoded in this call.
        notes: one line per damaged entry that was computed again.
    """

    digests: dict[str, str] = field(default_factory=dict)
    errors: dict[str, str] = field(default_factory=dict)
    computed: int = 0
    notes: list[str] = field(default_factory=list)


def extract(
    paths: Iterable[str | os.PathLike[str]],
    encoders: Sequence[Encoder],
    cache: FeatureCache,
    *,
    workers: int = 1,
    batch_size: int = 1,
    device: str | torch.device = "cpu",
    progress: bool = True,
) -> ExtractReport:
    """Make sure that the cache holds every encoder's tokens of every file.

    Each file is read once, for all encoders that miss it. Hashing, decoding and `preprocess` run in
    `workers` threads (the decoders, OpenCV and torch release the interpreter lock); `encode` runs
    in the calling thread meanwhile. At most ``2 * workers + batch_size`` files are in memory.

    A file that can't be assessed gets a line in `errors` and the others go on.

    Args:
        paths: video files; a repeated one is read once.
        encoders: put into eval mode and moved to `device`.
        cache: where the tokens go.
        workers: reading threads. One keeps two cores busy, because decoders have own threads.
        batch_size: files per call of `encode`. With 1 the tokens are those of live scoring bit
            for bit; larger ones differ in the last digits, and pay off on a GPU only.
        device: where `encode` runs.
        progress: show a bar on a terminal.
    """
    if workers < 1 or batch_size < 1:
        raise ValueError(f"workers and batch_size must be >= 1, got {workers} and {batch_size}")
    for encoder in encoders:
        encoder.eval().to(device)
    unique = list(dict.fromkeys(os.fspath(path) for path in paths))
    report, first_note = ExtractReport(), len(cache.notes)
    batch: list[_Loaded] = []
    columns = (
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(),
        TextColumn("[red]{task.fields[failed]}[/red]"), TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), disable=not progress) as bar:
        task = bar.add_task("Encoding videos", total=len(unique), failed="")
        for loaded in _prefetch(unique, encoders, cache, workers):
            if loaded.views:
                batch.append(loaded)
            elif loaded.error is None:
                report.digests[loaded.path] = loaded.digest
            else:
                report.errors[loaded.path] = loaded.error
            if len(batch) == batch_size:
                _encode_batch(batch, encoders, cache, device, report)
                batch = []
            failed = f"{len(report.errors)} failed" if report.errors else ""
            done = len(report.digests) + len(report.errors)
            bar.update(task, completed=done, failed=failed)
        if batch:
            _encode_batch(batch, encoders, cache, device, report)
            bar.update(task, completed=len(unique))
    report.notes.extend(cache.notes[first_note:])
    return report


@dataclass
class _Loaded:
    """One file after hashing, decoding and preprocessing; `views` by position of the encoder."""

    path: str
    digest: str = ""
    views: dict[int, Tensor] = field(default_factory=dict)
    error: str | None = None


def _load(path: str, encoders: Sequence[Encoder], cache: FeatureCache) -> _Loaded:
    try:
        if not os.path.isfile(path):
            raise VideoError(path, "not a file" if os.path.exists(path) else why_missing(path))
        digest = cache.digest(path)
        missing = {i: e for i, e in enumerate(encoders) if cache.get(digest, e) is None}
        if not missing:
            return _Loaded(path, digest)
        views = read_views(path, {str(i): encoder for i, encoder in missing.items()})
        return _Loaded(path, digest, {int(i): view for i, view in views.items()})
    except VideoError as error:
        return _Loaded(path, error=str(error))
    except Exception as error:  # one bad file must not end a run over thousands
        return _Loaded(path, error=_one_line(path, error))


def _prefetch(
    paths: Sequence[str], encoders: Sequence[Encoder], cache: FeatureCache, workers: int
) -> Iterator[_Loaded]:
    pool = ThreadPoolExecutor(workers, thread_name_prefix="extract")
    waiting: deque[Future[_Loaded]] = deque()
    try:
        for path in paths:
            waiting.append(pool.submit(_load, path, encoders, cache))
            if len(waiting) >= 2 * workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:  # also on Ctrl-C: don't decode the rest before stopping
        pool.shutdown(wait=False, cancel_futures=True)


@torch.inference_mode()
def _encode_batch(
    batch: Sequence[_Loaded], encoders: Sequence[Encoder], cache: FeatureCache,
    device: str | torch.device, report: ExtractReport,
) -> None:
    try:
        for i, encoder in enumerate(encoders):
            rows = [loaded for loaded in batch if i in loaded.views]
            if rows:
                tokens = encoder.encode(torch.stack([r.views[i] for r in rows]).to(device))
                for row, value in zip(rows, tokens, strict=True):
                    cache.put(row.digest, encoder, value)
    except (RuntimeError, ValueError) as error:
        if len(batch) == 1:
            report.errors[batch[0].path] = _one_line(batch[0].path, error)
            return
        for loaded in batch:  # one by one, to find out which file it is
            _encode_batch([loaded], encoders, cache, device, report)
        return
    report.digests.update((loaded.path, loaded.digest) for loaded in batch)
    report.computed += len(batch)


def _identity(digest: str, encoder: Encoder) -> dict[str, str]:
    return {"format": _FORMAT, "video_sha256": digest, "fingerprint": encoder.fingerprint()}


def _check(tokens: Tensor) -> str:
    return hashlib.sha256(tokens.numpy().tobytes()).hexdigest()


def _problem(metadata: dict[str, str], tokens: Tensor, identity: dict[str, str]) -> str | None:
    if any(metadata.get(key) != value for key, value in identity.items()):
        return "belongs to another file, encoder or format"
    if metadata.get("check") != _check(tokens):
        return "checksum differs"
    return None


def _one_line(path: str, error: Exception) -> str:
    reason = " ".join(str(error).split()) or type(error).__name__
    return reason if reason.startswith(f"{path}: ") else f"{path}: {reason[:300]}"

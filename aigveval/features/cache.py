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
from collections.abc import Iterable, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from safetensors import SafetensorError
from safetensors.torch import load as from_bytes
from safetensors.torch import save as to_bytes
from torch import Tensor

from encoders.base import Encoder, full_float32
from encoders.frame_sequence import frame_files
from encoders.video import VideoError, read_views
from encoders.wheels import sha256

from ..batching import Bar, Done, run_batches, stop_at_our_fault
from ..data.readers import why_missing
from ..errors import reason_of
from ..files import replaced

# SHA-256 of a file; and views or tokens by the encoder's place in the list.
_OfFile = tuple[str, dict[str, Tensor]]

# Part of every entry; raise it when the layout or the reading of frames changes the tokens.
_FORMAT = "2"  # 1: other times, and transparent, HDR, interlaced and cut videos read otherwise
_EARLIER_FORMATS = ("1",)  # missing without a note, as there may be thousands


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

        That of a folder or a pattern of frames is made of those of its pictures, in their order.

        Raises:
            OSError: The file can't be read.
        """
        if files := frame_files(os.fspath(path)):
            return hashlib.sha256("".join(map(self.digest, files)).encode()).hexdigest()
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
            header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
            metadata = header.get("__metadata__", {})
            if metadata.get("format") in _EARLIER_FORMATS:
                return None
            if any(metadata.get(k) != v for k, v in _identity(digest, encoder).items()):
                problem = "belongs to another file, encoder or format"
            elif metadata.get("check") != _checksum(tokens):
                problem = "checksum differs"
            else:
                return tokens
        except FileNotFoundError:
            return None
        except OSError as error:  # it may be whole, as where too many files are open
            self.notes.append(f"{path}: unreadable ({error}); computed again")
            return None
        except (SafetensorError, LookupError, ValueError) as error:
            problem = f"unreadable ({error})"
        self.notes.append(f"{path}: {problem}; computed again")
        with suppress(OSError):  # in a folder that can only be read: of the cache, not of the video
            path.unlink(missing_ok=True)
        return None

    def put(self, digest: str, encoder: Encoder, tokens: Tensor) -> None:
        """Store tokens (m, e).

        Raises:
            ValueError: The tokens are not 2-d, or not finite.
            OSError: The folder, which is named, can't be written, e.g. the disk is full; no partial
                entry stays.
        """
        tokens = tokens.detach().to("cpu", torch.float32).contiguous()
        if tokens.ndim != 2 or not torch.isfinite(tokens).all():
            raise ValueError(
                f"{encoder.spec.name}: expected finite tokens (m, e), got shape "
                f"{tuple(tokens.shape)}, finite {bool(torch.isfinite(tokens).all())}"
            )
        path = self.entry(digest, encoder)
        metadata = {**_identity(digest, encoder), "check": _checksum(tokens)}
        try:
            with replaced(path) as temporary:
                temporary.write_bytes(to_bytes({"tokens": tokens}, metadata=metadata))
        except OSError as error:  # which a full disk leaves without a name
            reason = f"features cannot be written: {error.strerror or error}"
            raise OSError(error.errno, reason, os.fspath(self.folder)) from error


@dataclass(kw_only=True)
class ExtractReport:
    """What `extract` did.

    Attributes:
        digests: Path as given -> SHA-256 of the file, for every file whose tokens are in the cache.
        errors: Path as given -> one line saying what is wrong with the file.
        computed: Number of files that were decoded in this call.
        notes: One line per damaged entry that was computed again.
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
    `workers` threads, `encode` runs in the calling thread meanwhile; see `batching`.

    A file that can't be assessed gets a line in `errors` and the others go on.

    Args:
        paths: Video files; a repeated one is read once.
        encoders: Put into eval mode and moved to `device`.
        cache: Where the tokens go.
        workers: Reading threads. One keeps two cores busy, because decoders have own threads.
        batch_size: Files per call of `encode`. With 1 the tokens are those of live scoring bit
            for bit; larger ones differ in the last digits, and pay off on a GPU only.
        device: Where `encode` runs.
        progress: Show a bar on a terminal.

    Raises:
        OSError: The cache can't be written.
        AssessmentError: No video can be encoded, and none is to blame.
    """
    for encoder in encoders:
        encoder.eval().to(device)
    unique = list(dict.fromkeys(os.fspath(path) for path in paths))
    report, first_note = ExtractReport(), len(cache.notes)

    def prepare(path: str) -> _OfFile | Done[_OfFile]:
        if not os.path.isfile(path) and not frame_files(path):
            raise VideoError(path, "not a file" if os.path.exists(path) else why_missing(path))
        digest = cache.digest(path)
        missing = {str(i): e for i, e in enumerate(encoders) if cache.get(digest, e) is None}
        return (digest, read_views(path, missing)) if missing else Done((digest, {}))

    @torch.inference_mode()
    def compute(batch: Sequence[tuple[str, _OfFile]]) -> Sequence[_OfFile | Exception]:
        tokens: list[dict[str, Tensor]] = [{} for _ in batch]
        for number, encoder in enumerate(encoders):
            rows = [i for i, (_, (_, views)) in enumerate(batch) if str(number) in views]
            if rows:
                views = torch.stack([batch[i][1][1][str(number)] for i in rows]).to(device)
                with full_float32(views.device):
                    found = encoder.encode(views)
                for i, value in zip(rows, found, strict=True):
                    tokens[i][str(number)] = value
        return [(digest, own) for (_, (digest, _)), own in zip(batch, tokens)]

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("[red]{task.fields[failed]}[/red]"),
        TimeRemainingColumn(),
    )
    outcomes = run_batches(
        unique, prepare=prepare, compute=compute, batch_size=batch_size, workers=workers
    )
    console = Console(stderr=True)
    with Bar(*columns, console=console, disable=not progress, quiet=not progress) as bar:
        task = bar.add_task("Encoding videos", total=len(unique), failed="")
        with closing(outcomes):
            for outcome in stop_at_our_fault(outcomes, batch_size=batch_size, deed="encoded"):
                error = outcome.error
                if outcome.result is not None:
                    digest, tokens = outcome.result
                    try:
                        for number, value in tokens.items():
                            cache.put(digest, encoders[int(number)], value)
                        report.digests[outcome.item] = digest
                        report.computed += bool(tokens)
                    except ValueError as fault:  # tokens that are not finite
                        error = fault
                if error is not None:
                    report.errors[outcome.item] = f"{outcome.item}: {reason_of(error)}"
                failed = f"{len(report.errors)} failed" if report.errors else ""
                bar.update(task, advance=1, failed=failed)
    report.notes.extend(cache.notes[first_note:])
    return report


def _identity(digest: str, encoder: Encoder) -> dict[str, str]:
    return {"format": _FORMAT, "video_sha256": digest, "fingerprint": encoder.fingerprint()}


def _checksum(tokens: Tensor) -> str:
    return hashlib.sha256(tokens.numpy().tobytes()).hexdigest()

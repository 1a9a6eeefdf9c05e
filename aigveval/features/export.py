"""The tokens of many videos as files for other programs, as `aigveval features` writes them.

    FOLDER/encoders.json     the encoders: spec, options and fingerprint of each
    FOLDER/index.jsonl       a row per video: video, prompt, file, row, seconds, error
    FOLDER/tokens/           `NAME.safetensors`, one per video with a tensor (k, d) per encoder; or
                             Arrow files `00000.arrow` and so on, with the columns video, prompt
                             and one per encoder

A row is in the index as soon as its tokens are in their file. So a run that was killed goes on
where it was; of an Arrow file (about 64 MB of tokens) it goes on at its beginning.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import torch
from safetensors import SafetensorError
from safetensors.torch import save as to_bytes
from torch import Tensor

from encoders.base import Encoder, full_float32, join_rows
from encoders.video import VideoError, read_views
from prompts.template import clean

from ..batching import Outcome, run_batches, stop_at_our_fault
from ..data.manifest import Clip, check_exists
from ..errors import UsageError, one_line, reason_of
from ..files import replaced
from ..versions import __version__

if TYPE_CHECKING:
    import pyarrow

Format = Literal["safetensors", "arrow"]
Tokens = Mapping[str, Tensor]  # encoder name -> (k, d) float32
Key = tuple[str, str | None]  # video, prompt

_SHARD_BYTES = 64 << 20


class FeaturesError(UsageError):
    """A folder of features can't be used; the message is one line."""


@dataclass(frozen=True, kw_only=True)
class FeatureRow:
    """A row of the index.

    Attributes:
        video: Path as text, as the caller gave it.
        prompt: What an encoder that reads prompts was given; None when unknown.
        file: Where the tokens are, relative to the folder; None where there are none.
        row: Their row, if that is an Arrow file.
        seconds: Wall time spent on the video, decoding included.
        error: Why there are no tokens, one line.
    """

    video: str
    prompt: str | None
    file: str | None = None
    row: int | None = None
    seconds: float
    error: str | None = None

    @property
    def key(self) -> Key:
        return self.video, self.prompt


class FeatureFolder(AbstractContextManager["FeatureFolder"]):
    """Writes features; a context manager, which loses nothing when it is left early.

    Args:
        folder: Made if it is missing.
        encoders: Name to encoder.
        format: Format of the files with tokens.
        resume: Go on in a folder that holds features of the same encoders: its rows stay.

    Raises:
        FeaturesError: The folder holds features and `resume` is false, or holds those of other
            encoders, or can't be written.
        ValueError: There is no such format.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        encoders: Mapping[str, Encoder],
        *,
        format: Format = "safetensors",
        resume: bool = False,
    ) -> None:
        if format not in get_args(Format):
            raise ValueError(f"format must be one of {get_args(Format)}, got {format!r}")
        self.folder, self.format = Path(folder), format
        self.rows: list[FeatureRow] = []
        self._about = _about(encoders, format)
        self._shapes = {e.spec.name: (e.spec.num_tokens, e.spec.dim) for e in encoders.values()}
        self._pending: list[tuple[FeatureRow, Tokens]] = []  # for the next Arrow file
        with self._writing():
            if os.path.lexists(self._path("encoders.json")):
                self._take_earlier(resume=resume)
            self._path("tokens").mkdir(parents=True, exist_ok=True)
            self._remove_strays()
            with replaced(self._path("encoders.json")) as path:
                path.write_text(json.dumps(self._about, indent=2))
            self._write_index()

    @property
    def done(self) -> set[Key]:
        """Video and prompt of the rows that have tokens."""
        return {row.key for row in self.rows if row.error is None}

    def add(self, row: FeatureRow, tokens: Tokens | None) -> None:
        """Keep a row with its tokens, or with its error."""
        if tokens is None:
            with self._writing():
                self._append([row])
        elif self.format == "arrow":
            self._pending.append((row, tokens))
            waiting = sum(v.nbytes for _, own in self._pending for v in own.values())
            if waiting >= _SHARD_BYTES:
                self._write_shard()
        else:
            file = f"tokens/{_file_name(row)}.safetensors"
            facts = {"video": row.video, "prompt": row.prompt or "", **_fingerprints(self._about)}
            with self._writing():
                with replaced(self._path(file)) as path:
                    path.write_bytes(to_bytes(dict(tokens), facts))  # others may read it, too
                self._append([replace(row, file=file)])

    def finish(self, order: Sequence[Key]) -> None:
        """Write what is waiting and put the index into this order, behind all other rows."""
        self._write_shard()
        places = {key: place for place, key in enumerate(order)}
        self.rows = sorted(_latest(self.rows), key=lambda row: places.get(row.key, -1))
        with self._writing():
            self._write_index()

    def __exit__(self, *exception: object) -> None:
        self._write_shard()

    def _path(self, name: str) -> Path:
        return self.folder / name

    def _take_earlier(self, *, resume: bool) -> None:
        if not resume:
            raise FeaturesError(
                f"{self.folder} holds features already; go on there with --resume, or choose "
                "another folder"
            )
        try:
            earlier = json.loads(self._path("encoders.json").read_text())
            found = earlier["format"], _fingerprints(earlier)
            # The last piece is empty, or a row that a kill cut short.
            lines = self._path("index.jsonl").read_text(encoding="utf-8").split("\n")[:-1]
            rows = [FeatureRow(**json.loads(line)) for line in lines]
        except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
            raise FeaturesError(
                f"{self.folder}: not a folder of features that can go on: {one_line(error)}"
            ) from None
        wanted = self.format, _fingerprints(self._about)
        if found != wanted:
            raise FeaturesError(
                f"{self.folder} holds {_described(*found)}; choose another folder for "
                f"{_described(*wanted)}"
            )
        there = [row for row in rows if row.file is None or self._path(row.file).is_file()]
        self.rows = _latest(there)

    def _remove_strays(self) -> None:
        """Arrow files whose rows a kill kept out of the index; their videos come again."""
        known = {row.file for row in self.rows}
        for path in self._path("tokens").glob("*.arrow"):
            if f"tokens/{path.name}" not in known:
                path.unlink()

    def _write_shard(self) -> None:
        if not self._pending:
            return
        import pyarrow

        rows = [row for row, _ in self._pending]
        number = 0
        while self._path(file := f"tokens/{number:05}.arrow").exists():
            number += 1
        table = _table(self._pending, self._shapes)
        with self._writing():
            with replaced(self._path(file)) as path, pyarrow.OSFile(str(path), "wb") as out:
                with pyarrow.ipc.new_file(out, table.schema) as writer:
                    writer.write_table(table)
            self._append([replace(row, file=file, row=n) for n, row in enumerate(rows)])
        self._pending = []

    def _append(self, rows: Sequence[FeatureRow]) -> None:
        with open(self._path("index.jsonl"), "a", encoding="utf-8") as file:
            file.writelines(map(_line, rows))
        self.rows += rows

    def _write_index(self) -> None:
        with replaced(self._path("index.jsonl")) as path:
            path.write_text("".join(map(_line, self.rows)), encoding="utf-8")

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except (OSError, SafetensorError) as error:
            reason = getattr(error, "strerror", None) or one_line(error)
            raise FeaturesError(f"{self.folder}: cannot be written: {reason}") from None


def extract_features(
    clips: Iterable[Clip],
    encoders: Mapping[str, Encoder],
    folder: FeatureFolder,
    *,
    batch_size: int = 1,
    workers: int = 2,
    device: str | torch.device = "cpu",
) -> Generator[FeatureRow, None, None]:
    """Encode clips into a folder as `encode_clips` does; a row per clip in order, errors included.

    Raises:
        FeaturesError: The folder can't be written.
        AssessmentError: No clip of the first batch gets through, and not because of the clips; see
            `Assessor.score_many`.
    """
    outcomes = encode_clips(clips, encoders, batch_size=batch_size, workers=workers, device=device)
    for outcome in stop_at_our_fault(outcomes, batch_size=batch_size, deed="encoded"):
        row = row_of(outcome)
        folder.add(row, outcome.result)
        yield row


def encode_clips(
    clips: Iterable[Clip],
    encoders: Mapping[str, Encoder],
    *,
    batch_size: int = 1,
    workers: int = 2,
    device: str | torch.device = "cpu",
    opened: Callable[[Clip], AbstractContextManager[Clip]] = nullcontext,
) -> Generator[Outcome[Clip, Tokens], None, None]:
    """Encode clips, yielding what became of each in order, whatever fails.

    Each clip is decoded once for all encoders. What is given are the tokens that a model sees:
    joined with the clip's prompt where the encoder reads it.

    Args:
        clips: Read lazily.
        encoders: Name to encoder; put into eval mode and moved to `device`.
        batch_size: Clips per call of an encoder. Above 1 tokens differ in the last digits, and only
            a GPU gains by it.
        workers: Threads that decode and preprocess meanwhile.
        device: Where the encoders run.
        opened: Gives the file to read of a clip, while it is read.
    """
    for encoder in encoders.values():
        encoder.eval().to(device)

    def prepare(clip: Clip) -> dict[str, Tensor]:
        with opened(clip) as here:
            problem = here.problem or check_exists(here).problem
            if problem:
                raise VideoError(clip.video, problem)
            return read_views(here.path, encoders)

    @torch.inference_mode()
    def compute(batch: Sequence[tuple[Clip, Mapping[str, Tensor]]]) -> list[Tokens | Exception]:
        prompts = [clean(clip.prompt or "") for clip, _ in batch]
        joined = {}
        for name, encoder in encoders.items():
            view = torch.stack([views[name] for _, views in batch]).to(device)
            with full_float32(view.device):
                joined[name] = join_rows(encoder, encoder.encode(view), prompts).cpu()
        return [_checked({name: joined[name][n] for name in joined}) for n in range(len(batch))]

    return run_batches(
        clips, prepare=prepare, compute=compute, batch_size=batch_size, workers=workers
    )


def row_of(outcome: Outcome[Clip, Tokens]) -> FeatureRow:
    """Gives the row for what became of a clip, as yet without a file."""
    return FeatureRow(
        video=outcome.item.video,
        prompt=outcome.item.prompt,
        seconds=round(outcome.seconds, 3),
        error=None if outcome.error is None else reason_of(outcome.error),
    )


def _checked(tokens: Tokens) -> Tokens | Exception:
    for name, value in tokens.items():
        if not torch.isfinite(value).all():
            return ValueError(f"{name} gave tokens that are not finite")
    return {name: value.contiguous() for name, value in tokens.items()}


def _about(encoders: Mapping[str, Encoder], format: str) -> dict[str, Any]:
    described = {
        name: {
            "fingerprint": encoder.fingerprint(),
            "options": encoder.plain_options(),
            "spec": encoder.spec.to_dict(),
        }
        for name, encoder in encoders.items()
    }
    return {"aigveval": __version__, "format": format, "encoders": described}


def _fingerprints(about: Mapping[str, Any]) -> dict[str, str]:
    return {name: one["fingerprint"] for name, one in sorted(about["encoders"].items())}


def _described(format: str, fingerprints: Mapping[str, str]) -> str:
    names = " and ".join(f"{name} ({print})" for name, print in fingerprints.items())
    return f"{format} features of {names}"


def _latest(rows: Sequence[FeatureRow]) -> list[FeatureRow]:
    """One row per video and prompt: a failure gives way to what a later run made of it."""
    return list({row.key: row for row in rows}.values())


def _file_name(row: FeatureRow) -> str:
    """The video's name, for people, and a hash of its path and prompt."""
    stem = re.sub(r"[^\w.-]+", "_", Path(row.video).stem)[:60]
    return f"{stem}-{hashlib.sha256(json.dumps(row.key).encode()).hexdigest()[:12]}"


def _line(row: FeatureRow) -> str:
    return json.dumps(asdict(row), ensure_ascii=False) + "\n"


def _table(
    rows: Sequence[tuple[FeatureRow, Tokens]], shapes: Mapping[str, tuple[int, int]]
) -> pyarrow.Table:
    """Columns video, prompt, and each encoder's tokens as fixed-size lists of lists."""
    import numpy as np
    import pyarrow

    columns: dict[str, Any] = {
        "video": pyarrow.array([row.video for row, _ in rows], pyarrow.string()),
        "prompt": pyarrow.array([row.prompt for row, _ in rows], pyarrow.string()),
    }
    for name, (k, d) in shapes.items():
        flat = np.concatenate([tokens[name].numpy().reshape(-1) for _, tokens in rows])
        lists = pyarrow.FixedSizeListArray.from_arrays(pyarrow.array(flat), d)
        columns[name] = pyarrow.FixedSizeListArray.from_arrays(lists, k)
    return pyarrow.table(columns)

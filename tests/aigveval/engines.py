"""Engines for tests: one that reads scores out of text files, and a real one with a tiny model."""

import threading
from collections.abc import Sequence
from pathlib import Path

import torch

from aigveval.assessment import SCORE_FIELDS, Score, Scores
from aigveval.inference import assessor
from aigveval.inference.assessor import Assessor
from aigveval.inference.engine import ModelEngine
from encoders.video import VideoError

from .tiny_llm import make_encoders, make_llm, make_model


class TextEngine:
    """A "video" is a text file that holds its score; the words in `BAD` make it fail."""

    BAD = ("unreadable", "bug", "poison", "single poison")
    requests: dict = {}
    sizes: dict = {}
    explains = supports_contributions = False

    def __init__(self) -> None:
        self.batches: list[list[float]] = []
        self.prompts: list[str | None] = []
        self.in_memory = self.most_in_memory = 0
        self.threads: set[str] = set()
        self._lock = threading.Lock()

    def prepare(self, path: Path) -> float | str:
        self.threads.add(threading.current_thread().name)
        text = path.read_text()
        if text == "unreadable":
            raise VideoError(str(path), "not a video")
        if text == "bug":
            raise RuntimeError("a bug\nwith two lines")
        with self._lock:
            self.in_memory += 1
            self.most_in_memory = max(self.in_memory, self.most_in_memory)
        return text if text in self.BAD else float(text)

    def score(
        self,
        prepared: Sequence[float | str],
        prompts: Sequence[str | None],
        *,
        explain: bool = False,
        contributions: bool = False,
    ) -> list[Scores | Exception]:
        assert not explain and not contributions
        if "poison" in prepared:
            raise ValueError("a clip that spoils its batch")
        with self._lock:
            self.in_memory -= len(prepared)
        self.batches.append(list(prepared))
        self.prompts += prompts
        return [
            ValueError("only this one")
            if isinstance(value, str)
            else {name: Score(value, 0.5) for name in SCORE_FIELDS}
            for value in prepared
        ]


def tiny_assessor(
    *,
    name: str = "tiny",
    device: str = "cpu",
    dtype: torch.dtype = torch.float32,
    explain: bool = False,
    contributions: bool = False,
    batch_size: int = 8,
    workers: int = 2,
    **options,
) -> Assessor:
    """A real model of random weights behind a real processor; decodes real videos.

    Further options are of the model's config.
    """
    model, processor = make_model(llm=make_llm().to(dtype), **options)
    for projector in model.model.projectors.values():
        size = projector.mean.shape
        projector.set_stats(torch.full(size, 0.3), torch.full(size, 0.5))
    processor._encoders = make_encoders()
    engine = ModelEngine(model, processor, device=torch.device(device))
    return Assessor(
        engine,
        name=name,
        batch_size=batch_size,
        workers=workers,
        explain=explain,
        contributions=contributions,
    )


def text_engine(monkeypatch, folder) -> TextEngine:
    """Puts a text engine behind the commands, run in a folder on a terminal of 120 columns."""
    monkeypatch.chdir(folder)
    monkeypatch.setenv("COLUMNS", "120")
    engine = TextEngine()
    monkeypatch.setattr(
        assessor,
        "load",
        lambda model, *, device, dtype, **options: Assessor(engine, name=model, **options),
    )
    return engine

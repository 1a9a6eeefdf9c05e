"""From a video and a prompt to an assessment: `load("lite").score("clip.mp4", prompt="...")`.

A video is a file, a folder or a pattern of numbered pictures, or frames in memory.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence, Set
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from functools import cache, partial
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from encoders.base import float32_by_default, not_compiled, undisturbed
from encoders.frame_sequence import FrameSequence, FramesError, clips_of, is_frames, is_one_clip
from encoders.video import VideoError
from prompts.template import MAX_PROMPT_BYTES, is_cut

from ..assessment import Assessment, Scores
from ..batching import Outcome, run_batches, stop_at_our_fault
from ..data.columns import in_our_names, is_missing
from ..data.manifest import Clip, check_exists, make_clip
from ..errors import (
    ModelError,
    is_about_the_video,
    is_ours,
    one_line,
    our_fault,
    reason_of,
    why_not_loaded,
)
from ..model.precision import (
    DtypeName,
    choose_dtype,
    find_device,
    has_bfloat16,
    is_fast,
    label,
)
from ..versions import __version__

if TYPE_CHECKING:
    from ..model.checkpoint import Checkpoint
    from .engine import Engine, PreparedClip
    from .observe import Observed

# A path, frames in memory, either of them in a pair with its prompt, a mapping, or a clip.
Item = Any


class Assessor:
    """Scores videos with one loaded model; made by `load`.

    Args:
        engine: what prepares and scores.
        name: goes into the field `model` of every assessment.
        batch_size: default of `score_many`.
        workers: default of `score_many`.
        explain: fill in the fields `explanation`, `defects`, `problems`, `evidence`, `advice` and,
            where the model supports these, `contributions`.
        contributions: fill in `contributions`.

    Attributes:
        opened: gives the file to read of a clip, while it is read.

    Raises:
        ModelError: when the model cannot do what is asked of it.
    """

    opened: Callable[[Clip], AbstractContextManager[Clip]] = nullcontext

    def __init__(
        self,
        engine: Engine,
        *,
        name: str,
        batch_size: int = 8,
        workers: int = 2,
        explain: bool = False,
        contributions: bool = False,
    ) -> None:
        if explain and not engine.explains:
            raise ModelError(
                f"{name}: the model was not trained to explain its scores; contributions "
                "(--contributions) can be had of any model"
            )
        if contributions and not explain and not engine.supports_contributions:
            raise ModelError(
                f"{name}: a vision-language model has no contributions: what it sees is not told "
                "apart by dimension"
            )
        self.engine = engine
        self.name = name
        self.batch_size = batch_size
        self.workers = workers
        self.explain = explain
        self.contributions = contributions

    @classmethod
    def load(cls, model: str | os.PathLike[str] = "lite", **options: Any) -> Assessor:
        """See `load`."""
        return load(model, **options)

    def score(
        self, video: Any, prompt: str | None = None, *, fps: float | None = None
    ) -> Assessment:
        """Assesses one video, whatever autocast, default device or compilation is around the call.

        Args:
            video: path of a file, or of a folder or a pattern of numbered pictures; or frames in
                memory, as `encoders.FrameSequence` takes them: RGB (t, h, w, 3) or (t, 3, h, w),
                uint8 or floats in 0..1, NumPy or PyTorch, or a list of pictures. A batch of one
                clip will do, and so will what a pipeline of diffusers returns for one prompt.
            prompt: text it was generated from. Without one the semantic score is None, and the
                overall score judges what can be seen.
            fps: frames per second of frames or pictures; by default 25. A file has its own.

        Raises:
            VideoError: when the video cannot be assessed; the message names it and the reason.
                For frames of another shape, type or range it is a `ValueError` too.
            AssessmentError: when something else failed, see `score_many`.
        """
        start = time.perf_counter()
        clip = one_clip(video, prompt, fps=fps)
        try:
            scores = self._compute([(clip, self._prepare(clip))])[0]
            if isinstance(scores, Exception):
                raise scores
        except Exception as error:
            if is_about_the_video(error):
                raise
            raise our_fault(error, f"{clip.video} could not be assessed") from error
        return self._assessment(clip, time.perf_counter() - start, scores=scores)

    def score_many(
        self,
        items: Iterable[Item],
        *,
        prompts: str | Sequence[str | None] | None = None,
        fps: float | None = None,
        batch_size: int | None = None,
        workers: int | None = None,
    ) -> Generator[Assessment, None, None]:
        """Assesses many videos, yielding as it goes, in the order of the items.

        A video that cannot be assessed yields an assessment with `error` set and no scores.

        Args:
            items: videos as `score` takes them, pairs (video, prompt), or mappings with `video` and
                maybe `prompt` and `fps`, or with another name of these; see `data.columns`. A batch
                of frames (b, t, h, w, 3) or (b, t, 3, h, w), and what a pipeline of diffusers
                returns, are b videos; they are called `frames[0]`, `frames[1]`, ...
            prompts: of the items that have none of their own: one for each, or one for all.
            fps: as of `score`.
            batch_size: videos that go through the model together; does not change the scores.
            workers: threads that decode and preprocess meanwhile.

        Raises:
            TypeError: when an item is none of these.
            ValueError: when the items are a single clip, or there are more or fewer prompts.
            AssessmentError: when each video of the first batch, of the first four at least, fails
                by another error than `VideoError`, or as many later on because the GPU failed: they
                get no rows. One alone is a row.
        """
        size = self.batch_size if batch_size is None else batch_size
        tried = self.try_many(_clips(items, prompts, fps), batch_size=size, workers=workers)
        for outcome in stop_at_our_fault(tried, batch_size=size):
            yield self.row(outcome)

    def try_many(
        self,
        clips: Iterable[Clip],
        *,
        batch_size: int | None = None,
        workers: int | None = None,
    ) -> Generator[Outcome[Clip, Scores], None, None]:
        """Yields what became of each clip, in order, and goes on whatever fails; see `row`."""
        return run_batches(
            clips,
            prepare=self._prepare,
            compute=self._compute,
            batch_size=self.batch_size if batch_size is None else batch_size,
            workers=self.workers if workers is None else workers,
        )

    def row(self, outcome: Outcome[Clip, Scores]) -> Assessment:
        """Gives the row for what became of a clip."""
        why = None if outcome.error is None else reason_of(outcome.error)
        return self._assessment(outcome.item, outcome.seconds, scores=outcome.result, error=why)

    @not_compiled  # compiled as a part of the caller's code it would give other scores
    def _prepare(self, clip: Clip) -> tuple[PreparedClip, Observed | None]:
        with self.opened(clip) as here, undisturbed(device_of(self.engine)):
            source = source_of_clip(here)
            prepared = self.engine.prepare(source)
            if not self.explain:
                return prepared, None
            from .observe import observe

            return prepared, observe(source)

    @not_compiled
    def _compute(
        self, batch: Sequence[tuple[Clip, tuple[PreparedClip, Observed | None]]]
    ) -> Sequence[Scores | Exception]:
        clips, found = zip(*batch)
        prepared, prompts = [one for one, _ in found], [clip.prompt for clip in clips]
        with undisturbed(device_of(self.engine)):
            if not self.explain:
                return self.engine.score(prepared, prompts, contributions=self.contributions)
            from .facts import explained, facts_of

            words = self.engine.words
            facts = [facts_of(seen, prompt) for (_, seen), prompt in zip(found, prompts)]
            rows = self.engine.score(
                prepared,
                prompts,
                explain=True,
                contributions=self.contributions,
                facts=facts if words else None,
            )
            return [
                row
                if isinstance(row, Exception)
                else explained(row, seen, own, prompt, words=words)
                for row, (_, seen), own, prompt in zip(rows, found, facts, prompts)
            ]

    def _assessment(
        self, clip: Clip, seconds: float, *, scores: Scores | None = None, error: str | None = None
    ) -> Assessment:
        known = dict(scores or {})
        if clip.prompt is None:
            known["semantic"] = None
        elif scores is not None and is_cut(clip.prompt):
            note = f"prompt: the model reads no more than its first {MAX_PROMPT_BYTES:,} bytes"
            known["warnings"] = (*known.get("warnings", ()), note)
        return Assessment(
            video=clip.video,
            prompt=clip.prompt,
            **known,
            model=self.name,
            version=__version__,
            seconds=round(seconds, 3),
            error=error,
        )


def load(
    model: str | os.PathLike[str] = "lite",
    *,
    device: str | torch.device | None = None,
    dtype: DtypeName = "auto",
    batch_size: int = 8,
    workers: int = 2,
    explain: bool = False,
    contributions: bool = False,
) -> Assessor:
    """Loads a model.

    Args:
        model: `lite`, which comes with the package; a folder that `save_pretrained` wrote; or the
            id of a model on the Hugging Face Hub.
        device: where to compute; by default `cuda` if there is one, else `cpu`.
        dtype: number type of the LLM. `auto` is bfloat16 for one of 10^9 parameters and more on a
            GPU that has it, else float32. In float32 scores differ by less than 1e-4 between batch
            sizes, in bfloat16 by up to 0.13 (measured on a 7B with random weights); the field
            `model` of each row has a type that isn't float32: `NAME (bfloat16)`. `fast` leaves
            the LLM out of a model whose score hints may stand for it, as those of `lite` may (its
            config says how far scores move, `hints_within`), unless it is to write explanations, as
            that of `lite` isn't. Of other models on a CPU the LLM multiplies matrices in bfloat16
            if a measurement finds that quick there, made once on each machine, or in each process
            where the cache folder can't be written.
        batch_size: videos that go through the model together in `score_many`.
        workers: threads that decode and preprocess in `score_many`.
        explain: fill in the fields `explanation`, `defects`, `problems`, `contributions`,
            `evidence` and `advice`. The detector behind `evidence` is fetched when first needed.
        contributions: fill in `contributions` alone, which any model can.

    Raises:
        ModelError: when there is no such model, device or dtype, or it was not trained to explain.
        encoders.weights.WeightsError: when frozen weights can be neither found nor fetched.
    """
    name, chosen = os.fspath(model), find_device(device)
    _one_thread_in_forks()
    with _one_line_errors(name), undisturbed(chosen), float32_by_default():
        # Here, as they bring transformers along, which may be what fails.
        from ..model.checkpoint import open_checkpoint
        from .engine import load_engine

        checkpoint = open_checkpoint(model)
        number = _dtype_of(checkpoint, dtype, chosen)
        fast, hints = is_fast(dtype, chosen), _takes_hints(checkpoint, dtype)
        engine = load_engine(
            checkpoint, device=chosen, dtype=number, fast=fast, hints=hints, explain=explain
        )
    return Assessor(
        engine,
        name=label(name, number, fast=fast or hints),
        batch_size=batch_size,
        workers=workers,
        explain=explain,
        contributions=contributions,
    )


def device_of(engine: Engine) -> torch.device:
    """Where an engine computes, which some give as text; the CPU where it doesn't say."""
    return torch.device(getattr(engine, "device", "cpu"))


def row_name(
    model: str | os.PathLike[str],
    *,
    device: str | torch.device | None = None,
    dtype: DtypeName = "auto",
) -> str:
    """The field `model` of the rows that `load` with these options gives, without loading.

    Raises:
        ModelError: as `load`.
    """
    name, chosen = os.fspath(model), find_device(device)
    with _one_line_errors(name):
        from ..model.checkpoint import open_checkpoint

        checkpoint = open_checkpoint(model)
        number = _dtype_of(checkpoint, dtype, chosen)
        fast = _takes_hints(checkpoint, dtype) or is_fast(dtype, chosen)
        return label(name, number, fast=fast)


@cache
def _one_thread_in_forks() -> None:
    """Has what is forked from this process compute with one thread.

    OpenMP's threads aren't there in a fork, which would wait for them for ever.
    """
    if hasattr(os, "register_at_fork"):  # not on Windows
        os.register_at_fork(after_in_child=partial(torch.set_num_threads, 1))


@contextmanager
def _one_line_errors(name: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        if is_ours(error):
            raise
        raise ModelError(f"cannot load the model {name}: {why_not_loaded(error)}") from error


def _dtype_of(checkpoint: Checkpoint, dtype: DtypeName, device: torch.device) -> torch.dtype:
    config = None
    if dtype == "auto" and has_bfloat16(device):  # else the config isn't needed
        kind = checkpoint.model_class.config_class
        config = kind.from_pretrained(checkpoint.source).text_config
    return choose_dtype(dtype, config, device)


def _takes_hints(checkpoint: Checkpoint, dtype: DtypeName) -> bool:
    """Whether scores come from the score hints, as `fast` has it where these are near enough."""
    return dtype == "fast" and checkpoint.hints_within is not None


def as_clip(
    item: Item, *, name: str = "frames", prompt: str | None = None, fps: float | None = None
) -> Clip:
    """Turns an item of `score_many` into a clip.

    Args:
        item: one of the accepted kinds.
        name: of frames in memory.
        prompt: where the item has none.
        fps: where the item has none.

    Raises:
        TypeError: when it is none of the accepted kinds, or its prompt is no text.
    """
    if isinstance(item, Clip):
        return replace(item, prompt=item.prompt or prompt, fps=item.fps or fps)
    video: Any = item
    if isinstance(item, Mapping):
        try:
            named = in_our_names(item)
        except ValueError as error:
            raise TypeError(f"an item has {error}") from None
        named = {name: None if is_missing(value) else value for name, value in named.items()}
        video, prompt = named.get("video"), named.get("prompt") or prompt
        fps = fps if named.get("fps") is None else named["fps"]
    elif isinstance(item, (tuple, list)) and len(item) == 2:
        second = None if is_missing(item[1]) else item[1]
        if isinstance(second, str | None):
            video, prompt = item[0], second or prompt
    prompt = None if is_missing(prompt) else prompt
    clips = clips_of(video)
    if clips is not None and len(clips) == 1:  # such as a call of a pipeline of diffusers gives
        video = clips[0]
    if not isinstance(prompt, str | None):
        raise TypeError(f"prompt must be a text or None, got {one_line(repr(prompt), limit=80)}")
    if isinstance(video, (str, os.PathLike)):
        return replace(make_clip(video, prompt), fps=fps)
    if is_frames(video):
        _wait_for(video)
        name = video.name if isinstance(video, FrameSequence) else name
        return replace(make_clip(name, prompt), frames=video, fps=fps)
    kinds = "a path, a pair (video, prompt), a mapping with 'video' or frames"
    raise TypeError(f"an item must be {kinds}, got {one_line(repr(item), limit=80)}")


def _wait_for(frames: Any) -> None:
    """Waits for what the caller has a GPU compute: threads read frames by another stream of it."""
    frames = getattr(frames, "pictures", frames)
    for picture in frames[:1] if isinstance(frames, (list, tuple)) else [frames]:
        if getattr(picture, "is_cuda", False):
            torch.cuda.current_stream(picture.device).synchronize()


def one_clip(video: Any, prompt: str | None = None, *, fps: float | None = None) -> Clip:
    """The clip that `Assessor.score` is given, maybe in a batch of one.

    Raises:
        FramesError: when there are several.
        TypeError: when it is nothing that can be scored.
    """
    clips = clips_of(video)
    if clips is not None:
        if len(clips) != 1:
            found = f"expected one clip, got a batch of {len(clips)}; score_many takes batches"
            raise FramesError("frames", found)
        video = clips[0]
    if not (isinstance(video, (str, os.PathLike)) or is_frames(video)):
        found = one_line(repr(video), limit=80)
        advice = "; of an iterator make a list" if hasattr(video, "__next__") else ""
        raise TypeError(f"a video must be a path or frames, got {found}{advice}")
    return as_clip({"video": video, "prompt": prompt}, fps=fps)


def source_of_clip(clip: Clip) -> Path | FrameSequence:
    """What an engine prepares.

    Raises:
        VideoError: when there is no such file, or the frames are no video.
    """
    fps: dict[str, Any] = {} if clip.fps is None else {"fps": clip.fps}
    if isinstance(clip.frames, FrameSequence):
        return replace(clip.frames, **fps)
    if clip.frames is not None:
        return FrameSequence(pictures=clip.frames, name=clip.video, **fps)
    problem = clip.problem or check_exists(clip).problem
    if problem:
        raise VideoError(clip.video, problem)
    return FrameSequence.open(clip.path, clip.fps) or clip.path


def _clips(
    items: Iterable[Item], prompts: str | Sequence[str | None] | None, fps: float | None
) -> Iterator[Clip]:
    """The clips of `score_many`; raises what that does."""
    if isinstance(items, np.ndarray) and items.dtype.kind in "OUT":  # of paths, as of a table
        items = items.tolist()
    batch = clips_of(items)
    if batch is None and is_one_clip(items):
        advice = "`score` takes one"
        if isinstance(items, Mapping):
            advice = "of a mapping make a list of mappings, or of pairs (video, prompt)"
        raise ValueError(f"expected several clips, got a single one; {advice}")
    several: Any = items if batch is None else batch
    if hasattr(several, "columns"):  # which it would give in place of its rows
        found = f"got a {type(several).__name__}; its rows are `.to_dict('records')` in pandas"
        raise TypeError(f"expected clips, or rows as mappings, {found}")
    if not (hasattr(several, "__iter__") or hasattr(several, "__getitem__")):
        raise TypeError(f"expected several clips, got {one_line(repr(several), limit=80)}")
    if isinstance(prompts, str) or prompts is None:
        pairs: Iterable[tuple[Item, str | None]] = ((item, prompts) for item in several)
    else:
        if not isinstance(prompts, Iterable) or isinstance(prompts, (Mapping, Set)):
            found = one_line(repr(prompts), limit=80)  # of a mapping one would get the keys
            raise TypeError(f"prompts must be a text, or one for each clip, got {found}")
        counted = hasattr(several, "__len__") and hasattr(prompts, "__len__")
        if counted and len(several) != len(prompts):
            raise ValueError(f"there are {len(prompts)} prompts for {len(several)} clips")
        pairs = _paired(several, prompts)
    return (
        as_clip(item, name=f"frames[{number}]", prompt=prompt, fps=fps)
        for number, (item, prompt) in enumerate(pairs)
    )


def _paired(items: Iterable[Item], prompts: Iterable[str | None]) -> Iterator[tuple[Item, Any]]:
    """As `zip(strict=True)`, whose message names neither."""
    end = object()
    for number, (item, prompt) in enumerate(zip_longest(items, prompts, fillvalue=end)):
        if item is end:
            raise ValueError(f"there are more prompts than the {number} clips")
        if prompt is end:
            raise ValueError(f"there are more clips than the {number} prompts")
        yield item, prompt

"""Engines: what drives a model and its processor on one device, from frames to named scores.

read_frames -> view -> batch -> run -> scores, and where it is asked for, explanations
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, Protocol

import torch
from torch import Tensor

from encoders.onednn import quicken, use_bfloat16, use_onednn
from encoders.resizing import has_bars
from encoders.video import (
    FrameRequest,
    Frames,
    Source,
    read_frames,
    requests_of,
    views_of,
)
from prompts.facts import Fact

from ..assessment import Scores
from ..model.base import known_slots, name_scores
from ..model.checkpoint import Checkpoint
from ..model.library_internals import merge_lora
from ..model.prefix_cache import PrefixCache
from .explain import Explainer

Views = Mapping[str, Tensor]  # the model's inputs from one clip, by name, without batch axis


@dataclass(frozen=True, kw_only=True)
class PreparedClip:
    """A clip as the model takes it.

    Args:
        views: the model's inputs.
        duration_seconds: the length that the times of its defects refer to.
        warnings: what was noticed when it was read.
    """

    views: Views
    duration_seconds: float
    warnings: tuple[str, ...] = ()


class Engine(Protocol):
    """What an `Assessor` and a timeline need of a model."""

    @property
    def requests(self) -> Mapping[str, FrameRequest]:
        """The frames that the model wants of a clip, by name."""

    @property
    def sizes(self) -> Mapping[str, Any]:
        """Their sizes, as options of `encoders.video.read_frames`."""

    @property
    def explains(self) -> bool:
        """Whether the model was trained to explain its scores."""

    @property
    def words(self) -> bool:
        """Whether the sentences of its explanations are its own, rather than made from facts."""

    @property
    def supports_contributions(self) -> bool:
        """Whether the model's evidence is split by dimension."""

    def prepare(self, path: Source) -> PreparedClip:
        """Decodes and preprocesses one video, a file or frames; called in threads.

        Raises:
            VideoError: when the file is not a video that can be read.
        """

    def view(self, frames: Mapping[str, Frames], path: Source, start_seconds: float = 0.0) -> Views:
        """Frames of a clip, under the names of `requests`, as the model takes them.

        Args:
            frames: of the part of the clip that is to be judged.
            path: of the clip, for messages.
            start_seconds: when that part starts.
        """

    def score_views(
        self, views: Sequence[Views], prompts: Sequence[str | None]
    ) -> Sequence[Scores | Exception]:
        """Scores a batch of clips or parts of clips, in order and independent of each other.

        Args:
            views: b times what `view` gives.
            prompts: b prompts; None for one that is unknown.

        Returns:
            The scores of each row, or what went wrong with it.
        """

    def score(
        self,
        clips: Sequence[PreparedClip],
        prompts: Sequence[str | None],
        *,
        explain: bool = False,
        contributions: bool = False,
        facts: Sequence[Sequence[Fact]] | None = None,
    ) -> Sequence[Scores | Exception]:
        """Scores as `score_views` does, with the clips' warnings and what else is asked for.

        Args:
            clips: b clips.
            prompts: b prompts; None for one that is unknown.
            explain: also write `explanation`, `defects` and `problems`, for engines with
                `explains`; and compute contributions where these are supported.
            contributions: also compute `contributions`, for engines with `supports_contributions`.
            facts: of the clips, for what the model writes; only to explain, for engines with
                `words`.
        """


class ModelEngine:
    """Drives an `AIGVEvalModel` and its processor on one device.

    The model's weights must not change any more.

    Attributes:
        run: the model's forward, or what gives the same in less time.
        explainer: writes explanations with it.
    """

    sizes: Mapping[str, Any] = {}
    supports_contributions = True

    def __init__(
        self, model: Any, processor: Any, *, device: torch.device, fast: bool = False
    ) -> None:
        model.load_encoders(processor.encoders)  # now, so that missing weights show at once
        llm = model.to(device).model.language_model
        if fast:
            use_bfloat16(llm)
        use_onednn(llm)
        self._set(model, processor, device, PrefixCache(model))

    def _set(
        self, model: Any, processor: Any, device: torch.device, run: Callable[..., Any]
    ) -> None:
        self.model = model.eval().to(device)
        self.processor = processor
        self.device = device
        self.run = run
        self.explainer = Explainer(self.model, processor.tokenizer, run=run)

    @property
    def explains(self) -> bool:
        return self.model.config.explains

    @property
    def words(self) -> bool:
        # An LLM that is told what to name, as it can't see it, has little to say of its own.
        config = self.model.config
        return config.reads_facts or not getattr(config, "detector", None)

    @property
    def requests(self) -> Mapping[str, FrameRequest]:
        return requests_of(self.model.encoders)

    def view(self, frames: Mapping[str, Frames], path: Source, start_seconds: float = 0.0) -> Views:
        return views_of(frames, self.model.encoders)

    def prepare(self, path: Source) -> PreparedClip:
        info, frames = read_frames(path, self.requests, **self.sizes)
        views, warnings = self.view(frames, path), info.warnings
        encoders = getattr(self.model, "encoders", {})  # a vision-language model has none
        if any(
            getattr(encoder, "crop_bars", False) and has_bars(frames[name].pixels)
            for name, encoder in encoders.items()
        ):
            warnings = (*warnings, "black bars: left out")
        return PreparedClip(views=views, duration_seconds=info.duration_seconds, warnings=warnings)

    @torch.inference_mode()
    def score_views(
        self, views: Sequence[Views], prompts: Sequence[str | None]
    ) -> list[Scores | Exception]:
        batch = self.batch(views, prompts)
        return name_scores(self.run(**batch), batch["slot_mask"])

    @torch.inference_mode()
    def score(
        self,
        clips: Sequence[PreparedClip],
        prompts: Sequence[str | None],
        *,
        explain: bool = False,
        contributions: bool = False,
        facts: Sequence[Sequence[Fact]] | None = None,
    ) -> list[Scores | Exception]:
        views = [clip.views for clip in clips]
        if explain or contributions:
            rows = self.explainer.explain(
                self.batch(views, prompts),
                [clip.duration_seconds for clip in clips],
                text=explain,
                contributions=self.supports_contributions,
                facts=facts,
            )
        else:
            rows = self.score_views(views, prompts)
        pairs = zip(rows, clips, strict=True)
        return [
            row if isinstance(row, Exception) else row | {"warnings": clip.warnings}
            for row, clip in pairs
        ]

    @torch.inference_mode()
    def batch(self, views: Sequence[Views], prompts: Sequence[str | None]) -> dict[str, Any]:
        """What the model takes: text and features."""
        text = self.processor.encode_prompts(list(prompts)).to(self.model.device)
        return {"features": self._features(views, prompts), **text}

    def _features(self, views: Sequence[Views], prompts: Sequence[str | None]) -> Tensor:
        stacked = {name: torch.stack([clip[name] for clip in views]) for name in views[0]}
        return self.model.encode(stacked, list(prompts))


class HintEngine(ModelEngine):
    """Drives a `HintModel` on one device.

    Args:
        model: a `HintModel`.
        device: where to compute.
        load_whole: gives an engine of the model with its LLM, once that is to write an explanation;
            scores are those of the hints then too.
        fast: on a CPU, have the `lite` encoders compute in bfloat16.
    """

    sizes: Mapping[str, Any] = {"quick": True}

    def __init__(
        self,
        model: Any,
        *,
        device: torch.device,
        load_whole: Callable[[], ModelEngine],
        fast: bool = False,
    ) -> None:
        model.to(device).load_encoders()
        if fast:
            quicken(model.encoders.values())
        self.model, self.processor, self.device, self.run = model, None, device, model
        self.explainer = Explainer(model, None, run=model)
        self._load_whole = load_whole

    def view(self, frames: Mapping[str, Frames], path: Source, start_seconds: float = 0.0) -> Views:
        return views_of(frames, self.model.encoders, quick=True)

    def __getstate__(self) -> dict[str, Any]:
        # A copy loads its own LLM, once it needs it.
        return {name: value for name, value in self.__dict__.items() if name != "whole"}

    @cached_property
    def whole(self) -> ModelEngine:
        """The engine that writes explanations."""
        engine = self._load_whole()
        engine.model.encoders = self.model.encoders  # whose tokens a clip has, explained or not
        read = engine.run

        def run(*, use_cache: bool = False, **batch: Any) -> Any:
            output = self.run(**batch)
            if not use_cache:
                return output
            written = read(use_cache=True, **batch)
            written.scores, written.stds = output.scores, output.stds
            return written

        engine.run = engine.explainer.run = run
        return engine

    def score(
        self,
        clips: Sequence[PreparedClip],
        prompts: Sequence[str | None],
        *,
        explain: bool = False,
        contributions: bool = False,
        facts: Sequence[Sequence[Fact]] | None = None,
    ) -> list[Scores | Exception]:
        if explain and self.explainer.writes:
            return self.whole.score(
                clips, prompts, explain=True, contributions=contributions, facts=facts
            )
        return super().score(clips, prompts, explain=explain, contributions=contributions)

    @torch.inference_mode()
    def batch(self, views: Sequence[Views], prompts: Sequence[str | None]) -> dict[str, Any]:
        """What the model takes: features."""
        mask = known_slots(prompts, self.model.config.unscored).to(self.model.device)
        return {"features": self._features(views, prompts), "slot_mask": mask}


class VlmEngine(ModelEngine):
    """Drives a `VlmModel` and its processor on one device."""

    supports_contributions = False

    def __init__(
        self, model: Any, processor: Any, *, device: torch.device, fast: bool = False
    ) -> None:
        if fast:
            use_bfloat16(model.to(device))
        self._set(model, processor, device, model)
        self.sizes = processor.sizes

    @property
    def requests(self) -> Mapping[str, FrameRequest]:
        return self.processor.requests

    def view(self, frames: Mapping[str, Frames], path: Source, start_seconds: float = 0.0) -> Views:
        return self.processor.encode_frames(frames, name=str(path), start_seconds=start_seconds)

    @torch.inference_mode()
    def batch(self, views: Sequence[Views], prompts: Sequence[str | None]) -> dict[str, Any]:
        """What the model takes: text and pixels."""
        batch = self.processor.encode_prompts(list(prompts), list(views))
        return {
            name: value.to(self.model.device) if isinstance(value, Tensor) else value
            for name, value in batch.items()
        }


_ENGINES = {"aigveval": ModelEngine, "qsave": VlmEngine}


def _load_whole(
    checkpoint: Checkpoint, *, device: torch.device, dtype: torch.dtype, fast: bool
) -> ModelEngine:
    engine = _ENGINES[checkpoint.model_type]
    processor = checkpoint.processor_class.from_pretrained(checkpoint.source)
    kind, options = checkpoint.model_class, {}
    if device.type != "cuda":  # loads the LLM whole, even where there is a GPU for 4 bits
        options["config"] = kind.config_class.from_pretrained(checkpoint.folder, llm_4bit=False)
    with torch.cuda.device(device) if device.type == "cuda" else nullcontext():
        # An LLM in 4 bits goes to the current GPU at once.
        model = kind.from_pretrained(checkpoint.source, dtype=dtype, **options)
    merge_lora(model)
    return engine(model, processor, device=device, fast=fast)


def load_engine(
    checkpoint: Checkpoint,
    *,
    device: torch.device,
    dtype: torch.dtype,
    fast: bool = False,
    hints: bool = False,
    explain: bool = False,
) -> ModelEngine:
    """Loads the model, with its LLM in a number type, and the processor of a checkpoint.

    Args:
        checkpoint: that of either kind of model.
        device: where to compute.
        dtype: of the LLM.
        fast: on a CPU and in float32, multiply in bfloat16.
        hints: score without the LLM, for a model whose hints may stand for its scores.
        explain: load the LLM now, for explanations, even so.

    Raises:
        OSError, ValueError, RuntimeError: when they cannot be loaded.
        encoders.weights.WeightsError: when frozen weights can be neither found nor fetched.
    """

    # No function within this one, so that an engine can be pickled.
    load_whole = partial(_load_whole, checkpoint, device=device, dtype=dtype, fast=fast)
    if not hints:
        return load_whole()
    model = checkpoint.hint_class.from_pretrained(checkpoint.folder)
    quick = HintEngine(model, device=device, load_whole=load_whole, fast=fast)
    if explain and quick.explainer.writes:
        quick.whole  # noqa: B018 - now, so that missing weights show at once
    return quick

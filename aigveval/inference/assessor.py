"""From a path and a prompt to an assessment: `load("lite").score("clip.mp4", prompt="...")`."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor

from encoders.video import FrameRequest, Frames, VideoError, VideoInfo, read_frames
from encoders.views import requests_of
from prompts.rubric import SCORES

from .. import __version__
from .batching import run_batches
from ..data.columns import in_our_names
from ..data.manifest import Clip, check_exists, make_clip
from ..model.precision import DtypeName, choose_dtype, has_bfloat16, label
from .prepared import PreparedClip, with_warnings
from ..presets import list_presets
from ..assessment import Assessment, Score
from ..errors import ModelError, one_line, reason_of

if TYPE_CHECKING:
    from ..model.modeling import AIGVEvalOutput

CHECKPOINTS = Path(__file__).parents[1] / "checkpoints"
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")

# Names of scores, and whatever else an engine knows of a clip, as `Assessment` takes it.
Scores = dict[str, Any]
Views = Mapping[str, Tensor]  # encoder name -> view of one clip, without batch axis
Item = str | os.PathLike[str] | tuple[str | os.PathLike[str], str | None] | Mapping[str, Any] | Clip


class Engine(Protocol):
    """What an `Assessor` drives; `ModelEngine` is the one in use."""

    def prepare(self, path: Path) -> Any:
        """Decodes and preprocesses one video; called in threads.

        Raises:
            VideoError: when the file is not a video that can be read.
        """

    def score(
        self, prepared: Sequence[Any], prompts: Sequence[str | None]
    ) -> Sequence[Scores | Exception]:
        """Scores a batch, row by row in order, independent of each other; or says why not."""


class ModelEngine:
    """Drives an `AIGVEvalModel` and its processor on one device.

    The model's weights must not change any more.
    """

    sizes: Mapping[str, Any] = {}  # of frames, as options of `encoders.video.read_frames`
    tells_apart = True  # whether what the model sees is told apart by dimension
    # The model's forward, or what gives the same in less time.
    run: Callable[..., Any]

    def __init__(self, model: Any, processor: Any, *, device: torch.device) -> None:
        from encoders.onednn import use_onednn
        from ..model.prefix_cache import QuestionStart

        model.load_encoders(processor.encoders)  # now, so that missing weights show at once
        self.model = model.eval().to(device)
        self.processor = processor
        self.device = device
        use_onednn(model.model.language_model)
        self.run = QuestionStart(model)

    @property
    def requests(self) -> dict[str, FrameRequest]:
        """The frames that the model wants of a clip."""
        return requests_of(self.processor.encoders)

    def view(self, frames: Mapping[str, Frames], path: Path, start_seconds: float = 0.0) -> Views:
        """Frames of a clip, under the names of `requests`, as the model takes them.

        Args:
            frames: of the part of the clip that is to be judged.
            path: of the clip, for messages.
            start_seconds: when that part starts.
        """
        return {
            name: encoder.preprocess(frames[name].pixels)
            for name, encoder in self.processor.encoders.items()
        }

    def read(self, path: Path) -> tuple[Views, VideoInfo]:
        """Decodes and preprocesses one video, and tells what is known of it.

        Raises:
            VideoError: when the file is not a video that can be read.
        """
        info, frames = read_frames(path, self.requests, **self.sizes)
        return self.view(frames, path), info

    def prepare(self, path: Path) -> PreparedClip:
        views, info = self.read(path)
        return PreparedClip(views, info.duration_seconds, info.warnings)

    def score(
        self, prepared: Sequence[PreparedClip], prompts: Sequence[str | None]
    ) -> list[Scores | Exception]:
        return with_warnings(self.score_views([clip.views for clip in prepared], prompts), prepared)

    @torch.inference_mode()
    def score_views(
        self, clips: Sequence[Views], prompts: Sequence[str | None]
    ) -> list[Scores | Exception]:
        """Scores what `view` gave of a batch of clips, or of parts of them."""
        batch = self.batch(clips, prompts)
        return name_scores(self.run(**batch), batch["slot_mask"])

    @torch.inference_mode()
    def batch(self, clips: Sequence[Views], prompts: Sequence[str | None]) -> dict[str, Any]:
        """What the model takes: text and features."""
        views = {
            name: torch.stack([clip[name] for clip in clips]).to(self.device)
            for name in clips[0]
        }
        text = self.processor.encode_prompts(list(prompts)).to(self.device)
        return {"features": self.model.encode(views, list(prompts)), **text}


class NoEngine:
    """Stands in where no item can be opened, so that no model has to be loaded."""

    def prepare(self, path: Path) -> Any:
        raise VideoError(str(path), "not opened, as no model is loaded")

    def score(self, prepared: Sequence[Any], prompts: Sequence[str | None]) -> list[Scores]:
        return []


def name_scores(output: AIGVEvalOutput, known: Tensor) -> list[Scores | Exception]:
    """Names the scores of each row; a number that is no score is that row's error.

    Args:
        output: of the model, b rows.
        known: (b, 4) which scores there are.
    """
    assert output.scores is not None and output.stds is not None
    rows = zip(output.scores.tolist(), output.stds.tolist(), known.tolist())
    return [_named_scores(*row) for row in rows]


def _named_scores(
    scores: Sequence[float], stds: Sequence[float], known: Sequence[bool]
) -> Scores | Exception:
    try:
        return {
            # Five decimals: what comes after them is rounding noise and differs between machines.
            name: Score(round(score, 5), round(std, 5)) if is_known else None
            for name, score, std, is_known in zip(SCORES, scores, stds, known)
        }
    except ValueError as error:
        return error


class Assessor:
    """Scores videos with one loaded model; made by `load`.

    Args:
        engine: what prepares and scores.
        name: goes into the field `model` of every assessment.
        batch_size: default of `score_many`.
        workers: default of `score_many`.
    """

    def __init__(
        self, engine: Engine, *, name: str, batch_size: int = 8, workers: int = 2
    ) -> None:
        self.engine = engine
        self.name = name
        self.batch_size = batch_size
        self.workers = workers

    @classmethod
    def load(
        cls,
        model: str | os.PathLike[str] = "lite",
        *,
        device: str | torch.device | None = None,
        dtype: DtypeName = "auto",
        batch_size: int = 8,
        workers: int = 2,
        explain: bool = False,
        contributions: bool = False,
    ) -> Assessor:
        """See `load`."""
        name, chosen = os.fspath(model), find_device(device)
        source = find_model(model)
        number = _dtype_of(source, name=name, dtype=dtype, device=chosen)
        from ..model.checkpoint import kind_of  # transformers: seconds to import

        try:
            kind = kind_of(source)
            processor = kind.processor.from_pretrained(source)
            loaded = kind.model.from_pretrained(source, dtype=number)
            engine = kind.engine(loaded, processor, device=chosen)
        except (OSError, ValueError, RuntimeError) as error:
            raise ModelError(f"cannot load the model {name}: {one_line(error)}") from error
        assessor = cls(engine, name=label(name, number), batch_size=batch_size, workers=workers)
        if explain or contributions:
            from .explain import add_explanations

            add_explanations(assessor, text=explain)
        return assessor

    def score(self, video: str | os.PathLike[str], prompt: str | None = None) -> Assessment:
        """Assesses one video.

        Args:
            video: path of the file.
            prompt: text it was generated from. Without one the semantic score is None, and the
                overall score judges what can be seen.

        Raises:
            VideoError: when the file cannot be assessed; the message names it and the reason.
        """
        start = time.perf_counter()
        clip = make_clip(video, prompt)
        scores = self.engine.score([self._prepare(clip)], [clip.prompt])[0]
        if isinstance(scores, Exception):
            raise VideoError(clip.video, one_line(scores))
        return self._assessment(clip, time.perf_counter() - start, scores=scores)

    def score_many(
        self, items: Iterable[Item], *, batch_size: int | None = None, workers: int | None = None
    ) -> Generator[Assessment, None, None]:
        """Assesses many videos, yielding as it goes, in the order of the items.

        A video that cannot be assessed yields an assessment with `error` set and no scores.

        Args:
            items: paths, pairs (path, prompt), or mappings with `video` and maybe `prompt`, or with
                another name of these; see `data.columns`.
            batch_size: videos that go through the model together; does not change the scores.
            workers: threads that decode and preprocess meanwhile.

        Raises:
            TypeError: when an item is none of these.
        """
        outcomes = run_batches(
            map(as_clip, items),
            prepare=self._prepare,
            compute=self._compute,
            batch_size=self.batch_size if batch_size is None else batch_size,
            workers=self.workers if workers is None else workers,
        )
        for outcome in outcomes:
            if outcome.result is None:
                reason = reason_of(outcome.error)
                yield self._assessment(outcome.item, outcome.seconds, error=reason)
            else:
                yield self._assessment(outcome.item, outcome.seconds, scores=outcome.result)

    def _prepare(self, clip: Clip) -> Any:
        problem = clip.problem or check_exists(clip).problem
        if problem:
            raise VideoError(clip.video, problem)
        return self.engine.prepare(clip.path)

    def _compute(self, batch: Sequence[tuple[Clip, Any]]) -> Sequence[Scores | Exception]:
        clips, prepared = zip(*batch)
        return self.engine.score(prepared, [clip.prompt for clip in clips])

    def _assessment(
        self, clip: Clip, seconds: float, *, scores: Scores | None = None, error: str | None = None
    ) -> Assessment:
        known = dict(scores or {})
        if clip.prompt is None:
            known["semantic"] = None
        return Assessment(
            video=clip.video, prompt=clip.prompt, **known, model=self.name, version=__version__,
            seconds=round(seconds, 3), error=error,
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
            GPU that has it, else float32. In bfloat16 scores differ by up to 3e-3 between batch
            sizes (measured), in float32 by less than 1e-4; the field `model` of each row tells a
            type that isn't float32: `NAME (bfloat16)`.
        batch_size: videos that go through the model together in `score_many`.
        workers: threads that decode and preprocess in `score_many`.
        explain: fill in the fields `explanation`, `defects`, `problems` and `contributions`.
        contributions: fill in `contributions` alone, which any model can.

    Raises:
        ModelError: when there is no such model, device or dtype, or it was not trained to explain.
        encoders.weights.WeightsError: when frozen weights can be neither found nor fetched.
    """
    return Assessor.load(
        model, device=device, dtype=dtype, batch_size=batch_size, workers=workers,
        explain=explain, contributions=contributions,
    )


def row_name(
    model: str | os.PathLike[str], *, device: str | torch.device | None = None,
    dtype: DtypeName = "auto",
) -> str:
    """The field `model` of the rows that `load` with these options gives, without loading.

    Raises:
        ModelError: as `load`.
    """
    name = os.fspath(model)
    number = _dtype_of(find_model(model), name=name, dtype=dtype, device=find_device(device))
    return label(name, number)


def _dtype_of(source: str, *, name: str, dtype: DtypeName, device: torch.device) -> torch.dtype:
    config = None
    try:
        if dtype == "auto" and has_bfloat16(device):  # else the config isn't needed
            from ..model.checkpoint import kind_of

            config = kind_of(source).model.config_class.from_pretrained(source).text_config
        return choose_dtype(dtype, config, device)
    except (OSError, ValueError) as error:
        raise ModelError(f"cannot load the model {name}: {one_line(error)}") from error


def find_model(model: str | os.PathLike[str]) -> str:
    """Gives the folder or the hub id that a name stands for.

    Raises:
        ModelError: when it stands for nothing.
    """
    name = os.fspath(model)
    presets = sorted(path.parent.name for path in CHECKPOINTS.glob("*/config.json"))
    if name in presets:
        return str(CHECKPOINTS / name)
    if os.path.isdir(name):
        if not os.path.isfile(os.path.join(name, "config.json")):
            raise ModelError(f"no model in the folder {name}: it has no config.json")
        return name
    if _HUB_ID.fullmatch(name) and not name.startswith("."):
        return name
    if name in list_presets():
        raise ModelError(
            f"the preset {name} comes without a trained checkpoint; train one by `preset: {name}` "
            "in a config for `aigveval fit`, and give its folder"
        )
    raise ModelError(
        f"no model {name!r}; give {', '.join(presets + ['a folder'])} or a hub id like OWNER/NAME"
    )


def as_clip(item: Item) -> Clip:
    """Turns an item of `score_many` into a clip.

    Raises:
        TypeError: when it is none of the accepted kinds.
    """
    if isinstance(item, Clip):
        return item
    if isinstance(item, (str, os.PathLike)):
        return make_clip(item)
    if isinstance(item, Mapping):
        try:
            named = in_our_names(item)
        except ValueError as error:
            raise TypeError(f"an item has {error}") from None
        if "video" in named:
            return make_clip(named["video"], named.get("prompt"))
    if isinstance(item, (tuple, list)) and len(item) == 2:
        return make_clip(*item)
    kinds = "a path, a pair (path, prompt) or a mapping with 'video'"
    raise TypeError(f"an item must be {kinds}, got {one_line(repr(item), limit=80)}")


def find_device(device: str | torch.device | None) -> torch.device:
    """Gives the device of that name; without one, `cuda` if there is one, else `cpu`.

    Raises:
        ModelError: when there is no such device.
    """
    if device is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        chosen = torch.device(device)
        torch.empty(0, device=chosen)
    except (RuntimeError, AssertionError):  # torch's own words go on about every back end it knows
        here = ["cpu", *(f"cuda:{index}" for index in range(torch.cuda.device_count()))]
        raise ModelError(f"no device {str(device)!r} here; there are {', '.join(here)}") from None
    return chosen

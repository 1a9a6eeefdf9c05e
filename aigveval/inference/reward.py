"""A model as a reward: videos and prompts in, one number for each out.

reward = aigveval.VideoReward(weights={"technical": 0.3, "motion": 0.3, "semantic": 0.4})
reward(pipeline(prompts).frames, prompts)  # float32 (b,), on 1-5
"""

from __future__ import annotations

import functools
import math
import os
import threading
import warnings
from collections.abc import Callable, Mapping, Sequence
from numbers import Real  # a number of NumPy, too
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from encoders.base import not_compiled

from ..assessment import SCORE_FIELDS, Assessment
from ..errors import AssessmentError, one_line
from .assessor import Assessor, load

OnError = Literal["nan", "raise"]
RewardFunction = Callable[..., list[float]]


class VideoReward:
    """Gives each video the weighted mean of its scores, on 1-5.

    It gives no gradients, computes in the model's own precision under `torch.autocast` and in code
    that is compiled too, and draws no random numbers. Calls from several threads take turns. It can
    be pickled, as its arguments (an assessor with its weights): a copy, in another process or by
    `copy.deepcopy`, loads its model when it is first needed.

    Args:
        model: As of `aigveval.load`; or an assessor that it gave.
        weights: Of `overall`, `technical`, `motion` and `semantic`, at least 0; they are divided by
            their sum. By default `overall` alone counts.
        on_error: What becomes of a video that cannot be scored, or has not all scores that have a
            weight, as `semantic` without a prompt: NaN, and a warning that says why; or
            `AssessmentError`.
        fps: As of `Assessor.score`.
        **options: `device`, `dtype`, `batch_size` and `workers`, as of `aigveval.load`.

    Raises:
        ValueError: Weights or `on_error` are not as said here.
        ModelError: As `aigveval.load`.
    """

    def __init__(
        self,
        model: str | os.PathLike[str] | Assessor = "lite",
        *,
        weights: Mapping[str, float] | None = None,
        on_error: OnError = "nan",
        fps: float | None = None,
        **options: Any,
    ) -> None:
        self.weights = _checked({"overall": 1.0} if weights is None else weights)
        if on_error not in get_args(OnError):
            raise ValueError(f"on_error must be one of {get_args(OnError)}, got {on_error!r}")
        self.on_error, self.fps = on_error, fps
        if isinstance(model, Assessor):
            if options:
                raise ValueError(f"an assessor has its options already, got {', '.join(options)}")
            self._load, self._assessor = None, model
        else:
            self._load = functools.partial(load, model, **options)
            self._assessor = self._load()
        self.__name__ = "video_reward"  # what trainers call it in their logs
        self._turn = threading.RLock()

    @property
    def assessor(self) -> Assessor:
        """What scores."""
        with self._turn:
            if self._assessor is None:
                assert self._load is not None
                # As outside of a call: merging a LoRA multiplies, new layers draw numbers.
                with torch.autocast("cpu", enabled=False), torch.random.fork_rng(devices=[]):
                    self._assessor = self._load()
            return self._assessor

    def __getstate__(self) -> dict[str, Any]:
        state = self.__dict__.copy()
        del state["_turn"]
        if self._load is not None:
            state["_assessor"] = None
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _turn=threading.RLock())

    @not_compiled
    def __call__(self, videos: Any, prompts: str | Sequence[str | None] | None = None) -> Tensor:
        """Rewards b videos.

        Args:
            videos: As the items of `Assessor.score_many`: frames (b, t, h, w, 3) or (b, t, 3, h, w)
                on any device, lists of clips, what a pipeline of diffusers returns, or paths.
            prompts: One for each, or one for all.

        Returns:
            float32 (b,), on the device of `videos` where they are a tensor, else on the CPU.

        Raises:
            ValueError: `videos` is a single clip, or there are more or fewer prompts.
            AssessmentError: No video gets through, and not because of the videos; with
                `on_error="raise"` also when one cannot be scored.
        """
        rewards = [self._reward(row) for row in self.assess(videos, prompts)]
        failed = [f"{name}: {why}" for name, _, why in rewards if why]
        if failed:
            found = f"{len(failed)} of {len(rewards)} videos have no reward: {failed[0]}"
            if self.on_error == "raise":
                raise AssessmentError(found)
            warnings.warn(found, stacklevel=3)  # of the caller of what `not_compiled` made
        device = videos.device if isinstance(videos, Tensor) else torch.device("cpu")
        values = [value for _, value, _ in rewards]
        return torch.tensor(values, dtype=torch.float32, device=device)

    def assess(
        self, videos: Any, prompts: str | Sequence[str | None] | None = None
    ) -> list[Assessment]:
        """The assessments behind the rewards; arguments as of a call."""
        with self._turn:
            return list(self.assessor.score_many(videos, prompts=prompts, fps=self.fps))

    def as_trl(
        self, render: Callable[[list[str]], Any] | None = None, *, column: str | None = None
    ) -> RewardFunction:
        """A reward function as the trainers of TRL take them, for a model that writes prompts.

        Args:
            render: Makes a batch of videos from the texts of the completions. Without it the
                completions are themselves videos, or their paths.
            column: Column of the data set with the texts that the videos are judged by; by default
                these are the prompts that the model was given.

        Returns:
            `(prompts, completions, **columns) -> list[float]`; prompts and completions may be
            conversations, of which the last message counts. NaN, which TRL leaves out, as of a
            call. It can be pickled if `render` can.
        """
        return _TrlReward(self, render, column)

    def _reward(self, row: Assessment) -> tuple[str, float, str | None]:
        """The video's name, its reward, and why it has none."""
        if row.error is not None:
            return row.video, math.nan, row.error
        scores = {name: getattr(row, name) for name in self.weights}
        if missing := [name for name, score in scores.items() if score is None]:
            why = " without a prompt" if missing == ["semantic"] and row.prompt is None else ""
            return row.video, math.nan, f"no {missing[0]} score{why}"
        return row.video, sum(w * scores[name].score for name, w in self.weights.items()), None


class _TrlReward:
    """What `VideoReward.as_trl` gives: a class, as functions within functions can't be pickled."""

    def __init__(
        self,
        reward: VideoReward,
        render: Callable[[list[str]], Any] | None,
        column: str | None,
    ) -> None:
        self.reward, self.render, self.column = reward, render, column
        self.__name__ = reward.__name__

    def __call__(
        self, /, prompts: Sequence[Any], completions: Sequence[Any], **columns: Any
    ) -> list[float]:
        column = self.column
        if column is not None and column not in columns:
            found = ", ".join(columns) or "none"
            raise ValueError(f"the data set has no column {column!r}; its others are {found}")
        wanted = [_text(one) for one in (prompts if column is None else columns[column])]
        made = [_text(one) for one in completions]
        return self.reward(made if self.render is None else self.render(made), wanted).tolist()


def _checked(weights: Mapping[str, float]) -> dict[str, float]:
    """Weights above 0, which add up to 1."""
    if not isinstance(weights, Mapping):
        found = one_line(repr(weights), limit=80)
        raise ValueError(f"weights must be numbers by the name of a score, got {found}")
    for name, weight in weights.items():
        if name not in SCORE_FIELDS:
            raise ValueError(f"weights are of {', '.join(SCORE_FIELDS)}, got {name!r}")
        if isinstance(weight, bool) or not isinstance(weight, Real):
            hint = "; of one in a tensor or array make it by float(x)" * hasattr(weight, "item")
            found = one_line(repr(weight), limit=80)
            raise ValueError(f"the weight of {name} must be a number, got {found}{hint}")
        if not weight >= 0:
            raise ValueError(f"the weight of {name} must be at least 0, got {weight!r}")
    total = math.fsum(weights.values())
    if not 0 < total < math.inf:
        raise ValueError(f"the sum of the weights must be finite and above 0, got {total:g}")
    return {name: weight / total for name, weight in weights.items() if weight}


def _text(item: Any) -> Any:
    """The text of a conversation's last message; anything else as it is."""
    if not isinstance(item, (list, tuple)) or not item or not isinstance(item[-1], Mapping):
        return item
    content = item[-1].get("content")
    if isinstance(content, str):
        return content
    if isinstance(content, (list, tuple)):
        parts = [part["text"] for part in content if isinstance(part, Mapping) and "text" in part]
        return " ".join(parts)
    raise ValueError(f"a message without a text: {one_line(repr(item[-1]), limit=80)}")

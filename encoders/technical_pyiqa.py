"""No-reference picture quality metrics of pyiqa (Chen and Mo, IQA-PyTorch) on each slow frame.

pyiqa's licence (PolyForm Noncommercial 1.0.0) rules out commercial use, and it brings dozens of
packages: it is the extra `pyiqa`, and nothing else here needs it. Each metric has a licence of its
own besides.
"""

import contextlib
import difflib
import os
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from .base import ProcessSettings, check_frames, float32_by_default, not_compiled, undisturbed
from .checkpoints import find_checkpoint
from .frame_encoder import FrameEncoder, PictureInput, as_option
from .pretrained import hub_errors, state_id
from .registry import EncoderError
from .resizing import repeat_to, resized

# pyiqa counts them as no-reference, but they compare sets of pictures or need a caption.
_NOT_OF_A_PICTURE = {"fid", "fid_dinov2", "sfid", "inception_score", "clipscore"}
_SMALLEST = 224  # px; below, some metrics find no patch to look at
_SAFE = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"
_UNSAFE = "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"
# Has cuDNN compute the same each time. `torch.backends.cudnn.flags` would set all of its settings:
# TF32 too, which `full_float32` keeps away, and it raises where that does.
_DETERMINISTIC = ProcessSettings(torch.backends.cudnn, benchmark=False, deterministic=True)


class TechnicalPyiqa(FrameEncoder):
    """Tokens (b, num_frames, 2 x metrics) float32: each metric's score and which way is better.

    The first half of a token are the scores, each on its metric's own scale; the second half says
    of each whether more of it is better (1) or worse (-1). Where a metric has no score, as PIQE
    for a black frame, both are 0.

    Metrics judge pixels, so a frame keeps its own up to `size`; a larger one is reduced to it
    (by area), a side below 224 px is enlarged. Frames are scored one by one: no score depends on
    what else is in the batch.

    pyiqa fetches weights from the Hugging Face Hub and keeps them in torch's hub cache
    (`TORCH_HOME`). They are read without running code in them; for one of its old files that
    can't be, PyTorch's own switch `TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD=1` allows it.

    Args:
        metrics: Name or names of no-reference metrics, `pyiqa.list_models("NR")`. `piqe` and
            `entropy` need no weights.
        weights: Path of a checkpoint, where there is just one metric and pyiqa's option
            `pretrained_model_path` takes it; None lets pyiqa fetch its own.
        num_frames: Slow frames, one token each.
        size: Longest side of a frame in pixels.

    Raises:
        EncoderError: pyiqa is not installed.
        WeightsError: A metric's weights can't be had.
        ValueError: There is no such metric, or an option is out of its range.
    """

    def __init__(
        self,
        *,
        metrics: str | Sequence[str] = ("musiq",),
        weights: str | os.PathLike[str] | None = None,
        num_frames: int = 8,
        size: int = 1024,
    ) -> None:
        super().__init__(num_frames=num_frames)
        weights = as_option(weights)
        self.metrics = [metrics] if isinstance(metrics, str) else list(metrics)
        self.weights, self.size = weights, size
        if size < _SMALLEST:
            raise ValueError(f"size must be at least {_SMALLEST}, got {size}")
        version = _check(self.metrics, weights)
        loaded = [_load(name, weights) for name in self.metrics]
        self.networks = nn.ModuleList(metric.net for metric in loaded)
        directions = torch.tensor([-1.0 if metric.lower_better else 1.0 for metric in loaded])
        self.register_buffer("directions", directions, persistent=False)
        # Some metrics keep parameters outside of the state; those come with the version.
        self.weights_id = f"pyiqa {version} {state_id(*self.networks)}"
        self.picture = PictureInput(size=size, mean=(0.0, 0.0, 0.0), std=(255.0, 255.0, 255.0))
        self.finish("technical_pyiqa", 2 * len(loaded))

    directions: Tensor

    def preprocess(self, frames: Tensor, *, seed: int = 0) -> Tensor:
        """uint8 (t, 3, h, w) to uint8 (num_frames, 4, size, size).

        A frame lies in the top left corner; the fourth channel is 255 there and 0 elsewhere.
        """
        check_frames(frames)
        limit, sides = self.spec.size, frames.shape[-2:]
        factor = min(1.0, limit / max(sides))
        height, width = (min(limit, max(_SMALLEST, round(factor * side))) for side in sides)
        if (height, width) != tuple(sides):
            frames = resized(frames, height, width)
        view = frames.new_zeros(len(frames), 4, limit, limit)
        view[:, :3, :height, :width] = frames
        view[:, 3, :height, :width] = 255
        return repeat_to(view, self.num_frames)

    @not_compiled  # pyiqa's code branches on what it sees
    def encode(self, view: Tensor) -> Tensor:
        frames = [frame for clip in view for frame in _pictures(clip)]
        scores = torch.stack([self._scores(frame) for frame in frames])
        defined = scores.isfinite()
        directions = self.directions.to(scores) * defined
        tokens = torch.cat([scores.where(defined, 0), directions], dim=1)
        return tokens.view(len(view), self.num_frames, -1)

    def _scores(self, frame: Tensor) -> Tensor:
        """A frame (3, h, w), 0-1, to the metrics' scores (metrics,)."""
        # Statistics of pixels and their thresholds need all digits: bfloat16 halves PIQE. And pyiqa
        # makes tensors of its own, of PyTorch's own defaults.
        with _DETERMINISTIC, float32_by_default(), undisturbed(frame.device):
            scores = [network(frame[None]) for network in self.networks]
        return torch.stack([score.float().mean() for score in scores])


def _pictures(clip: Tensor) -> Tensor:
    """A clip's view (t, 4, size, size) to its frames as they are (t, 3, h, w), 0-1."""
    height, width = int((clip[0, 3, :, 0] > 0).sum()), int((clip[0, 3, 0] > 0).sum())
    return clip[:, :3, :height, :width].float() / 255


def _check(metrics: Sequence[str], weights: str | None) -> str:
    """Make sure that pyiqa has these metrics; returns its version."""
    try:
        import pyiqa
    except ImportError as error:
        raise EncoderError(
            f"technical_pyiqa needs the extra pyiqa: pip install 'aigveval[pyiqa]' ({error})"
        ) from error
    known = [name for name in pyiqa.list_models("NR") if name not in _NOT_OF_A_PICTURE]
    if not metrics or len(set(metrics)) < len(metrics):
        raise ValueError(f"metrics must be one name or more, each once, got {list(metrics)}")
    for name in metrics:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=2, cutoff=0.4)
            hint = f"did you mean {' or '.join(near)}?" if near else f"choose {', '.join(known)}"
            raise ValueError(f"pyiqa has no metric {name!r} that scores a picture alone; {hint}")
    if weights is not None and len(metrics) > 1:
        raise ValueError(f"weights are of one metric, got {len(metrics)} metrics")
    return pyiqa.__version__


def _load(name: str, weights: str | None) -> Any:
    import pyiqa

    asked, options = f"pyiqa's {name}", {}
    instead = "where the Hub is reached, load it once and copy torch's hub cache (TORCH_HOME)"
    if weights is not None:
        path = find_checkpoint(
            weights,
            filename=f"the one of {name}",
            licence="see pyiqa",
            source_url="https://huggingface.co/chaofengc/IQA-PyTorch-Weights",
        )
        asked, instead = f"{asked} {path}", "give a checkpoint that pyiqa has for it"
        options["pretrained_model_path"] = str(path)
    # pyiqa prints what it loads.
    with hub_errors(asked, instead=instead), contextlib.redirect_stdout(sys.stderr):
        try:
            with _tensors_only():
                return pyiqa.create_metric(name, device="cpu", **options)
        except ModuleNotFoundError as error:
            raise EncoderError(f"{asked} needs {error.name}, which is not installed") from error


@contextlib.contextmanager
def _tensors_only() -> Iterator[None]:
    """Have torch refuse files that hold more than tensors, even where pyiqa allows them."""
    if _SAFE in os.environ or _UNSAFE in os.environ:  # the user has decided
        yield
        return
    os.environ[_SAFE] = "1"
    try:
        yield
    finally:
        del os.environ[_SAFE]

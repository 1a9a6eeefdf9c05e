"""Motion quality from optical flow, for a machine without GPU and model hub.

The fast stream's neighbouring frames are compared through their flow: how much moves and how
smoothly, what the flow can't explain (morphing, ghosting), flicker, freezes and cuts. Every token
is one stretch of the clip; each also carries the statistics of the whole clip, since whether a
pause is a defect depends on what the rest does.
"""

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, get_args

import cv2
import numpy as np
import torch
from torch import Tensor

from .base import EncoderSpec, EvenEncoder, check_frames
from .checkpoints import RANDOM
from .fades import between_fades
from .flow_statistics import (
    NUM_CHANGE,
    NUM_GAP,
    NUM_PAIR,
    Field,
    Picture,
    change_statistics,
    gap_statistics,
    new_flow,
    pair_statistics,
)
from .raft import SMALLEST_PX, Raft
from .resizing import repeat_to, with_short_side, without_bars
from .threads import by_stretches

_GAP = 4  # frames between the two frames of the wider comparison
_SMALLEST_PX = 32  # of DIS: with less OpenCV raises, or crashes on strips
_WIDTH = NUM_PAIR + NUM_GAP + NUM_CHANGE
Flow = Literal["dis", "raft_small", "raft_large"]


class MotionFlow(EvenEncoder):
    """Tokens (b, num_tokens, 9 x 57) float32.

    Of the 9 parts of a token, three are the mean, maximum and minimum over its stretch, six the
    mean, standard deviation, 10 % and 90 % quantile, maximum and minimum over the clip.

    DIS flow (Kroeger et al., ECCV 2016) runs on a CPU. RAFT is learned, finer, and far slower
    there: `to("cuda")` moves it, and views are then made on the GPU. The tokens have the same
    layout, but a model trained on the one doesn't read the other. Nothing here learns: the
    statistics have no gradient.

    Args:
        num_tokens: Stretches that the clip is cut into.
        num_frames: Frames compared at most, at least 2; a shorter clip gives all of its frames.
        size: Short side in pixels at which flow is computed; at least 32, and 128 for RAFT.
        flow: `dis`, or torchvision's `raft_small` or `raft_large`.
        weights: Path of RAFT's checkpoint; None looks for it in the folder `checkpoints` of the
            cache folder, then lets torchvision download it.
        crop_bars: Look only at what lies between black bars.
        skip_fades: Leave out a fade from black at the beginning, and one to black at the end.

    Raises:
        WeightsError: RAFT's checkpoint can't be had or isn't RAFT's.
        ValueError: An option is out of its range.
    """

    weights_id = f"opencv-dis-{cv2.__version__.split('.')[0]}"

    def __init__(
        self,
        *,
        num_tokens: int = 16,
        num_frames: int = 48,
        size: int = 160,
        flow: Flow = "dis",
        weights: str | os.PathLike[str] | None = None,
        crop_bars: bool = False,
        skip_fades: bool = False,
    ) -> None:
        super().__init__()
        self.num_frames, self.flow = num_frames, flow
        self.crop_bars, self.skip_fades = crop_bars, skip_fades
        self.raft: Raft | None = None
        self.spec = EncoderSpec(
            name="motion_flow",
            dimension="motion",
            num_tokens=num_tokens,
            dim=9 * _WIDTH,
            stream="fast",
            size=size,
            mean=(0.0,),
            std=(1.0,),
            time_steps=num_tokens,
        )
        if num_frames < 1 or num_frames % num_tokens:
            raise ValueError(
                "num_frames must be a positive multiple of num_tokens "
                f"({num_tokens}), got {num_frames}"
            )
        if num_frames == 1:
            raise ValueError("num_frames must be at least 2, as a lone frame has no motion, got 1")
        if flow not in get_args(Flow):
            raise ValueError(f"flow must be one of {get_args(Flow)}, got {flow!r}")
        smallest = _SMALLEST_PX if flow == "dis" else SMALLEST_PX
        if size < smallest:
            raise ValueError(f"size must be at least {smallest} for {flow}, got {size}")
        if flow == "dis":
            if weights is not None:
                raise ValueError("weights are RAFT's: they need flow='raft_small' or 'raft_large'")
            return
        self.raft = Raft("small" if flow == "raft_small" else "large", weights=weights)
        self.weights_id = self.raft.weights_id

    def options(self) -> dict[str, Any]:
        # Defaults are left out: cached features and trained models know num_frames alone.
        options: dict[str, Any] = {"num_frames": self.num_frames}
        if self.spec.num_tokens != 16:
            options["num_tokens"] = self.spec.num_tokens
        if self.spec.size != 160:
            options["size"] = self.spec.size
        if self.flow != "dis":
            options["flow"] = self.flow
        if self.weights_id == RANDOM:
            options["weights"] = RANDOM
        if self.crop_bars:
            options["crop_bars"] = True
        if self.skip_fades:
            options["skip_fades"] = True
        return options

    def preprocess(self, frames: Tensor, *, seed: int = 0) -> Tensor:
        """uint8 (t, 3, h, w) to float32 (num_frames, 57): one row of statistics per time step."""
        check_frames(frames)
        if len(frames) == 1:  # a single frame is a clip in which nothing moves
            frames = frames.repeat(2, 1, 1, 1)
        frames = without_bars(frames) if self.crop_bars else frames
        planes = with_short_side(frames, self.spec.size).numpy()
        small = [cv2.merge(list(colours)) for colours in planes]  # permuting takes five times that
        grays = [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in small]
        if self.skip_fades:
            start, stop = between_fades(grays)
            small, grays = small[start:stop], grays[start:stop]
        last = len(small) - 1
        # From every second frame, as far as the clip goes.
        jumps = {n: min(n + _GAP, last) for n in range(0, max(1, last + 1 - _GAP), _GAP // 2)}

        def compare(start: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
            return self._compare(small, grays, jumps, start, stop)

        found = [compare(0, last)] if self.raft else by_stretches(compare, last)
        pairs, gaps = map(np.concatenate, zip(*found))
        parts = (pairs, gaps, change_statistics(grays))
        rows = [repeat_to(torch.from_numpy(part).float(), self.num_frames) for part in parts]
        return torch.cat(rows, dim=1)

    def _compare(
        self,
        frames: list[np.ndarray],
        grays: list[np.ndarray],
        jumps: Mapping[int, int],
        start: int,
        stop: int,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Statistics of each frame in start..stop with the next one, and with the one it jumps to.

        Returns:
            float64 (stop - start, NUM_PAIR), and (n, NUM_GAP) for the n of them that jump.
        """
        wanted = [(start - 1, start)] if start else []  # the motion that comes in
        steps = [(n, to) for n in range(start, stop) for to in (n + 1, jumps.get(n)) if to]
        flows = map(Field, self._flows(frames, grays, wanted + steps))
        before = next(flows) if start else None
        pairs, gaps = [], []
        first = Picture(frames[start], grays[start])
        for n in range(start, stop):
            second, field = Picture(frames[n + 1], grays[n + 1]), next(flows)
            pairs.append(pair_statistics(first, second, field, before))
            if n in jumps:
                gaps.append(gap_statistics(first, grays[jumps[n]], next(flows)))
            first, before = second, field
        return np.array(pairs), np.array(gaps).reshape(-1, NUM_GAP)

    def _flows(
        self, frames: list[np.ndarray], grays: list[np.ndarray], pairs: Sequence[tuple[int, int]]
    ) -> Iterable[np.ndarray]:
        """Flow (h, w, 2) in pixels of each pair of frames, computed as it is asked for."""
        if self.raft is not None:
            return self.raft.flows(np.stack(frames), pairs)
        estimator: Any = new_flow()  # OpenCV's stub does not know that `calc` may get no flow
        return (estimator.calc(grays[first], grays[second], None) for first, second in pairs)

    def encode(self, view: Tensor) -> Tensor:
        steps = view.unflatten(1, (self.spec.num_tokens, -1))
        local = [steps.mean(2), steps.amax(2), steps.amin(2)]
        ordered = view.sort(dim=1).values
        low, high = int(0.1 * (view.shape[1] - 1)), int(0.9 * (view.shape[1] - 1))
        clip = [
            view.mean(1),
            view.std(1),
            ordered[:, low],
            ordered[:, high],
            ordered[:, -1],
            ordered[:, 0],
        ]
        whole = torch.cat(clip, dim=1)[:, None].expand(-1, self.spec.num_tokens, -1)
        return torch.cat([*local, whole], dim=2)

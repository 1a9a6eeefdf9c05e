"""Ridge regression on the pooled tokens of the `lite` encoders: baseline and teacher.

With a few dozen rated clips, a linear map on fixed features is hard to beat. It is what our model
is compared with, on the same folds, and it labels the clips that nobody has rated.
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.linear_model import Ridge

from aigveval.data.cache import FeatureCache
from aigveval.train.data import TrainingRow
from aigveval.train.dataset import QualityDataset
from encoders import Encoder

Blocks = dict[str, NDArray[np.float64]]

HEAD, STAGES = 1280, 512
ALPHA = 0.3
CLIP = 3.0
# Chosen among some twenty combinations on the same data: its figures are slightly optimistic.
USED = {
    "technical": ("frame", "frame_change", "frame_statistics"),
    "motion": ("flow", "fragments", "frame_change"),
    "semantic": ("alignment", "fragments"),
}


def pooled(rows: Sequence[TrainingRow], encoders: Sequence[Encoder], cache: FeatureCache) -> Blocks:
    """Named blocks (n, width) of each clip's tokens, pooled over time."""
    digests = {row.video: cache.digest(row.video) for row in rows}
    dataset = QualityDataset([list(rows)], digests, encoders, cache)
    names = [encoder.spec.name for encoder in encoders]
    parts: dict[str, list[torch.Tensor]] = {}
    for number, row in enumerate(rows):
        tokens = dict(zip(names, dataset.tokens(number, row.prompt)))
        technical = tokens["technical_lite"]
        whole, fragments = technical.chunk(2, dim=1)
        blocks = {
            "frame": whole[:, :HEAD].mean(0),
            "frame_change": whole[:, :HEAD].std(0),
            "frame_statistics": whole[:, HEAD + STAGES:].mean(0),
            "fragments": fragments[:, :HEAD].mean(0),
            # The last six ninths of a motion token describe the whole clip.
            "flow": tokens["motion_flow"][0].view(9, -1)[3:].flatten(),
            "alignment": tokens["semantic_lite"][:, 3 * 384:].mean(0),
        }
        for name, value in blocks.items():
            parts.setdefault(name, []).append(value)
    return {name: torch.stack(values).double().numpy() for name, values in parts.items()}


def fitted(
    blocks: Blocks, targets: NDArray[np.float64], used: Sequence[str]
) -> Callable[[Blocks], NDArray[np.float64]]:
    """Fit on all rows; gives the function from blocks to predictions (n,).

    Each block is standardised, clipped and scaled to the same total variance, so that a wide one
    doesn't drown a narrow one.
    """
    statistics = {name: (blocks[name].mean(0), blocks[name].std(0) + 1e-6) for name in used}

    def design(of: Blocks) -> NDArray[np.float64]:
        columns = []
        for name, (mean, std) in statistics.items():
            columns.append(np.clip((of[name] - mean) / std, -CLIP, CLIP) / np.sqrt(len(mean)))
        return np.hstack(columns)

    model = Ridge(alpha=ALPHA).fit(design(blocks), targets)
    return lambda of: model.predict(design(of))


def subset(blocks: Blocks, keep: NDArray[np.bool_]) -> Blocks:
    """The rows where `keep` is true."""
    return {name: values[keep] for name, values in blocks.items()}

"""Make the reference set of `semantic_lite`: mean ImageNet logits of the training clips.

python examples/train_lite/make_reference.py DATA/clips
"""

import sys
from pathlib import Path

import torch
from safetensors.torch import save_file
from split import split_clips

from encoders import FrameRequest, read_frames
from encoders.lite_backbone import SIZE, shared_backbone
from encoders.resizing import resized
from encoders.sampling import uniform

OUT = Path(__file__).parents[2] / "encoders/data/reference_posteriors.safetensors"


def main(folder: Path) -> None:
    request = FrameRequest(indices=lambda n, fps: uniform(n, 8), stream="slow")
    logits = []
    for name in split_clips(folder)[0]:
        frames = read_frames(folder / name, {"slow": request})[1]["slow"].pixels
        logits.append(shared_backbone()(resized(frames, SIZE, SIZE))[2].mean(0))
    OUT.parent.mkdir(exist_ok=True)
    save_file({"logits": torch.stack(logits).half()}, OUT)
    print(f"{len(logits)} clips -> {OUT}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))

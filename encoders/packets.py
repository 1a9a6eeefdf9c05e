"""What a stream's packets tell by themselves: order, joins, and whether they are well formed."""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import av
import numpy as np

_LONGEST_GAP = 10.0  # seconds; where a clock may jump a longer one is a join, as FFmpeg has it


class Packet(NamedTuple):
    """What is kept of a packet; times in ticks of the stream's clock."""

    pts: int | None
    dts: int | None
    duration: int
    key: bool
    corrupt: bool


def read_packets(container: Any, stream: Any) -> Iterator[Any]:
    """The stream's packets, then None, which flushes a decoder.

    A file that breaks off ends like any other: what is missing shows in the index.
    """
    try:
        for packet in container.demux(stream):
            if packet.size:
                yield packet
    except av.FFmpegError:
        pass
    yield None


def flushed(packet: Any) -> list[Any]:
    try:
        return packet.decode() + packet.stream.decode(None)
    except av.FFmpegError:
        return []


def from_first_key(packets: list[Packet], first_shown: Callable[[int], set[int]]) -> list[Packet]:
    """The packets that can be shown, where some come before the first keyframe.

    Those stored before it, or right behind it and to be shown before it, hang on frames that may
    be missing; whether they do is for the decoder to say. So it is with the frames behind a
    keyframe that is refreshed bit by bit.

    Args:
        packets: In the order of the file.
        first_shown: Time stamp of the keyframe to those of the sound frames that a decoder gives
            up to the first that isn't before it.
    """
    first = next((i for i, packet in enumerate(packets) if packet.key), 0)
    start = packets[first].pts
    stop = first + 1
    while (
        start is not None
        and stop < len(packets)
        and (stamp := packets[stop].pts) is not None
        and stamp < start
    ):
        stop += 1
    if stop == 1:
        return packets
    if start is None:
        return packets[first:]
    shown = first_shown(start)
    if not shown:
        return packets  # for the decoder to fail with
    last = max(shown)
    return [
        packet
        for i, packet in enumerate(packets)
        if packet.pts in shown or i > first and (packet.pts is None or packet.pts > last)
    ]


def find_joins(packets: list[Packet], unit: float) -> list[int]:
    """Where another recording begins: the clock goes back, or far ahead."""
    joins, last = [], None
    for place, packet in enumerate(packets):
        if packet.dts is None:
            continue
        if last is not None and not 0 <= (packet.dts - last) * unit <= _LONGEST_GAP:
            joins.append(place)
        last = packet.dts
    return joins


def display_order(
    packets: list[Packet], joins: list[int], unit: float, rate: float
) -> tuple[list[int], np.ndarray]:
    """Packets in display order, and their time stamps, those behind a join as if it went on."""
    order: list[int] = []
    stamps = np.empty(len(packets), np.int64)
    for start, end in zip([0, *joins], [*joins, len(packets)]):
        part = sorted(
            range(start, end), key=lambda i: (packets[i].pts is not None, packets[i].pts or 0)
        )
        stamps[start:end] = [packets[i].pts or 0 for i in part]
        order += part
    if joins:
        steps = np.diff(stamps)
        jumps = steps * unit > _LONGEST_GAP  # the last before a join may have the time behind it
        jumps[np.array(joins) - 1] = True
        steps[jumps] = max(1, round(1 / (rate * unit)))
        stamps[1:] = stamps[0] + np.cumsum(steps)
    return order, stamps


def is_hidden(codec_name: str, packet: Any) -> bool:
    """VP8 stores reference frames that are never shown as packets (RFC 6386, 9.1)."""
    return codec_name.startswith(("vp8", "libvpx")) and not bytes(packet)[0] >> 4 & 1


def nal_length_size(codec_name: str, extradata: bytes | None) -> int:
    """Bytes of the length before each H.264 unit (avcC of ISO 14496-15); 0 for other layouts."""
    if codec_name != "h264" or not extradata or len(extradata) < 7 or extradata[0] != 1:
        return 0
    return (extradata[4] & 3) + 1


def well_formed(data: bytes, length_size: int) -> bool:
    """Whether H.264 units fill the packet exactly and its first slice starts a picture."""
    place, first_slice = 0, False
    while place < len(data):
        start = place + length_size
        place = start + int.from_bytes(data[place:start], "big")
        if not start < place <= len(data) or data[start] & 128 or not data[start] & 31:
            return False
        if not first_slice and data[start] & 31 in (1, 5):
            # The slice's first field, a variable-length number, is 0: a single 1 bit.
            if start + 1 >= place or not data[start + 1] & 128:
                return False
            first_slice = True
    return first_slice

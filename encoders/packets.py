"""What a stream's packets tell by themselves: order, joins, fields, and if they are well formed.

Section numbers are those of ITU-R H.264 (ISO 14496-10).
"""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import av
import numpy as np

_SEQUENCE, _SLICES = 7, (1, 2, 5)  # nal_unit_type of a parameter set, and of what begins a picture
_HEADER_BYTES = 32  # enough of a slice for what is read of its header
_WITH_CHROMA = (44, 83, 86, 100, 110, 118, 122, 128, 134, 135, 138, 139, 244)  # by profile_idc
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
    except (av.FFmpegError, IndexError):  # PyAV fails at its end if a stream has come to light
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


class FieldPairs:
    """Tells of the packets of a stream, in the order of the file, which complete a frame.

    In interlaced H.264 each field may be a picture of its own, in a packet of its own and with a
    time stamp of its own (PAFF, as in broadcasts); a decoder makes one frame of two.

    Args:
        codec_name, extradata: Of the stream.
    """

    def __init__(self, codec_name: str, extradata: bytes | None) -> None:
        self._h264 = codec_name == "h264"
        self._length_bytes = nal_length_size(codec_name, extradata)
        self._fields: _Fields | None = None
        self._first: tuple[int, int] | None = None  # frame_num and parity of a field that is alone
        if self._h264 and extradata:
            avcc = self._length_bytes > 0  # whose sets stand behind their length in two bytes
            self._learn(_units(extradata[6:], 2) if avcc else _units(extradata, 0))

    def completed_by(self, packet: Any) -> bool:
        """Whether it holds just the second field of the frame that the packet before began."""
        if not self._h264 or not (packet.is_keyframe or self._fields):
            return False
        data = bytes(packet)
        if packet.is_keyframe:
            self._learn(_units(data, self._length_bytes))
        if self._fields is None:
            return False
        slices = (unit for unit in _units(data, self._length_bytes) if unit[0] & 31 in _SLICES)
        found = [field for unit in slices if (field := self._fields.read(unit))]
        pair = {parity for _, parity in found} == {0, 1}  # both in one packet
        first, self._first = self._first, found[0] if found and not pair else None
        if not found or pair or first is None or first != (found[0][0], 1 - found[0][1]):
            return False
        self._first = None
        return True

    def _learn(self, units: Iterator[bytes]) -> None:
        """Keep what the first parameter set says, if there is one before any slice."""
        for unit in units:
            if unit[0] & 31 == _SEQUENCE:
                try:
                    self._fields = _fields_of(unit)
                except (IndexError, ValueError):
                    self._fields = None
                return
            if unit[0] & 31 in _SLICES:
                return


class _Fields(NamedTuple):
    """What it takes to read the beginning of slice headers (7.3.3)."""

    planes: bool  # whether each colour has slices of its own
    number_bits: int  # of frame_num

    def read(self, unit: bytes) -> tuple[int, int] | None:
        """A slice's frame_num, and 0 for a top, 1 for a bottom field; None in a whole frame."""
        try:
            bits = _Bits(unit[1:_HEADER_BYTES])
            for _ in range(3):  # first_mb_in_slice, slice_type, pic_parameter_set_id
                bits.golomb()
            bits.read(2 * self.planes)
            number = bits.read(self.number_bits)
            return (number, bits.read(1)) if bits.read(1) else None
        except (IndexError, ValueError):
            return None


def _fields_of(unit: bytes) -> _Fields | None:
    """A sequence parameter set (7.3.2.1.1), or None where all pictures are whole frames."""
    bits = _Bits(unit[1:])
    profile, planes = bits.read(24) >> 16, False
    bits.golomb()  # seq_parameter_set_id
    if profile in _WITH_CHROMA:
        chroma = bits.golomb()
        planes = chroma == 3 and bool(bits.read(1))
        bits.golomb(), bits.golomb(), bits.read(1)  # bit depths, qpprime_y_zero_transform_bypass
        if bits.read(1):
            for place in range(12 if chroma == 3 else 8):
                if bits.read(1):
                    bits.skip_scaling_list(16 if place < 6 else 64)
    number_bits = bits.golomb() + 4
    order = bits.golomb()
    if order == 0:
        bits.golomb()
    elif order == 1:
        bits.read(1), bits.golomb(), bits.golomb()
        for _ in range(bits.golomb()):
            bits.golomb()
    bits.golomb(), bits.read(1), bits.golomb(), bits.golomb()  # references, gaps, width, height
    return None if bits.read(1) else _Fields(planes, number_bits)


class _Bits:
    """Reads a unit's payload (7.2, 9.1)."""

    def __init__(self, data: bytes) -> None:
        data = data.replace(b"\0\0\3", b"\0\0")
        self._bits = format(int.from_bytes(data, "big"), f"0{8 * len(data)}b") if data else ""
        self._place = 0

    def read(self, count: int) -> int:
        start, self._place = self._place, self._place + count
        if self._place > len(self._bits):
            raise IndexError("the unit ends")
        return int(self._bits[start : self._place] or "0", 2)

    def golomb(self) -> int:
        """A number of variable length; signed ones come as their code."""
        zeros = self._bits.index("1", self._place) - self._place
        self._place += zeros
        return self.read(zeros + 1) - 1

    def skip_scaling_list(self, size: int) -> None:
        last = 8
        for _ in range(size):  # ends where the next would be 0
            code = self.golomb()
            last = (last + ((code + 1) // 2 if code % 2 else -code // 2)) % 256
            if not last:
                return


def _units(data: bytes, length_size: int) -> Iterator[bytes]:
    """The units of a packet: each behind its length, or behind a start code (0)."""
    if not length_size:
        yield from filter(None, data.split(b"\0\0\1")[1:])
        return
    place = 0
    while place < len(data):
        start = place + length_size
        place = start + int.from_bytes(data[place:start], "big")
        if start < len(data) and place > start:
            yield data[start:place]

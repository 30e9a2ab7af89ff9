"""What the first slice of an H.264 or H.265 packet says about its picture."""

from __future__ import annotations

from typing import NamedTuple

_H265_BEHIND_PARAMETER_SETS = 32
_H265_RESTARTS = (19, 20)
"""IDR pictures. A picture after one of the other random access points may still look behind it."""


class Picture(NamedTuple):
    """Place of a picture in the dependencies of its stream."""

    restart: bool
    """No picture from here on, in decoding order, looks at an earlier one."""
    unused: bool
    """No other picture of its layer looks at this one."""
    layer: int
    """Temporal layer; pictures of higher layers may look at it."""


def length_size(codec: str, extradata: bytes) -> int:
    """Bytes of the length in front of every unit; 0 where start codes part them."""
    place = {"h264": 4, "hevc": 21}[codec]
    return (extradata[place] & 3) + 1 if len(extradata) > place and extradata[0] == 1 else 0


def first_picture(codec: str, packet: memoryview, size: int) -> Picture | None:
    """Of the first slice in `packet`; None if none is found.

    Args:
        codec: h264 | hevc
        size: as `length_size` gave it.
    """
    place = 0
    while (start := _unit(packet, place, size)) is not None:
        begin, place = start
        found = _h264(packet[begin]) if codec == "h264" else _h265(packet[begin], packet[begin + 1])
        if found is not None:
            return found
    return None


def _unit(packet: memoryview, place: int, size: int) -> tuple[int, int] | None:
    """(where the next unit begins, where to look for the one behind it)."""
    if size:
        begin = place + size
        if begin + 2 > len(packet):
            return None
        return begin, begin + int.from_bytes(packet[place:begin], "big")
    found = bytes(packet[place : place + 4096]).find(b"\0\0\1")
    if found < 0 or place + found + 5 > len(packet):
        return None
    return place + found + 3, place + found + 3


def _h264(header: int) -> Picture | None:
    kind = header & 31
    if kind not in (1, 2, 5):
        return None
    return Picture(restart=kind == 5, unused=(header >> 5) & 3 == 0, layer=0)


def _h265(header: int, second: int) -> Picture | None:
    kind = (header >> 1) & 63
    if kind >= _H265_BEHIND_PARAMETER_SETS:
        return None
    return Picture(restart=kind in _H265_RESTARTS, unused=kind < 16 and kind % 2 == 0, layer=(second & 7) - 1)

"""Which packets of a video must be decoded for the frames that are wanted. Numbers only; nothing is decoded here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data_pipeline.media.nal import Picture, first_picture, length_size

Ints = NDArray[np.int64]
Flags = NDArray[np.bool_]

CONTAINERS = ("mp4", "matroska")
"""In these a packet is a whole picture; elsewhere it may be a field or several pictures."""
CODECS = ("h264", "hevc", "vp9")


@dataclass(frozen=True)
class PacketIndex:
    """Every picture of a stream in decoding order, N packets."""

    stamps: Ints
    """[N] presentation time in the stream's units, no two the same."""
    restart: Flags
    """[N] nothing from here on depends on an earlier packet; the first always is one."""
    unused: Flags
    """[N] no other picture depends on it."""

    def __len__(self) -> int:
        return len(self.stamps)

    def shown(self) -> Ints:
        """[N] packet of every frame in the order of showing."""
        return np.argsort(self.stamps, kind="stable")

    def needed(self, wanted: Ints) -> Flags:
        """[N] whether a packet must be decoded.

        Those are the wanted ones, and in front of each, back to the latest restart, all on which others depend.

        Args:
            wanted: packets, in any order.
        """
        mine = np.zeros(len(self), dtype=np.bool_)
        mine[wanted] = True
        group = np.cumsum(self.restart) - 1
        last = np.full(int(group[-1]) + 1, -1, dtype=np.int64)  # [groups] latest wanted packet of each
        np.maximum.at(last, group[wanted], wanted)
        looked_at: Flags = (np.arange(len(self)) < last[group]) & ~self.unused
        return np.logical_or(mine, looked_at)

    def used_neighbours(self, frames: Sequence[int]) -> list[int]:
        """For each frame number the nearest one on which others depend, the earlier of two."""
        used = np.flatnonzero(~self.unused[self.shown()])
        if not len(used):
            return list(frames)
        behind = np.searchsorted(used, frames).clip(max=len(used) - 1)
        before = (behind - 1).clip(min=0)
        asked = np.asarray(frames)
        nearer = np.where(np.abs(used[before] - asked) <= np.abs(used[behind] - asked), used[before], used[behind])
        return nearer.tolist()  # type: ignore[no-any-return]


def index_packets(container: Any, stream: Any) -> PacketIndex | None:
    """Read all packets once, without decoding.

    Args:
        container, stream: of PyAV, at the beginning; the container is left at its end.

    Returns:
        None where the packets do not tell enough, and the frames must be counted while all are decoded.
    """
    context = stream.codec_context
    codec = context.codec.canonical_name
    if codec not in CODECS or not any(name in container.format.name.split(",") for name in CONTAINERS):
        return None
    size = 0 if codec == "vp9" else length_size(codec, bytes(context.extradata or b""))
    stamps, pictures = [], []
    for packet in container.demux(stream):
        if not packet.size:
            continue
        if codec == "vp9":
            picture: Picture | None = Picture(packet.is_keyframe, False, 0)
        else:
            picture = first_picture(codec, memoryview(packet), size)
        if picture is None or packet.pts is None or packet.is_corrupt or packet.is_discard:
            return None
        stamps.append(packet.pts)
        pictures.append(picture)
    if not stamps or not pictures[0].restart or len(set(stamps)) < len(stamps):
        return None
    top = max(p.layer for p in pictures)
    return PacketIndex(
        stamps=np.asarray(stamps, dtype=np.int64),
        restart=np.asarray([p.restart for p in pictures]),
        unused=np.asarray([p.unused and p.layer == top for p in pictures]),
    )

"""Decoding the frames that a plan asks for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from data_pipeline.media.backend import Decoding
from data_pipeline.media.decode import load_frames
from data_pipeline.media.image import load_image
from data_pipeline.packing.plan import Slot
from data_pipeline.schema import Media


def decode_slots(
    slots: Sequence[Slot],
    media: Sequence[Media],
    members: Mapping[str, bytes],
    size: int,
    where: str,
    decoding: Decoding | None = None,
) -> torch.Tensor:
    """Frames in the order of `slots`; every file is decoded once.

    Args:
        members: content of each media file by its `file`.
        decoding: how videos are decoded; as `Decoding()` says by default.

    Returns:
        uint8 [F, 3, size, size].

    Raises:
        InputError: a file is damaged.
    """
    used = sorted({slot.media for slot in slots})
    if len(used) == 1 and media[used[0]].type == "video":
        return _video(slots, media[used[0]], members, size, where, decoding)
    frames = torch.empty(len(slots), 3, size, size, dtype=torch.uint8)
    for index in used:
        item = media[index]
        places = [i for i, slot in enumerate(slots) if slot.media == index]
        if item.type == "image":
            frames[places] = load_image(members[item.file], size, f"{where}.{item.file}")
        else:
            frames[places] = _video([slots[i] for i in places], item, members, size, where, decoding)
    return frames


def _video(
    slots: Sequence[Slot], media: Media, members: Mapping[str, bytes], size: int, where: str, decoding: Decoding | None
) -> torch.Tensor:
    indices, times = [s.frame for s in slots], [s.time for s in slots]
    return load_frames(members[media.file], indices, size, f"{where}.{media.file}", times, decoding)

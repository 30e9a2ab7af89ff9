"""Decoding the frames that a plan asks for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from data_pipeline.media.decode import load_frames
from data_pipeline.media.image import load_image
from data_pipeline.schema import Media


def decode_slots(
    slots: Sequence[tuple[int, int]], media: Sequence[Media], members: Mapping[str, bytes], size: int, where: str
) -> torch.Tensor:
    """Frames in the order of `slots`; every file is decoded once.

    Args:
        slots: (media, frame number) of each frame.
        members: content of each media file by its `file`.

    Returns:
        uint8 [F, 3, size, size].

    Raises:
        InputError: a file is damaged.
    """
    used = sorted({index for index, _ in slots})
    if len(used) == 1 and media[used[0]].type == "video":
        only = media[used[0]]
        return load_frames(members[only.file], [frame for _, frame in slots], size, f"{where}.{only.file}")
    frames = torch.empty(len(slots), 3, size, size, dtype=torch.uint8)
    for index in used:
        item = media[index]
        places = [i for i, slot in enumerate(slots) if slot[0] == index]
        name = f"{where}.{item.file}"
        if item.type == "image":
            frames[places] = load_image(members[item.file], size, name)
        else:
            frames[places] = load_frames(members[item.file], [slots[i][1] for i in places], size, name)
    return frames

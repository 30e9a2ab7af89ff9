"""Frames put away in the host's memory, and the ones among them that look most like the present."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from inference.cache.frame_page import FramePage
from inference.cache.pool import KVPool, PageContent


@dataclass(frozen=True)
class ArchivedFrame:
    """One frame outside the pool. Never changed, so forks share it."""

    page: FramePage
    content: PageContent
    """In pinned memory of the host where the pool is on a GPU."""
    look: torch.Tensor
    """fp32 [layers * kv_heads * head_dim] on the pool's device, of length 1: see `look_of`."""
    renumberings: int
    """Of the session when the frame was put away: its position means something until the next one."""


def look_of(pool: KVPool, page: int) -> torch.Tensor:
    """What a frame looks like: its class token's values in every cross layer, scaled to length 1.

    A value is a linear image of the class token's feature, neither rotated nor normalised, so that the cosine of two
    of them does not depend on where the frames stand.
    """
    rows = [pool.gather(layer, [page], 1)[1].float().flatten() for layer in range(pool.shape.layers)]
    return torch.nn.functional.normalize(torch.cat(rows), dim=0)


def put_away(pool: KVPool, page: int, stands_for: FramePage, renumberings: int) -> ArchivedFrame:
    """Copy a page to the host; its copy is enqueued behind what wrote the page, so the page may be given back at once."""
    content = pool.load_page(page)
    if pool.device.type == "cuda":
        content = PageContent(*(_to_host(tensor) for tensor in (content.vectors, content.scales, content.raw_keys)))  # type: ignore[arg-type]
    return ArchivedFrame(stands_for, content, look_of(pool, page), renumberings)


def most_alike(archive: Sequence[ArchivedFrame], look: torch.Tensor, count: int) -> list[int]:
    """Numbers of the `count` frames most like `look`, in order of time. Waits for the device once.

    Args:
        look: [layers * kv_heads * head_dim], of length 1.
    """
    if not archive or count < 1:
        return []
    similarity = torch.stack([frame.look for frame in archive]) @ look  # [archived]
    found: list[int] = similarity.topk(min(count, len(archive))).indices.tolist()
    return sorted(found)


def _to_host(tensor: torch.Tensor | None) -> torch.Tensor | None:
    if tensor is None:
        return None
    host = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
    return host.copy_(tensor, non_blocking=True)

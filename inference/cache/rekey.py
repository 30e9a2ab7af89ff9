"""Keys made anew from what they were before rotation and normalisation: exact renumbering, and keys of pooled tokens.

In a cross layer a key is rotated and then normalised with a weight for each channel, so turning a stored key by the
difference of two positions would not give the key of the other position: the unrotated key has to be kept.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import torch

from inference.cache.frame_page import FramePage
from inference.cache.session_cache import SessionCache
from inference.kernels.norms import rms_norm
from inference.model.rotary import Rotary
from model.config import VideoMllamaConfig
from model.text.rope import apply_rope


class KeyMaker:
    """Turns unrotated keys into the ones that attention reads, with the arithmetic of the layers.

    Args:
        config: rotary frequencies and the epsilon of the norm.
        key_norms: weight [head_dim] of each cross layer's key norm.
    """

    def __init__(self, config: VideoMllamaConfig, key_norms: Sequence[torch.Tensor]) -> None:
        self.config, self.key_norms = config, list(key_norms)
        self._rotary: Rotary | None = None

    def rope(self, positions: Sequence[int], like: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(cos, sin) [n, head_dim] of positions, where `like` lives and in its dtype."""
        if self._rotary is None:  # all pools are those of one model
            self._rotary = Rotary(self.config, like.device, like.dtype)
        return self._rotary(torch.tensor(positions, dtype=torch.int64).to(like.device, non_blocking=True))

    def frame_keys(self, layer: int, raw: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
        """[n, kv_heads, head_dim] -> the same: rotated by the rows of (cos, sin) [n, head_dim], then normalised."""
        return rms_norm(apply_rope(raw, cos, sin), self.key_norms[layer], self.config.text.rms_norm_eps)


def renumber(cache: SessionCache, maker: KeyMaker, order: Sequence[float] | None = None) -> None:
    """Number the positions of what is kept without gaps, in place, and rotate its keys anew.

    A row and a frame that had the same position (an image token and its frame) have the same one afterwards. A page
    that stands for several frames has one position afterwards.

    Args:
        cache: the session; pages that it shares are copied first.
        maker: makes the keys.
        order: where each page of frames stands among the old positions; None: where it stood.

    Raises:
        InputError: the pools keep no unrotated keys.
        OutOfPagesError: no room for the copies of shared pages.
    """
    places = [page.positions[-1] for page in cache.pages] if order is None else list(order)
    rank = {place: number for number, place in enumerate(sorted({*cache.row_positions, *places}))}
    rows = [rank[position] for position in cache.row_positions]
    pages = [(rank[place],) for place in places]
    cache.own_pages()
    _rotate_rows(cache, maker, rows)
    _rotate_frames(cache, maker, pages)
    cache.row_positions[:] = rows
    cache.pages[:] = [_moved(page, positions) for page, positions in zip(cache.pages, pages, strict=True)]
    cache.next_position = len(rank)
    cache.renumberings += 1


def _rotate_rows(cache: SessionCache, maker: KeyMaker, positions: Sequence[int]) -> None:
    """Write the self layers' keys at new positions, from the first row that moves on."""
    pool, size = cache.self_pool, cache.self_pool.page_rows
    moved = next((i for i, (old, new) in enumerate(zip(cache.row_positions, positions, strict=True)) if old != new), None)
    if moved is None:
        return
    first = moved // size
    used = cache.self_table[first : -(-cache.length // size)]
    pages = torch.tensor(used, dtype=torch.int64).to(pool.device, non_blocking=True)
    count = cache.length - first * size
    slots = (pages[:, None] * size + torch.arange(size, device=pool.device)).flatten()[:count]
    cos, sin = maker.rope(positions[first * size :], pool.raw_keys(0))
    for layer in range(pool.shape.layers):
        raw = pool.gather_raw_keys(layer, pages).flatten(0, 1)[:count]
        pool.write_keys(layer, slots, apply_rope(raw, cos, sin))


def _rotate_frames(cache: SessionCache, maker: KeyMaker, positions: Sequence[tuple[int, ...]]) -> None:
    """Write the cross layers' keys at new positions, of the pages that move."""
    pool, size = cache.cross_pool, cache.cross_pool.page_rows
    moved = [i for i, (page, new) in enumerate(zip(cache.pages, positions, strict=True)) if page.positions != new]
    if not moved:
        return
    pages = torch.tensor([cache.cross_table[i] for i in moved], dtype=torch.int64).to(pool.device, non_blocking=True)
    slots = (pages[:, None] * size + torch.arange(size, device=pool.device)).flatten()
    cos, sin = (table.repeat_interleave(size, 0) for table in maker.rope([positions[i][0] for i in moved], pool.raw_keys(0)))
    for layer in range(pool.shape.layers):
        raw = pool.gather_raw_keys(layer, pages).flatten(0, 1)
        pool.write_keys(layer, slots, maker.frame_keys(layer, raw, cos, sin))


def _moved(page: FramePage, positions: tuple[int, ...]) -> FramePage:
    return dataclasses.replace(page, positions=positions)

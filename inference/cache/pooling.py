"""Old frames made smaller: first patches two by two, then the class token alone.

Frames are pooled in batches of as many frames as a frame has tokens (P). A batch then fills whole pages: P frames of
p pooled tokens are p pages of P rows, and their P class tokens are one page.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from inference.cache.frame_page import FramePage, PageKind
from inference.cache.patch_grid import grid_side, pooled_tokens
from inference.cache.rekey import KeyMaker
from inference.cache.session_cache import SessionCache


def pool_matrix(tokens_per_frame: int) -> torch.Tensor:
    """fp32 [pooled tokens, tokens]: the class token stays, patches become means of 2 x 2 (fewer at an odd edge)."""
    side = grid_side(tokens_per_frame)
    half = -(-side // 2)
    matrix = torch.zeros(1 + half * half, tokens_per_frame)
    matrix[0, 0] = 1
    for row in range(side):
        for column in range(side):
            matrix[1 + row // 2 * half + column // 2, 1 + row * side + column] = 1
    return matrix / matrix.sum(1, keepdim=True)


def pool_batch(cache: SessionCache, maker: KeyMaker, begin: int) -> None:
    """Make the P frames from page `begin` on into one batch of pooled frames, each at its own position.

    Raises:
        InputError: the pool keeps no unrotated keys.
    """
    pool = cache.cross_pool
    size = pool.page_rows
    frames = cache.pages[begin : begin + size]
    assert all(len(frame.positions) == 1 and frame.kind is PageKind.FRAME for frame in frames) and len(frames) == size
    matrix = pool_matrix(size).to(pool.device, pool.dtype)
    small = matrix.shape[0]
    positions = [frame.positions[0] for frame in frames for _ in range(small)]
    made = []
    for i in range(small):
        last = frames[((i + 1) * size - 1) // small]
        first = frames[i * size // small]
        rows = tuple(positions[i * size : (i + 1) * size])
        made.append(FramePage(rows, first.number, PageKind.POOLED, last.time))

    def shrink(rows: torch.Tensor) -> torch.Tensor:
        return torch.einsum("qp,fphd->fqhd", matrix, rows.unflatten(0, (size, size))).flatten(0, 1)

    _rewrite(cache, maker, begin, size, made, positions, shrink)


def keep_class_tokens(cache: SessionCache, maker: KeyMaker, begin: int) -> None:
    """Make one batch of pooled frames, the p pages from `begin` on, into the page of their class tokens."""
    size = cache.cross_pool.page_rows
    small = pooled_tokens(size)
    pages = cache.pages[begin : begin + small]
    assert all(page.kind is PageKind.POOLED for page in pages) and len(pages) == small
    rows = [page.positions * (size // len(page.positions)) for page in pages]
    every = [position for page in rows for position in page]
    made = FramePage(tuple(every[::small]), pages[0].number, PageKind.CLASS, pages[-1].time)
    # A copy: the rows given may lie where the new ones are written.
    _rewrite(cache, maker, begin, small, [made], every[::small], lambda rows: rows[::small].clone())


def _rewrite(
    cache: SessionCache,
    maker: KeyMaker,
    begin: int,
    count: int,
    made: Sequence[FramePage],
    positions: Sequence[int],
    shrink: Callable[[torch.Tensor], torch.Tensor],
) -> None:
    """Replace `count` pages by fewer that hold `shrink` of their unrotated keys and of their values.

    Args:
        made: what the new pages stand for.
        positions: of each new row.
        shrink: [count * P, kv_heads, head_dim] -> [len(made) * P, kv_heads, head_dim], linear, in memory of its own.
    """
    pool, size = cache.cross_pool, cache.cross_pool.page_rows
    old = cache.cross_table[begin : begin + count]
    own = all(pool.allocator.count(page) == 1 for page in old)
    # Layers are done one after the other, and each is read before it is written: its own first pages are room enough.
    target = old[: len(made)] if own else pool.take(len(made))
    index = torch.tensor(old, dtype=torch.int64).to(pool.device, non_blocking=True)
    pages = torch.tensor(target, dtype=torch.int64).to(pool.device, non_blocking=True)
    slots = (pages[:, None] * size + torch.arange(size, device=pool.device)).flatten()
    cos, sin = maker.rope(positions, pool.raw_keys(0))
    for layer in range(pool.shape.layers):
        raw = shrink(pool.gather_raw_keys(layer, index).flatten(0, 1))
        values = shrink(pool.gather(layer, old, count * size)[1])
        pool.write(layer, slots, maker.frame_keys(layer, raw, cos, sin), values, raw)
    if own:
        pool.allocator.share(target)
    cache.drop_frames(begin, count)
    cache.insert_frames(begin, target, made)

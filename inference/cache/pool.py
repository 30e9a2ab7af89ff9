"""The memory of all sessions: pages of keys and values, shared by every layer of one kind."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch

from inference.cache.allocator import OutOfPagesError, PageAllocator
from inference.quantize.rows import quantize_rows
from model.errors import InputError

FP8 = torch.float8_e4m3fn


@dataclass(frozen=True, kw_only=True)
class PoolShape:
    """What fixes the bytes of a page."""

    layers: int
    page_rows: int
    """Rows of a page: the tokens of a frame, or a number of text positions."""
    kv_heads: int
    head_dim: int
    fp8: bool = False
    """Keys and values as float8_e4m3fn with one fp32 scale for each row and head."""
    raw_keys: bool = False
    """Keep each key also as it was projected, neither rotated nor normalised."""

    def page_bytes(self, dtype: torch.dtype) -> int:
        """Bytes of a page over all layers."""
        vectors = self.layers * self.page_rows * self.kv_heads
        vector = self.head_dim * dtype.itemsize
        stored = self.head_dim + 4 if self.fp8 else vector
        return vectors * (2 * stored + (vector if self.raw_keys else 0))


@dataclass(frozen=True)
class PageContent:
    """What one page holds in all layers, as bytes that go back unchanged."""

    vectors: torch.Tensor
    """uint8 [layer, 2, page_rows, kv_heads, bytes of a vector]"""
    scales: torch.Tensor | None
    """fp32 [layer, 2, page_rows, kv_heads] of an fp8 pool."""
    raw_keys: torch.Tensor | None
    """[layer, page_rows, kv_heads, head_dim], where the pool keeps them."""

    @property
    def num_bytes(self) -> int:
        found = (self.vectors, self.scales, self.raw_keys)
        return sum(tensor.numel() * tensor.element_size() for tensor in found if tensor is not None)


class KVPool:
    """Keys and values `[layer, 2, page, page_rows, kv_heads, head_dim]`; keys are stored as attention reads them.

    Page 0 is scratch. The pool keeps no record of what a page holds: that is the session's table.

    Args:
        shape: layers and page.
        pages: pages to begin with, the scratch page included.
        device: where the pages live.
        dtype: of the model; also of the pages, unless they are fp8.
        fixed: refuse to grow, because others hold the addresses (CUDA graphs do).
        lock: a reentrant one, held by whoever computes with the pages: they do not move meanwhile. None: the pool's own.
    """

    def __init__(
        self,
        shape: PoolShape,
        pages: int,
        device: torch.device,
        dtype: torch.dtype,
        *,
        fixed: bool = False,
        lock: AbstractContextManager[Any] | None = None,
    ) -> None:
        self.shape, self.device, self.dtype, self.fixed = shape, device, dtype, fixed
        self.lock = lock or threading.RLock()
        self.allocator = PageAllocator(pages)
        self.generation = 0
        """Changes when the pages have moved in memory."""
        self._store: torch.Tensor
        self._scales: torch.Tensor | None
        self._raw: torch.Tensor | None
        self._make(pages)

    @property
    def page_rows(self) -> int:
        return self.shape.page_rows

    @property
    def pages(self) -> int:
        """All pages, the scratch page included."""
        return self.allocator.pages

    @property
    def num_bytes(self) -> int:
        """Bytes of all pages, free ones included."""
        return self.pages * self.page_bytes

    @property
    def page_bytes(self) -> int:
        """Bytes of a page over all layers."""
        return self.shape.page_bytes(self.dtype)

    def keys(self, layer: int) -> torch.Tensor:
        """[page, page_rows, kv_heads, head_dim] of one layer."""
        return self._store[layer, 0]

    def values(self, layer: int) -> torch.Tensor:
        """[page, page_rows, kv_heads, head_dim] of one layer."""
        return self._store[layer, 1]

    def scales(self, layer: int) -> torch.Tensor | None:
        """fp32 [2, page, page_rows, kv_heads] of an fp8 pool's keys and values, else None."""
        return None if self._scales is None else self._scales[layer]

    def raw_keys(self, layer: int) -> torch.Tensor:
        """[page, page_rows, kv_heads, head_dim], neither rotated nor normalised.

        Raises:
            InputError: the pool does not keep them.
        """
        if self._raw is None:
            raise InputError("this cache keeps no unrotated keys; make it with raw_keys=True")
        return self._raw[layer]

    def take(self, pages: int) -> list[int]:
        """Pages that nobody holds; the pool grows for them where it may.

        Raises:
            OutOfPagesError: a fixed pool has too few, or the device's memory is full.
        """
        with self.lock:
            missing = pages - self.allocator.free_pages
            if missing > 0 and not self.fixed:
                least = self.pages + missing
                try:
                    self.grow(max(least, 2 * self.pages))
                except OutOfPagesError:  # old and new pages are there at the same time: a smaller step may fit
                    self.grow(least + self.pages // 8)
            return self.allocator.take(pages)

    def grow(self, pages: int) -> None:
        """Move to a larger block of `pages` pages.

        Raises:
            InputError: the pool is fixed.
            OutOfPagesError: the device's memory is full; the pool is as before.
        """
        if self.fixed:
            raise InputError(f"this cache is fixed at {self.pages} pages; make it larger when the engine is made")
        with self.lock:
            self._grow(pages)

    def _grow(self, pages: int) -> None:
        old = (self._store, self._scales, self._raw)
        used = self.pages
        try:
            self._make(pages)
        except torch.OutOfMemoryError as error:
            self._store, self._scales, self._raw = old
            raise OutOfPagesError(
                f"the cache cannot grow from {used} to {pages} pages of {self.page_bytes} bytes, the device's memory is full; "
                "end a session, or bound what it keeps by a policy (--cross_policy, --text_window)"
            ) from error
        self.allocator.extend(pages)
        for before, now in zip(old, (self._store, self._scales, self._raw), strict=True):
            if before is not None and now is not None:
                axis = 1 if before is old[2] else 2
                now.narrow(axis, 0, used).copy_(before)
        self.generation += 1

    def write(
        self,
        layer: int,
        slots: torch.Tensor,
        keys: torch.Tensor,
        values: torch.Tensor,
        raw_keys: torch.Tensor | None = None,
    ) -> None:
        """Put rows into their slots.

        Args:
            layer: index among the layers of this pool.
            slots: int64 [n], page * page_rows + row; where several are equal (padding in the scratch page), any one stays.
            keys: [n, kv_heads, head_dim], rotated (cross: then normalised).
            values: [n, kv_heads, head_dim].
            raw_keys: [n, kv_heads, head_dim] as projected; needed where the pool keeps them.
        """
        self._put(layer, 0, slots, keys)
        self._put(layer, 1, slots, values)
        if self._raw is not None:
            if raw_keys is None:
                raise InputError("this cache keeps unrotated keys; write them together with the rotated ones")
            self._raw[layer].flatten(0, 1).index_copy_(0, slots, raw_keys.to(self.dtype))

    def write_keys(self, layer: int, slots: torch.Tensor, keys: torch.Tensor) -> None:
        """Replace the keys of rows whose values and unrotated keys stay: positions were renumbered.

        Args:
            layer: index among the layers of this pool.
            slots: int64 [n].
            keys: [n, kv_heads, head_dim], rotated (cross: then normalised).
        """
        self._put(layer, 0, slots, keys)

    def gather(self, layer: int, table: Sequence[int], limit: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Keys and values of a session's first `limit` rows, [limit, kv_heads, head_dim] each, in the model's dtype.

        A view where the pages of the table are neighbours and not fp8, else a copy.
        """
        pages = list(table[: -(-limit // self.page_rows)])
        if not pages:
            empty = self.keys(layer)[:0].flatten(0, 1).to(self.dtype)
            return empty, empty
        neighbours = pages == list(range(pages[0], pages[0] + len(pages)))
        index = None if neighbours else torch.tensor(pages, dtype=torch.int64).to(self.device, non_blocking=True)
        found = []
        for part in (0, 1):
            block = self._store[layer, part]
            rows = block[pages[0] : pages[0] + len(pages)] if index is None else _select(block, index)
            if self._scales is not None:
                scale = self._scales[layer, part]
                scale = scale[pages[0] : pages[0] + len(pages)] if index is None else scale[index]
                rows = (rows.float() * scale[..., None]).to(self.dtype)
            found.append(rows.flatten(0, 1)[:limit])
        return found[0], found[1]

    def gather_raw_keys(self, layer: int, pages: torch.Tensor) -> torch.Tensor:
        """[pages, page_rows, kv_heads, head_dim] of pages int64 [n], neither rotated nor normalised."""
        return self.raw_keys(layer)[pages]

    def load_page(self, page: int) -> PageContent:
        """A copy of everything that a page holds, in all layers."""
        with self.lock:
            raw = None if self._raw is None else self._raw[:, page].clone()
            scales = None if self._scales is None else self._scales[:, :, page].clone()
            return PageContent(self._store.view(torch.uint8)[:, :, page].clone(), scales, raw)

    def store_page(self, page: int, content: PageContent) -> None:
        """Put back what `load_page` returned, wherever its tensors are now."""
        with self.lock:
            self._store.view(torch.uint8)[:, :, page].copy_(content.vectors, non_blocking=True)
            if self._scales is not None and content.scales is not None:
                self._scales[:, :, page].copy_(content.scales, non_blocking=True)
            if self._raw is not None and content.raw_keys is not None:
                self._raw[:, page].copy_(content.raw_keys, non_blocking=True)

    def copy_page(self, source: int, target: int) -> None:
        """Everything that a page holds, in all layers, into another page."""
        with self.lock:
            self._store.view(torch.uint8)[:, :, target] = self._store.view(torch.uint8)[:, :, source]
            if self._scales is not None:
                self._scales[:, :, target] = self._scales[:, :, source]
            if self._raw is not None:
                self._raw[:, target] = self._raw[:, source]

    def _put(self, layer: int, part: int, slots: torch.Tensor, given: torch.Tensor) -> None:
        rows = self._store[layer, part].flatten(0, 1)  # [page * page_rows, kv_heads, head_dim], a view
        if self._scales is None:
            rows.index_copy_(0, slots, given.to(rows.dtype))
            return
        quantised, scale = quantize_rows(given)
        # index_copy_ has no float8 form; the bytes have.
        rows.view(torch.uint8).index_copy_(0, slots, quantised.view(torch.uint8))
        self._scales[layer, part].flatten(0, 1).index_copy_(0, slots, scale)

    # Pages outlive the inference mode in which a step may make them: others write to them outside of it.
    @torch.inference_mode(False)
    def _make(self, pages: int) -> None:
        shape = self.shape
        page = (shape.page_rows, shape.kv_heads, shape.head_dim)
        # Zeros: what no row has written yet is masked, but it must be finite (0 * nan is nan).
        self._store = torch.zeros(
            shape.layers, 2, pages, *page, device=self.device, dtype=torch.uint8 if shape.fp8 else self.dtype
        )
        if shape.fp8:
            self._store = self._store.view(FP8)
        self._scales = (
            torch.zeros(shape.layers, 2, pages, *page[:2], device=self.device, dtype=torch.float32) if shape.fp8 else None
        )
        self._raw = torch.zeros(shape.layers, pages, *page, device=self.device, dtype=self.dtype) if shape.raw_keys else None


def _select(block: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    """block[index] along the first axis, also for float8."""
    if block.dtype == FP8:
        return block.view(torch.uint8)[index].view(FP8)
    return block[index]

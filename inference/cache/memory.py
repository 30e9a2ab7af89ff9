"""The two pools that all sessions of one engine share."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from inference.cache.paged_session import PagedSessionCache
from inference.cache.pool import KVPool, PoolShape
from model.config import VideoMllamaConfig
from model.errors import InputError

ROWS_PER_PAGE = 64
"""Text positions in a page of the self pool."""


@dataclass(frozen=True, kw_only=True)
class MemoryOptions:
    """How much is kept, and in what form."""

    max_rows: int = 256
    """Text positions of all sessions together; where the pools may grow, those to begin with."""
    max_frames: int = 16
    """Frames of all sessions together; where the pools may grow, those to begin with."""
    fixed: bool = False
    """Refuse to grow: on a GPU, where CUDA graphs hold the addresses."""
    fp8_frames: bool = False
    """Keys and values of frames as float8_e4m3fn: half the bytes of bf16."""
    raw_keys: bool = False
    """Keep unrotated keys beside the rotated ones, for pooling and for renumbering positions: half as much again."""

    def __post_init__(self) -> None:
        for name in ("max_rows", "max_frames"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} is {getattr(self, name)}; it must be at least 1")


class CacheMemory:
    """Makes sessions; `self_pool` and `cross_pool` hold what they have seen.

    Args:
        config: gives layers, heads and the tokens of a frame.
        device: where the pages live.
        dtype: of the model.
        options: size and form.
    """

    def __init__(
        self, config: VideoMllamaConfig, device: torch.device, dtype: torch.dtype, options: MemoryOptions | None = None
    ) -> None:
        self.options = options or MemoryOptions()
        text, chosen = config.text, self.options
        heads, dim = text.num_key_value_heads, text.head_dim
        cross_layers = len(text.cross_attention_layers)
        row_shape = PoolShape(
            layers=text.num_hidden_layers - cross_layers,
            page_rows=ROWS_PER_PAGE,
            kv_heads=heads,
            head_dim=dim,
            raw_keys=chosen.raw_keys,
        )
        frame_shape = PoolShape(
            layers=cross_layers,
            page_rows=config.vision.tokens_per_frame,
            kv_heads=heads,
            head_dim=dim,
            fp8=chosen.fp8_frames,
            raw_keys=chosen.raw_keys,
        )
        row_pages = 1 + -(-chosen.max_rows // ROWS_PER_PAGE)
        self.self_pool = KVPool(row_shape, row_pages, device, dtype, fixed=chosen.fixed)
        self.cross_pool = KVPool(frame_shape, 1 + chosen.max_frames, device, dtype, fixed=chosen.fixed)

    @property
    def num_bytes(self) -> int:
        """Bytes of both pools, free pages included."""
        return self.self_pool.num_bytes + self.cross_pool.num_bytes

    @property
    def used_bytes(self) -> int:
        """Bytes of the pages that sessions hold; a shared page counts once."""
        pools = (self.self_pool, self.cross_pool)
        return sum(pool.allocator.used_pages * pool.page_bytes for pool in pools)

    def new_session(self) -> PagedSessionCache:
        """An empty session."""
        return PagedSessionCache(self.self_pool, self.cross_pool)

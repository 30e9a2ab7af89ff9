"""The two pools that all sessions of one engine share."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from inference.cache.pool import KVPool, PoolShape
from inference.cache.session_cache import SessionCache
from model.config import VideoMllamaConfig
from model.errors import InputError

if TYPE_CHECKING:
    from inference.cache.policies.policy import CachePolicy, PageBounds
    from inference.cache.policies.runner import PolicyRunner
    from inference.model.video_mllama import VideoMllama

ROWS_PER_PAGE = 64
"""Text positions in a page of the self pool, unless told otherwise."""
HOUR_ROWS, HOUR_FRAMES = 32768, 3600
"""An hour of one frame a second, and its text."""


class KVStore:
    """Makes sessions; `self_pool` and `cross_pool` hold what they have seen.

    Args:
        config: gives layers, heads and the tokens of a frame.
        device: where the pages live.
        dtype: of the model.
        positions: text positions of all sessions together; where the pools may grow, those to begin with.
        frames: frames of all sessions together; where the pools may grow, those to begin with.
        growable: False on a GPU, where CUDA graphs hold the addresses.
        fp8_frames: keys and values of frames as float8_e4m3fn: about half the bytes of bf16.
        raw_keys: keep unrotated keys beside the rotated ones, for pooling and for renumbering positions: half as much again.
        rows_per_page: text positions in a page of the self pool: the step in which old rows are dropped.

    Raises:
        InputError: positions or frames below 1.
    """

    def __init__(
        self,
        config: VideoMllamaConfig,
        device: torch.device,
        dtype: torch.dtype,
        *,
        positions: int = 256,
        frames: int = 16,
        growable: bool = True,
        fp8_frames: bool = False,
        raw_keys: bool = False,
        rows_per_page: int = ROWS_PER_PAGE,
    ) -> None:
        for name, value in (("positions", positions), ("frames", frames)):
            if value < 1:
                raise InputError(f"{name} is {value}; a cache holds at least 1")
        row_shape, frame_shape = pool_shapes(config, fp8_frames=fp8_frames, raw_keys=raw_keys, rows_per_page=rows_per_page)
        row_pages = 1 + -(-positions // rows_per_page)
        self.lock = threading.RLock()
        """Held by whoever computes with pages, fills or moves them: what is written while a pool grows would be lost."""
        self.self_pool = KVPool(row_shape, row_pages, device, dtype, fixed=not growable, lock=self.lock)
        self.cross_pool = KVPool(frame_shape, 1 + frames, device, dtype, fixed=not growable, lock=self.lock)

    @property
    def num_bytes(self) -> int:
        """Bytes of both pools, free pages included."""
        return self.self_pool.num_bytes + self.cross_pool.num_bytes

    @property
    def used_bytes(self) -> int:
        """Bytes of the pages that sessions hold; a shared page counts once."""
        pools = (self.self_pool, self.cross_pool)
        return sum(pool.allocator.used_pages * pool.page_bytes for pool in pools)

    def new_cache(self, policy: PolicyRunner | None = None) -> SessionCache:
        """An empty session; `policy` says what it forgets as it grows."""
        return SessionCache(self.self_pool, self.cross_pool, policy)


def store_for(
    model: VideoMllama,
    policy: CachePolicy,
    *,
    sessions: int = 1,
    max_rows: int = 8192,
    max_frames: int = 512,
    fp8_frames: bool = False,
) -> KVStore:
    """A store with room for sessions under a policy, fixed on a GPU; it keeps unrotated keys where the policy needs them.

    Args:
        model: whose sessions they are.
        policy: what each keeps.
        sessions: at the same time.
        max_rows: rows of one session, where its text is not bounded by the policy.
        max_frames: frames of one session, where they are not bounded by the policy.
        fp8_frames: keep keys and values of frames in fp8.
    """
    tokens = model.config.vision.tokens_per_frame
    bounds = policy.bounds(ROWS_PER_PAGE, tokens, max_rows=max_rows, max_frames=max_frames)
    on_gpu = model.device.type == "cuda"
    return KVStore(
        model.config,
        model.device,
        model.dtype,
        # Where it may grow, a small beginning is enough.
        positions=bounds.row_pages * ROWS_PER_PAGE * sessions if on_gpu else ROWS_PER_PAGE,
        frames=bounds.frame_pages * sessions if on_gpu else 1,
        growable=not on_gpu,
        fp8_frames=fp8_frames,
        raw_keys=policy.needs_raw_keys,
    )


def roomy_store(
    model: VideoMllama, policy: CachePolicy, *, max_frames: int = HOUR_FRAMES, fp8_frames: bool = False, sharers: int = 1
) -> KVStore:
    """A store that sessions hardly outgrow: where one grows on a GPU, pages move, and graphs are captured anew in mid-stream.

    On a GPU it begins with room for an hour of one frame a second, or for what a session under the policy can hold at most; with
    less of both where that is more than half of the memory that is free. On a CPU growing is a copy, so it begins small.

    Args:
        model: whose sessions they are.
        policy: what each keeps; unrotated keys are kept where it needs them.
        max_frames: frames of a session.
        fp8_frames: keep keys and values of frames in fp8.
        sharers: processes that put such a model and store on the device at about the same time.
    """
    positions, frames = 256, 16
    if model.device.type == "cuda":
        tokens = model.config.vision.tokens_per_frame
        bounds = policy.bounds(ROWS_PER_PAGE, tokens, max_rows=HOUR_ROWS, max_frames=min(max_frames, HOUR_FRAMES))
        shapes = pool_shapes(model.config, fp8_frames=fp8_frames, raw_keys=policy.needs_raw_keys)
        pages = fitting(bounds, [shape.page_bytes(model.dtype) for shape in shapes], _free_bytes(model.device) // (2 * sharers))
        positions, frames = pages[0] * ROWS_PER_PAGE, pages[1]
    return KVStore(
        model.config,
        model.device,
        model.dtype,
        positions=positions,
        frames=frames,
        fp8_frames=fp8_frames,
        raw_keys=policy.needs_raw_keys,
    )


def fitting(bounds: PageBounds, page_bytes: Sequence[int], budget: int) -> tuple[int, int]:
    """Pages of rows and of frames, at least one each: `bounds`, or in the same proportion as many as `budget` bytes hold.

    Args:
        page_bytes: of a page of rows, and of one of frames.
    """
    whole = bounds.row_pages * page_bytes[0] + bounds.frame_pages * page_bytes[1]
    share = min(1.0, budget / whole)
    return max(1, int(bounds.row_pages * share)), max(1, int(bounds.frame_pages * share))


def _free_bytes(device: torch.device) -> int:
    """Of a GPU, what torch's cache holds and nobody uses included."""
    free, _ = torch.cuda.mem_get_info(device)
    return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)


def pool_shapes(
    config: VideoMllamaConfig, *, fp8_frames: bool = False, raw_keys: bool = False, rows_per_page: int = ROWS_PER_PAGE
) -> tuple[PoolShape, PoolShape]:
    """Pages of text positions and pages of frames, as `KVStore` makes them."""
    text = config.text
    heads, dim, cross_layers = text.num_key_value_heads, text.head_dim, len(text.cross_attention_layers)
    rows = PoolShape(
        layers=text.num_hidden_layers - cross_layers,
        page_rows=rows_per_page,
        kv_heads=heads,
        head_dim=dim,
        raw_keys=raw_keys,
    )
    frames = PoolShape(
        layers=cross_layers,
        page_rows=config.vision.tokens_per_frame,
        kv_heads=heads,
        head_dim=dim,
        fp8=fp8_frames,
        raw_keys=raw_keys,
    )
    return rows, frames

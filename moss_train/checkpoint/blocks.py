"""Values on a GPU brought to the host block by block: what is written takes some tens of MB there, whatever its size."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import torch
from torch import Tensor

from model.conversion.tensor_file import scratch
from model.page_lock import lock_pages

BLOCK_BYTES = 32 << 20
"""Of a block; a writer holds two, one that it writes and one that is being filled."""


class BlockBuffers:
    """Page-locked blocks of host memory that writers borrow and give back.

    Args:
        block_bytes: of each.
    """

    def __init__(self, block_bytes: int = BLOCK_BYTES) -> None:
        self.block_bytes = block_bytes
        self._free: list[Tensor] = []
        self._guard = threading.Lock()
        self.made = 0
        """Blocks made so far: as many as were borrowed at once."""

    def borrow(self, device: torch.device) -> Tensor:
        """A block, uint8 [block_bytes].

        Args:
            device: that it will be filled from; for a GPU it is page-locked if it is new.
        """
        with self._guard:
            if self._free:
                return self._free.pop()
            self.made += 1
        block = scratch((self.block_bytes,), torch.uint8)
        if device.type == "cuda":
            with torch.cuda.device(device):  # a new thread's is the first one, and locking makes a context
                lock_pages(block)
        return block

    def give_back(self, block: Tensor) -> None:
        """For the next writer."""
        with self._guard:
            self._free.append(block)


BUFFERS = BlockBuffers()
"""Of this process; they stay for the next checkpoint."""


def host_blocks(values: Tensor, buffers: BlockBuffers = BUFFERS) -> Iterator[Tensor]:
    """The values in row-major order as one-dimensional tensors on the CPU, each good until the next is asked for.

    Args:
        values: on a GPU, of any shape; of the CPU they are given as they are, in one block.
        buffers: what they are copied into.
    """
    if values.device.type == "cpu":
        yield values.detach().reshape(-1)
        return
    yield from copied_blocks(values, buffers)


def copied_blocks(values: Tensor, buffers: BlockBuffers) -> Iterator[Tensor]:
    """As `host_blocks`, whatever the device: the next block is on its way while one is used."""
    parts = values.detach().reshape(-1).split(buffers.block_bytes // values.element_size())  # [n] each
    on_gpu = values.is_cuda
    borrowed = [buffers.borrow(values.device) for _ in range(min(2, len(parts)))]
    try:
        under_way = [_start(part, block) for part, block in zip(parts, borrowed, strict=False)]
        for index in range(len(parts)):
            block, event = under_way[index % 2]
            if event is not None:
                event.synchronize()
            yield block
            if index + 2 < len(parts):
                under_way[index % 2] = _start(parts[index + 2], borrowed[index % 2])
    finally:
        if on_gpu:
            torch.cuda.current_stream(values.device).synchronize()  # a copy may be under way where writing was given up
        for block in borrowed:
            buffers.give_back(block)


def _start(part: Tensor, block: Tensor) -> tuple[Tensor, torch.cuda.Event | None]:
    """Begins the copy of a part; its values on the host, and what says that they are there."""
    own = block[: part.numel() * part.element_size()].view(part.dtype)  # [n]
    if not part.is_cuda:
        own.copy_(part)
        return own, None
    with torch.cuda.device(part.device):
        own.copy_(part, non_blocking=True)
        event = torch.cuda.Event()
        event.record()
    return own, event

"""Host memory that states of frames lie in between their forward and their backward pass, and the copies there and back.

On a GPU it is page-locked, piece by piece when it is first needed, and stays for the run. Copies run on a stream of their own,
one behind the other: what has left is on its way until the copy is done, and the compute stream waits where too much is.
"""

from __future__ import annotations

import mmap
import os
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import torch
from torch import Tensor

from model.errors import InputError
from model.page_lock import lock_pages, unlock_pages
from moss_train.preflight.machine import free_memory

GIB = 2**30
PIECE = 4 * GIB
"""Bytes that are page-locked at once."""
ALIGNMENT = 512
"""Bytes at whose multiples a state begins."""
ON_THE_WAY = GIB
"""Bytes of the GPU that states may hold which have left for the host, or that come back before they are asked for."""
TOUCHING = 8
"""Threads that write into a piece's pages, upon which the system gives them."""


class HostMemory:
    """Room for states, filled from its beginning in a step and empty again when all users have gone.

    Args:
        size: bytes.
        device: that states are on.
    """

    def __init__(self, size: int, device: torch.device) -> None:
        self.size, self.device = size, _numbered(device)
        self.limit = ON_THE_WAY
        """Bytes of the GPU that states on their way to the host may hold."""
        self.ahead = 0
        """Bytes of the GPU with states that came back and were not asked for yet."""
        self.used = 0
        """Bytes up to which states lie in it."""
        self.most = 0
        """The largest `used` so far."""
        self.users = 0
        """Chunks of frames whose states lie in it."""
        self._memory = _reserved(size)
        self._locked: list[Tensor] = []
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None
        self._leaving: deque[tuple[torch.cuda.Event, Tensor]] = deque()
        self._leaving_bytes = 0

    def store(self, values: Tensor) -> int | None:
        """Starts the copy of a state.

        Args:
            values: uint8 [n] on the device, without gaps. They may be let go at once.

        Returns:
            Where it lies; None where there is no room.

        Raises:
            InputError: the system does not lock that many pages.
        """
        begin, length = self.used, values.numel()
        if begin + length > self.size:
            return None
        self._lock_up_to(begin + length)
        self.used = min(self.size, begin + -(-length // ALIGNMENT) * ALIGNMENT)
        self.most = max(self.most, self.used)
        if self._stream is None:
            self._memory[begin : begin + length].copy_(values)
            return begin
        self._stream.wait_stream(torch.cuda.current_stream(self.device))
        with torch.cuda.stream(self._stream):
            for host, own in self._parts(begin, values):
                host.copy_(own, non_blocking=True)
        self._leaving.append((self._stream.record_event(), values))
        self._leaving_bytes += length
        self.drain(self.limit)
        return begin

    def load(self, begin: int, length: int) -> tuple[Tensor, torch.cuda.Event | None]:
        """Starts the copy of a state back: uint8 [length] on the device, and what `wait` takes before it is used."""
        values = torch.empty(length, dtype=torch.uint8, device=self.device)
        self.ahead += length
        if self._stream is None:
            return values.copy_(self._memory[begin : begin + length]), None
        self._stream.wait_stream(torch.cuda.current_stream(self.device))  # the memory was another tensor's until now
        with torch.cuda.stream(self._stream):
            for host, own in self._parts(begin, values):
                own.copy_(host, non_blocking=True)
        return values, self._stream.record_event()

    def wait(self, event: torch.cuda.Event | None) -> None:
        """What the device runs from here on waits for a copy."""
        if event is not None:
            torch.cuda.current_stream(self.device).wait_event(event)

    def drain(self, limit: int) -> None:
        """Lets go of states that have arrived, and has the device wait for more of them until the others hold at most so much."""
        while self._leaving:
            event, values = self._leaving[0]
            if not event.query():
                if self._leaving_bytes <= limit:
                    return
                self.wait(event)  # its memory goes to a tensor that is written behind this
            self._leaving.popleft()
            self._leaving_bytes -= values.numel()

    def settle(self, limit: int = ON_THE_WAY) -> None:
        """From here on states on their way hold at most so much."""
        self.limit = limit
        self.drain(limit)

    def leave(self) -> None:
        """A user has gone; behind the last one the memory is empty."""
        self.users -= 1
        if self.users == 0:
            self.used = 0

    def close(self) -> None:
        """Gives the memory back to the system; nothing may use it any more."""
        if self._stream is not None:
            self._stream.synchronize()
        self._leaving.clear()
        for piece in self._locked:
            unlock_pages(piece)
        self._locked = []
        self._memory = torch.empty(0, dtype=torch.uint8)

    def _parts(self, begin: int, values: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """Host and device side of a state's copy, cut where pieces meet: a copy lies in memory that was locked at once."""
        end, at = begin + values.numel(), begin
        while at < end:
            until = min(end, (at // PIECE + 1) * PIECE)
            yield self._memory[at:until], values[at - begin : until - begin]
            at = until

    def _lock_up_to(self, end: int) -> None:
        while self._stream is not None and len(self._locked) * PIECE < end:
            piece = self._memory[len(self._locked) * PIECE :][:PIECE]
            _touch(piece)
            with torch.cuda.device(self.device):
                if not lock_pages(piece):
                    raise InputError(
                        f"vision.keep_host_gib is {self.size / GIB:g}, but the system page-locks no more than "
                        f"{len(self._locked) * PIECE / GIB:g} GiB of it; lower vision.keep_host_gib to that or to 0"
                    )
            self._locked.append(piece)


def _reserved(size: int) -> Tensor:
    """Addresses of host memory, uint8 [size], whose pages come when they are touched, large ones where the system has them."""
    private = mmap.mmap(-1, max(size, mmap.PAGESIZE), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if hasattr(mmap, "MADV_HUGEPAGE"):
        with suppress(OSError):  # a kernel without them
            private.madvise(mmap.MADV_HUGEPAGE)
    return torch.frombuffer(private, dtype=torch.uint8)[:size]


def _touch(memory: Tensor) -> None:
    with ThreadPoolExecutor(TOUCHING) as threads:
        list(threads.map(Tensor.zero_, memory.chunk(8 * TOUCHING)))


def _numbered(device: torch.device) -> torch.device:
    """The device as tensors on it name it."""
    return torch.device("cuda", torch.cuda.current_device()) if device.type == "cuda" and device.index is None else device


_FOUND: list[HostMemory] = []
"""Of this process; one, but where states of another still lie in memory."""


def host_memory(size: int, device: torch.device) -> HostMemory:
    """This process' memory for states, made if there is none of that size on that device.

    Raises:
        InputError: the machine does not have that much, all ranks on it counted.
    """
    for found in list(_FOUND):
        if (found.size, found.device) == (size, _numbered(device)):
            return found
        if found.users == 0:
            _FOUND.remove(found)
            found.close()
    ranks = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    try:
        free = free_memory()
    except OSError:  # not Linux
        free = size * ranks
    if size * ranks > free:
        raise InputError(
            f"vision.keep_host_gib is {size / GIB:g} for each of {ranks} ranks on this machine, which has {free / GIB:.0f} GiB "
            f"of memory left; use vision.keep_host_gib={int(free / ranks / GIB * 0.9)} or less"
        )
    _FOUND.append(HostMemory(size, device))
    return _FOUND[-1]

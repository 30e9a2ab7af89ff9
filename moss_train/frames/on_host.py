"""What autograd keeps of a chunk of frames, moved to host memory as it is saved and brought back as it is asked for.

A state is a storage: tensors that share one, an output and the next entry or views of it, are moved once and come back together
with their strides and offsets. Parameters, small tensors and what is no plain tensor of the device stay where they are.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.multiprocessing.reductions import StorageWeakRef

from moss_train.frames import host_memory
from moss_train.frames.host_memory import HostMemory

SMALLEST = 2**20
"""Bytes of a storage that is worth a copy."""
LARGEST_PART = 4
"""A storage that is more than so many times the tensor in it belongs to others too, a buffer of all parameters for example."""

_Here = dict[int, tuple[Tensor, "torch.cuda.Event | None"]]
"""Place of a state -> its values on the device uint8 [n], and the copy that has to be waited for."""


@dataclass
class _State:
    """One storage in host memory."""

    place: int
    """Among the chunk's, in the order in which they were saved."""
    begin: int
    length: int
    """In host memory, bytes."""
    uses: int = 0
    """Tensors of it that autograd has not asked for yet."""


@dataclass(frozen=True)
class _Saved:
    """What autograd holds in place of a tensor."""

    state: _State
    dtype: torch.dtype
    shape: torch.Size
    stride: tuple[int, ...]
    offset: int


class HostChunk:
    """States of one call of the tower.

    Args:
        memory: where they go.
        encoder: whose parameters stay.
    """

    def __init__(self, memory: HostMemory, encoder: object) -> None:
        self._memory = memory
        kept = encoder.parameters() if isinstance(encoder, nn.Module) else ()
        self._parameters = {parameter.untyped_storage()._cdata for parameter in kept}
        self._known: dict[tuple[StorageWeakRef, int], _State] = {}  # a weak reference's address is not given to another storage
        self._states: list[_State] = []
        self._here: _Here = {}
        self._next = -1
        """The state that comes back next; all behind it have been sent for."""
        self.following: HostChunk | None = None
        """Whose backward pass comes after this one's."""
        memory.users += 1
        self._release = weakref.finalize(self, _release, memory, self._here)
        self._release.atexit = False

    @property
    def moved(self) -> int:
        """Bytes in host memory."""
        return sum(state.length for state in self._states)

    @contextmanager
    def saving(self) -> Iterator[None]:
        """Within it, what autograd saves goes to the host."""
        with saved_tensors_hooks(self._pack, self._unpack):
            yield
        self._known.clear()
        self._next = len(self._states) - 1

    def prefetch(self) -> None:
        """Sends for states that will be asked for next, this chunk's and then the following one's, as far as there is room."""
        chunk: HostChunk | None = self
        while chunk is not None:
            while chunk._next >= 0:
                if self._memory.ahead >= host_memory.ON_THE_WAY:
                    return
                chunk._send_for(chunk._states[chunk._next])
                chunk._next -= 1
            chunk = chunk.following

    def close(self) -> None:
        """The backward pass is over: the chunk's place in host memory is free."""
        self._release()

    def _moves(self, tensor: Tensor) -> bool:
        if type(tensor) is not Tensor or tensor.device != self._memory.device or tensor.layout != torch.strided:
            return False
        storage = tensor.untyped_storage()
        size = storage.nbytes()
        return SMALLEST <= size <= LARGEST_PART * tensor.nbytes and storage._cdata not in self._parameters

    def _pack(self, tensor: Tensor) -> Tensor | _Saved:
        if not self._moves(tensor):
            return tensor
        storage = tensor.untyped_storage()
        key = (StorageWeakRef(storage), tensor._version)
        state = self._known.get(key)
        if state is None:
            values = torch.empty(0, dtype=torch.uint8, device=tensor.device).set_(storage)  # [n]
            begin = self._memory.store(values)
            if begin is None:
                return tensor
            state = _State(len(self._states), begin, values.numel())
            self._states.append(state)
            self._known[key] = state
        state.uses += 1
        return _Saved(state, tensor.dtype, tensor.shape, tensor.stride(), int(tensor.storage_offset()))

    def _unpack(self, saved: Tensor | _Saved) -> Tensor:
        if isinstance(saved, Tensor):
            return saved
        values = self._take(saved.state)
        tensor = torch.empty(0, dtype=saved.dtype, device=values.device)
        return tensor.set_(values.untyped_storage(), saved.offset, saved.shape, saved.stride)

    def _take(self, state: _State) -> Tensor:
        """A state's values, for the device's next kernel."""
        while (
            self._next >= state.place
        ):  # states behind it that nobody asked for come too: the first of a layer is asked for first
            self._send_for(self._states[self._next])
            self._next -= 1
        if state.place not in self._here:  # asked for once more than it was saved
            self._send_for(state)
        values, event = self._here[state.place]
        self._memory.wait(event)
        self._here[state.place] = (values, None)
        state.uses -= 1
        if state.uses <= 0:
            del self._here[state.place]
            self._memory.ahead -= state.length
        self.prefetch()
        return values

    def _send_for(self, state: _State) -> None:
        self._here[state.place] = self._memory.load(state.begin, state.length)


def _release(memory: HostMemory, here: _Here) -> None:
    """Gives back what a chunk held; a copy under way ends before its memory is another tensor's."""
    for values, event in here.values():
        memory.wait(event)
        memory.ahead -= values.numel()
    here.clear()
    memory.leave()

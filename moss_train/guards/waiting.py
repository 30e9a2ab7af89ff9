"""How long this rank waited for others: the time that its main thread, or its GPU, spent in collectives.

Every collective of torch.distributed, megatron-core's and our own alike, ends in `Work.wait`. Under gloo that call blocks until
the others have come. Under NCCL it only orders streams: there, events before the collective and behind the wait measure on the
GPU's own clock how long its stream stood still.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import torch

_COLLECTIVES = (
    "allreduce", "allgather", "_allgather_base", "reduce_scatter", "_reduce_scatter_base", "alltoall", "alltoall_base",
    "broadcast", "reduce", "gather", "scatter", "send", "recv",
)  # fmt: skip


class WaitingTime:
    """Counts between `start` and `stop`; costs nothing outside.

    Args:
        device: of this rank.
    """

    def __init__(self, device: torch.device) -> None:
        self._cuda = device.type == "cuda"
        self._host = 0.0
        self._spans: list[tuple[Any, Any]] = []
        self._begun: dict[int, Any] = {}
        self._originals: list[tuple[type, str, Any]] = []
        self._thread = 0

    def start(self) -> None:
        """Begin at 0; the calling thread's collectives count."""
        self._host, self._spans, self._begun = 0.0, [], {}
        self._thread = threading.get_ident()
        if self._originals:
            return
        types = torch._C._distributed_c10d
        self._replace(types.Work, "wait", self._timed_wait)
        if self._cuda:
            for name in _COLLECTIVES:
                self._replace(types.ProcessGroup, name, self._timed_collective)

    def stop(self) -> float:
        """Seconds waited since `start`; on a GPU waits until it has come so far."""
        for kind, name, original in self._originals:
            setattr(kind, name, original)
        self._originals = []
        if self._spans:
            torch.cuda.current_stream().synchronize()
        device: float = sum(begin.elapsed_time(end) for begin, end in self._spans) / 1e3
        self._spans, self._begun = [], {}
        return self._host + device

    def _replace(self, kind: type, name: str, make: Callable[[Any], Any]) -> None:
        # What is put back is the class's own entry: the attribute is the bare function, which as an entry would lose `self`.
        self._originals.append((kind, name, kind.__dict__[name]))
        setattr(kind, name, make(getattr(kind, name)))

    def _timed_wait(self, original: Any) -> Any:
        def wait(work: Any, *arguments: Any, **named: Any) -> Any:
            if threading.get_ident() != self._thread:
                return original(work, *arguments, **named)
            begin = time.perf_counter()
            result = original(work, *arguments, **named)
            event = self._begun.pop(id(work), None)
            if event is None:
                self._host += time.perf_counter() - begin
            else:
                self._spans.append((event, self._event()))
            return result

        return wait

    def _timed_collective(self, original: Any) -> Any:
        def collective(group: Any, *arguments: Any, **named: Any) -> Any:
            if threading.get_ident() != self._thread or not _on_gpu(arguments):
                return original(group, *arguments, **named)
            event = self._event()
            work = original(group, *arguments, **named)
            if work is not None:
                self._begun[id(work)] = event
            return work

        return collective

    def _event(self) -> Any:
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event


def _on_gpu(arguments: Any) -> bool:
    """Whether the first tensor among nested arguments lies on a GPU: groups for agreements are gloo's there, too."""
    for argument in arguments:
        if isinstance(argument, torch.Tensor):
            return argument.is_cuda
        if isinstance(argument, (list, tuple)) and argument:
            return _on_gpu(argument)
    return False

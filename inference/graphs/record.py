"""Recording work of fixed shape as a CUDA graph."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

WARM_UPS = 2
"""Runs before a capture: kernels are compiled, libraries take their workspaces."""


_ONE_AT_A_TIME = threading.Lock()
"""A capture begins by emptying torch's caches, which fails while another thread is in the midst of one."""


@contextmanager
def capture(graph: torch.cuda.CUDAGraph, pool: Any, stream: torch.cuda.Stream) -> Iterator[None]:
    """What is enqueued within becomes `graph`. Other threads may go on working, but for captures: those wait.

    Args:
        graph: a new one.
        pool: its memory, shared with other graphs that never run at the same time; None: its own.
        stream: to capture on; it is the current one within.
    """
    with _ONE_AT_A_TIME, torch.cuda.graph(graph, pool=pool, stream=stream, capture_error_mode="thread_local"):
        yield


class Recorder:
    """Turns functions without arguments into replays; on a CPU a replay is the function itself.

    All graphs share one pool of memory: they run one after the other, and what one computes lasts until another runs.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._pool, self._stream = None, None
        if device.type == "cuda":
            self._pool = torch.cuda.graph_pool_handle()
            # Kernels of a graph have the priority of the stream that they were captured on: a token comes before frames.
            self._stream = torch.cuda.Stream(device, priority=-1)

    def forget(self) -> None:
        """All graphs recorded so far are given up. A pool whose last graph has gone cannot be captured into again."""
        if self.device.type == "cuda":
            self._pool = torch.cuda.graph_pool_handle()

    def record(self, work: Callable[[], None]) -> Callable[[], None]:
        """Run `work` for warming up, then capture it.

        Args:
            work: reads and writes tensors that stay where they are, of shapes that do not change; waits for nothing. What it
                does to them now must do no harm.
        """
        if self._stream is None:
            return work
        self._stream.wait_stream(torch.cuda.current_stream(self.device))
        with torch.cuda.stream(self._stream):
            for _ in range(WARM_UPS):
                work()
        torch.cuda.current_stream(self.device).wait_stream(self._stream)
        graph = torch.cuda.CUDAGraph()
        with capture(graph, self._pool, self._stream):
            work()
        return graph.replay

"""Recording work of fixed shape as a CUDA graph."""

from __future__ import annotations

from collections.abc import Callable

import torch

WARM_UPS = 2
"""Runs before a capture: kernels are compiled, libraries take their workspaces."""


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
        # Other threads (frames being encoded or copied) may go on while this one captures.
        with torch.cuda.graph(graph, pool=self._pool, stream=self._stream, capture_error_mode="thread_local"):
            work()
        return graph.replay

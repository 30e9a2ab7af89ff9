"""A call of fixed size on fixed buffers: captured as one CUDA graph, so that a frame costs one launch instead of 400.

On a CPU the same buffers are filled and the same function runs; only the capture is left out.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from inference.graphs.record import capture

Outputs = tuple[Tensor, Tensor | None]
"""Features [n, P, H] and, where asked for, keys and values before any position [layers, n, P, 2 * kv_heads * head_dim]."""


class StaticCall:
    """One size of one region.

    Args:
        function: computes the outputs from `pixels`; allocates and reads nothing on the host once it ran.
        pixels: uint8 [n, C, height, width], the input buffer.
        stream: on which the call is captured and replayed; None on a CPU.
        pool: memory that calls share, since one stream runs them one after the other.
    """

    def __init__(
        self,
        function: Callable[[Tensor], Outputs],
        pixels: Tensor,
        stream: torch.cuda.Stream | None,
        pool: Any,
    ) -> None:
        self.pixels = pixels
        self._function = function
        self._graph: torch.cuda.CUDAGraph | None = None
        self._outputs: Outputs | None = None
        if stream is not None:
            self._capture(stream, pool)

    def run(self) -> Outputs:
        """The outputs for what is in `pixels`: copies, since the next call overwrites the buffers."""
        if self._graph is None:
            return self._function(self.pixels)
        self._graph.replay()
        assert self._outputs is not None
        features, raw = self._outputs
        return features.clone(), None if raw is None else raw.clone()

    def _capture(self, stream: torch.cuda.Stream, pool: Any) -> None:
        with torch.cuda.stream(stream):
            for _ in range(2):  # compiles, and lets libraries make their handles
                self._function(self.pixels)
        stream.synchronize()
        self._graph = torch.cuda.CUDAGraph()
        with capture(self._graph, pool, stream):
            self._outputs = self._function(self.pixels)

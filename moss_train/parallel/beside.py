"""Work on a stream of its own, beside what a rank goes on with."""

from __future__ import annotations

from collections.abc import Callable

import torch


class Beside:
    """A second stream of a GPU; on a CPU, or switched off, work is done where it stands.

    Args:
        device: of this rank.
        on: whether there is one.
    """

    def __init__(self, device: torch.device, on: bool = True) -> None:
        self._stream = torch.cuda.Stream(device) if on and device.type == "cuda" else None
        self._device = device

    def run(self, work: Callable[[], None], *tensors: torch.Tensor | None) -> None:
        """Begin work behind all that was started so far; what is started next does not wait for it.

        Args:
            work: starts kernels and collectives; what they write must not be read before `join`.
            tensors: what it reads that may be freed before.
        """
        if self._stream is None:
            work()
            return
        self._stream.wait_stream(torch.cuda.current_stream(self._device))
        for tensor in tensors:
            if tensor is not None:
                tensor.record_stream(self._stream)
        with torch.cuda.stream(self._stream):
            work()

    def join(self) -> None:
        """What is started next waits for the work; the host does not."""
        if self._stream is not None:
            torch.cuda.current_stream(self._device).wait_stream(self._stream)

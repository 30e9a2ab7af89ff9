"""Small integers on their way to the device, without waiting for it."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

_BLOCKS = 8
_BLOCK = 1 << 16


class Upload:
    """Copies int32 arrays into device tensors through pinned memory that is not written again before the copy is done.

    Args:
        device: where the tensors are; on a CPU the copies are plain.
    """

    def __init__(self, device: torch.device) -> None:
        self._on_gpu = device.type == "cuda"
        self._block, self._used = 0, 0
        if self._on_gpu:
            self._pinned = torch.empty(_BLOCKS, _BLOCK, dtype=torch.int32, pin_memory=True)
            self._host: npt.NDArray[np.int32] = self._pinned.numpy()
            self._done = [torch.cuda.Event() for _ in range(_BLOCKS)]

    def copy(self, target: torch.Tensor, values: npt.NDArray[np.int32]) -> None:
        """Enqueue target[:n] = values.

        Args:
            target: int32 [>= n], contiguous.
            values: int32 [n].
        """
        if not self._on_gpu:
            target[: len(values)].copy_(torch.from_numpy(values))
            return
        for begin in range(0, len(values), _BLOCK):
            part = values[begin : begin + _BLOCK]
            at = self._room(len(part))
            self._host[self._block, at : at + len(part)] = part
            target[begin : begin + len(part)].copy_(self._pinned[self._block, at : at + len(part)], non_blocking=True)

    def _room(self, count: int) -> int:
        """Where the next `count` integers of the current block may be written; turns to the next block when it is full."""
        if self._used + count > _BLOCK:
            self._done[self._block].record()
            self._block, self._used = (self._block + 1) % _BLOCKS, 0
            # Eight blocks back: done long ago, unless the device is far behind.
            self._done[self._block].synchronize()
        begin, self._used = self._used, self._used + count
        return begin

"""Tensors of the host on a device, by one copy that the host does not wait for."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

ALIGNMENT = 16
"""Bytes at whose multiples a tensor begins: of every dtype, and what kernels like to load at once."""


def _packed(tensors: Sequence[Tensor], pin: bool) -> tuple[Tensor, list[int]]:
    """All tensors' bytes behind each other, uint8 on the host, and where each begins."""
    begins, length = [], 0
    for tensor in tensors:
        begins.append(length)
        length += -(-tensor.nbytes // ALIGNMENT) * ALIGNMENT
    block = torch.empty(length, dtype=torch.uint8, pin_memory=pin)
    for tensor, view in zip(tensors, _views(block, begins, tensors), strict=True):
        view.copy_(tensor)
    return block, begins


def _views(block: Tensor, begins: Sequence[int], like: Sequence[Tensor]) -> list[Tensor]:
    return [block[b : b + t.nbytes].view(t.dtype).view(t.shape) for b, t in zip(begins, like, strict=True)]


def upload(tensors: Sequence[Tensor | NDArray[np.generic]], device: torch.device | str) -> list[Tensor]:
    """The tensors on a device; those that are there already, or were made on another GPU, are copied as torch does.

    What is on the host goes to a GPU from pinned memory, all of it in one copy in the stream's order, so that nobody waits:
    torch keeps the pinned memory until the copy is done. The copies then share one piece of the GPU's memory.

    Args:
        tensors: of any shapes and dtypes; arrays of numpy count as tensors on the host.
        device: where they are wanted.
    """
    device = torch.device(device)
    given = [tensor if isinstance(tensor, Tensor) else torch.from_numpy(tensor) for tensor in tensors]
    if device.type != "cuda" or not given or any(tensor.device.type != "cpu" for tensor in given):
        return [tensor.to(device) for tensor in given]
    block, begins = _packed(given, pin=True)
    return _views(block.to(device, non_blocking=True), begins, given)

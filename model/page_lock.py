"""Page-locked host memory: what a GPU copies from and into while the host does something else."""

from __future__ import annotations

from contextlib import suppress

import torch
from torch import Tensor


def lock_pages(memory: Tensor) -> bool:
    """Page-lock host memory that is ours, at its exact size; torch's own allocator would take the next power of two.

    It makes a context on the current GPU.

    Args:
        memory: uint8 [bytes].

    Returns:
        Whether it is locked; where the system refuses, copies are slower and still right.
    """
    if int(torch.cuda.cudart().cudaHostRegister(memory.data_ptr(), memory.numel(), 0)) == 0:
        return True
    _forget_refusal()
    return False


def unlock_pages(memory: Tensor) -> None:
    """Undoes `lock_pages` of the same memory, before it is given back to the system."""
    if int(torch.cuda.cudart().cudaHostUnregister(memory.data_ptr())) != 0:
        _forget_refusal()


def _forget_refusal() -> None:
    with suppress(RuntimeError):  # CUDA keeps the refusal for who asks next, which is the check behind this thread's next kernel
        torch.zeros(1, device="cuda")

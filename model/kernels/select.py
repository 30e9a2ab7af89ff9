"""Which form of a kernel runs: Triton on CUDA where it imports, torch everywhere else."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import lru_cache
from typing import Any, Literal

import torch

from model.errors import InputError

Form = Literal["torch", "triton"]
FORMS: tuple[Form, ...] = ("torch", "triton")
MIN_CAPABILITY = (8, 0)
"""bf16 matrix instructions. fp8 operands need (8, 9): they are widened in registers."""


_planned: list[int] = []
"""Multiprocessors of the GPU that the meta device stands for, the latest last."""


@contextmanager
def planning(multiprocessors: int) -> Iterator[None]:
    """Within, the meta device counts as a GPU with so many multiprocessors: see `model.kernels.compile_only`."""
    _planned.append(multiprocessors)
    try:
        yield
    finally:
        _planned.pop()


@lru_cache(maxsize=1)
def has_triton() -> bool:
    """Triton is installed (it is not imported here)."""
    return importlib.util.find_spec("triton") is not None


@lru_cache(maxsize=16)
def _capable(device: torch.device) -> bool:
    return torch.cuda.get_device_capability(device) >= MIN_CAPABILITY


def launching_on(device: torch.device) -> AbstractContextManager[Any]:
    """Within, a GPU is the current one: Triton launches there, wherever its tensors are, and in a new thread it is the first."""
    return torch.cuda.device(device) if device.type == "cuda" else nullcontext()


def choose_form(device: torch.device, override: Form | None = None) -> Form:
    """The form for tensors on `device`.

    Args:
        device: where the operands are.
        override: this form, whatever the device; the Triton form runs on a CPU only in Triton's interpreter.

    Raises:
        InputError: an unknown form, or Triton asked for where it is not installed.
    """
    if override is not None:
        if override not in FORMS:
            raise InputError(f"kernel form {override!r} is unknown; use one of {', '.join(FORMS)}")
        if override == "triton" and not has_triton():
            raise InputError("kernel form 'triton' needs the package triton, which is not installed; install it or use 'torch'")
        return override
    if device.type == "meta" and _planned:
        return "triton"
    return "triton" if device.type == "cuda" and has_triton() and _capable(device) else "torch"


_ROW_TYPES = (torch.bfloat16, torch.float16)
_WIDEST = 8192
"""Longer rows do not fit into the registers of a program."""


def row_form(x: torch.Tensor, override: Form | None = None) -> Form:
    """As `choose_form` for kernels over whole rows x [..., width]: the Triton form takes 16-bit rows."""
    if override is None and (x.dtype not in _ROW_TYPES or not 16 <= x.shape[-1] <= _WIDEST):
        return "torch"
    return choose_form(x.device, override)


@lru_cache(maxsize=16)
def _counted(device: torch.device) -> int:
    return int(torch.cuda.get_device_properties(device).multi_processor_count)


def multiprocessors(device: torch.device) -> int:
    """Streaming multiprocessors of a CUDA device; 4 for any other, so that the interpreter runs few programs."""
    if device.type == "meta" and _planned:
        return _planned[-1]
    return _counted(device) if device.type == "cuda" else 4

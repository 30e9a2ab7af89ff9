"""Kernels that begin while the one before them still runs: programmatic dependent launch, from compute capability 9.0 on.

A kernel launched so may start as soon as every program of the kernel in front of it has started (and said so). It fetches what
that kernel does not write, the first blocks of a matrix above all, and waits before it touches anything else. The rule that every
kernel here keeps:

1. Before the wait it reads only weights, which no kernel writes, and a step's own integers (positions, tables, limits), which
   were written before the last ordinary launch; and it writes nothing: its results may lie where an earlier kernel still reads.
   It may fetch anything into the second-level cache, where later writes arrive as well.
2. Every program waits, on every path, before it ends. The wait is for the kernel in front alone, whose end implies the end of the
   one before it only because that one was waited for too; so whoever has waited may read whatever any earlier kernel wrote, and
   an ordinary launch behind the chain finds all of it finished.
3. A program says at its start that the next kernel may come. That kernel fills room that is free then and fetches; what it
   computes begins behind its own wait.

In a captured graph these are programmatic edges between kernels; all other nodes keep full ones.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

import torch
import triton
import triton.language as tl
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait

_MIN_CAPABILITY = (9, 0)
_OFF: dict[str, Any] = {"DEPENDENT": False}
_ON: dict[str, Any] = {"DEPENDENT": True, "launch_pdl": True}
_chosen = [False]


@contextmanager
def dependent_launches(on: bool) -> Iterator[None]:
    """Within, kernels are launched (and captured) so where the device can, or not; by default they are not."""
    _chosen.append(on)
    try:
        yield
    finally:
        _chosen.pop()


@lru_cache(maxsize=16)
def _capable(device: torch.device) -> bool:
    return torch.cuda.get_device_capability(device) >= _MIN_CAPABILITY


def launch_options(device: torch.device) -> dict[str, Any]:
    """Arguments of a launch of a kernel that keeps the rule."""
    on = _chosen[-1] and (device.type == "meta" or (device.type == "cuda" and _capable(device)))
    return _ON if on else _OFF


@triton.jit
def begin(DEPENDENT: tl.constexpr):
    """The next kernel may come, and everything of earlier ones is there: for kernels with nothing to fetch before."""
    if DEPENDENT:
        gdc_launch_dependents()
        gdc_wait()


@triton.jit
def announce(DEPENDENT: tl.constexpr):
    """The next kernel may come."""
    if DEPENDENT:
        gdc_launch_dependents()


@triton.jit
def wait(DEPENDENT: tl.constexpr):
    """Until everything that earlier kernels wrote is there."""
    if DEPENDENT:
        gdc_wait()


@triton.jit
def fetch(address):
    """Ask for the lines of these addresses (integers) to come to the second-level cache, which all writes go through."""
    tl.inline_asm_elementwise("prefetch.global.L2 [$1]; mov.u32 $0, 0;", "=r,l", [address], dtype=tl.int32, is_pure=False, pack=1)

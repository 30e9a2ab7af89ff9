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
3. A program says that the next kernel may come: a short kernel at its start, a long one (a product, attention) either there or
   behind its loop. What comes early takes room that is free then. On an H100 steps of one row gained 3 to 5 % by it, steps of 16
   rows lost up to 14 % (fp8), perhaps as programs that come early are spread unevenly; so steps of one row alone begin early.

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
OFF, LATE, EARLY = tl.constexpr(0), tl.constexpr(1), tl.constexpr(2)
"""Values of a kernel's DEPENDENT: an ordinary launch; long kernels let the next one come behind their loop; at their start."""

_chosen: list[int | None] = [None]


@contextmanager
def dependent_launches(how: bool | int | None) -> Iterator[None]:
    """Within, kernels are launched (and captured) so where the device can.

    Args:
        how: False, not at all; `LATE.value` or `EARLY.value` (True); None, the default: steps of one row, early.
    """
    _chosen.append(EARLY.value if how is True else None if how is None else int(how))
    try:
        yield
    finally:
        _chosen.pop()


@lru_cache(maxsize=16)
def _capable(device: torch.device) -> bool:
    return torch.cuda.get_device_capability(device) >= _MIN_CAPABILITY


def launch_options(device: torch.device, rows: int) -> dict[str, Any]:
    """Arguments of a launch of a kernel that keeps the rule, for so many rows of a step."""
    how = _chosen[-1]
    if how is None:
        how = EARLY.value if rows == 1 else OFF.value
    if how == OFF.value or not (device.type == "meta" or (device.type == "cuda" and _capable(device))):
        return {"DEPENDENT": OFF.value}
    return {"DEPENDENT": how, "launch_pdl": True}


@triton.jit
def enter(DEPENDENT: tl.constexpr):
    """For short kernels: the next one may come, and everything of earlier ones is there."""
    if DEPENDENT != OFF:
        gdc_launch_dependents()
        gdc_wait()


@triton.jit
def announce(DEPENDENT: tl.constexpr, WHEN: tl.constexpr):
    """The next kernel may come, if this is when."""
    if DEPENDENT == WHEN:
        gdc_launch_dependents()


@triton.jit
def wait(DEPENDENT: tl.constexpr):
    """Until everything that earlier kernels wrote is there."""
    if DEPENDENT != OFF:
        gdc_wait()


@triton.jit
def fetch(address, BYTES: tl.constexpr):
    """Ask for so many bytes (a multiple of 16) from each of these addresses (integers) to come to the second-level cache.

    All writes go through that cache: what is fetched is never out of date.
    """
    tl.inline_asm_elementwise(
        "cp.async.bulk.prefetch.L2.global [$1], $2; mov.u32 $0, 0;",
        "=r,l,r",
        [address, tl.full(address.shape, BYTES, tl.int32)],
        dtype=tl.int32,
        is_pure=False,
        pack=1,
    )

"""Which of Transformer Engine's kernels text attends to text with."""

from __future__ import annotations

import os
from importlib.metadata import PackageNotFoundError, version

import torch
from megatron.core.transformer.enums import AttnBackend

VARIABLES = ("NVTE_FLASH_ATTN", "NVTE_FUSED_ATTN", "NVTE_UNFUSED_ATTN")
"""By which megatron-core tells Transformer Engine, and which it refuses where a model built before has set others."""
RING_VARIABLE = "NVTE_FLASH_ATTN_V4"
"""Whether Transformer Engine may take flash-attn-4, which it prefers to flash-attn 2 wherever both are installed."""


def attention_backend(dtype: torch.dtype, context: int = 1) -> AttnBackend:
    """megatron-core's `attention_backend`: auto, or flash-attn for a run that repeats itself bit for bit, where it is installed.

    The repeatable backward pass of cuDNN, which auto would take, was seen to ask for 32 GiB at 4,096 rows of packed text.

    Args:
        dtype: of the decoder; flash-attn takes 16 bits.
        context: ranks of context parallelism, whose ring is then kept from flash-attn-4 unless the user's environment says.
    """
    _choose_for_the_ring(context)
    deterministic = torch.are_deterministic_algorithms_enabled() and torch.cuda.is_available()
    chosen = (
        AttnBackend.flash if deterministic and dtype in (torch.bfloat16, torch.float16) and _installed() else AttnBackend.auto
    )
    if _told and _told[-1] != chosen:
        for name in VARIABLES:
            os.environ.pop(name, None)
    _told[:] = [chosen]
    return chosen


def _choose_for_the_ring(context: int) -> None:
    """Gradients of flash-attn-4 in Transformer Engine's ring were wrong by up to 30 orders of magnitude on two H200.

    Seen with Transformer Engine 2.20.2 and flash-attn-4 4.0.0b36; flash-attn 2 and cuDNN in the same ring are right
    (docs/benchmarks/gpu-parity.md).
    """
    if context > 1 and RING_VARIABLE not in os.environ:
        os.environ[RING_VARIABLE] = "0"
        _ring[:] = [True]
    elif context == 1 and _ring:
        os.environ.pop(RING_VARIABLE, None)
        _ring.clear()


_ring: list[bool] = []
"""Whether the variable is of this module, not of the user."""
_told: list[AttnBackend] = []
"""What the last model of this process was built with."""


def _installed() -> bool:
    """Whether flash-attn 2 is: flash-attn-4 has the same folder."""
    try:
        return version("flash-attn").startswith("2.")
    except PackageNotFoundError:
        return False

"""Which of Transformer Engine's kernels text attends to text with."""

from __future__ import annotations

import os
from importlib.metadata import PackageNotFoundError, version

import torch
from megatron.core.transformer.enums import AttnBackend

VARIABLES = ("NVTE_FLASH_ATTN", "NVTE_FUSED_ATTN", "NVTE_UNFUSED_ATTN")
"""By which megatron-core tells Transformer Engine, and which it refuses where a model built before has set others."""
FLASH_4_VARIABLE = "NVTE_FLASH_ATTN_V4"
"""Whether Transformer Engine may take flash-attn-4, which on Hopper it prefers to flash-attn 2 where both are installed."""


def attention_backend(dtype: torch.dtype) -> AttnBackend:
    """megatron-core's `attention_backend`: auto, or flash-attn for a run that repeats itself bit for bit, where it is installed.

    The repeatable backward pass of cuDNN, which auto would take, was seen to ask for 32 GiB at 4,096 rows of packed text.

    Transformer Engine is kept from flash-attn-4 unless the user's environment says otherwise (decision 0035): its version 2.20.2
    states a causal mask as the window (-1, 0), which flash-attn-4 4.0.0b36 reads as a left edge behind a row itself, so that no
    row sees anything.

    Args:
        dtype: of the decoder; flash-attn takes 16 bits.
    """
    os.environ.setdefault(FLASH_4_VARIABLE, "0")
    deterministic = torch.are_deterministic_algorithms_enabled() and torch.cuda.is_available()
    chosen = (
        AttnBackend.flash if deterministic and dtype in (torch.bfloat16, torch.float16) and _installed() else AttnBackend.auto
    )
    if _told and _told[-1] != chosen:
        for name in VARIABLES:
            os.environ.pop(name, None)
    _told[:] = [chosen]
    return chosen


_told: list[AttnBackend] = []
"""What the last model of this process was built with."""


def _installed() -> bool:
    """Whether flash-attn 2 is: flash-attn-4 has the same folder."""
    try:
        return version("flash-attn").startswith("2.")
    except PackageNotFoundError:
        return False

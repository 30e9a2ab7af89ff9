"""Which of Transformer Engine's kernels text attends to text with."""

from __future__ import annotations

import os
from importlib.metadata import PackageNotFoundError, version

import torch
from megatron.core.transformer.enums import AttnBackend

from model.errors import InputError

VARIABLES = ("NVTE_FLASH_ATTN", "NVTE_FUSED_ATTN", "NVTE_UNFUSED_ATTN")
"""By which megatron-core tells Transformer Engine, and which it refuses where a model built before has set others."""


HALVES = (torch.bfloat16, torch.float16)


def _repeats() -> bool:
    return torch.are_deterministic_algorithms_enabled() and torch.cuda.is_available()


def check_deterministic(dtype: torch.dtype, context: int) -> None:
    """Refuses a combination whose numbers were seen to be wrong.

    Two H200 in bf16 with context parallelism over them and deterministic kernels gave gradients whose norm was 27 % off; without
    the one or the other, and in fp32, they were right.

    Args:
        dtype: of the decoder.
        context: ranks of context parallelism.

    Raises:
        InputError: deterministic kernels in 16 bits on a GPU, with rows spread over ranks.
    """
    if context > 1 and dtype in HALVES and _repeats():
        raise InputError(
            f"train.deterministic is true with parallel.context {context}, but on GPUs in 16 bits gradients of the two together "
            "are wrong; use parallel.context=1 or train.deterministic=false"
        )


def attention_backend(dtype: torch.dtype) -> AttnBackend:
    """megatron-core's `attention_backend`: auto, or flash-attn for a run that repeats itself bit for bit, where it is installed.

    The repeatable backward pass of cuDNN, which auto would take, was seen to ask for 32 GiB at 4,096 rows of packed text.

    Args:
        dtype: of the decoder; flash-attn takes 16 bits.
    """
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

"""What makes megatron-core's gradient buffers cheaper, in runs and in measurements alike."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import Any

import torch

from model.text.transformer_engine.accumulation import accumulate_in_products


def _scale(gradients: torch.Tensor, factor: float | torch.Tensor) -> None:
    """A buffer times a number that may lie on the device: torch's in-place product with such a scalar reads elements one by one
    and takes twice the time of the same product over a list."""
    torch._foreach_mul_([gradients], factor)


def lighten(wrapped: Iterable[Any]) -> None:
    """Add weight gradients in the products that make them, and scale whole buffers at the memory's speed.

    Args:
        wrapped: modules in megatron-core's DistributedDataParallel.
    """
    modules = list(wrapped)
    accumulate_in_products(modules)
    for module in modules:
        for buffer in (*module.buffers, *module.expert_parallel_buffers):
            buffer.scale_gradients = partial(_scale, buffer.grad_data)  # not the buffer, which would hold itself

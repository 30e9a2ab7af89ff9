"""Transformer Engine's products of gradients, added straight into megatron-core's buffers."""

from __future__ import annotations

from collections.abc import Iterable

import torch

from model.kernels.accumulate import main_grad


def accumulate_in_products(modules: Iterable[torch.nn.Module]) -> int:
    """From now on the modules' weight gradients are added to `main_grad` by the product that makes them.

    Without it every micro-batch writes a gradient of its own, which is read, added and written once more.

    Args:
        modules: whatever has buffers of gradients already; those without Transformer Engine's linear layers stay as they are.

    Returns:
        How many layers were told.
    """
    told = 0
    for module in modules:
        for layer in module.modules():
            weight = getattr(layer, "weight", None)
            if hasattr(layer, "fuse_wgrad_accumulation") and isinstance(weight, torch.Tensor):
                adds = weight.requires_grad and main_grad(weight) is not None
                setattr(layer, "fuse_wgrad_accumulation", adds)  # noqa: B010 - mypy takes a module's attributes for modules
                told += adds
    return told

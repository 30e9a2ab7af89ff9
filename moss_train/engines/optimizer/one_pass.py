"""Which optimizers take the norm of their gradients, and their step, in one pass each: Adam on a GPU that runs Triton."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from megatron.core.optimizer.clip_grads import clip_grad_by_total_norm_fp32
from torch import Tensor

from model.kernels.select import Form, choose_form, has_triton

if TYPE_CHECKING:
    from moss_train.platform.fused_adam_tables import GradientNorm, TableAdam


class OnePass:
    """Clips and steps megatron-core's optimizers, in `TableAdam` where it can.

    There the clip factor is applied as gradients are read: in memory they stay as they were, not clipped.

    Args:
        optimizers: megatron-core's, unchained, with their states' makers in place.
        device: of their weights.
        form: `triton` or `torch` whatever the device; the latter leaves everything to megatron-core and its Adam.
    """

    def __init__(self, optimizers: Sequence[Any], device: torch.device, form: Form | None = None) -> None:
        self._driven: dict[int, TableAdam] = {}
        if not has_triton() or choose_form(device, form) != "triton":
            return
        from moss_train.platform.fused_adam_tables import GradientNorm, TableAdam, drives

        for optimizer in optimizers:
            inner = getattr(optimizer, "optimizer", None)
            if inner is None or not drives(inner):
                continue
            adam = TableAdam(inner)
            inner.step = adam.step
            self._driven[id(optimizer)] = adam
            optimizer.get_main_grads_for_grad_norm = _Local(optimizer, GradientNorm())

    def drives(self, optimizer: Any) -> bool:
        """Whether an optimizer's step is `TableAdam`'s."""
        return id(optimizer) in self._driven

    def clip(self, optimizer: Any, norm: float) -> None:
        """Let the next step of an optimizer take its gradients clipped.

        Args:
            optimizer: one of those given.
            norm: the global norm of all gradients.
        """
        most = optimizer.config.clip_grad
        if most <= 0.0:
            return
        adam = self._driven.get(id(optimizer))
        if adam is not None:
            factor = most / (norm + 1.0e-6)  # as megatron-core's
            adam.clip = factor if factor < 1.0 else 1.0
        elif parameters := optimizer.get_parameters():
            decoupled = optimizer.config.use_precision_aware_optimizer_no_fp8_or_ds_fp8
            clip_grad_by_total_norm_fp32(parameters, max_norm=most, total_norm=norm, use_decoupled_grad=decoupled)


class _Local:
    """Stands for the gradients that count in the norm by one number, their norm: megatron-core chooses them, and adds up squares
    over ranks and optimizers as before."""

    def __init__(self, optimizer: Any, norm: GradientNorm) -> None:
        self._optimizer = weakref.ref(optimizer)  # which holds this
        self._norm = norm

    def __call__(self) -> list[Tensor]:
        optimizer: Any = self._optimizer()
        gradients = type(optimizer).get_main_grads_for_grad_norm(optimizer)
        if not any(gradient.numel() for gradient in gradients):
            return list(gradients)
        return [self._norm(gradients)]

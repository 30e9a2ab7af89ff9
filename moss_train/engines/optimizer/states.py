"""The states of megatron-core's optimizers, whatever keeps them: made before the first update, and read as fp32 weights."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from megatron.core.optimizer.cpu_offloading import HybridDeviceOptimizer
from torch import Tensor

from moss_train.platform.fused_adam import MASTER
from moss_train.platform.remainders import whole


def prepare_states(optimizers: Sequence[Any], momentum: float) -> None:
    """Give every optimizer a function that makes its states, as loading a checkpoint needs it.

    Args:
        optimizers: megatron-core's, unchained.
        momentum: of plain SGD.
    """
    for optimizer in optimizers:
        inner = getattr(optimizer, "optimizer", None)
        if isinstance(inner, torch.optim.SGD):
            optimizer.init_state_fn = _momentum if momentum > 0 else _nothing
        elif isinstance(inner, HybridDeviceOptimizer):
            inner.dummy_step = lambda inner=inner: _still_step(inner)
            optimizer.init_state_fn = _offloaded
        elif inner is not None and hasattr(inner, "initialize_state") and optimizer.config.use_precision_aware_optimizer:
            optimizer.init_state_fn = _precision_aware
            if optimizer.config.exp_avg_dtype == torch.uint8:
                _keep_fp8_finite(inner)
                optimizer.init_state_fn(inner, optimizer.config)  # Transformer Engine's own would keep the second copies


def initialise(optimizers: Sequence[Any]) -> None:
    """Make all states that are not there yet."""
    for optimizer in optimizers:
        if not optimizer.is_stub_optimizer and optimizer.init_state_fn is not None:
            optimizer.init_state_fn(optimizer.optimizer, optimizer.config)


def main_weights(optimizers: Sequence[Any]) -> Iterator[tuple[dict[str, Any], Tensor]]:
    """State and fp32 weight of every parameter, or range of one, that this rank updates.

    The weight may be a copy; states must have been made.
    """
    for optimizer in optimizers:
        if optimizer.is_stub_optimizer:
            continue
        inner = optimizer.optimizer
        for group in inner.param_groups:
            for parameter in group["params"]:
                state = inner.state[parameter]
                yield state, fp32_weight(parameter, state)


def fp32_weight(parameter: Tensor, state: dict[str, Any]) -> Tensor:
    """What an optimizer updates: the parameter, the fp32 weight beside it, or both halves put together."""
    if parameter.dtype == torch.float32:  # Transformer Engine keeps a second copy that nothing updates
        return parameter.detach()
    master: Tensor = state[MASTER]
    return whole(parameter.detach(), master) if master.dtype == torch.int16 else master.detach()


def _nothing(inner: Any, config: Any = None) -> None:
    """Initial state of an optimizer without state."""


def _momentum(inner: Any, config: Any = None) -> None:
    for group in inner.param_groups:
        for parameter in group["params"]:
            if "momentum_buffer" not in inner.state[parameter]:
                inner.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)


def _precision_aware(inner: Any, config: Any) -> None:
    for group in inner.param_groups:
        for parameter in group["params"]:
            if not inner.state[parameter]:
                inner.initialize_state(parameter, config.store_param_remainders and parameter.dtype == torch.bfloat16)
                for values in inner.state[parameter].values():
                    _drop_transpose(values)


def _drop_transpose(values: Any) -> None:
    """Transformer Engine's fp8 tensors hold a second copy for products with the transpose, which a moment has no use for."""
    quantizer = getattr(values, "_quantizer", None)
    if quantizer is not None:
        quantizer.set_usage(rowwise=True, columnwise=False)
        values.remove_caches()


def _keep_fp8_finite(inner: Any) -> None:
    """Transformer Engine divides by a tensor's largest magnitude: a moment of zeros, as of a weight without gradient, became
    not a number. One element of 1e-30 in it changes no update."""
    scale_down = inner._apply_scale

    def scaled(name: str, values: Tensor, stored: Any, scale: Tensor) -> None:
        if hasattr(stored, "_quantizer"):
            first = values.view(-1)[:1]
            first.add_(1e-30 * (values.abs().amax() == 0))
        scale_down(name, values, stored, scale)

    inner._apply_scale = scaled


def _offloaded(inner: Any, config: Any = None) -> None:
    if not inner.state:
        inner.dummy_step()


def _still_step(inner: Any) -> None:
    """A step that makes the states of both devices and changes no weight.

    It copies the optimizer's weights to the model's, which may have been loaded since: so the other way first.
    """
    inner.update_fp32_param_by_new_param()
    before = [(group, group["lr"], group["weight_decay"]) for group in inner.param_groups]
    for group in inner.param_groups:
        group["lr"] = group["weight_decay"] = 0.0
        for parameter in group["params"]:
            parameter.decoupled_grad = torch.zeros_like(parameter)
    inner.step()
    inner.zero_grad()
    for group, rate, decay in before:
        group["lr"], group["weight_decay"] = rate, decay


def set_steps(optimizers: Sequence[Any], updates: int) -> None:
    """Tell every group and state the number of updates applied.

    The optimizers count only in groups that have parameters here; a stage that trains nothing would lose the count in a
    checkpoint.
    """
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["step"] = updates
        inner = getattr(optimizer, "optimizer", None)
        if isinstance(inner, HybridDeviceOptimizer):
            for state in inner.state.values():
                if isinstance(state.get("step"), Tensor):
                    state["step"].fill_(float(updates))

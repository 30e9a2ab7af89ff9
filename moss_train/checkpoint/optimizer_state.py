"""The state of the optimizers as rectangles of global tensors: `optimizer.exp_avg.<weight>` beside `<weight>`.

megatron-core's distributed optimizer owns a range of every parameter's elements on each data-parallel rank. Such a range is a
few rectangles of the whole tensor, so each rank writes what it owns and nothing is gathered.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from megatron.core.optimizer.cpu_offloading import HybridDeviceOptimizer
from megatron.core.optimizer.distrib_optimizer import DistributedOptimizer
from torch import Tensor

from moss_train.checkpoint.piece import Piece
from moss_train.checkpoint.state import ModelPlaces

PREFIX = "optimizer."
MASTER = "param"
"""Name of the weights in the optimizer's own precision."""
REMAINDER = "param_remainder"
"""Name of the lower half of an fp32 weight whose upper half is the bf16 weight itself."""


@dataclass(frozen=True)
class ParameterState:
    """What an optimizer on this rank keeps for a parameter, or for the range of it that it owns."""

    parameter: Tensor
    begin: int
    """First element of the range, counted in the local parameter."""
    owned: bool
    """Whether the data-parallel ranks own different ranges, or different parameters; else all hold the same."""
    tensors: dict[str, Tensor]
    """One value for every element of the range, by name."""
    put: Callable[[str, Tensor], None] | None = None
    """Takes back a tensor that was made for saving; None where `tensors` are the optimizer's own."""


def key_of(state: str, weight: str) -> str:
    """`optimizer.exp_avg.decoder.layers.0.…` for a state of a weight."""
    return f"{PREFIX}{state}.{weight}"


@runtime_checkable
class KeepsStates(Protocol):
    """An optimizer that is not megatron-core's and knows itself what it keeps."""

    def initialise_states(self) -> None:
        """After the weights were loaded: make the states, so that there is something to load into."""
        ...

    def parameter_states(self) -> Iterator[ParameterState]:
        """What this rank keeps of every parameter, in the same order in every call."""
        ...


def initialise_states(optimizers: list[Any]) -> None:
    """Make the states of optimizers that have not taken a step yet, so that there is something to load into."""
    for optimizer in optimizers:
        if isinstance(optimizer, KeepsStates):
            optimizer.initialise_states()
        elif not getattr(optimizer, "is_stub_optimizer", False) and optimizer.init_state_fn is not None:
            optimizer.init_state_fn(optimizer.optimizer, optimizer.config)


def take_over_states(optimizers: list[Any]) -> None:
    """After loading in place: have copies of the states on another device follow."""
    for optimizer in optimizers:
        inner = getattr(optimizer, "optimizer", None)
        if isinstance(inner, HybridDeviceOptimizer):
            inner._sync_hdo_state_to_sub_optimizers()


def optimizer_states(optimizers: list[Any]) -> Iterator[ParameterState]:
    """What the optimizers of this rank keep, parameter by parameter, in the same order in every call.

    Args:
        optimizers: megatron-core's, unchained, or others that know what they keep.
    """
    for optimizer in optimizers:
        if isinstance(optimizer, KeepsStates):
            yield from optimizer.parameter_states()
        elif isinstance(optimizer, DistributedOptimizer) and not optimizer.is_stub_optimizer:
            yield from _distributed(optimizer)
        elif not getattr(optimizer, "is_stub_optimizer", False):
            yield from _whole(optimizer)


def optimizer_pieces(optimizers: list[Any], places: ModelPlaces) -> Iterator[Piece]:
    """The pieces of all states, values where they live."""
    for state in optimizer_states(optimizers):
        for place in places.of(state.parameter):
            writes = place.first_model_replica if state.owned else place.first_replica
            for name, values in state.tensors.items():
                yield from place.parts(key_of(name, place.key), values.reshape(-1), state.begin, writes=writes)


def _distributed(optimizer: Any) -> Iterator[ParameterState]:
    raw = optimizer.config.use_precision_aware_optimizer_no_fp8_or_ds_fp8
    for parameter in optimizer.model_param_group_index_map:
        own = optimizer._get_model_param_range_map(parameter)["param"]
        group, order = optimizer.model_param_group_index_map[parameter]
        main = optimizer.optimizer.param_groups[group]["params"][order]
        if raw and not isinstance(optimizer.optimizer, HybridDeviceOptimizer):
            yield _precision_aware(optimizer.optimizer, parameter, main, own.start)
            continue
        found: dict[str, Tensor] = dict(optimizer._get_main_param_and_optimizer_states(parameter))
        yield ParameterState(parameter, own.start, True, _kept(found, parameter, own.size))


def _precision_aware(inner: Any, parameter: Tensor, main: Tensor, begin: int) -> ParameterState:
    """Transformer Engine's states as they are, but those with a scale of their own, which depends on the range, in fp32.

    It notes a scale for bf16 states as well, which it never uses.
    """
    states = inner.state[main]
    scaled = {name for name in inner._scales.get(main, {}) if states[name].dtype != torch.bfloat16}
    tensors: dict[str, Tensor] = {}
    names: dict[str, str] = {}
    for name, values in states.items():
        ours = name
        if name == "master_param":
            ours = REMAINDER if values.dtype == torch.int16 else MASTER
        names[ours] = name
        tensors[ours] = inner.get_unscaled_state(main, name) if name in scaled else values

    def put(ours: str, values: Tensor) -> None:
        if names[ours] in scaled:
            inner.set_scaled_state(main, names[ours], values)

    return ParameterState(parameter, begin, True, _kept(tensors, parameter, main.numel()), put)


def _whole(optimizer: Any) -> Iterator[ParameterState]:
    """Optimizers that hold whole parameters: fp32, or 16 bits with fp32 copies."""
    sixteen = getattr(optimizer, "float16_groups", [])
    copies = {
        id(copy): parameter
        for group, copied in zip(sixteen, getattr(optimizer, "fp32_from_float16_groups", []), strict=True)
        for parameter, copy in zip(group, copied, strict=True)
    }
    for group in optimizer.optimizer.param_groups:
        for main in group["params"]:
            parameter = copies.get(id(main), main)
            found = {MASTER: main, **optimizer.optimizer.state[main]}
            yield ParameterState(parameter, 0, False, _kept(found, parameter, main.numel()))


def _kept(found: dict[str, Any], parameter: Tensor, count: int) -> dict[str, Tensor]:
    """The tensors of a state: no counters, and no second copy of weights that are fp32 themselves."""
    kept = {}
    for name, values in found.items():
        if not isinstance(values, Tensor) or name == "step" or (name == MASTER and parameter.dtype == torch.float32):
            continue
        assert values.numel() == count, f"{name} has {values.numel()} values for {count}"
        kept[name] = values.detach()
    return kept

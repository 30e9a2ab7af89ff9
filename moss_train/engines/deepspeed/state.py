"""Weights and optimizer states that DeepSpeed shards, as the parts of whole parameters that this rank has.

Every stage cuts parameters into ranges of their elements: stages 1 and 2 cut the optimizer's states of a group of
parameters laid behind each other, stage 3 cuts every parameter by itself, weights included. Checkpoints store parts of
tensors, so each rank writes what it has, and another number of ranks, another stage or the other engine reads it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from moss_train.checkpoint.optimizer_state import MASTER, ParameterState
from moss_train.checkpoint.piece import Piece
from moss_train.checkpoint.state import ModelPlaces


class ShardedPlaces(ModelPlaces):
    """Where this rank's parts of parameters lie in the whole model; made while parameters are whole, before stage 3 cuts them."""

    def __init__(self, chunks: Sequence[nn.Module], vision: nn.Module) -> None:
        super().__init__(chunks, vision)
        self._pairs = [(parameter, places) for parameter, places in self._places.values()]

    def weights(self) -> Iterator[Piece]:
        """The pieces of all parameters: under stage 3 of this rank's range of each, which no other rank writes."""
        for parameter, places in self._pairs:
            if not hasattr(parameter, "ds_tensor"):
                yield from (place.whole(parameter.detach()) for place in places)
                continue
            begin, values = stage3_range(parameter, parameter.ds_tensor)
            for place in places:
                yield from place.parts(place.key, values, begin, writes=True)


def stage3_range(parameter: Any, values: Tensor) -> tuple[int, Tensor]:
    """First element of this rank's range of a parameter, and its values without the padding of the last rank.

    Args:
        values: one-dimensional, as long as the rank's share of the padded parameter.
    """
    size = parameter.ds_tensor.ds_numel
    begin = size * torch.distributed.get_rank(parameter.ds_process_group)
    return begin, values.view(-1)[: max(0, min(size, parameter.ds_numel - begin))]


class ShardedOptimizer:
    """DeepSpeed's optimizer as checkpoints see it.

    Args:
        optimizer: of `deepspeed.initialize`.
        stage: of ZeRO.
        names: states of a parameter, such as exp_avg.
        keeps_masters: whether fp32 weights are kept beside those of the model.
    """

    def __init__(self, optimizer: Any, stage: int, names: Sequence[str], keeps_masters: bool) -> None:
        self._optimizer = optimizer
        self._stage = stage
        self._names = list(names)
        self._keeps_masters = keeps_masters

    @property
    def chained_optimizers(self) -> list[ShardedOptimizer]:
        """Itself alone: the other engine has one optimizer for every kind of parameter."""
        return [self]

    @property
    def _flat(self) -> list[nn.Parameter]:
        """What torch's optimizer updates: this rank's part of every group."""
        if self._stage == 3:
            parts: list[nn.Parameter] = self._optimizer.fp32_partitioned_groups_flat
        else:
            parts = self._optimizer.single_partition_of_fp32_groups
        return parts

    def initialise_states(self) -> None:
        """After the weights were loaded: fp32 copies of them, and states to load into."""
        if self._stage == 3:
            # Weights fetched ahead and small ones, which stay whole, are the old ones: the next use gathers all again.
            self._optimizer._partition_all_parameters()
        self._optimizer.refresh_fp32_params()
        for flat in self._flat:
            state = self._optimizer.optimizer.state[flat]
            for name in self._names:
                if name not in state:
                    state[name] = torch.zeros_like(flat.data)
        if self._stage != 3:
            self._optimizer._hp_optimizer_states_linked = False
            self._optimizer._lazy_init_hp_params_optimizer_state()

    def set_updates(self, updates: int) -> None:
        """Adam's own count of updates."""
        if "exp_avg" not in self._names:
            return
        for flat in self._flat:
            state = self._optimizer.optimizer.state[flat]
            if state:
                fused = any(group.get("fused") for group in self._optimizer.optimizer.param_groups)
                state["step"] = torch.tensor(float(updates), device=flat.device if fused else "cpu")

    def owned(self) -> list[nn.Parameter]:
        """Trained parameters of which this rank updates a part, in a fixed order."""
        return [parameter for group in self._groups for parameter in group if self._part(parameter)]

    def gradient(self, parameter: Any) -> Tensor:
        """This rank's part of a reduced gradient, one-dimensional; between `prepare` and the update."""
        if self._stage == 3:
            return stage3_range(parameter, self._optimizer._get_fp32_grad_state_partition(parameter, True)[0])[1]
        mapping = parameter._hp_mapping
        address = mapping.lp_fragment_address
        values: Tensor = mapping.get_lp_grad_fragment(parameter._index_in_param_group).view(-1)
        return values if values.numel() == address.numel else values.narrow(0, address.start, address.numel)

    @property
    def _groups(self) -> list[list[nn.Parameter]]:
        groups: list[list[nn.Parameter]] = self._optimizer.fp16_groups if self._stage == 3 else self._optimizer.bit16_groups
        return groups

    def _part(self, parameter: Any) -> int:
        """Elements of a parameter that this rank updates."""
        if self._stage == 3:
            return stage3_range(parameter, parameter.ds_tensor)[1].numel()
        return 0 if parameter._hp_mapping is None else int(parameter._hp_mapping.hp_fragment_address.numel)

    def parameter_states(self) -> Iterator[ParameterState]:
        """What this rank keeps of every trained parameter, in the same order in every call."""
        for index, group in enumerate(self._groups):
            for parameter in group:
                if self._part(parameter):
                    begin, tensors = self._stage3(parameter) if self._stage == 3 else self._fragment(index, parameter)
                    yield ParameterState(parameter, begin, True, tensors)

    def _kept(self) -> list[str | None]:
        return [None, *self._names] if self._keeps_masters else list(self._names)

    def _stage3(self, parameter: Any) -> tuple[int, dict[str, Tensor]]:
        tensors, begin = {}, 0
        for name in self._kept():
            values, _ = self._optimizer._get_fp32_opt_state_partition(parameter, True, name)
            begin, tensors[name or MASTER] = stage3_range(parameter, values.detach())
        return begin, tensors

    def _fragment(self, index: int, parameter: Any) -> tuple[int, dict[str, Tensor]]:
        mapping = parameter._hp_mapping
        address = mapping.hp_fragment_address
        flat = self._flat[index]
        state = self._optimizer.optimizer.state[flat]
        tensors = {
            name or MASTER: (flat.data if name is None else state[name]).narrow(0, address.start, address.numel)
            for name in self._kept()
        }
        return mapping.lp_fragment_address.start, tensors

"""Whole adapters into the weights of a live model of any layout."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from megatron.core import parallel_state
from torch import Tensor, nn

from model.conversion.fusion import shard
from model.conversion.live import live_parameters, unwrap
from model.conversion.table import decoder_rules
from model.lora.adapter import LowRankAdapter
from model.lora.merge import Factors, merge
from model.lora.names import CHILD


@torch.no_grad()
def merge_into(chunks: Sequence[nn.Module], vision: nn.Module, factors: Mapping[str, Factors], scale: float) -> None:
    """Merges whole adapters into a live model without adapters; every rank takes its share.

    Args:
        chunks, vision: the model of this rank.
        factors: adapters by the name of the matrix: megatron-core's over the whole decoder, the tower's published one.
        scale: alpha / rank.
    """
    config = unwrap(chunks[0]).model_config
    rules = {rule.megatron: rule for rule in decoder_rules(config)}  # type: ignore[arg-type]
    size, rank = parallel_state.get_tensor_model_parallel_world_size(), parallel_state.get_tensor_model_parallel_rank()
    for name, parameter in live_parameters(chunks):
        if name not in factors:
            continue
        a, b, rule = factors[name].a, factors[name].b, rules[name]
        if rule.sharding == "columns":
            a = shard(rule, a, size, rank)
        else:
            b = shard(rule, b, size, rank)
        parameter.copy_(merge(parameter, a.to(parameter.device), b.to(parameter.device), scale))
    for name, parameter in unwrap(vision).named_parameters():
        if name in factors:
            parameter.copy_(merge(parameter, factors[name].a.to(parameter.device), factors[name].b.to(parameter.device), scale))


def merged_reader(chunks: Sequence[nn.Module], vision: nn.Module) -> Callable[[nn.Parameter], Tensor]:
    """A function from a parameter to its value with its adapter, if it has one, merged: a share of the whole merged matrix.

    Args:
        chunks, vision: the model of this rank, adapted or not; it is not changed.
    """
    adapters: dict[int, LowRankAdapter] = {}
    for root in (*chunks, vision):
        for module in unwrap(root).modules():
            adapter = getattr(module, CHILD, None)
            if isinstance(adapter, LowRankAdapter):
                adapters[id(module.weight)] = adapter

    @torch.no_grad()
    def read(parameter: nn.Parameter) -> Tensor:
        adapter = adapters.get(id(parameter))
        return parameter.data if adapter is None else merge(parameter.data, adapter.a, adapter.b, adapter.scale)

    return read

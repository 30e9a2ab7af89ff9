"""Parameters that several ranks hold must be equal bit for bit: a memory error or a lost reduction makes them part silently.

Every parameter becomes two integers, on the device that holds it: the sum of its bits taken as integers, and the same sum with
each place weighted by an odd number of its own. A single changed bit changes both. The integers of all ranks that share the
parameters are compared with one reduction for each kind of sharing; names and ranks are looked up only after a difference.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from megatron.core import parallel_state

from moss_train.engines.optimizer.modules import named
from moss_train.feed.agreement import CommonError
from moss_train.guards.hang import ranks_of
from moss_train.monitors.base import Monitor
from moss_train.parallel.layout import ParallelLayout

_INTEGERS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
_CHUNK = 1 << 24
_FACTOR = 0x9E3779B1  # odd: places far and near get weights that have nothing in common


def checksum(tensor: torch.Tensor) -> torch.Tensor:
    """int64 [2] of a tensor's raw bits, on its device; sums wrap."""
    flat = tensor.detach().contiguous().view(-1).view(_INTEGERS[tensor.element_size()])
    sums = torch.zeros(2, dtype=torch.int64, device=tensor.device)
    for begin in range(0, flat.numel(), _CHUNK):  # the wide copies stay small beside the parameter
        part = flat[begin : begin + _CHUNK].long()
        places = torch.arange(begin, begin + part.numel(), device=part.device)
        sums[0] += part.sum()
        sums[1] += (part * ((places * _FACTOR & 0x7FFFFFFF) | 1)).sum()
    return sums


@dataclass(frozen=True)
class Shared:
    """Parameters that the ranks of a group hold alike."""

    group: Any
    """None for the world."""
    names: tuple[str, ...]
    parameters: tuple[torch.nn.Parameter, ...]

    def checksums(self) -> torch.Tensor:
        """int64 [parameters, 2]."""
        return torch.stack([checksum(parameter) for parameter in self.parameters])


def shared_parameters(chunks: Sequence[torch.nn.Module], unit: torch.nn.Module, layout: ParallelLayout) -> list[Shared]:
    """What this rank holds in common with others: by group, equal in order on all ranks of it."""
    vision = {id(parameter) for parameter in unit.parameters()}
    everything = list(named(chunks, unit))
    decoder = [(name, parameter) for name, parameter in everything if id(parameter) not in vision]
    copied = [(n, p) for n, p in decoder if not getattr(p, "tensor_model_parallel", False)]
    # A tied embedding or head is on the first and the last stage; models of this family tie nothing.
    kinds = [
        (parallel_state.get_data_parallel_group(with_context_parallel=True), decoder),
        (parallel_state.get_tensor_model_parallel_group(), copied),
        (None, [(name, parameter) for name, parameter in everything if id(parameter) in vision]),
    ]
    return [
        Shared(group, tuple(name for name, _ in members), tuple(parameter for _, parameter in members))
        for group, members in kinds
        if members and dist.get_world_size(group) > 1
    ]


class Copies(Monitor):
    """Compares them every so many steps.

    Args:
        chunks: decoder chunks without wrappers.
        unit: the vision unit, replicated over the world.
        layout: this rank's place.
        every: steps between comparisons.
    """

    every_rank = True

    def __init__(self, chunks: Sequence[torch.nn.Module], unit: torch.nn.Module, layout: ParallelLayout, every: int) -> None:
        self._layout = layout
        self._every = every
        self._shared = shared_parameters(chunks, unit, layout)

    def stepped(self, record: dict[str, Any]) -> None:
        if self._layout.world_size > 1 and record["step"] % self._every == 0:
            self.compare(record["step"])

    def compare(self, step: int) -> None:
        """Raise on all ranks where some copy differs.

        Raises:
            CommonError: names the first such parameter and the ranks that hold something else than most.
        """
        device = self._layout.device
        own = [shared.checksums() for shared in self._shared]
        differs = torch.zeros(1, dtype=torch.int32, device=device)
        for shared, sums in zip(self._shared, own, strict=True):
            bounds = torch.stack([sums, ~sums])  # the largest complement belongs to the smallest
            dist.all_reduce(bounds, op=dist.ReduceOp.MAX, group=shared.group)
            differs |= (bounds[0] != ~bounds[1]).any().int()
        dist.all_reduce(differs, op=dist.ReduceOp.MAX)
        if differs.item():
            raise CommonError(self._sentence(step, own))

    def _sentence(self, step: int, own: list[torch.Tensor]) -> str:
        mine = {
            (tuple(dist.get_process_group_ranks(shared.group)), name): tuple(sums)
            for shared, all_sums in zip(self._shared, own, strict=True)
            for name, sums in zip(shared.names, all_sums.tolist(), strict=True)
        }
        everyone: list[Any] = [None] * self._layout.world_size
        dist.all_gather_object(everyone, mine)
        for key in dict.fromkeys(key for sums in everyone for key in sums):
            ranks, name = key
            found = {rank: everyone[rank][key] for rank in ranks}
            most, _ = Counter(found.values()).most_common(1)[0]
            odd = [rank for rank, value in found.items() if value != most]
            if odd:
                whose = f"on {ranks_of(odd)} differs from the copies on {ranks_of([r for r in ranks if r not in odd])}"
                if 2 * len(odd) == len(ranks):
                    whose = f"differs between {ranks_of(odd)} and {ranks_of([r for r in ranks if r not in odd])}"
                return (
                    f"after step {step} parameter {name} {whose}, which should be equal bit for bit: most often a fault of a GPU "
                    "or of its memory; look at these machines and continue from an earlier checkpoint"
                )
        raise AssertionError("a difference that no rank has")


def make_copies(session: Any, every: int) -> Copies | None:
    """None where nothing is compared; ZeRO's third stage, whose ranks hold slices, is refused in the configuration."""
    if not every:
        return None
    return Copies(session.models.chunks, session.models.unit, session.layout, every)

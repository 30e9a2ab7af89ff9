"""One place in a parallel layout: sizes, this rank's coordinates, and the groups of the vision tower.

The decoder lives in megatron-core's groups. The vision tower is replicated on every rank and is data parallel over the
whole world, so it has groups of its own.
"""

from __future__ import annotations

import gc
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.distributed as dist
from megatron.core import parallel_state
from megatron.core.process_groups_config import ProcessGroupCollection
from megatron.core.tensor_parallel.random import model_parallel_cuda_manual_seed

from moss_train.config.schema import ParallelConfig
from moss_train.parallel.sizes import check_sizes
from moss_train.parallel.world import TIMEOUT


@dataclass(frozen=True)
class RankPlace:
    """Coordinates of one rank; equal fields for every rank of the world are known everywhere."""

    data: int
    tensor: int
    pipeline: int
    context: int


@dataclass(frozen=True)
class ParallelLayout:
    """This process within the world."""

    device: torch.device
    rank: int
    world_size: int
    sizes: ParallelConfig
    data_size: int
    """Data-parallel replicas of the decoder."""
    place: RankPlace
    places: tuple[RankPlace, ...]
    """Place of every rank, by rank."""
    vision_groups: ProcessGroupCollection

    @property
    def data_group(self) -> dist.ProcessGroup:
        """Ranks with the same model shard."""
        group: dist.ProcessGroup = parallel_state.get_data_parallel_group()
        return group

    @property
    def is_last_stage(self) -> bool:
        return self.place.pipeline == self.sizes.pipeline - 1

    @property
    def writes_for_replica(self) -> bool:
        """Whether this rank is the one of its data-parallel index that writes files or counts samples."""
        return self.place.tensor == 0 and self.place.pipeline == 0 and self.place.context == 0

    @property
    def counts_loss(self) -> bool:
        """Whether this rank's losses enter global sums: on the last stage one rank of each tensor-parallel group, whose ranks
        hold the same losses; context ranks each have rows of their own."""
        return self.is_last_stage and self.place.tensor == 0


def start_layout(sizes: ParallelConfig, device: torch.device, seed: int) -> ParallelLayout:
    """Create all process groups; `start_world` must have run. May be repeated after `stop_layout`.

    Args:
        sizes: sizes of the parallel groups; data parallel takes the rest of the world.
        device: this rank's device.
        seed: base of megatron-core's per-rank random states.

    Raises:
        InputError: the sizes do not fit the world.
    """
    world_size = dist.get_world_size()
    data_size = check_sizes(sizes, world_size)
    parallel_state.initialize_model_parallel(
        sizes.tensor,
        sizes.pipeline,
        sizes.virtual_pipeline if sizes.virtual_pipeline > 1 else None,
        context_parallel_size=sizes.context,
        distributed_timeout_minutes=int(TIMEOUT.total_seconds() // 60),
    )
    model_parallel_cuda_manual_seed(seed)
    places = tuple(place_of(rank, sizes, data_size) for rank in range(world_size))
    rank = dist.get_rank()
    return ParallelLayout(
        device=device,
        rank=rank,
        world_size=world_size,
        sizes=sizes,
        data_size=data_size,
        place=places[rank],
        places=places,
        vision_groups=_vision_groups(world_size, rank),
    )


_endings: list[Callable[[], None]] = []


def at_end_of_layout(action: Callable[[], None]) -> None:
    """Have something done, once, before the groups of the layout end."""
    _endings.append(action)


def stop_layout() -> None:
    """End megatron-core's groups and the tower's, so that another layout can be started in the same processes.

    megatron-core only forgets its groups: with gloo they would leave some 60 threads behind with every layout, each of which
    wakes a hundred times a second.
    """
    while _endings:
        _endings.pop()()
    parallel_state.destroy_model_parallel()
    if not dist.is_initialized():
        return
    everyone = dist.group.WORLD
    for group in list(dist.distributed_c10d._world.pg_map):  # in the order of their creation, the same on every rank
        if group is not everyone:
            dist.destroy_process_group(group)
    gc.collect()  # modules hold groups in cycles


def place_of(rank: int, sizes: ParallelConfig, data_size: int) -> RankPlace:
    """megatron-core's order: tensor fastest, then context, data and pipeline."""
    rest, tensor = divmod(rank, sizes.tensor)
    rest, context = divmod(rest, sizes.context)
    pipeline, data = divmod(rest, data_size)
    return RankPlace(data=data, tensor=tensor, pipeline=pipeline, context=context)


def _vision_groups(world_size: int, rank: int) -> ProcessGroupCollection:
    """Data parallel over the world; one rank in every model-parallel dimension, so that the norm counts each shard once."""
    alone: dist.ProcessGroup | None = None
    for r in range(world_size):
        group = dist.new_group([r], timeout=TIMEOUT)
        if r == rank:
            alone = group
    everyone = list(range(world_size))
    world = dist.new_group(everyone, timeout=TIMEOUT)
    groups = ProcessGroupCollection()
    groups.dp = groups.dp_cp = world
    groups.tp = groups.pp = groups.ep = groups.mp = groups.tp_ep_pp = groups.expt_dp = groups.cp = alone
    # A group object of its own: with one object for both modules their gradients would enter one fused norm,
    # which takes its dtype from the first tensor.
    groups.intra_dist_opt = dist.new_group(everyone, timeout=TIMEOUT)
    groups.embd = groups.pos_embd = None
    return groups

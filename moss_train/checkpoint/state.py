"""Where every parameter of this rank lies in the whole model, and the small states that modules keep beside their parameters."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from typing import Any

import torch
import torch.distributed as dist
from megatron.core import parallel_state
from megatron.core.dist_checkpointing.mapping import ShardedObject, ShardedTensor, ShardedTensorFactory, is_main_replica
from torch import Tensor

from moss_train.checkpoint.piece import Piece, Place

METADATA: dict[str, Any] = {"non_homogeneous_layers": True}


def vision_state(vision: torch.nn.Module, prefix: str = "vision.") -> dict[str, ShardedTensor]:
    """The replicated vision parameters; each is written by one of the ranks."""
    rank = dist.get_rank()
    return {
        name: ShardedTensor.from_rank_offsets(prefix + name, parameter, replica_id=(0, 0, rank))
        for name, parameter in vision.named_parameters()
    }


def model_state(chunks: Sequence[torch.nn.Module], vision: torch.nn.Module) -> dict[str, Any]:
    """Decoder chunks under `model0`, `model1`, …, the vision encoder under `vision`.

    Args:
        chunks: decoder chunks without wrappers.
        vision: the vision encoder, or the unit with a dense head whose encoder is stored under the same names.
    """
    state: dict[str, Any] = {}
    for i, chunk in enumerate(chunks):
        state[f"model{i}"] = chunk.sharded_state_dict(metadata=METADATA)  # type: ignore[operator]
    encoder = getattr(vision, "encoder", vision)
    state["vision"] = vision_state(encoder)
    head = getattr(vision, "dense_head", None)
    if head is not None:
        state["dense_head"] = vision_state(head, "dense_head.")
    return state


class ModelPlaces:
    """This rank's parameters within the whole model.

    Args:
        chunks: decoder chunks without wrappers.
        vision: the vision encoder or the vision unit.
    """

    def __init__(self, chunks: Sequence[torch.nn.Module], vision: torch.nn.Module) -> None:
        self._chunks = chunks
        self._places: dict[int, tuple[Tensor, list[Place]]] = {}
        self._objects: list[tuple[torch.nn.Module, str, ShardedObject]] = []
        for part, state in model_state(chunks, vision).items():
            replicas = _replicas(part)
            for number, (name, entry) in enumerate(state.items()):
                if isinstance(entry, ShardedObject):
                    self._objects.append((chunks[int(part.removeprefix("model"))], name, entry))
                else:
                    self._places[id(entry.data)] = entry.data, list(_places(entry, number % replicas))

    def of(self, parameter: Tensor) -> list[Place]:
        """Where a parameter's values lie: one place, or several for a parameter that is fused out of parts."""
        return self._places[id(parameter)][1]

    def weights(self) -> Iterator[Piece]:
        """The pieces of all parameters, values where they live."""
        for parameter, places in self._places.values():
            for place in places:
                yield place.whole(parameter.detach())

    def objects(self) -> dict[str, Any]:
        """The small states that this rank is to write, such as the history of fp8 scales, by their key."""
        return {
            entry.unique_key: entry.data
            for _, _, entry in self._objects
            if is_main_replica(entry.replica_id) and not _is_empty(entry.data)
        }

    def object_keys(self) -> list[str]:
        """The keys of the small states that this rank's modules want back."""
        return [entry.unique_key for _, _, entry in self._objects]

    def put_objects(self, found: dict[str, Any]) -> None:
        """Give modules their small states back; what is not found stays as it is."""
        for chunk, name, entry in self._objects:
            if entry.unique_key in found:
                module: Any = chunk.get_submodule(name.removesuffix("._extra_state"))
                module.set_extra_state(found[entry.unique_key])


def places_of(optimization: Any, chunks: Sequence[torch.nn.Module], vision: torch.nn.Module) -> ModelPlaces:
    """The places of a run's parameters; an engine that shards weights has noted them before."""
    found = getattr(optimization, "places", None)
    return found if isinstance(found, ModelPlaces) else ModelPlaces(chunks, vision)


def _replicas(part: str) -> int:
    """Ranks that hold the same parameters of a part of `model_state`: the tower's are everywhere."""
    if part.startswith("model"):
        return int(parallel_state.get_data_parallel_world_size(with_context_parallel=True))
    return dist.get_world_size()


def _places(entry: ShardedTensor | ShardedTensorFactory, writer: int) -> Iterator[Place]:
    """Where a parameter lies; of its data-parallel replicas the one numbered `writer` writes it."""
    parameter = entry.data
    parts = [entry]
    if isinstance(entry, ShardedTensorFactory):
        parts = entry.build()
        # A factory that copies, or cuts across rows, would need another way back.
        assert all(part.data.is_contiguous() for part in parts) and sum(part.data.numel() for part in parts) == parameter.numel()
    for part in parts:
        assert part.prepend_axis_num == 0 and len(part.replica_id) == 3, f"{part.key} is sharded in an unknown way"
        yield Place(
            key=part.key,
            shape=tuple(part.global_shape),
            offsets=tuple(part.global_offset),
            sizes=tuple(part.local_shape),
            start=(part.data.data_ptr() - parameter.data_ptr()) // parameter.element_size(),
            first_replica=is_main_replica(part.replica_id[:2]) and part.replica_id[2] == writer,
            # The last number counts data-parallel ranks, each of which owns a part of the optimizer's state.
            first_model_replica=is_main_replica(part.replica_id[:2]),
            padded=part.allow_shape_mismatch,
        )


def _is_empty(value: Any) -> bool:
    if isinstance(value, io.BytesIO):
        return value.getbuffer().nbytes == 0
    return value is None or (isinstance(value, Tensor) and value.numel() == 0)

"""Gradients summed over replicas, new weights gathered, and what finishes a step: the norm, the number of targets.

megatron-core lays the gradients of each virtual stage into one buffer. With a distributed optimizer every parameter begins at a
multiple of 64 elements and the buffer's length is a multiple of 128 and of the ranks: it is scattered in sums, and gathered
as weights. The vision unit's buffer is summed over the world, always in fp32.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

from moss_train.planning.communication.calls import Calls, Kind, Traffic
from moss_train.planning.communication.rank import Rank
from moss_train.planning.communication.tensors import Tensor, decoder_tensors, vision_tensors

FP32 = 4
COUNT = 4
"""Bytes of the number of targets, and of a norm."""


def buffer_elements(tensors: Iterable[Tensor], ranks: int, sharded: bool) -> int:
    """Length of a gradient buffer; 0 where nothing trains."""
    sizes = [tensor.elements for tensor in tensors if tensor.trains]
    if not sharded or not sizes:
        return sum(sizes)
    unit = math.lcm(ranks, 128)
    return -(-sum(-(-size // 64) * 64 for size in sizes) // unit) * unit


def _scattered(traffic: Traffic, purpose: str, kind: Kind, group: str, ranks: int, whole: float) -> None:
    part = whole / ranks
    gives, gets = (whole, part) if kind == "reduce-scatter" else (part, whole)
    traffic.add(purpose, kind, group, ranks, Calls(1, gives, gets))


def _buffer(rank: Rank, traffic: Traffic, elements: int, group: str, ranks: int, gradient: int) -> None:
    """The calls of one buffer."""
    if not elements:
        return
    if not rank.config.optimizer.distributed:
        traffic.add("gradients", "all-reduce", group, ranks, Calls(1, elements * gradient, elements * gradient))
        return
    _scattered(traffic, "gradients", "reduce-scatter", group, ranks, elements * gradient)
    _scattered(traffic, "weights", "all-gather", group, ranks, elements * rank.element)


def add_gradients(rank: Rank, traffic: Traffic) -> None:
    """The calls of both parts and of the update."""
    config, sharded = rank.config, rank.config.optimizer.distributed
    same = rank.replicas * rank.context
    fp32 = config.precision.grad_reduce_fp32 or config.precision.dtype == "fp32"
    gradient = FP32 if fp32 else rank.element
    chunks = [decoder_tensors(rank, chunk) for chunk in rank.chunks()]
    decoder_trains = bool(rank.gradients.moved & {"text", "cross_layers"}) and rank.decodes
    if rank.decodes:
        for tensors in chunks:
            _buffer(rank, traffic, buffer_elements(tensors, same, sharded), "data", same, gradient)
        _finish(rank, traffic, [tensor for tensors in chunks for tensor in tensors], same, gradient)
        if config.optimizer.name == "muon":
            _matrices(traffic, [tensor for tensors in chunks for tensor in tensors], rank.tensor)
    vision = vision_tensors(rank)
    elements = buffer_elements(vision, rank.ranks, sharded)
    _buffer(rank, traffic, elements, "world", rank.ranks, FP32)
    if decoder_trains:
        if sharded:
            traffic.add("norm", "all-reduce", "world", rank.ranks, Calls(1, COUNT, COUNT))
        else:
            model = rank.tensor * config.parallel.pipeline
            traffic.add("norm", "all-reduce", "model", model, Calls(1, COUNT, COUNT))
    if elements and sharded:
        traffic.add("norm", "all-reduce", "world", rank.ranks, Calls(1, COUNT, COUNT))


def _finish(rank: Rank, traffic: Traffic, tensors: list[Tensor], same: int, gradient: int) -> None:
    """Gradients of what every tensor-parallel rank holds but sees a part of, and the number of targets."""
    partial = sum(t.elements for t in tensors if t.trains and (t.per_head or (t.partial and rank.scattered)))
    if partial:
        traffic.add("finish", "all-reduce", "tensor", rank.tensor, Calls(1, partial * gradient, partial * gradient))
    if rank.config.precision.fp8 == "delayed":  # gradients are divided at the end, else the loss is
        traffic.add("finish", "broadcast", "pipeline", rank.config.parallel.pipeline, Calls(1, COUNT, COUNT))
        traffic.add("finish", "all-reduce", "data", same, Calls(1, COUNT, COUNT))


def _matrices(traffic: Traffic, tensors: list[Tensor], ranks: int) -> None:
    """Muon makes whole matrices orthogonal: their momentum in fp32 is gathered."""
    sizes = [FP32 * tensor.elements for tensor in tensors if tensor.matrix and tensor.trains]
    traffic.add("muon", "all-gather", "tensor", ranks, Calls(len(sizes), sum(sizes), ranks * sum(sizes)))

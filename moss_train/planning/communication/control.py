"""Small messages: rows for the other ranks of a replica, counts, sums for the log, what monitors and guards ask of all ranks."""

from __future__ import annotations

from data_pipeline.packing.batch import TOKEN_CLASSES
from moss_train.planning.communication.calls import Calls, Kind, Traffic
from moss_train.planning.communication.rank import Rank
from moss_train.planning.communication.tensors import Tensor, decoder_tensors, vision_tensors
from moss_train.signals import SIGNALS

NUMBER = 8
"""Bytes of an integer or a sum."""
FLAG = 4
FEED_FIGURES = 11
"""Of a read, beside those by dataset."""
STEP_SUMS, DENSE_SUMS, MEMORY_SUMS, STRAGGLER_FIGURES = 4, 4, 4, 2
ROW, FRAME, BATCH = 33, 16, 1000
"""Bytes that a row, a frame and a micro-batch take where rows are handed out; the last is a bound of names and lengths."""


def add_control(rank: Rank, traffic: Traffic) -> None:
    """The calls of one step; what is made every so many steps counts as its share."""
    _feed(rank, traffic)
    counts = NUMBER * len(rank.packs)
    _gather(traffic, rank, "control", counts)
    names = rank.shape.datasets
    sums = DENSE_SUMS + SIGNALS
    if rank.decodes:
        _sum(traffic, rank, NUMBER, group=("data", rank.replicas))  # targets
        sums = STEP_SUMS + SIGNALS + 2 * (len(TOKEN_CLASSES) + names + 1)
    _sum(traffic, rank, NUMBER * sums)
    guard, logging = rank.config.guard, rank.config.logging
    if logging.gradient_norms_every:
        _sum(traffic, rank, NUMBER * modules_of(rank), logging.gradient_norms_every)
    if logging.memory_every:
        _sum(traffic, rank, NUMBER * MEMORY_SUMS, logging.memory_every)
    if guard.report_stragglers_every:
        _gather(traffic, rank, "control", NUMBER * STRAGGLER_FIGURES, guard.report_stragglers_every)
    if guard.check_copies_every:
        _copies(rank, traffic, guard.check_copies_every)


def _feed(rank: Rank, traffic: Traffic) -> None:
    _gather(traffic, rank, "feed", NUMBER * (FEED_FIGURES + rank.shape.datasets))
    others = rank.ranks // rank.replicas
    length = content_bytes(rank)
    if length:
        traffic.add("feed", "broadcast", "replica", others, Calls(1, length, length))


def content_bytes(rank: Rank) -> int:
    """Bytes of the rows that the replica's reading rank hands out."""
    if rank.shape.content is not None:
        return rank.shape.content[rank.place.data]
    return sum(ROW * sum(pack.samples) + FRAME * pack.frames + BATCH for pack in rank.packs)


def _gather(traffic: Traffic, rank: Rank, purpose: str, own: float, every: int = 1) -> None:
    traffic.add(purpose, "all-gather", "world", rank.ranks, Calls(1 / every, own / every, own * rank.ranks / every))


def _sum(traffic: Traffic, rank: Rank, size: float, every: int = 1, group: tuple[str, int] | None = None) -> None:
    name, ranks = group or ("world", rank.ranks)
    kind: Kind = "all-reduce"
    traffic.add("control", kind, name, ranks, Calls(1 / every, size / every, size / every))


def _copies(rank: Rank, traffic: Traffic, every: int) -> None:
    """Checksums of everything that several ranks hold: two bounds of two integers a parameter."""

    def size(tensors: list[Tensor]) -> int:
        return 4 * NUMBER * len(tensors)

    decoder = [tensor for chunk in rank.chunks() for tensor in decoder_tensors(rank, chunk)]
    whole = [tensor for tensor in decoder if tensor.whole]
    same = rank.replicas * rank.context
    _sum(traffic, rank, size(decoder), every, ("data", same))
    if whole:
        _sum(traffic, rank, size(whole), every, ("tensor", rank.tensor))
    _sum(traffic, rank, size(vision_tensors(rank)), every)
    _sum(traffic, rank, FLAG, every)


def modules_of(rank: Rank) -> int:
    """Modules whose gradient norms are told apart: quarters of the decoder's depth, as far as it has layers, and seven others."""
    layers = rank.model.text.num_hidden_layers
    return 7 + len({4 * layer // layers for layer in range(layers)})

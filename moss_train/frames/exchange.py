"""Moves rows between ranks as a list of transfers says: one all-to-all, or nothing when no row leaves its rank."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.distributed as dist

from moss_train.frames.plan import Transfer, Transfers


def exchange(
    transfers: Transfers,
    rows_of: Callable[[Transfer], torch.Tensor],
    row_shape: Sequence[int],
    dtype: torch.dtype,
    device: torch.device,
    group: dist.ProcessGroup | None = None,
) -> list[tuple[Transfer, torch.Tensor]]:
    """Run the transfers; every rank of the group calls with those of the same plan.

    Args:
        transfers: at least those in which this rank takes part; ranks are ranks of the group.
        rows_of: rows `[span.size, *row_shape]` of a transfer whose source is this rank.
        row_shape: shape of one row.
        dtype: type of the rows.
        device: where received rows are made.
        group: None for the whole world.

    Returns:
        The transfers whose target is this rank with their rows, in list order.
    """
    rank, world = dist.get_rank(group), dist.get_world_size(group)
    received = {i: (t, rows_of(t)) for i, t in enumerate(transfers) if t.source == t.target == rank}
    if transfers.crosses:
        outgoing: list[list[Transfer]] = [[] for _ in range(world)]
        incoming: list[list[tuple[int, Transfer]]] = [[] for _ in range(world)]
        for i, t in enumerate(transfers):
            if t.source == rank != t.target:
                outgoing[t.target].append(t)
            if t.target == rank != t.source:
                incoming[t.source].append((i, t))
        sizes_in = [sum(t.span.size for _, t in peer) for peer in incoming]
        sizes_out = [sum(t.span.size for t in peer) for peer in outgoing]
        send = torch.empty((sum(sizes_out), *row_shape), dtype=dtype, device=device)
        begin = 0
        for t in (t for peer in outgoing for t in peer):  # one after the other: what is made for a transfer goes at once
            send[begin : begin + t.span.size].copy_(rows_of(t).reshape(t.span.size, *row_shape))
            begin += t.span.size
        buffer = torch.empty((sum(sizes_in), *row_shape), dtype=dtype, device=device)
        dist.all_to_all_single(buffer, send, sizes_in, sizes_out, group=group)
        begin = 0
        for peer in incoming:
            for i, t in peer:
                received[i] = (t, buffer[begin : begin + t.span.size])
                begin += t.span.size
    return [received[i] for i in sorted(received)]

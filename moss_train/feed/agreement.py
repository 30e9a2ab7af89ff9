"""Work that may fail on some ranks and must not leave the others waiting: all learn of it at once, and end with one cause.

Agreed on over gloo, whatever the device: a rank that waits for data burns no GPU, and its patience is not that of
collectives on gradients.
"""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist

from model.errors import InputError, file_trouble
from moss_train.frames.plan import reading_rank
from moss_train.parallel.layout import ParallelLayout
from moss_train.parallel.world import TIMEOUT

T = TypeVar("T")


class CommonError(InputError):
    """What all ranks of the world raise at once, whichever of them met the cause: one of them is enough to print it."""


class Agreement:
    """The groups over which ranks agree, and over which a replica's reading rank hands out rows.

    Args:
        layout: this rank's place; `stop_layout` ends the groups.
        patience: seconds that a rank may read for, beyond what any collective may take.
    """

    def __init__(self, layout: ParallelLayout, patience: float = 0.0) -> None:
        self._layout = layout
        replicas = [[rank for rank, place in enumerate(layout.places) if place.data == data] for data in range(layout.data_size)]
        own = replicas[layout.place.data]
        self.readers = [reading_rank(ranks, layout.places) for ranks in replicas]
        """The rank that reads, of each replica."""
        self.shares = len(own) > 1
        """Whether a replica has ranks that do not read."""
        self._world: Any = None
        self._replica: Any = None
        if layout.world_size == 1:
            return
        timeout = TIMEOUT + timedelta(seconds=patience)
        self._world = dist.new_group(list(range(layout.world_size)), timeout=timeout, backend="gloo")
        if self.shares:
            for ranks in replicas:  # every rank makes every group
                group = dist.new_group(ranks, timeout=timeout, backend="gloo")
                if ranks == own:
                    self._replica = group

    def together(self, work: Callable[[], T]) -> T:
        """Do this rank's part and wait for the others; returns its result.

        Raises:
            CommonError: some rank's part failed; on all ranks the cause of the first of them.
        """
        return self.gather(work, lambda result: (), 0)[0]

    def gather(self, work: Callable[[], T], figures: Callable[[T], Sequence[int]], width: int) -> tuple[T, list[list[int]]]:
        """As `together`, and every rank gets some integers of each.

        Args:
            work: this rank's part; in a world of one rank its errors pass as they are.
            figures: `width` integers from the result of the work.
            width: how many.

        Returns:
            This rank's result, and the integers of every rank.
        """
        if self._world is None:
            result = work()
            return result, [list(figures(result))]
        cause = b""
        try:
            result = work()
            row = [0, *figures(result)]
        except Exception as error:
            cause = self._sentence(error).encode()
            row = [len(cause), *[0] * width]
        mine = torch.tensor(row, dtype=torch.int64)  # [1 + width]
        everyone = torch.empty(self._layout.world_size * len(row), dtype=torch.int64)
        dist.all_gather_into_tensor(everyone, mine, group=self._world)
        rows = everyone.view(self._layout.world_size, len(row)).tolist()
        for rank, (length, *_) in enumerate(rows):
            if length:
                raise CommonError(bytes(self._broadcast(cause, length, rank, self._world).tolist()).decode())
        return result, [values for _, *values in rows]

    def hand_out(self, content: bytes, length: int) -> torch.Tensor:
        """What the replica's reading rank gives, on all ranks of the replica: uint8 [length].

        Args:
            content: on the reading rank; ignored elsewhere.
            length: bytes of it, known on all.
        """
        return self._broadcast(content, length, self.readers[self._layout.place.data], self._replica)

    def from_first(self, value: Any) -> Any:
        """The value that rank 0 gives."""
        if self._world is None:
            return value
        box = [value]
        dist.broadcast_object_list(box, src=0, group=self._world)
        return box[0]

    def _broadcast(self, content: bytes, length: int, source: int, group: Any) -> torch.Tensor:
        if self._layout.rank == source:
            data = torch.frombuffer(bytearray(content), dtype=torch.uint8)
        else:
            data = torch.empty(length, dtype=torch.uint8)
        if group is not None and length:
            dist.broadcast(data, src=source, group=group)
        return data

    def _sentence(self, error: Exception) -> str:
        """What all ranks will say; a mistake of ours is printed here with its traceback, which does not travel."""
        if isinstance(error, InputError) and str(error):
            return str(error)
        if isinstance(error, OSError) and (trouble := file_trouble(error)) is not None:
            return trouble
        traceback.print_exception(error, file=sys.stderr)
        sys.stderr.flush()
        return f"rank {self._layout.rank} failed with {type(error).__name__}: {error}; its traceback stands above"

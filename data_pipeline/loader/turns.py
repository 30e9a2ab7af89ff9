"""The readers of a replica, which take turns in the training process or in processes beside it."""

from __future__ import annotations

import atexit
from collections.abc import Mapping, Sequence

from data_pipeline.loader.readers import Reader, ReaderParts
from data_pipeline.loader.workers import ReaderProcess
from data_pipeline.packing.batch import PackedMicroBatch
from model.errors import InputError


class Turns:
    """Micro-batches of several readers, one of each in turn.

    Args:
        parts: what the readers are made of.
        numbers: the readers in the order of their turns.
        states: where each reader begins.
        processes: 0 reads here, when asked; more deal the readers out to so many processes, which read ahead.
    """

    def __init__(self, parts: ReaderParts, numbers: Sequence[int], states: Mapping[int, bytes | None], processes: int) -> None:
        self._numbers = list(numbers)
        self._taken = 0
        self._states = {number: states.get(number) for number in numbers}
        self._readers: dict[int, Reader] = {}
        self._processes: list[ReaderProcess] = []
        if processes == 0:
            self._readers = {number: parts.open(number, states.get(number)) for number in numbers}
            return
        atexit.register(self.close)  # now: multiprocessing's own clean-up asks and waits for each process
        for first in range(processes):
            self._processes.append(ReaderProcess(parts, self._numbers[first::processes], self._states))

    def take(self) -> PackedMicroBatch:
        """The next micro-batch.

        Raises:
            StopIteration: the data of the reader whose turn it is have ended.
            InputError: it cannot go on.
        """
        turn = self._taken % len(self._numbers)
        if self._processes:
            batch, state = self._processes[turn % len(self._processes)].take()
            self._states[self._numbers[turn]] = state
        else:
            batch = next(self._readers[self._numbers[turn]])
        self._taken += 1
        return batch

    def states(self) -> dict[int, bytes | None]:
        """Place of every reader behind its last micro-batch that was taken."""
        if self._processes:
            return dict(self._states)
        return {number: reader.state() for number, reader in self._readers.items()}

    def close(self) -> None:
        """End the processes at once."""
        atexit.unregister(self.close)
        while self._processes:
            self._processes.pop().close()
        self._readers = {}


def readers_per_replica(global_data_workers: int, world_size: int) -> int:
    """Readers of each data-parallel replica.

    Raises:
        InputError: the readers cannot be shared out evenly.
    """
    if global_data_workers < 1 or global_data_workers % world_size:
        sizes = [str(n) for n in range(1, global_data_workers + 1) if global_data_workers % n == 0]
        raise InputError(
            f"data.global_data_workers is {global_data_workers}, which {world_size} data-parallel replicas cannot share; "
            f"with it the data-parallel size may be {', '.join(sizes) or 'none'}"
        )
    return global_data_workers // world_size


def reader_processes(worker_processes: int | None, readers: int) -> int:
    """Processes in which a replica runs its readers; 0 is the training process.

    Raises:
        InputError: there are more processes than readers.
    """
    if worker_processes is None:
        return readers
    if not 0 <= worker_processes <= readers:
        raise InputError(
            f"data.worker_processes is {worker_processes} but each replica has {readers} of data.global_data_workers; "
            f"use 0 to {readers}, or leave it out for one process a reader"
        )
    return worker_processes

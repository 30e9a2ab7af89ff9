"""Writes the shards of a distributed checkpoint in this process.

The stock writer forks one process per bucket out of one that already runs gloo and OpenMP threads, which can hang, and
spawns a manager that imports the main module again (seconds per job). On a CPU machine nothing is gained by either.
"""

from __future__ import annotations

import queue
from typing import Any


class _Queue:
    """The two calls that the stock bucket writer makes on its queues."""

    def __init__(self) -> None:
        self.items: list[Any] = []

    def put(self, item: Any) -> None:
        self.items.append(item)

    def get(self) -> None:
        return None

    def task_done(self) -> None: ...


def install() -> None:
    """Replace the forking writer of `megatron.core.dist_checkpointing`."""
    import megatron.core.dist_checkpointing.strategies.filesystem_async as module

    stock: Any = module
    results: queue.Queue[Any] = queue.Queue()

    def write(transforms: Any, use_msc: Any, rank: Any, buckets: Any, result_queue: Any, **_: Any) -> None:
        outcome: Any = {}
        for index, bucket in enumerate(buckets):
            written = _Queue()
            stock.FileSystemWriterAsync.write_preloaded_data(transforms, index, bucket, written, _Queue(), True)
            _, result = written.items[0]
            if isinstance(result, Exception):
                outcome = result
                break
            outcome[index] = result
        result_queue.put(outcome)

    stock._get_write_results_queue = lambda *_, **__: results
    stock.FileSystemWriterAsync.write_preloaded_data_multiproc = staticmethod(write)

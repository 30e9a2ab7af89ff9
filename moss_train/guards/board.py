"""Words between the ranks over a connection of its own to the world's store, whatever the main thread waits for.

Nothing here waits for another rank. A store that does not answer blocks its caller: only the thread that beats the pulse calls.
"""

from __future__ import annotations

import os
from datetime import timedelta
from typing import Any

import torch.distributed as dist

_DONE = 1 << 40
_generation = 0


class Board:
    """Pulses, and words of which the first counts.

    Args:
        store: an own connection.
        rank: this rank.
        prefix: keeps the words of one run apart from those of another in the same processes.
    """

    def __init__(self, store: Any, rank: int, prefix: str) -> None:
        self._store, self._rank, self._prefix = store, rank, prefix

    def pulse(self) -> None:
        """A sign of life."""
        self._store.add(f"{self._prefix}/alive/{self._rank}", 1)

    def leave(self) -> None:
        """From now on this rank is not missed."""
        self._store.add(f"{self._prefix}/alive/{self._rank}", -_DONE)

    def pulse_of(self, rank: int) -> int:
        """Grows as long as the rank lives; below 0 once it has left."""
        return int(self._store.add(f"{self._prefix}/alive/{rank}", 0))

    def news(self) -> int:
        """Grows with every word that all should read."""
        return int(self._store.add(f"{self._prefix}/news", 0))

    def tell_first(self, key: str, text: str) -> str:
        """Say it where nobody has; what stands there now."""
        found = self._store.compare_set(f"{self._prefix}/{key}", "", text).decode()
        if found == text:
            self._store.add(f"{self._prefix}/news", 1)
        return str(found)

    def count(self, key: str) -> None:
        """One more."""
        self._store.add(f"{self._prefix}/{key}", 1)

    def counted(self, key: str) -> int:
        """How many there are."""
        return int(self._store.add(f"{self._prefix}/{key}", 0))

    def write(self, key: str, text: str) -> None:
        """Note something for whoever looks for it."""
        self._store.set(f"{self._prefix}/{key}", text)

    def read(self, key: str) -> str | None:
        """What stands there; None for nothing."""
        full = f"{self._prefix}/{key}"
        return self._store.get(full).decode() if self._store.check([full]) else None


def store_is_of_first_rank() -> bool:
    """Whether the store lives in the process of rank 0, and not in torchrun's own process on the first node."""
    return os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True"


def open_board(rank: int, world_size: int, patience: float) -> Board | None:
    """Connect to the store of the launcher's environment; None for a world of one rank.

    Args:
        patience: seconds that connecting may take.
    """
    global _generation
    _generation += 1
    if world_size == 1 or "MASTER_ADDR" not in os.environ or "MASTER_PORT" not in os.environ:
        return None
    address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    store = dist.TCPStore(  # type: ignore[attr-defined]
        address, port, is_master=False, wait_for_workers=False, timeout=timedelta(seconds=patience)
    )
    # The first rank's store is new with its process; the count differs there between hosts that joined at different times.
    restarts = "0" if store_is_of_first_rank() else os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    return Board(store, rank, f"moss/{restarts}/{_generation}")

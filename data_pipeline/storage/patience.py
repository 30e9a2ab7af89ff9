"""How often a read is tried again, and what is said when that was in vain."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, TypeVar

from data_pipeline.storage.errors import StorageError

_T = TypeVar("_T")
_LONGEST_PAUSE = 60.0

# of its own: the order of samples must not depend on how often a server failed
_chance = random.SystemRandom()


class StorageSettings(Protocol):
    """How patiently remote shards are read."""

    @property
    def retries(self) -> int: ...
    @property
    def timeout_seconds(self) -> float: ...
    @property
    def backoff_seconds(self) -> float: ...


class PassingFault(Exception):
    """One attempt failed in a way that may pass; the text says how."""


@dataclass(frozen=True)
class Patience:
    """`data.storage` of a run."""

    retries: int = 5
    timeout_seconds: float = 30.0
    backoff_seconds: float = 0.5

    @classmethod
    def of(cls, settings: StorageSettings | None) -> Patience:
        """Settings of a run as a value that can be sent to another process; None gives the defaults."""
        if settings is None:
            return cls()
        return cls(settings.retries, settings.timeout_seconds, settings.backoff_seconds)

    def pause(self, attempt: int) -> float:
        """Seconds after so many failed attempts: doubles each time, within half and one and a half of it."""
        return min(_LONGEST_PAUSE, self.backoff_seconds * 2.0 ** min(attempt - 1, 30)) * _chance.uniform(0.5, 1.5)

    def persist(self, attempt: Callable[[], _T], address: str) -> _T:
        """The result of the first attempt that succeeds.

        Raises:
            StorageError: all attempts failed, or one in a way that will not pass.
        """
        for number in range(1, self.retries + 2):
            try:
                return attempt()
            except PassingFault as fault:
                if number > self.retries:
                    raise StorageError(
                        f"{address} cannot be read: {fault} ({number} attempts, data.storage.retries = {self.retries}); "
                        "check the server and the network, or raise data.storage.retries or data.storage.timeout_seconds"
                    ) from fault
                time.sleep(self.pause(number))
        raise AssertionError("unreachable: the last attempt returns or raises")

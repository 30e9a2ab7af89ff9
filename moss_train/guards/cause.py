"""Why a run ends before its time: what one rank finds out and all ranks act on."""

from __future__ import annotations

import dataclasses
import json
import os
import sys
from dataclasses import dataclass

EXIT_BAD_INPUT = 2
EXIT_LOST_RANK = 3
EXIT_HANG = 4
EXIT_NOT_IN_TIME = 5


@dataclass(frozen=True)
class Cause:
    """The first of them, told to all ranks, is the one that counts."""

    sentence: str
    code: int
    """With which all ranks end."""
    author: int
    """Rank that found it and prints it on its node; -1 where every rank found out for itself."""
    node: int
    """Of the author."""
    lost: tuple[int, ...] = ()
    """Ranks that are gone and print nothing."""

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self))

    @staticmethod
    def from_json(text: str) -> Cause:
        values = json.loads(text)
        return Cause(**values | {"lost": tuple(values["lost"])})


@dataclass(frozen=True)
class Whereabouts:
    """Which process this is."""

    rank: int
    world_size: int
    local_rank: int
    node: int

    @staticmethod
    def of_environment(rank: int, world_size: int) -> Whereabouts:
        """From the launcher's variables."""
        local_rank = int(os.environ.get("LOCAL_RANK", rank))
        local_size = int(os.environ.get("LOCAL_WORLD_SIZE", world_size))
        node = int(os.environ.get("GROUP_RANK", rank // max(1, local_size)))
        return Whereabouts(rank, world_size, local_rank, node)

    def speaks(self, cause: Cause) -> bool:
        """Whether this rank prints the cause: on each node one does, the author on its own."""
        if cause.author >= 0 and cause.node == self.node:
            return cause.author == self.rank
        first = self.rank - self.local_rank
        return all(rank in cause.lost for rank in range(first, self.rank))


def end_process(code: int) -> None:
    """End at once, whatever the other threads do; a thread that hangs in a collective cannot be ended otherwise."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            continue
    os._exit(code)

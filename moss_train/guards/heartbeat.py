"""Signs of life: every rank beats a pulse on the board and looks at the one behind it, so that the store's work grows with the
number of ranks and not with its square."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

from moss_train.guards.board import Board
from moss_train.guards.hang import ranks_of


class Silence:
    """For how long a pulse has not been heard. Only this process's clock is used."""

    def __init__(self, now: float) -> None:
        self._count, self._heard = 0, now

    def hear(self, count: int, now: float) -> float:
        """Seconds of silence; 0 for a rank that has left."""
        if count != self._count or count < 0:
            self._count, self._heard = count, now
        return now - self._heard

    def forgive(self, seconds: float) -> None:
        """This process itself was deaf for so long."""
        self._heard += seconds


def silent_ranks(board: Board, ranks: Sequence[int], pause: Callable[[], None]) -> list[int]:
    """Ranks whose pulse does not move during a pause, and that have not left."""
    before = {rank: board.pulse_of(rank) for rank in ranks}
    pause()
    return [rank for rank in ranks if before[rank] >= 0 and board.pulse_of(rank) == before[rank]]


def lost_sentence(board: Board, ranks: list[int], seconds: float, closed: bool, stacks: Sequence[Path] = ()) -> str:
    """What is said about ranks that are gone.

    Args:
        seconds: how long the first of them was silent.
        closed: whether connections to them were closed, so that nobody waited for the whole patience.
        stacks: files that they left before.
    """
    hosts = list(dict.fromkeys(board.read(f"host/{rank}") or "?" for rank in ranks))
    where = f"host {hosts[0]}" if len(hosts) == 1 else f"hosts {', '.join(hosts[:8])}{', …' if len(hosts) > 8 else ''}"
    how = " and closed its connections" if closed else ""
    left = f"; what its threads did is in {stacks[0]}" if stacks else ""
    return (
        f"{ranks_of(ranks)} on {where} gave no sign of life for {seconds:.0f} s{how}{left}; all ranks end, the newest checkpoint "
        "stands: start the run again to continue"
    )


def pulsing_pause(board: Board, seconds: float, tick: float) -> None:
    """Wait, and stay alive for the others."""
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        time.sleep(min(tick, left))
        board.pulse()

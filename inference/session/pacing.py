"""When the next token may be said: as fast as the model goes, at a fixed rate, or at the rate of the training data.

A paced session lives on a grid of stream time. What it takes at a token boundary is what arrived up to the boundary's
place on the grid, not up to the moment at which a busy machine gets there; so the same arrivals give the same tokens on
any clock, as long as computing keeps up with the pace.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from inference.session.clock import Clock
from inference.session.settings import SessionSettings
from model.errors import InputError


class Pacer:
    """Stream time of token boundaries.

    Args:
        clock: the session's.
        settings: `tokens_per_second`, or `tokens_per_frame` and `frame_seconds`, or neither.
    """

    def __init__(self, clock: Clock, settings: SessionSettings) -> None:
        self._clock = clock
        self._most = settings.tokens_per_frame
        self._slot_seconds = settings.frame_seconds
        if self._most is not None:
            self._interval = settings.frame_seconds / self._most
        else:
            self._interval = 0.0 if settings.tokens_per_second is None else 1 / settings.tokens_per_second
        self._grid = 0.0
        self._slot_begin = 0.0
        self._spent = 0

    @property
    def time(self) -> float:
        """Stream time of the present token boundary: arrivals up to it are taken."""
        return self._grid if self._interval else self._clock.now()

    def due(self, arrival: float | None = None) -> float | None:
        """When the next token boundary is; None: at once.

        Args:
            arrival: time of the next arrival that is known, which opens a slot early.
        """
        if not self._interval:
            return None
        soonest = self._grid + self._interval
        if not self.exhausted:
            return soonest
        slot_end = self._slot_begin + self._slot_seconds
        return max(soonest, slot_end if arrival is None else min(slot_end, arrival))

    @property
    def exhausted(self) -> bool:
        """Whether the slot of the present frame has no token left: whatever arrives opens the next slot."""
        return self._most is not None and self._spent >= self._most

    def spend(self) -> None:
        """A token was said."""
        self._spent += 1

    def open_slot(self) -> None:
        """A frame or a prompt was taken."""
        self._slot_begin, self._spent = self._grid, 0

    def reach(self, t: float) -> None:
        """The clock has come to `t`, for which the session waited; one that lags by a token or more starts over from now."""
        if not self._interval:
            return
        goal = max(self._grid, t)
        now = self._clock.now()
        self._grid = goal if now - goal < self._interval else now
        if self.exhausted and self._grid >= self._slot_begin + self._slot_seconds:
            self.open_slot()

    def state(self) -> dict[str, float]:
        """What a restored pacer has to know."""
        return {"grid": self._grid, "slot_begin": self._slot_begin, "spent": self._spent}

    def restore(self, state: dict[str, float]) -> None:
        """Go on from `state`."""
        self._grid, self._slot_begin, self._spent = state["grid"], state["slot_begin"], int(state["spent"])


@dataclass(frozen=True)
class TrainedPace:
    """The pace that a checkpoint was trained at."""

    tokens_per_frame: int
    frame_seconds: float


def trained_pace(details: dict[str, Any], where: str) -> TrainedPace:
    """The pace in a checkpoint's `moss_train` section: `"emission": {"tokens_per_frame": 16, "fps": 1.0}`.

    Raises:
        InputError: the section says none, or a bad one; `where` names the checkpoint.
    """
    emission = details.get("emission")
    if emission is None:
        raise InputError(f"{where} does not say at what rate it was trained to speak; give tokens_per_frame or tokens_per_second")
    try:
        pace = TrainedPace(int(emission["tokens_per_frame"]), 1 / float(emission["fps"]))
    except (TypeError, KeyError, ValueError, ZeroDivisionError):
        pace = TrainedPace(0, 0.0)
    if pace.tokens_per_frame < 1 or not pace.frame_seconds > 0:
        raise InputError(
            f"{where} has the emission {emission!r}; it must be tokens_per_frame of at least 1 and fps above 0: give "
            "tokens_per_frame or tokens_per_second"
        )
    return pace

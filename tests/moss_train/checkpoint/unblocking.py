"""An evaluator that changes something of the world after a step, as an administrator would, and notes what is there."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from moss_train.setup import Session


class After:
    """Calls a function after every step.

    Args:
        call: gets the step.
    """

    name = "after"

    def __init__(self, call: Callable[[int], None]) -> None:
        self._call = call

    def make(self, session: Session) -> After:
        return self

    def due(self, step: int, last: bool) -> bool:
        return step > 0

    def run(self, step: int) -> dict[str, Any]:
        self._call(step)
        return {"step": step}

"""What a trainer asks of an evaluator. Packages above this one, such as the streaming engine, come in through it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from moss_train.setup import Session


class Evaluator(Protocol):
    """Looks at the model between two steps."""

    name: str

    def due(self, step: int, last: bool) -> bool:
        """Whether to run after this step; the same answer on all ranks.

        Args:
            step: updates done; 0 before the first.
            last: whether no further step follows.
        """

    def run(self, step: int) -> dict[str, Any]:
        """Evaluate; every rank calls it and gets the same record, whose names begin with `eval_`.

        Raises:
            CommonError: there is nothing to evaluate on.
        """


MakeEvaluator = Callable[["Session"], "Evaluator | None"]
"""Makes an evaluator of a session; None where the run does not want it."""

"""Taking back the updates since the newest checkpoint, in the running processes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from moss_train.checkpoint.load import load_training_state
from moss_train.feed.agreement import CommonError

if TYPE_CHECKING:
    from moss_train.setup import Session


def rewind(session: Session, newest: Path | None, reason: str) -> int:
    """Weights, optimizer and random states of the newest checkpoint; the data go on where they are. Every rank calls it.

    Args:
        newest: the checkpoint, when nothing is being written any more.
        reason: why, for the error.

    Returns:
        The step of the checkpoint.

    Raises:
        CommonError: there is no checkpoint yet.
        InputError: it cannot be read.
    """
    found = session.agreement.from_first(None if newest is None else str(newest))
    if found is None:
        raise CommonError(
            f"{reason}, and there is no checkpoint yet to rewind to; lower stage.learning_rate, set train.save_every lower, or "
            "leave such updates out with guard.non_finite=skip and guard.spike=skip"
        )
    state = load_training_state(Path(found), session.models.chunks, session.models.unit, session.optimization, session.layout)
    return state.step

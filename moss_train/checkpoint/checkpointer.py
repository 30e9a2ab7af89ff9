"""A run's checkpoints as the trainer sees them: begun between two steps, published when all ranks have written."""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from moss_train.checkpoint.save import save_checkpoint, save_model_only
from moss_train.monitors.base import SaveEvent
from moss_train.signals import Signals

if TYPE_CHECKING:
    from moss_train.setup import Session


class Checkpointer:
    """Every rank makes the same calls at the same steps."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._saved: tuple[int, Path] | None = None

    @property
    def newest(self) -> Path | None:
        """The newest checkpoint that this process published; before it the one of the run folder."""
        return self._saved[1] if self._saved else self._session.folder.newest

    def begin(self, step: int, monitors: dict[str, Any]) -> list[SaveEvent]:
        """Take the state of this moment; does nothing where it is saved already.

        Args:
            step: updates done.
            monitors: states of the monitors by name.

        Returns:
            News for the monitors.
        """
        if self._saved is not None and self._saved[0] == step:
            return []
        session, begin = self._session, time.perf_counter()
        if step == 0:  # a run of no steps: there is no optimizer state yet
            path = save_model_only(
                session.folder.path,
                session.models.chunks,
                session.models.vision,
                session.model_config,
                stage=dataclasses.asdict(session.config.stage),
                lora=session.describe(0).lora,
            )
        else:
            path = save_checkpoint(
                session.folder.path,
                dataclasses.replace(session.describe(step), monitors=monitors),
                session.models.chunks,
                session.models.unit,
                session.optimization,
                session.layout,
                loader_state=session.feed.state_dict(),
                keep_last=session.config.train.keep_last,
            )
        self._saved = (step, path)
        return [SaveEvent(step, "published", time.perf_counter() - begin, path)]

    def signals(self) -> Signals:
        """What this rank has to tell about a checkpoint that is being written."""
        return Signals()

    def poll(self, signals: Signals) -> list[SaveEvent]:
        """Go on with a checkpoint that is being written, after a step.

        Args:
            signals: summed over all ranks.
        """
        return []

    def finish(self) -> list[SaveEvent]:
        """Wait until nothing is being written.

        Raises:
            CommonError: the last checkpoint could not be written.
        """
        return []

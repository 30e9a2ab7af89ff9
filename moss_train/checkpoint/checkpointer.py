"""A run's checkpoints as the trainer sees them: taken between two steps, written behind the next ones.

The loop is blocked while a rank copies its share of the state into host memory. A thread writes it; how far the ranks are
travels in the statistics of every step. When all have written, rank 0 publishes in a thread as well.
"""

from __future__ import annotations

import copy
import dataclasses
import shutil
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist

from moss_train.checkpoint.background import Background
from moss_train.checkpoint.collect import collect_training, collect_weights, described
from moss_train.checkpoint.common import from_first, reason
from moss_train.checkpoint.description import CheckpointDescription
from moss_train.checkpoint.publish import final_folder, publish, temporary_folder
from moss_train.checkpoint.rank_files import RankFiles
from moss_train.checkpoint.retention import clear_leftovers, remove_old
from moss_train.checkpoint.staging import Staging
from moss_train.feed.agreement import CommonError
from moss_train.monitors.base import SaveEvent
from moss_train.signals import Signals

if TYPE_CHECKING:
    from moss_train.setup import Session

_LOOK_SECONDS = 10.0
"""While all ranks wait for all, they tell each other so often that they are alive."""


@dataclass
class _Pending:
    """A checkpoint that is being written."""

    description: CheckpointDescription
    folder: Path
    """Temporary."""
    files: RankFiles | None
    """None where this rank could not even take them."""
    work: Background
    publishing: bool = False
    """Whether all ranks have written, and the first one publishes."""


class Checkpointer:
    """Every rank makes the same calls at the same steps."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._config = session.config.checkpoint
        self._staging = Staging()
        self._reserving: Background | None = None
        self._pending: _Pending | None = None
        self._failed: _Pending | None = None
        self._attempts = 0
        self._saved: tuple[int, Path] | None = None
        self._retry_at: float | None = None
        self._reason = ""
        if session.layout.rank == 0:
            try:
                clear_leftovers(session.folder.path)
            except OSError as error:
                _warn(f"leftovers in {session.folder.path / 'checkpoints'} cannot be removed ({reason(error)})")

    @property
    def newest(self) -> Path | None:
        """The newest checkpoint that this process published; before it the one that it continued."""
        if self._saved is not None:
            return self._saved[1]
        resumed = self._session.resumed
        return self._session.folder.newest if resumed is None else resumed.folder

    def begin(self, step: int, monitors: dict[str, Any]) -> list[SaveEvent]:
        """Take the state of this moment; does nothing where it is saved already. A checkpoint before is waited for.

        Args:
            step: updates done.
            monitors: states of the monitors by name.

        Returns:
            News for the monitors.
        """
        if self._saved is not None and self._saved[0] == step:
            return []
        begin = time.perf_counter()
        events = self.wait()
        if self._saved is not None and self._saved[0] == step:
            return events
        description = self._describe(step, copy.deepcopy(monitors))
        files, trouble = self._take(description)
        self._start(description, files, trouble)
        if not self._config.asynchronous:
            events += self.wait()
            stall = time.perf_counter() - begin
            return [*events[:-1], dataclasses.replace(events[-1], stall_seconds=stall)]
        return [*events, SaveEvent(step, "begun", time.perf_counter() - begin)]

    def signals(self) -> Signals:
        """What this rank has to tell about a checkpoint that is being written, or that is to be tried again."""
        pending = self._pending
        if pending is None:
            return Signals(save=int(self._retry_at is not None and time.monotonic() >= self._retry_at))
        if not pending.work.done:
            return Signals()
        failed = pending.work.trouble is not None
        return Signals(written=int(not failed), failed=int(failed))

    def poll(self, signals: Signals) -> list[SaveEvent]:
        """Go on with a checkpoint that is being written, after a step.

        Args:
            signals: summed over all ranks.
        """
        self._reserve()
        if self._pending is None or signals.written + signals.failed < self._session.layout.world_size:
            return []
        return self._advance(signals.failed > 0)

    def finish(self) -> list[SaveEvent]:
        """Wait until nothing is being written; a checkpoint that could not be written is tried for some time.

        Only at the end, behind `begin`: what is tried again may be taken from the live state again.

        Raises:
            CommonError: it still cannot be written.
        """
        events = self.wait()
        end = time.monotonic() + self._config.end_retry_seconds
        while self._failed is not None:
            left = from_first(end - time.monotonic())
            if left <= 0:
                final = final_folder(self._session.folder.path, self._failed.description.step)
                raise CommonError(
                    f"{final} cannot be written ({self._reason}); make room or the folder writable and continue the run, "
                    f"from {self.newest.name if self.newest else 'its start'}"
                )
            time.sleep(min(left, max(0.05, self._config.retry_seconds)))
            failed = self._failed
            files, trouble = failed.files, None
            if not all_have(files is not None):
                files, trouble = self._take(failed.description)
            self._start(failed.description, files, trouble)
            events += self.wait()
        return events

    def _describe(self, step: int, monitors: dict[str, Any]) -> CheckpointDescription:
        session = self._session
        description = session.describe(step)
        if step == 0:  # a run of no steps: there is no optimizer state yet
            return dataclasses.replace(description, weights_only=True, world_size=session.layout.world_size)
        return described(dataclasses.replace(description, monitors=monitors), session.optimization, session.layout)

    def wait_until_ready(self) -> None:
        """Wait for the host memory that is made in the background."""
        if self._reserving is not None:
            self._reserving.wait()

    def _take(self, description: CheckpointDescription) -> tuple[RankFiles | None, str | None]:
        """Copy this rank's share into host memory; else why that is not possible."""
        session = self._session
        self.wait_until_ready()
        try:
            files = self._collect(description.weights_only)
            return (self._staging.stage(files) if self._config.asynchronous else files), None
        except (RuntimeError, MemoryError, OSError) as error:  # no memory
            return None, f"rank {session.layout.rank} has no host memory for it: {reason(error)}"

    def _collect(self, weights_only: bool) -> RankFiles:
        session = self._session
        if weights_only:
            return collect_weights(session.models.chunks, session.models.vision, session.layout.rank)
        return collect_training(
            session.models.chunks, session.models.unit, session.optimization, session.layout, session.feed.state_dict()
        )

    def _start(self, description: CheckpointDescription, files: RankFiles | None, trouble: str | None) -> None:
        self._attempts += 1
        self._failed = self._retry_at = None
        folder = temporary_folder(self._session.folder.path, description.step, self._attempts)
        writers = self._config.writers
        work = Background(trouble=trouble) if files is None else Background(lambda: files.write(folder, writers))
        self._pending = _Pending(description, folder, files, work)

    def wait(self) -> list[SaveEvent]:
        """Wait until all ranks have done their parts of what is pending, if anything is. What failed is not tried again."""
        events: list[SaveEvent] = []
        while self._pending is not None:
            work = self._pending.work
            mine = (work.wait(_LOOK_SECONDS), work.trouble is not None)
            everyone: list[tuple[bool, bool]] = [mine] * dist.get_world_size()
            dist.all_gather_object(everyone, mine)
            if all(done for done, _ in everyone):
                events += self._advance(any(failed for _, failed in everyone))
        return events

    def _advance(self, failed: bool) -> list[SaveEvent]:
        """All ranks have ended their parts: what comes next, on all of them."""
        pending, run_dir = self._pending, self._session.folder.path
        assert pending is not None
        step = pending.description.step
        if failed:
            return [self._give_up(pending)]
        if not pending.publishing:
            pending.publishing = True
            first = self._session.layout.rank == 0
            pending.work = Background((lambda: self._publish(pending)) if first else None)
            return []
        self._pending = None
        self._saved = (step, final_folder(run_dir, step))
        return [SaveEvent(step, "published", path=self._saved[1])]

    def _publish(self, pending: _Pending) -> None:
        run_dir = self._session.folder.path
        final = publish(run_dir, pending.folder, pending.description)
        resumed = self._session.resumed
        used = [final.name] if resumed is None else [final.name, resumed.folder.name]
        try:
            remove_old(run_dir, self._config.keep_last, self._config.keep_every, used)
        except OSError as error:  # the checkpoint stands; what is too much goes another time
            _warn(f"old checkpoints in {final.parent} cannot be removed ({reason(error)}); training goes on")

    def _give_up(self, pending: _Pending) -> SaveEvent:
        """Remove what was written of it and say when it is tried again."""
        self._pending, self._failed = None, pending
        everyone: list[str | None] = [None] * dist.get_world_size()
        dist.all_gather_object(everyone, pending.work.trouble)
        rank, self._reason = next((rank, trouble) for rank, trouble in enumerate(everyone) if trouble is not None)
        if self._session.layout.rank == 0:
            shutil.rmtree(pending.folder, ignore_errors=True)
            self._retry_at = time.monotonic() + self._config.retry_seconds
            final = final_folder(self._session.folder.path, pending.description.step)
            _warn(
                f"rank {rank} cannot write the checkpoint {final} ({self._reason}); training goes on, the next attempt comes in "
                f"{self._config.retry_seconds:g} s"
            )
        return SaveEvent(pending.description.step, "failed", reason=f"rank {rank}: {self._reason}")

    def _reserve(self) -> None:
        """After the first step the optimizer has its states: make the host memory while training goes on."""
        if self._reserving is not None or not self._config.asynchronous or self._session.layout.device.type != "cuda":
            return
        size = self._staging.size_of(self._collect(weights_only=False))

        def reserve() -> None:
            torch.cuda.set_device(self._session.layout.device)  # a new thread's is the first one, and locking makes a context
            self._staging.reserve(size, lock=True)

        self._reserving = Background(reserve)


def all_have(own: bool) -> bool:
    """Whether something holds on all ranks."""
    everyone = [own] * dist.get_world_size()
    dist.all_gather_object(everyone, own)
    return all(everyone)


def _warn(message: str) -> None:
    print(f"moss: warning: {message}", file=sys.stderr, flush=True)

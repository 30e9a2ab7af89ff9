"""A step's micro-batches on every rank of a replica, read by one of them."""

from __future__ import annotations

import dataclasses
import itertools
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from data_pipeline.packing.batch import PackedMicroBatch
from moss_train.feed.agreement import Agreement
from moss_train.feed.one_thread import OneThread
from moss_train.feed.sample_log import SampleLog
from moss_train.feed.wire import pack_rows, unpack_rows
from moss_train.feed.work import batch_work
from moss_train.parallel.layout import ParallelLayout
from moss_train.planning.flops import Work
from moss_train.statistics import real_rows

if TYPE_CHECKING:
    from data_pipeline.loader import Loader

_HEAD = 10  # figures before those by dataset


@dataclass(frozen=True)
class Delivery:
    """What one read gave. All but the micro-batches is equal on all ranks."""

    batches: list[PackedMicroBatch]
    """This replica's; every replica has equally many. With pixels on the rank that reads only."""
    samples: dict[str, int]
    """Samples by dataset name, over all replicas."""
    rows: int
    """Rows over all replicas, padding included."""
    real_rows: int
    data_seconds: float
    """How long the slowest replica waited for its loader."""
    feed_seconds: float
    """What this rank spent beyond that, until it had its rows."""
    work: Work = field(default_factory=lambda: Work(rows=0))
    """What the micro-batches of all replicas ask of the model."""
    data_seconds_here: float = 0.0
    """How long this rank waited for its loader."""


@dataclass
class _Taken:
    """What a rank took from its loader; nothing where it has none."""

    batches: list[PackedMicroBatch]
    content: bytes = b""
    """Their rows, for the other ranks of the replica."""
    state: Any = None
    """The loader's place behind them, where it reads on."""
    seconds: float = 0.0
    """How long the rank waited for them."""


class Feed:
    """Micro-batches of this rank's replica. Every rank of the world makes the same calls.

    Args:
        build: makes the loader; called on the ranks that read only.
        agreement: groups of this layout.
        layout: this rank's place.
        dataset_names: names to which the samples' dataset indices belong.
        ahead: whether a thread takes the next step's micro-batches while this one trains: for loaders whose readers are
            processes. It also moves pixels to pinned memory, from which they are copied to a GPU without waiting.
        log: where the keys of the samples go; None writes none.

    Raises:
        CommonError: a loader cannot be built.
    """

    def __init__(
        self, build: Callable[[], Loader], agreement: Agreement, layout: ParallelLayout, dataset_names: Sequence[str],
        *, ahead: bool = False, log: SampleLog | None = None,
    ) -> None:  # fmt: skip
        self._agreement = agreement
        self._layout = layout
        self._names = list(dataset_names)
        self._log = log
        self._state: Any = None
        self.loader: Loader | None = agreement.together(lambda: build() if layout.writes_for_replica else None)
        """None on ranks that do not read."""
        self._thread: OneThread[_Taken] | None = OneThread(layout.device) if ahead and self.loader is not None else None

    def read(
        self, count: int, step: int = 0, check: Callable[[PackedMicroBatch], None] | None = None, more: bool = False
    ) -> Delivery:
        """The next `count` micro-batches of every replica; fewer where the data of some replica end.

        Args:
            step: the update that will use them, for the log.
            check: looks at each micro-batch on the rank that read it, and may raise InputError.
            more: as many will be read again, so that it may begin at once.

        Raises:
            CommonError: a rank cannot read; on all ranks, before any other collective.
        """
        begin = time.perf_counter()
        taken, everyone = self._agreement.gather(
            lambda: self._deliver(count, step, check, more), self._figures, _HEAD + len(self._names)
        )
        rows = [everyone[rank] for rank in self._agreement.readers]
        batches = self._hand_out(taken, rows[self._layout.place.data][1])
        waited = max(row[2] for row in rows) / 1e6
        sums = [sum(column) for column in zip(*rows, strict=True)]
        return Delivery(
            batches=batches[: min(row[0] for row in rows)],
            samples=dict(zip(self._names, sums[_HEAD:], strict=True)),
            work=Work(sums[3], *sums[5:_HEAD]),
            rows=sums[3],
            real_rows=sums[4],
            data_seconds=waited,
            data_seconds_here=taken.seconds,
            feed_seconds=max(0.0, time.perf_counter() - begin - waited),
        )

    def state_dict(self) -> Any:
        """The loader's place behind what was delivered, on ranks that read; None on others.

        Raises:
            CommonError: a loader cannot say.
        """

        def state() -> Any:
            if self.loader is None or self._state is not None:
                return self._state
            return self.loader.state_dict()

        return self._agreement.together(state)

    def load_state_dict(self, state: Any) -> None:
        """Continue where `state_dict` was called; before the first read.

        Raises:
            CommonError: the state does not fit a loader.
        """
        self._agreement.together(lambda: None if self.loader is None else self.loader.load_state_dict(state))

    def close(self) -> None:
        """End the loader's processes and the log; no other rank is waited for."""
        if self.loader is not None:
            self.loader.close()  # a read that is under way ends with it
        if self._thread is not None:
            self._thread.close()
        if self._log is not None:
            self._log.close()

    def _deliver(self, count: int, step: int, check: Callable[[PackedMicroBatch], None] | None, more: bool) -> _Taken:
        """This rank's part of a read."""
        if self.loader is None:
            return _Taken([])
        begin = time.perf_counter()
        taken = self._take(count) if self._thread is None else self._thread.result(lambda: self._take(count))
        taken.seconds = time.perf_counter() - begin
        if check is not None:
            for batch in taken.batches:
                check(batch)
        if self._log is not None and len(taken.batches) == count:
            self._log.write(step, taken.batches)
        self._state = taken.state
        if self._thread is not None and more and len(taken.batches) == count:
            self._thread.begin(lambda: self._take(count))
        return taken

    def _take(self, count: int) -> _Taken:
        """Micro-batches from the loader, in whichever thread."""
        assert self.loader is not None
        taken = _Taken(list(itertools.islice(self.loader, count)))
        if self._agreement.shares:
            taken.content = pack_rows(taken.batches)
        if self._thread is not None:
            taken.state = self.loader.state_dict()
            if self._layout.device.type == "cuda":
                taken.batches = [dataclasses.replace(batch, frames=batch.frames.pin_memory()) for batch in taken.batches]
        return taken

    def _figures(self, taken: _Taken) -> list[int]:
        """What all ranks learn: micro-batches, bytes to hand out, microseconds, rows, real rows, work, samples by dataset."""
        samples = Counter(index for batch in taken.batches for index in batch.dataset_index)
        work = sum((batch_work(batch) for batch in taken.batches), Work(rows=0))
        return [
            len(taken.batches),
            len(taken.content),
            round(1e6 * taken.seconds),
            sum(batch.num_rows for batch in taken.batches),
            sum(real_rows(batch) for batch in taken.batches),
            work.frames, work.self_pairs, work.cross_pairs, work.through_cross, work.through_head,
            *(samples[index] for index in range(len(self._names))),
        ]  # fmt: skip

    def _hand_out(self, taken: _Taken, length: int) -> list[PackedMicroBatch]:
        """The replica's micro-batches on each of its ranks."""
        if not self._agreement.shares:
            return taken.batches
        content = self._agreement.hand_out(taken.content, length)
        return taken.batches if self.loader is not None else unpack_rows(content)

"""The quarantine ledger: every sample that was left out, where and why, and when that is too many."""

from __future__ import annotations

import errno
import fcntl
import os
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NoReturn

from megatron.energon.errors import FatalSampleError

from data_pipeline.loader.config import DataSettings
from data_pipeline.loader.ledger_lines import BAD, FATAL, READ, format_line, identity, parse_lines
from data_pipeline.loader.skip_list import SkipList
from model.errors import InputError


class ReadingStopped(FatalSampleError):
    """Ends reading in whatever process this is; the text is one sentence for the user."""


class Ledger:
    """A JSON-lines file that all loader processes of a run append to.

    Lines hold `kind, dataset, shard, key, at, reason`. `bad` samples could not be used and count against the budget of their
    dataset, `skipped` ones do not fit the stage, `fatal` says why reading stopped. A sample is entered once, even where ranks
    that read the same data meet it at the same moment, and where a resumed run meets it again.

    Attributes:
        budgets: bad samples that a dataset may have, by its name; `budget` for the others.
        skip: samples that are left out untried and not entered.
    """

    def __init__(self, path: Path, budget: int, budgets: Mapping[str, int] | None = None, skip: SkipList | None = None) -> None:
        self.path = path
        self.budget = budget
        self.budgets: Mapping[str, int] = budgets or {}
        self.skip = skip or SkipList()
        self._known: set[tuple[str, ...]] = set()
        self._bad: Counter[str] = Counter()
        self._read_to = 0

    def add(self, dataset: str, shard: str, key: str, reason: str, kind: str = BAD, at: str = READ) -> None:
        """Enter one sample.

        Raises:
            ReadingStopped: the dataset's budget is used up, or the entry cannot be written.
        """
        reason = " ".join(reason.split())
        if (kind, dataset, shard, key) not in self._known:
            entry = {"kind": kind, "dataset": dataset, "shard": shard, "key": key, "at": at, "reason": reason}
            try:
                self._enter(entry)
            except OSError as error:
                raise ReadingStopped(
                    f"the quarantine ledger {self.path} cannot be written ({error.strerror}), and no sample is left out without "
                    f"a record; make room or the folder writable and continue the run. The sample is {dataset}/{key} in "
                    f"{shard}: {reason}"
                ) from None
        if kind == BAD:
            self._check_budget(dataset, f"{dataset}/{key} in {shard}: {reason}")

    def stop(self, reason: str) -> NoReturn:
        """End reading, in whatever process this is."""
        reason = " ".join(reason.split())
        with suppress(OSError):  # the exception carries the reason as well
            self._enter({"kind": FATAL, "dataset": "", "shard": "", "key": "", "at": "", "reason": reason})
        raise ReadingStopped(reason)

    def raise_fatal(self, error: BaseException) -> None:
        """Raise the sentence of what ended reading, around which Energon puts errors of its own.

        Raises:
            InputError: a ledger did.
        """
        cause: BaseException | None = error
        while cause is not None:
            if isinstance(cause, ReadingStopped):
                raise InputError(str(cause)) from None
            cause = cause.__cause__ or cause.__context__

    def entries(self) -> list[dict[str, Any]]:
        """All entries; a line that was cut when its process ended is none."""
        return parse_lines(self.path.read_bytes()) if self.path.is_file() else []

    def bad_samples(self) -> Counter[str]:
        """Bad samples entered so far, by dataset."""
        return Counter(dataset for _, dataset, _, _ in {identity(e) for e in self.entries() if e["kind"] == BAD})

    def _check_budget(self, dataset: str, latest: str) -> None:
        budget = self.budgets.get(dataset, self.budget)
        if self._bad[dataset] > budget:
            field = "its max_bad_samples" if dataset in self.budgets else "data.max_bad_samples"
            self.stop(
                f"dataset {dataset}: {self._bad[dataset]} samples could not be read, more than {field} = {budget}; "
                f"the latest is {latest}. All are listed in {self.path}"
            )

    def _enter(self, entry: dict[str, str]) -> None:
        """Append an entry that no process has made yet."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with _locked(self.path) as descriptor:
            size = os.fstat(descriptor).st_size
            self._catch_up(os.pread(descriptor, size - self._read_to, self._read_to))
            if entry["kind"] != FATAL and identity(entry) in self._known:
                return
            cut = size > 0 and os.pread(descriptor, 1, size - 1) != b"\n"
            content = b"\n" * cut + format_line(entry)
            if os.write(descriptor, content) < len(content):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self._remember(entry)

    def _catch_up(self, content: bytes) -> None:
        """Take note of the lines that follow those read so far; a cut one at the end is read again when it is complete."""
        whole = content[: content.rfind(b"\n") + 1]
        self._read_to += len(whole)
        for entry in parse_lines(whole):
            self._remember(entry)

    def _remember(self, entry: dict[str, Any]) -> None:
        if entry["kind"] != FATAL and identity(entry) not in self._known:
            self._known.add(identity(entry))
            self._bad[entry["dataset"]] += entry["kind"] == BAD


def open_ledger(path: str | os.PathLike[str], data: DataSettings) -> Ledger:
    """A run's ledger with the budgets and the skip list of its configuration.

    Raises:
        InputError: `data.skip_samples` cannot be read.
    """
    datasets = [*data.validation, *data.datasets]
    budgets = {d.name: d.max_bad_samples for d in datasets if d.max_bad_samples is not None}
    return Ledger(Path(path), data.max_bad_samples, budgets, SkipList.read(data.skip_samples))


@contextmanager
def _locked(path: Path) -> Iterator[int]:
    """The file open for reading and appending, by one process at a time."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
    try:
        with suppress(OSError):  # a file system without locks: one write is one line all the same
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield descriptor
    finally:
        with suppress(OSError):  # also for a copy of the descriptor in a process forked just now
            fcntl.flock(descriptor, fcntl.LOCK_UN)
        os.close(descriptor)

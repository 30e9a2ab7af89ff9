"""What a worker process does: open everything once, then make parts."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_pipeline.generator.backends.chat import BackendError
from data_pipeline.generator.build.authors import forget_model, open_author
from data_pipeline.generator.build.config import BuildConfig
from data_pipeline.generator.build.part import PartTask, write_part
from data_pipeline.generator.build.rows import RowWriter
from data_pipeline.generator.build.tokens import open_tokenizer, token_counter
from model.errors import InputError

_PAGE = os.sysconf("SC_PAGE_SIZE")


@dataclass
class PartResult:
    """What came of a part, and what its process needs."""

    rows: int
    process: int
    resident: int
    """Bytes that the process holds behind the part."""
    peak: int
    """Most bytes that it has ever held."""
    usage: dict[str, Any]
    """Of the endpoint since the process began."""


@dataclass
class PartWork:
    """Makes parts; picklable, so that a process can be given it."""

    config: BuildConfig
    folder: Path

    def __call__(self, task: PartTask, step: Callable[[], None]) -> PartResult:
        """Make one part."""
        writer, backend = opened(self.config, self.folder)
        try:
            summary = write_part(self.config, self.folder, task, step, writer)
        except BackendError as error:  # the budget is spent or the endpoint is down: no fault of a row
            raise InputError(f"{error} (finished parts and all answers are kept: the same command goes on with them)") from None
        usage = {} if backend is None else dict(vars(backend.usage()))
        return PartResult(summary["rows"], os.getpid(), resident_bytes(), peak_bytes(), usage)


_OPEN: dict[Path, tuple[BuildConfig, RowWriter, Any]] = {}
"""What this process has open."""


def opened(config: BuildConfig, folder: Path) -> tuple[RowWriter, Any]:
    """The row writer of this process, made once."""
    known = _OPEN.get(folder)
    if known is not None and known[0] == config:
        return known[1], known[2]
    author, backend = open_author(config, folder)
    tokenizer = open_tokenizer(config)
    writer = RowWriter(config, author, token_counter(tokenizer), tokenizer)
    _OPEN.clear()
    _OPEN[folder] = (config, writer, backend)
    return writer, backend


def forget() -> None:
    """Close everything, so that the next build opens its own."""
    _OPEN.clear()
    forget_model()


def resident_bytes() -> int:
    """Memory of this process."""
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * _PAGE


def peak_bytes() -> int:
    """Most memory that this process has ever held."""
    with open("/proc/self/status", encoding="ascii", errors="replace") as file:
        return next((int(line.split()[1]) * 1024 for line in file if line.startswith("VmHWM:")), resident_bytes())

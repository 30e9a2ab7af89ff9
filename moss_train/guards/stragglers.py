"""`RUN/stragglers.jsonl`: how long each rank was busy while the others waited for it, and a warning about one that stays slow.

A step takes as long on every rank: what tells the ranks apart is how much of it they spend waiting in collectives. The slow one
waits least. Measured over the last steps before each report, with one small gather a report.
"""

from __future__ import annotations

import json
import os
import socket
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TextIO

import torch
import torch.distributed as dist

from moss_train.guards.waiting import WaitingTime
from moss_train.monitors.base import Monitor, Update
from moss_train.parallel.layout import ParallelLayout

_WINDOW = 10


def slow_ranks(busy: Sequence[float], stages: Sequence[int], factor: float) -> dict[int, float]:
    """Ranks busy for longer than `factor` times the median of their pipeline stage, and how many times it.

    Args:
        busy: seconds by rank.
        stages: pipeline stage by rank: stages have unequal work by nature.
    """
    found: dict[int, float] = {}
    for stage in set(stages):
        ranks = [rank for rank, own in enumerate(stages) if own == stage]
        median = statistics.median_low([busy[rank] for rank in ranks])
        found |= {rank: busy[rank] / median for rank in ranks if busy[rank] > factor * median > 0}
    return dict(sorted(found.items(), key=lambda item: -item[1]))


class Stragglers(Monitor):
    """On every rank; the first one writes.

    Args:
        layout: this rank's place.
        path: RUN/stragglers.jsonl.
        every: steps between reports.
        factor: times the median.
        reports: in a row before a warning.
    """

    every_rank = True

    def __init__(self, layout: ParallelLayout, path: Path, every: int, factor: float, reports: int) -> None:
        self._layout, self._path = layout, path
        self._every, self._factor, self._reports = every, factor, reports
        self._window = min(_WINDOW, every)
        self._waiting = WaitingTime(layout.device)
        self._measuring = False
        self._begin = self._data = 0.0
        self._steps = 0
        self._in_a_row: dict[int, int] = {}
        self._names: list[tuple[str, str]] = []
        self._file: TextIO | None = None

    def begun(self, step: int) -> None:
        if not self._measuring and (step - 1) % self._every >= self._every - self._window:
            self._measuring = True
            self._begin, self._data, self._steps = time.perf_counter(), 0.0, 0
            self._waiting.start()

    def measured(self, update: Update) -> dict[str, Any]:
        if not self._measuring:
            return {}
        self._data += update.data.data_seconds_here
        self._steps += 1
        if update.step % self._every == 0:
            waited = self._waiting.stop()
            self._measuring = False
            self._report(update.step, time.perf_counter() - self._begin - waited)
        return {}

    def finished(self) -> None:
        if self._measuring:
            self._waiting.stop()
        if self._file is not None:
            self._file.close()

    def _report(self, step: int, busy: float) -> None:
        layout = self._layout
        if not self._names:  # once: where every rank is
            gpu = torch.cuda.get_device_name(layout.device) if layout.device.type == "cuda" else "cpu"
            place = f"{gpu} {os.environ.get('LOCAL_RANK', '0')}" if layout.device.type == "cuda" else gpu
            everyone: list[Any] = [None] * layout.world_size
            dist.all_gather_object(everyone, (socket.gethostname(), place))
            self._names = everyone
        own = torch.tensor([busy, self._data], dtype=torch.float64, device=layout.device)
        rows = torch.empty(2 * layout.world_size, dtype=torch.float64, device=layout.device)
        dist.all_gather_into_tensor(rows, own)
        if layout.rank != 0:
            return
        all_busy, data = (column.tolist() for column in rows.view(-1, 2).T.cpu() / max(1, self._steps))
        slow = slow_ranks(all_busy, [place.pipeline for place in layout.places], self._factor)
        self._in_a_row = {rank: self._in_a_row.get(rank, 0) + 1 for rank in slow}
        named = [
            {"rank": rank, "host": self._names[rank][0], "device": self._names[rank][1], "times_median": round(times, 2)}
            for rank, times in slow.items()
        ]
        busy_seconds, data_seconds = ([round(value, 4) for value in column] for column in (all_busy, data))
        self._write(
            {"step": step, "steps": self._steps, "busy_seconds": busy_seconds, "data_seconds": data_seconds, "slow": named}
        )
        for rank, times in slow.items():
            if self._in_a_row[rank] % self._reports == 0:
                host, device = self._names[rank]
                print(
                    f"moss: warning: rank {rank} on host {host} ({device}) was busy {times:.2g} times as long as the median of "
                    f"its stage in the last {self._in_a_row[rank]} reports ({all_busy[rank]:.3g} s a step, {data[rank]:.3g} s of "
                    f"it for data): the others wait for it; see {self._path}",
                    file=sys.stderr,
                    flush=True,
                )

    def _write(self, row: dict[str, Any]) -> None:
        try:
            if self._file is None:
                self._file = self._path.open("a", encoding="utf-8")
            self._file.write(json.dumps(row) + "\n")
            self._file.flush()
        except OSError as error:
            print(f"moss: warning: {self._path} cannot be written ({error.strerror or error})", file=sys.stderr, flush=True)

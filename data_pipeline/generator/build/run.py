"""A whole build, from settings to shards, scenarios and the card; after a kill the same call goes on."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from data_pipeline.generator.backends.chat import BackendError
from data_pipeline.generator.backends.settings import read_settings
from data_pipeline.generator.build.authors import open_author
from data_pipeline.generator.build.config import VERSION, BuildConfig
from data_pipeline.generator.build.finish import (
    dropped_rows,
    store_dropped,
    write_annotations,
    write_scenarios,
    write_shards,
)
from data_pipeline.generator.build.folder import BuildFolder, settings_of, write_json
from data_pipeline.generator.build.part import EVALUATED, PartTask
from data_pipeline.generator.build.sources import Chunks, story_clip
from data_pipeline.generator.build.timelines import check_source, store_timelines
from data_pipeline.generator.build.tokens import open_tokenizer
from data_pipeline.generator.build.work import PartResult, PartWork, forget, peak_bytes, resident_bytes
from data_pipeline.shards.processes import run_tasks
from data_pipeline.world.seeds import SPLITS
from model.errors import InputError

Progress = Callable[[str, int, int], None]
"""Called with (what is made, done, in all)."""
SAMPLES_OF_MEMORY = 64
"""Measurements of memory that are kept."""


@dataclass
class Measured:
    """What a build cost; not part of the corpus."""

    rows: int = 0
    """Made in this call."""
    seconds: float = 0.0
    memory: list[tuple[int, int, int]] = field(default_factory=list)
    """(rows made, bytes of the worker that made the last ones, bytes of the process that gives out the work) at some points."""
    peaks: dict[int, int] = field(default_factory=dict)
    """Most bytes of each worker, by process."""
    usage: dict[int, dict[str, Any]] = field(default_factory=dict)
    """Of the endpoint, by process."""
    every: int = 1

    def add(self, number: int, result: PartResult) -> None:
        """Enter a part that was made; of many, fewer and fewer are measured."""
        self.rows += result.rows
        if result.usage:
            self.usage[result.process] = result.usage
        self.peaks[result.process] = max(result.peak, self.peaks.get(result.process, 0))
        if number % self.every == 0:
            self.memory.append((self.rows, result.resident, resident_bytes()))
        if len(self.memory) >= SAMPLES_OF_MEMORY:
            self.memory = self.memory[::2]
            self.every *= 2

    def memory_told(self) -> dict[str, Any]:
        """As it is stored; what a process that makes shards needs is not in it, see docs/data.md."""
        workers = {f"worker {number}": peak for number, peak in enumerate(self.peaks.values(), start=1)}
        return {
            "rows": [rows for rows, _, _ in self.memory],
            "worker_bytes": [worker for _, worker, _ in self.memory],
            "main_bytes": [main for _, _, main in self.memory],
            "peak_bytes": {"main": peak_bytes(), **workers},
        }

    def cost(self) -> dict[str, Any]:
        """Sums over all processes, also by role of the requests."""
        total: dict[str, Any] = {}
        for usage in self.usage.values():
            _add(total, usage)
        return total


def _add(total: dict[str, Any], more: dict[str, Any]) -> None:
    for name, value in more.items():
        if isinstance(value, dict):
            _add(total.setdefault(name, {}), value)
        else:
            total[name] = total.get(name, 0) + value


def build(
    config: BuildConfig,
    out_dir: Path,
    *,
    workers: int = 1,
    overwrite: bool = False,
    progress: Progress = lambda what, done, total: None,
) -> dict[str, Any]:
    """Make a corpus, or what an earlier call has left of it.

    Args:
        workers: processes; the files do not depend on their number.
        overwrite: begin anew where the folder was begun with other settings.

    Returns:
        What is also stored as build.json.

    Raises:
        InputError: a setting, a source or a file cannot be used. What is finished stays, and the same call goes on with it.
    """
    if workers < 1:
        raise InputError(f"--workers is {workers}; it must be at least 1")
    if config.author == "model":
        workers = 1  # threads ask the endpoint; several processes would each have the budget and the limits
    forget()
    _try(config, out_dir)
    folder = BuildFolder(out_dir)
    folder.open(settings_of(config), overwrite=overwrite)
    try:
        begin = time.monotonic()
        measured = Measured()
        if config.source.kind != "world":
            store_timelines(config, folder, progress)
        _write_parts(config, folder, workers, measured, progress)
        measured.seconds = time.monotonic() - begin
        return finish(config, folder, workers, measured, progress)
    except BackendError as error:  # while videos are captioned
        raise InputError(f"{error} (all answers are kept: the same command goes on with them)") from None
    except OSError as error:
        raise InputError(
            f"{error.filename or out_dir} cannot be written: {error.strerror}; make room and run the same command again"
        ) from None
    finally:
        folder.close()


def _try(config: BuildConfig, out_dir: Path) -> None:
    """Meet here, before anything is written, what would otherwise end a worker or leave a folder of wrong settings."""
    open_tokenizer(config)
    if config.author == "templates":
        open_author(config, out_dir)
    else:
        read_settings(config.model)
    if config.source.kind == "world":
        if not any(getattr(config.rows, split) for split in SPLITS):
            raise InputError("nothing to make: give rows.train, rows.validation or rows.test above 0")
        story_clip(config, "train", 0, 0)
    elif not Chunks(out_dir).exists():
        check_source(config)


def tasks_of(config: BuildConfig, folder: Path) -> Iterator[PartTask]:
    """All parts of a build, those of the evaluation first."""
    chunks = Chunks(folder)
    for split in reversed(SPLITS):
        if config.source.kind != "world":
            yield from (PartTask(split, number, 0) for number in range(chunks.count(split)))
            continue
        rows = getattr(config.rows, split)
        for number in range(math.ceil(rows / config.rows_per_part)):
            yield PartTask(split, number, min(config.rows_per_part, rows - number * config.rows_per_part))


def _write_parts(config: BuildConfig, folder: BuildFolder, workers: int, measured: Measured, progress: Progress) -> None:
    parts = list(tasks_of(config, folder.path))
    if not parts:
        raise InputError("nothing to make: give rows.train, rows.validation or rows.test above 0")
    owed = [task for task in parts if not folder.is_done(task.split, task.number)]
    total = sum(task.rows for task in parts)
    done = total - sum(task.rows for task in owed)

    def advance(count: int) -> None:
        nonlocal done
        done += count
        progress("rows", done, max(total, done))

    advance(0)
    if not owed:
        return
    work = PartWork(config, folder.path)
    results = run_tasks(work, iter(owed), min(workers, len(owed)), advance, PartWork.__module__)
    with contextlib.closing(results):
        for number, (_, result) in enumerate(results):
            measured.add(number, result)


def finish(config: BuildConfig, folder: BuildFolder, workers: int, measured: Measured, progress: Progress) -> dict[str, Any]:
    """Everything behind the parts: gates over all rows, annotation files, shards, scenarios, build.json and the card."""
    begin = time.monotonic()
    dropped = dropped_rows(folder, config)
    reasons = store_dropped(folder, dropped)
    counts: dict[str, int] = {}
    for split in SPLITS:
        counts |= write_annotations(folder, split, dropped[split])
    scenarios = {split: write_scenarios(folder, split, dropped[split]) for split in EVALUATED}
    if not counts:
        raise InputError(f"{folder.path}: no row is left; see parts/*/*/rejected.jsonl and dropped.json for the reasons")
    shards = write_shards(folder, config, counts, workers, progress) if config.outputs.shards else {}
    summary = {
        "version": VERSION,
        "settings": folder.settings(),
        "rows": counts,
        "scenarios": {split: count for split, count in scenarios.items() if count},
        "shards": shards,
        "dropped": reasons,
        "rejections": _rejections(folder),
        "seconds": {"rows": round(measured.seconds, 3), "finish": round(time.monotonic() - begin, 3)},
        "rows_made": measured.rows,
        "rows_per_second": round(measured.rows / measured.seconds, 3) if measured.seconds and measured.rows else None,
        "workers": workers,
        "memory": measured.memory_told(),
        "cost": measured.cost(),
    }
    if config.source.kind != "world":
        summary["source"] = Chunks(folder.path).report()
    write_json(folder.path / "build.json", summary)
    if config.outputs.card:
        from data_pipeline.generator.card.write import write_card

        write_card(folder.path, folder.path / "report.html")
    return summary


def _rejections(folder: BuildFolder) -> list[dict[str, Any]]:
    """How many rows came to nothing, by stage, kind of reason and behaviour, with an example; the most frequent first."""
    from data_pipeline.generator.card.collect import read_build

    found = read_build(folder.path).tally.rejections
    rows = [
        {"stage": stage, "reason": reason, "behaviour": behaviour, "count": count, "example": example}
        for (stage, reason, behaviour), (count, example) in found.items()
    ]
    return sorted(rows, key=lambda row: (-int(str(row["count"])), str(row["reason"])))

"""From an annotation file to a dataset folder: in parallel, resumable, the same bytes whatever happened on the way."""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from data_pipeline.shards.energon_index import index_shards
from data_pipeline.shards.group import write_group
from data_pipeline.shards.partial import Partial
from data_pipeline.shards.plan import Group, Plan, PrepareOptions
from data_pipeline.shards.processes import run_tasks
from data_pipeline.shards.tally import Tally
from data_pipeline.shards.writer import REPORT, SUMMARY, check_target, folder_summary, publish, with_own_name, write_json
from model.errors import InputError

OnLines = Callable[[int, int], None]
"""Called with (lines done, lines in all)."""


def prepare(
    annotations: str | os.PathLike[str],
    out_dir: str | os.PathLike[str],
    options: PrepareOptions | None = None,
    *,
    workers: int = 1,
    overwrite: bool = False,
    restart: bool = False,
    on_lines: OnLines | None = None,
) -> dict[str, Any]:
    """Write the shards of an annotation file.

    The folder appears when all is written. Until then finished shards are kept beside it in `.NAME.partial`; a run that was
    stopped in any way goes on there when it is started again, and ends with the bytes of one that was not.

    Args:
        workers: processes; the bytes do not depend on their number.
        overwrite: replace a dataset folder that is there.
        restart: forget what an unfinished run has kept.

    Returns:
        The summary that is also stored as `summary.json`: that of `write_samples`, statistics, and the plan.

    Raises:
        InputError: a line is unsound or a media file is missing or unreadable, and bad lines are not to be skipped; the folder
            exists, or an unfinished run of other options is there; the disk is full.
    """
    target = with_own_name(Path(out_dir))
    check_target(target, overwrite)
    plan = Plan(Path(annotations), options or PrepareOptions())
    if not plan.samples:
        raise InputError(f"{plan.source} has no sample to write")
    try:
        partial = Partial(target, plan, restart)
        try:
            _write_groups(plan, partial, workers, on_lines or (lambda done, total: None))
            summary = _finish(plan, partial, target)
        finally:
            partial.close()
    except OSError as error:
        raise InputError(f"{error.filename or target} cannot be written: {error.strerror}; {_REMEDY}") from None
    return summary


_REMEDY = "make room and run the same command again: what is finished is kept"


def _write_groups(plan: Plan, partial: Partial, workers: int, on_lines: OnLines) -> None:
    done = 0

    def advance(count: int) -> None:
        nonlocal done
        done += count
        on_lines(done, plan.samples)

    def owed() -> Iterator[Group]:
        for number in range(plan.groups):
            group = plan.group(number)
            if partial.record(group) is None:
                yield group
            else:
                advance(len(group.lines))

    advance(0)
    work = functools.partial(write_group, partial.shards)
    try:
        results = run_tasks(work, owed(), min(workers, plan.groups), advance, write_group.__module__)
        with contextlib.closing(results):
            for group, record in results:
                partial.store(group.number, record)
    except InputError as error:
        if not partial.has_records():
            partial.remove()
            raise
        raise InputError(f"{error} (finished shards are kept: the same command goes on with them)") from None


def _finish(plan: Plan, partial: Partial, target: Path) -> dict[str, Any]:
    """Number the tars, index them, and put the folder in its place."""
    tally, parts, skipped = Tally(), [], []
    for number in range(plan.groups):
        record = partial.record(plan.group(number))
        if record is None:
            raise InputError(f"{partial.folder} lost a shard while it was filled; run the same command again")
        tally.merge(Tally.from_dict(record["tally"]))
        parts += record["parts"]
        skipped += record["skipped"]
    if not parts:
        raise InputError(f"{plan.source} has no sample to write; all {len(skipped)} lines are bad: {skipped[0]['reason']}")
    names = partial.assemble([part["name"] for part in parts])
    digests = {name: part["sha256"] for name, part in zip(names, parts, strict=True)}
    sizes = {name: part["bytes"] for name, part in zip(names, parts, strict=True)}
    summary = {
        **folder_summary(tally, plan.options.samples_per_shard, digests, sizes),
        "statistics": tally.statistics(),
        "skipped": len(skipped),
        "prepare": plan.to_dict(),
    }
    index_shards(partial.final, digests)
    write_json(partial.final / SUMMARY, summary)
    if skipped:
        write_json(partial.final / REPORT, {"lines": plan.samples, "skipped": sorted(skipped, key=lambda s: s["line"])})
    publish(partial.final, target)
    partial.remove()
    return summary

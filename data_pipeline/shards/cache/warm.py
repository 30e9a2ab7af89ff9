"""Warming a node's cache: deciding what fits, evicting what is old, copying what is missing."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from megatron.energon.epathlib import EPath

from data_pipeline.shards.cache.copying import Copied, Copier, Job, unwritable
from data_pipeline.shards.cache.entry import BLOCK, DISK_BLOCK, Described, Entry, entries, hold, on_disk, remove_leftovers
from data_pipeline.shards.cache.plan import RESERVE, Disk, Old, Unit, choose, evict, most
from data_pipeline.shards.cache.source import SourceFile, SourceFolder

_RECORD_BYTES = 300
_ROUNDS = 5


class CacheSettings(Protocol):
    """`launcher.cache` of a run."""

    @property
    def folder(self) -> str: ...
    @property
    def max_gib(self) -> float: ...
    @property
    def processes(self) -> int: ...


@dataclass(frozen=True)
class Wanted:
    """A dataset and the shards that this node reads, in the order in which datasets are given room."""

    name: str
    path: EPath
    digest: str
    samples: Mapping[str, int]
    """Of every shard, in stored order."""
    needed: frozenset[str]
    """Names of the shards that this node reads."""


@dataclass
class Part:
    """What one dataset has in the cache."""

    name: str
    address: str
    folder: Path
    shards: int
    """Of the whole dataset."""
    needed: int
    """That this node reads."""
    needed_bytes: int = 0
    here: int = 0
    here_bytes: int = 0
    missing: int = 0
    """That were not there before and for which there is room."""
    missing_bytes: int = 0
    busy: bool = False
    """A run still reads copies of former shards of this place, which therefore stay."""


@dataclass
class Outcome:
    """What a warm-up did, or would do."""

    parts: list[Part]
    room: int
    """Bytes that all copies may take."""
    evicted: list[str] = field(default_factory=list)
    """Addresses whose copies went."""
    copied: Copied = field(default_factory=Copied)


class Progress(Protocol):
    """Who is told how far the copying is."""

    def begin(self, total: int) -> None: ...
    def advance(self, count: int) -> None: ...


@dataclass
class _Plan:
    """One entry: its source, its units by name, and what is missing of each."""

    source: SourceFolder
    entry: Entry
    units: dict[str, tuple[SourceFile, ...]]
    part: Part
    stale: bool = False

    def missing(self, unit: str) -> list[SourceFile]:
        """Files of a unit that have no copy, or one of another version."""
        if self.stale:
            return list(self.units[unit])
        found = ((file, self.entry.record(file.name)) for file in self.units[unit])
        return [file for file, record in found if record is None or (record.bytes, record.stamp) != (file.bytes, file.stamp)]


def warm_up(
    settings: CacheSettings,
    wanted: Sequence[Wanted],
    *,
    progress: Progress | None = None,
    tell: Callable[[str], None] = lambda _: None,
    dry_run: bool = False,
) -> Outcome:
    """Copy the shards that this node reads; one call on a node at a time, another waits.

    Args:
        wanted: datasets, those first that get room first.
        tell: takes a sentence for people.
        dry_run: change nothing.

    Raises:
        InputError: the cache folder cannot be written, or a source cannot be read.
        OSError: a local source cannot be read.
    """
    cache = Path(settings.folder)
    if dry_run:
        return _warm(cache, settings, wanted, progress, dry_run=True)
    with alone(cache, tell):
        remove_leftovers(cache)
        return _warm(cache, settings, wanted, progress, dry_run=False)


@contextmanager
def alone(cache: Path, tell: Callable[[str], None]) -> Iterator[None]:
    """One warm-up or clearing of a cache folder at a time on a node; another waits and says so.

    Raises:
        InputError: the folder cannot be written.
    """
    held = hold(_lock(cache), exclusive=True)
    if held is None:
        tell(f"another `moss data cache` on this node works in {cache}; waiting for it")
    while held is None:
        held = hold(_lock(cache), exclusive=True, seconds=5)
    try:
        yield
    finally:
        os.close(held)


def _lock(cache: Path) -> Path:
    lock = cache / ".lock"
    try:
        cache.mkdir(parents=True, exist_ok=True)
        lock.touch()
        os.close(os.open(lock, os.O_RDWR))
    except OSError as error:
        raise unwritable(cache, error) from None
    return lock


def _warm(cache: Path, settings: CacheSettings, wanted: Sequence[Wanted], progress: Progress | None, dry_run: bool) -> Outcome:
    plans = _plans(cache, wanted)
    for plan in plans:
        found = plan.entry.described()
        plan.stale = found is None or found.digest != plan.source.digest
        if plan.stale and plan.entry.folder.exists():
            plan.part.busy = plan.entry.in_use() if dry_run else not plan.entry.remove()
    usable = [plan for plan in plans if not plan.part.busy]
    chosen, outcome = _make_room(cache, settings.max_gib, plans, usable, dry_run)
    jobs = _jobs(usable, chosen)
    if not dry_run:
        outcome.copied = _copy(cache, settings, usable, jobs, progress)
    for plan in usable:
        _count(plan, chosen if dry_run else None)
    return outcome


def _plans(cache: Path, wanted: Sequence[Wanted]) -> list[_Plan]:
    """One for each place: a folder may be listed more than once."""
    plans: dict[str, _Plan] = {}
    for one in wanted:
        source = SourceFolder(one.path, one.digest)
        entry = Entry.of(cache, source.address)
        plan = plans.get(source.address)
        if plan is None:
            part = Part(one.name, source.address, entry.folder, len(one.samples), 0)
            plan = plans[source.address] = _Plan(source, entry, {"": tuple(source.metadata())}, part)
        elif one.name not in plan.part.name.split(", "):
            plan.part.name += f", {one.name}"
        names = [name for name in one.samples if name in one.needed and name not in plan.units]
        for shard in source.shards(one.samples, names):
            plan.units[shard.tar.name] = (shard.index, shard.tar)
    for plan in plans.values():
        plan.part.needed = len(plan.units) - 1
        plan.part.needed_bytes = sum(files[-1].bytes for name, files in plan.units.items() if name)
    return list(plans.values())


def _unit_bytes(files: Sequence[SourceFile]) -> int:
    """On the disk, with the records, at most."""
    return sum(on_disk(file.bytes) + on_disk(_RECORD_BYTES + len(file.stamp) + 8 * -(-file.bytes // BLOCK)) for file in files)


def _make_room(
    cache: Path, max_gib: float, plans: Sequence[_Plan], usable: Sequence[_Plan], dry_run: bool
) -> tuple[set[tuple[str, str]], Outcome]:
    """Choose what stays at the source, and remove what is in the way of the rest."""
    units = [
        Unit(plan.entry.folder.name, name, _unit_bytes(files) + (0 if name else DISK_BLOCK))  # with what describes the entry
        for plan in usable
        for name, files in plan.units.items()
    ]
    ours = {plan.entry.folder.name for plan in usable}
    outcome = Outcome([plan.part for plan in plans], 0)
    for _ in range(_ROUNDS):  # a run may begin to read an entry between the decision and its removal
        here = entries(cache)
        sizes = {entry.folder.name: entry.size() for entry in here}
        old = [
            Old(entry.folder.name, sizes[entry.folder.name], entry.last_used(), entry.in_use())
            for entry in here
            if entry.folder.name not in ours
        ]
        outcome.room = most(_disk(cache), sum(sizes.values()), max_gib)
        chosen = choose(units, outcome.room - sum(entry.bytes for entry in old if entry.in_use))
        begun = {unit.key for unit in chosen if not unit.name}  # no shard without what lies beside it
        chosen = [unit for unit in chosen if unit.key in begun]
        left = outcome.room - sum(unit.bytes for unit in chosen)
        kept = {(unit.key, unit.name) for unit in chosen}
        victims = evict(old, left)
        if dry_run:
            outcome.evicted = [_source_of(Entry(cache / key)) for key in victims]
            return kept, outcome
        left -= sum(entry.bytes for entry in old if entry.key not in victims)
        gone = []
        for key in victims:
            address = _source_of(Entry(cache / key))
            gone.append(Entry(cache / key).remove())
            outcome.evicted += [address] if gone[-1] else []
        if all(gone):
            break
    for plan in usable:
        left = _trim(plan, {name for key, name in kept if key == plan.entry.folder.name}, left)
    return kept, outcome


def _trim(plan: _Plan, kept: set[str], left: int) -> int:
    """Remove shards of an entry that this node has no use for and no room; returns the room that is left."""
    if not kept:
        size = plan.entry.size()
        if left < size and plan.entry.folder.exists() and plan.entry.remove():
            return left
        return left - size
    files = {file.name for name in kept for file in plan.units[name]}
    others = [name for name in plan.entry.names() if name not in files]
    left -= sum(map(plan.entry.size_of, others))
    if left >= 0 or plan.entry.in_use():
        return left
    for name in reversed(others):
        if left >= 0:
            break
        left += plan.entry.size_of(name)
        plan.entry.remove_file(name)
    return left


def _jobs(plans: Sequence[_Plan], chosen: set[tuple[str, str]]) -> list[Job]:
    jobs = []
    for plan in plans:
        for name in plan.units:
            missing = plan.missing(name) if (plan.entry.folder.name, name) in chosen else []
            if missing:
                jobs.append(Job(plan.source, plan.entry, missing, plan.part.name))
                plan.part.missing += bool(name)
                plan.part.missing_bytes += sum(file.bytes for file in missing)
    return jobs


def _copy(cache: Path, settings: CacheSettings, plans: Sequence[_Plan], jobs: Sequence[Job], progress: Progress | None) -> Copied:
    try:
        begun = {job.entry for job in jobs}
        for plan in plans:
            if plan.entry in begun:
                plan.entry.create(Described(plan.source.address, plan.source.digest))
                plan.stale = False
            plan.entry.touch()
    except OSError as error:
        raise unwritable(cache, error) from None
    if progress is not None:
        progress.begin(sum(file.bytes for job in jobs for file in job.files))
    advance = progress.advance if progress is not None else lambda _: None
    return Copier(settings.processes, advance, lambda size: _has_room(cache, size)).run(jobs)


def _count(plan: _Plan, stay: set[tuple[str, str]] | None) -> None:
    """Count what is there, and would stay."""
    for name, files in plan.units.items():
        if name and not plan.missing(name) and (stay is None or (plan.entry.folder.name, name) in stay):
            plan.part.here += 1
            plan.part.here_bytes += files[-1].bytes


def _has_room(cache: Path, size: int) -> bool:
    disk = _disk(cache)
    return disk.free - size >= int(disk.total * RESERVE)


def _disk(cache: Path) -> Disk:
    """Of the folder, or of where it will be."""
    while not cache.exists():
        cache = cache.parent
    usage = shutil.disk_usage(cache)
    return Disk(usage.total, usage.free)


def _source_of(entry: Entry) -> str:
    described = entry.described()
    return described.source if described is not None else str(entry.folder)

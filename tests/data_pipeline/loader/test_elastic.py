"""The samples of a global batch depend neither on the number of replicas and processes nor on interruptions."""

from __future__ import annotations

import functools
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from megatron.energon import WorkerConfig, get_savable_loader

from data_pipeline.loader.readers import ReaderParts
from data_pipeline.loader.turns import reader_processes
from model.errors import InputError
from moss_train.config.schema import DataConfig
from tests.data_pipeline.helpers import data_config, write_mixture
from tests.data_pipeline.loader.elastic import Seen, digest, run

UNPACKED = {"samples_per_pack": 1, "packing_buffer": 1}


@functools.cache
def shards(root: Path) -> Path:
    write_mixture(root)
    return root


@pytest.fixture(scope="session")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return shards(tmp_path_factory.mktemp("shards"))


def config(root: Path, readers: int = 4, packing: bool = True, processes: int | None = 0) -> DataConfig:
    changes: dict[str, Any] = {} if packing else UNPACKED
    return data_config(root, global_data_workers=readers, worker_processes=processes, **changes)


@functools.cache
def uninterrupted(root: Path, readers: int, packing: bool) -> list[Seen]:
    """Micro-batches of one replica that reads in the training process."""
    with run(config(root, readers, packing), 1) as whole:
        return whole.read(40)


Segment = tuple[int, int | None, int]
"""Replicas, loader processes, steps until the checkpoint."""


def interrupted(root: Path, readers: int, packing: bool, global_batch: int, segments: list[Segment]) -> list[Seen]:
    found: list[Seen] = []
    state = None
    for replicas, processes, steps in segments:
        with run(config(root, readers, packing, processes), replicas, state) as part:
            found += part.read(steps * global_batch)
            state = part.state()
            assert state["micro_batches"] == len(found)
    return found


def segments_of(sizes: list[int]) -> st.SearchStrategy[list[Segment]]:
    return st.lists(st.tuples(st.sampled_from(sizes), st.just(0), st.integers(0, 2)), min_size=1, max_size=2)


@given(packing=st.booleans(), plan=st.sampled_from([(4, [1, 2, 4]), (2, [1, 2]), (6, [1, 2])]), data=st.data())
def test_any_interruptions_and_sizes_keep_every_global_batch(root: Path, packing: bool, plan: Any, data: Any) -> None:
    """Also where the global batch is no multiple of the four readers."""
    global_batch, sizes = plan
    segments = data.draw(segments_of(sizes))
    found = interrupted(root, 4, packing, global_batch, [*segments, (sizes[-1], 0, 1)])
    assert found == uninterrupted(root, 4, packing)[: len(found)]
    assert len(found) >= global_batch


@pytest.mark.parametrize(
    ("packing", "global_batch", "segments"),
    [
        (True, 4, [(1, 1, 2), (2, 2, 1), (4, 1, 1)]),
        (True, 2, [(2, 1, 3), (1, 4, 2), (1, 2, 2)]),
        (False, 4, [(1, None, 1), (4, 0, 2), (1, 3, 2)]),  # processes need not divide the readers
        (True, 4, [(1, 0, 0), (2, None, 1), (2, 0, 1)]),
    ],
)
def test_loader_processes_keep_every_global_batch(root: Path, packing: bool, global_batch: int, segments: list[Segment]) -> None:
    found = interrupted(root, 4, packing, global_batch, segments)
    assert len(found) == global_batch * sum(steps for _, _, steps in segments)
    assert found == uninterrupted(root, 4, packing)[: len(found)]


def test_any_divisor_will_do_and_the_global_batch_may_change(root: Path) -> None:
    """Six micro-batches of three replicas, then replicas that do not divide what was given."""
    state, found = None, []
    for replicas, count in ((3, 6), (2, 4), (6, 6), (1, 3), (2, 2), (6, 12)):
        with run(config(root, 6), replicas, state) as part:
            found += part.read(count)
            state = part.state()
    assert found == uninterrupted(root, 6, True)[: len(found)]


@pytest.mark.parametrize("packing", [True, False])
def test_a_reader_reads_what_energon_gives_a_rank_of_its_own(root: Path, packing: bool) -> None:
    """The order of runs that were begun with one reader a replica, in Energon's own loader, does not change."""
    data = config(root, 2, packing)
    with run(data, 1) as ours:
        parts: ReaderParts = ours._loaders[0]._parts  # type: ignore[attr-defined]
        for number in range(2):
            theirs = WorkerConfig(rank=number, world_size=2, num_workers=0, seed_offset=data.seed)
            loader = iter(get_savable_loader(parts.open(number)._pipeline.dataset, watchdog_timeout_seconds=None))
            assert loader is not None and theirs == parts.open(number)._pipeline.worker_config
            assert [digest(next(loader)) for _ in range(8)] == [
                seen for _, seen in uninterrupted(root, 2, packing)[number : 2 * 8 : 2]
            ]


# finite data


def finite(root: Path, processes: int | None = 0, repeats: int = 1) -> DataConfig:
    data = config(root, 4, processes=processes)
    for dataset in data.datasets:
        dataset.repeats = repeats
    return data


@pytest.fixture(scope="session")
def to_the_end(root: Path) -> list[Seen]:
    with run(finite(root), 1) as whole:
        return whole.read(10_000)


def test_data_end_at_the_first_reader_without_more_and_stay_ended(root: Path, to_the_end: list[Seen]) -> None:
    seen = Counter(key for keys, _ in to_the_end for key in keys)
    assert set(seen.values()) == {1} and 30 <= len(seen) <= 48
    with run(finite(root), 1) as whole:
        whole.read(10_000)
        assert whole.read(3) == []
        state = whole.state()
    for replicas in (1, 2, 4):
        with run(finite(root), replicas, state) as after:
            assert all(next(loader, None) is None for loader in after._loaders)


@pytest.mark.parametrize("back", [0, 1, 2, 3, 5, 9])
def test_a_run_that_stops_shortly_before_the_end_of_the_data_ends_there_too(
    root: Path, to_the_end: list[Seen], back: int
) -> None:
    """Buffers are being emptied then: what is left in them is read once, and no pass is begun again."""
    total = len(to_the_end)
    with run(finite(root), 1) as before:
        found = before.read(total - back)
        state = before.state()
    for replicas, processes in ((1, 0), (4, 0), (2, 1)):
        with run(finite(root, processes), replicas, state) as after:
            assert found + after.read(10_000) == to_the_end


# what is refused


@pytest.mark.parametrize("given_", [-1, 3])
def test_more_processes_than_readers_are_refused(given_: int) -> None:
    assert [reader_processes(n, 2) for n in (None, 0, 1, 2)] == [2, 0, 1, 2]
    with pytest.raises(InputError, match=rf"data\.worker_processes is {given_} but each replica has 2 .*use 0 to 2"):
        reader_processes(given_, 2)


def test_starting_and_reading_are_quiet(root: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with run(config(root, 2, processes=1), 1) as part:
        part.read(3)
        state = part.state()
    with run(config(root, 2), 1, state) as part:
        assert len(part.read(2)) == 2
    assert capfd.readouterr() == ("", "")

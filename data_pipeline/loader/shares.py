"""Which shards a reader reads: every reader has one fixed stretch of each dataset, whatever the shuffling within it."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Collection, Sequence
from itertools import accumulate
from typing import Any

from megatron.energon import WorkerConfig
from megatron.energon.metadataset.loader_interface import LoadedDataset

from data_pipeline.loader.blend import Source, blend, held_out, open_sources
from data_pipeline.loader.config import DataSettings
from data_pipeline.shards.cache.warm import Wanted


def wanted_shards(data: DataSettings, readers: Collection[int] | None, held_out_too: bool) -> list[Wanted]:
    """The datasets that a run reads and the shards that some of its readers read.

    Those come first that are read most often for each byte: held-out sets, then the datasets by how many passes over them a
    sample of the run is worth.

    Args:
        readers: numbers of the readers; None is all.
        held_out_too: whether `data.validation` is read, by every replica the whole of it.

    Raises:
        InputError: a folder is missing, not prepared, damaged or too small.
        StorageError: the store of a remote one cannot be reached.
    """
    first = []
    if held_out_too:
        sources = held_out(data.validation, data.mixture, data.root, "data.validation", data.storage)
        opened = open_sources(sources, WorkerConfig(rank=0, world_size=1, num_workers=0), shuffle=False)
        first = [_wanted(s, o, [(0, len(o.dataset))]) for s, o in zip(sources, opened, strict=True)]
    sources = blend(data.datasets, data.mixture, data.root, "data.datasets", data.storage)
    of = data.global_data_workers
    opened = open_sources(sources, _config(0, of), shuffle=True)
    numbers = range(of) if readers is None else sorted(readers)
    stretches = [_stretches(opened, number, of) for number in numbers]
    order = sorted(range(len(sources)), key=lambda i: -sources[i].share / len(opened[i].dataset))
    return first + [_wanted(sources[i], opened[i], [stretch[i] for stretch in stretches]) for i in order]


def _config(number: int, of: int) -> WorkerConfig:
    return WorkerConfig(rank=number, world_size=of, num_workers=0)


def _stretches(opened: Sequence[LoadedDataset], number: int, of: int) -> list[tuple[int, int]]:
    """First and last sample + 1 of a reader in every dataset, by Energon's own rule."""
    found, before = [], 0
    for loaded in opened:
        dataset: Any = loaded.dataset
        (offsets,) = dataset.shard_workers(
            dataset.shards,
            worker_config=_config(number, of),
            max_samples_per_sequence=dataset.max_samples_per_sequence,
            rotation_offset=before % of,
            subset=dataset.subset,
        )
        found.append((int(offsets[0]), int(offsets[-1])))
        before += len(dataset)
    return found


def _wanted(source: Source, loaded: LoadedDataset, stretches: Sequence[tuple[int, int]]) -> Wanted:
    shards = loaded.dataset.shards
    ends = list(accumulate(shard.count for shard in shards))
    needed = {
        shards[number].name
        for begin, end in stretches
        for number in range(bisect_right(ends, begin), bisect_left(ends, end) + 1)
        if begin < end
    }
    return Wanted(source.name, source.path, source.digest, {shard.name: shard.count for shard in shards}, frozenset(needed))

"""Dataset folders and how much of each is read."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from megatron.energon import WorkerConfig
from megatron.energon.epathlib import EPath
from megatron.energon.flavors import CrudeWebdataset, SavableDataset
from megatron.energon.flavors.webdataset.structs import DatasetSubset
from megatron.energon.metadataset.loader_interface import LoadedDataset

from data_pipeline.loader.config import DatasetSettings
from data_pipeline.loader.folder import open_folder
from data_pipeline.shards.cache.reading import Copies, read_copies
from data_pipeline.shards.energon_index import SPLIT
from data_pipeline.storage.errors import StorageError
from data_pipeline.storage.files import RemotePath
from data_pipeline.storage.offsets import look_up_remotely
from data_pipeline.storage.patience import StorageSettings
from model.errors import InputError


@dataclass(frozen=True)
class Source:
    """One dataset that takes part."""

    index: int
    """Place in the configuration's list."""
    name: str
    path: EPath
    """Its folder, local or remote."""
    digest: str
    """Identity of its shards, wherever they lie."""
    share: float
    """Of all samples; the shares of a blend sum to 1. A dataset that is used up leaves its share to all others."""
    repeats: int | None = None
    """Passes; None is endless."""
    max_samples: int | None = None
    """Of the first samples in stored order; None is all."""
    copies: Copies | None = None
    """Of its shards on this node's own disk, read where they are there."""

    def close(self) -> None:
        """Let its copies go."""
        if self.copies is not None:
            self.copies.close()


def blend(
    datasets: Sequence[DatasetSettings],
    mixture: Mapping[str, float],
    root: str,
    field: str,
    storage: StorageSettings | None = None,
    cache: str | None = None,
) -> list[Source]:
    """The datasets with a share: mixture[modality] * weight / sum of the modality's weights.

    Args:
        mixture: share by modality; empty gives every modality the same.
        field: name of the list in messages, `data.datasets`.
        storage: patience with remote folders.
        cache: folder of copies of shards (`moss data cache`); they are held until the sources are closed.

    Raises:
        InputError: no dataset has a share, or a folder with a share is missing or not prepared.
        StorageError: a remote one cannot be reached.
    """
    weights: dict[str, float] = defaultdict(float)
    for dataset in datasets:
        if dataset.weight < 0:
            raise InputError(f"{field}[{dataset.name}].weight is {dataset.weight}; it must not be negative")
        weights[dataset.modality] += dataset.weight
    for modality, share in mixture.items():
        if share < 0:
            raise InputError(f"data.mixture.{modality} is {share}; it must not be negative")
        if share > 0 and weights[modality] <= 0:
            raise InputError(f"data.mixture.{modality} is {share} but {field} has no dataset of this modality with a weight")
    raw = {
        i: (mixture.get(d.modality, 0.0) if mixture else 1.0) * d.weight / weights[d.modality]
        for i, d in enumerate(datasets)
        if weights[d.modality] > 0
    }
    total = sum(raw.values())
    if total <= 0:
        raise InputError(f"{field} gives no samples; list a dataset and give its modality a share in data.mixture")
    return [_source(i, datasets[i], raw[i] / total, root, field, storage, cache) for i in raw if raw[i] > 0]


def held_out(
    datasets: Sequence[DatasetSettings],
    mixture: Mapping[str, float],
    root: str,
    field: str,
    storage: StorageSettings | None = None,
    cache: str | None = None,
) -> list[Source]:
    """The datasets of modalities that the stage trains on; with an empty mixture all of them.

    Raises:
        StorageError: a remote folder cannot be reached.
        InputError: there is none, or a folder is missing or not prepared.
    """
    chosen = [(i, d) for i, d in enumerate(datasets) if d.weight > 0 and (not mixture or mixture.get(d.modality, 0.0) > 0)]
    if not chosen:
        trained = ", ".join(name for name, share in mixture.items() if share > 0) or "any modality"
        raise InputError(
            f"{field} has no dataset of a modality in data.mixture ({trained}); list one or set train.eval_batches to 0"
        )
    return [_source(i, d, 1 / len(chosen), root, field, storage, cache) for i, d in chosen]


def open_sources(sources: Sequence[Source], worker_config: WorkerConfig, shuffle: bool) -> list[LoadedDataset]:
    """Energon's view of the folders: undecoded members, epochs in shuffled shard order or in stored order.

    Raises:
        InputError: a dataset has fewer samples than there are readers.
    """
    opened = []
    for source in sources:
        dataset = _open(source, worker_config, shuffle)
        workers = max(1, worker_config.num_workers) * worker_config.world_size
        if len(dataset) < workers:
            raise InputError(
                f"dataset {source.name} in {source.path} has {len(dataset)} samples, fewer than "
                f"data.global_data_workers = {workers}; lower that, join datasets or raise max_samples"
            )
        opened.append(LoadedDataset(dataset=dataset, weight=source.share, repetitions=source.repeats))
    return opened


def _open(source: Source, worker_config: WorkerConfig, shuffle: bool) -> CrudeWebdataset:
    try:
        return _CappedDataset(
            source.path,
            max_samples=source.max_samples,
            copies=source.copies,
            decoder=None,
            subflavors={"index": source.index, "name": source.name},
            split_part=SPLIT,
            training=shuffle,
            worker_config=worker_config,
            shuffle_over_epochs=1 if shuffle else None,
            parallel_shard_iters=16 if shuffle else 1,
        )
    except StorageError:
        raise
    except Exception as error:  # Energon reads several files here and trusts them all
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise InputError(
            f"dataset {source.name}: the index of {source.path} is damaged ({reason}); "
            "write the folder again with `moss data prepare`"
        ) from error


class _CappedDataset(CrudeWebdataset):
    """Energon's dataset of undecoded members, of which perhaps only the first samples in stored order take part."""

    def __init__(self, path: EPath, *, max_samples: int | None, copies: Copies | None, **options: Any) -> None:
        super().__init__(path, **options)
        self._copies = copies
        if max_samples is not None and max_samples < len(self):
            self.subset = DatasetSubset(absolute_range=(0, max_samples))

    def build(self, worker_rotation_offset: int = 0) -> SavableDataset[Any]:
        dataset = super().build(worker_rotation_offset)
        if isinstance(self.path, RemotePath):
            look_up_remotely(dataset)
        if self._copies is not None:
            read_copies(dataset, self._copies)
        return dataset

    def __len__(self) -> int:
        stored = int(super().__len__())
        return stored if self.subset is None else self.subset.absolute_range[1]


def _source(
    index: int, dataset: DatasetSettings, share: float, root: str, field: str, storage: StorageSettings | None, cache: str | None
) -> Source:
    path, digest = open_folder(dataset.path, root, f"{field}[{dataset.name}].path", storage)
    copies = Copies.find(cache, path, digest) if cache else None
    return Source(index, dataset.name, path, digest, share, dataset.repeats, dataset.max_samples, copies)

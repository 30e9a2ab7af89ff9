"""Dataset folders and how much of each is read."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from megatron.energon import WorkerConfig
from megatron.energon.epathlib import EPath
from megatron.energon.flavors import CrudeWebdataset
from megatron.energon.metadataset.loader_interface import LoadedDataset

from data_pipeline.loader.config import DatasetSettings
from data_pipeline.shards.energon_index import SPLIT
from data_pipeline.shards.info import check_sizes
from data_pipeline.shards.writer import SUMMARY
from model.errors import InputError


@dataclass(frozen=True)
class Source:
    """One dataset that takes part."""

    index: int
    """Place in the configuration's list."""
    name: str
    path: Path
    share: float
    """Of all samples; the shares of a blend sum to 1."""


def blend(datasets: Sequence[DatasetSettings], mixture: Mapping[str, float], root: str, field: str) -> list[Source]:
    """The datasets with a share: mixture[modality] * weight / sum of the modality's weights.

    Args:
        mixture: share by modality; empty gives every modality the same.
        field: name of the list in messages, `data.datasets`.

    Raises:
        InputError: no dataset has a share, or a folder with a share is missing or not prepared.
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
    return [Source(i, datasets[i].name, _folder(datasets[i], root, field), raw[i] / total) for i in raw if raw[i] > 0]


def held_out(datasets: Sequence[DatasetSettings], mixture: Mapping[str, float], root: str, field: str) -> list[Source]:
    """The datasets of modalities that the stage trains on; with an empty mixture all of them.

    Raises:
        InputError: there is none, or a folder is missing or not prepared.
    """
    chosen = [(i, d) for i, d in enumerate(datasets) if d.weight > 0 and (not mixture or mixture.get(d.modality, 0.0) > 0)]
    if not chosen:
        trained = ", ".join(name for name, share in mixture.items() if share > 0) or "any modality"
        raise InputError(
            f"{field} has no dataset of a modality in data.mixture ({trained}); list one or set train.eval_batches to 0"
        )
    return [Source(i, d.name, _folder(d, root, field), 1 / len(chosen)) for i, d in chosen]


def open_sources(sources: Sequence[Source], worker_config: WorkerConfig, shuffle: bool) -> list[LoadedDataset]:
    """Energon's view of the folders: undecoded members, epochs in shuffled shard order or in stored order."""
    opened = []
    for source in sources:
        dataset = CrudeWebdataset(
            EPath(str(source.path)),
            decoder=None,
            subflavors={"index": source.index, "name": source.name},
            split_part=SPLIT,
            training=shuffle,
            worker_config=worker_config,
            shuffle_over_epochs=1 if shuffle else None,
            parallel_shard_iters=16 if shuffle else 1,
        )
        workers = max(1, worker_config.num_workers) * worker_config.world_size
        if len(dataset) < workers:
            raise InputError(
                f"dataset {source.name} in {source.path} has {len(dataset)} samples, fewer than "
                f"data.global_data_workers = {workers}; lower that or join datasets"
            )
        opened.append(LoadedDataset(dataset=dataset, weight=source.share))
    return opened


def _folder(dataset: DatasetSettings, root: str, field: str) -> Path:
    path = Path(root) / dataset.path
    if not path.is_dir():
        raise InputError(f"{field}[{dataset.name}].path: the folder {path} does not exist; write it with `moss data prepare`")
    if not (path / ".nv-meta" / "dataset.yaml").is_file():
        raise InputError(f"{field}[{dataset.name}].path: {path} has no index; write it with `moss data prepare`")
    if (path / SUMMARY).is_file():  # shards made by other tools have none
        check_sizes(path)
    return path

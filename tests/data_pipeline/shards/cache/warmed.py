"""Folders of real shards, and warming a cache from them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_pipeline.loader import build_loader
from data_pipeline.loader.shares import wanted_shards
from data_pipeline.packing.batch import PackedMicroBatch
from data_pipeline.shards import write_samples
from data_pipeline.shards.cache.warm import Outcome, warm_up
from moss_train.config.schema import DataConfig, DatasetConfig, StorageConfig
from tests.data_pipeline.helpers import image_sample, model_config, stage_config, text_sample, tokenizer

TOKENIZER = tokenizer()
MODEL = model_config()
MAKERS = {"text": text_sample, "image": image_sample}


@dataclass(frozen=True)
class Settings:
    """Of a cache."""

    folder: str
    max_gib: float = 0.0
    processes: int = 3


def write(root: Path, samples: int = 12, samples_per_shard: int = 2, names: tuple[str, ...] = ("text", "image")) -> None:
    """A folder of each modality."""
    for name in names:
        write_samples(root / name, (MAKERS[name](i) for i in range(samples)), samples_per_shard, overwrite=True)


def data_of(root: Path | str, names: tuple[str, ...] = ("text", "image"), **values: Any) -> DataConfig:
    """The folders as datasets of one reader in this process; a remote store is given up soon."""
    datasets = [DatasetConfig(name=name, path=f"{root}/{name}", modality=name) for name in names]
    storage = StorageConfig(retries=2, timeout_seconds=10, backoff_seconds=0.01)
    defaults = {"global_data_workers": 1, "worker_processes": 0, "shuffle_buffer": 4, "packing_buffer": 6}
    return DataConfig(datasets=datasets, validation=datasets, storage=storage, **{**defaults, **values})


def warm(cache: Path, data: DataConfig, readers: set[int] | None = None, held_out: bool = False, **values: Any) -> Outcome:
    """As `moss data cache`."""
    options = {name: values.pop(name) for name in ("tell", "dry_run") if name in values}
    return warm_up(Settings(str(cache), **values), wanted_shards(data, readers, held_out), **options)


def batches_of(data: DataConfig, cache: Path | None = None, count: int = 14, **values: Any) -> list[PackedMicroBatch]:
    """The first micro-batches of a run."""
    loader = open_loader(data, cache, **values)
    try:
        return [next(loader) for _ in range(count)]
    finally:
        loader.close()


def open_loader(data: DataConfig, cache: Path | None = None, **values: Any) -> Any:
    """Its loader."""
    return build_loader(data, stage_config(), MODEL, TOKENIZER, cache=str(cache) if cache else None, **values)

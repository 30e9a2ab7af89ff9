"""Weights, passes and caps of the datasets of a blend, over all readers and across a restart."""

from __future__ import annotations

import pickle
from collections import Counter
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from megatron.energon import TaskEncoder, WorkerConfig
from megatron.energon.cache import NoCachePool
from megatron.energon.metadataset.loader_interface import DatasetBlendMode
from megatron.energon.savable_loader import SimpleSavableDatasetWrapper

from data_pipeline.loader.blend import blend, open_sources
from data_pipeline.loader.ledger import Ledger
from data_pipeline.loader.parts import build_encoder
from data_pipeline.packing.batch import PackedMicroBatch
from data_pipeline.shards import write_samples
from model.errors import InputError
from moss_train.config.schema import DataConfig, DatasetConfig
from tests.data_pipeline.helpers import model_config, stage_config, text_sample, tokenizer

TOKENIZER = tokenizer()
MODEL = model_config()
SAMPLES = {"a": 12, "b": 12, "c": 31}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("blend")
    for name, count in SAMPLES.items():
        write_samples(root / name, (text_sample(i) for i in range(count)), samples_per_shard=5)
    return root


def config(root: Path, readers: int = 1, shuffle_buffer: int = 4, **datasets: dict[str, Any]) -> DataConfig:
    entries = [DatasetConfig(name=n, path=n, modality="text", **values) for n, values in datasets.items()]
    return DataConfig(
        root=str(root), datasets=entries, global_data_workers=readers, shuffle_buffer=shuffle_buffer, packing_buffer=6
    )


def pipeline(data: DataConfig, ledger: Path, number: int = 0, own_blend: bool = True) -> Any:
    """One reader's micro-batches; blended by Energon alone without `own_blend`."""
    place = WorkerConfig(rank=number, world_size=data.global_data_workers, num_workers=0, seed_offset=data.seed)
    opened = open_sources(blend(data.datasets, data.mixture, data.root, "data.datasets"), place, data.shuffle_buffer > 0)
    encoder = build_encoder(data, stage_config(), MODEL, TOKENIZER, Ledger(ledger, 0), 1000, None)
    build = encoder.build_train_datasets if own_blend else TaskEncoder.build_train_datasets.__get__(encoder)
    dataset = build(
        datasets=opened,
        worker_config=place,
        batch_size=None,
        packing_buffer_size=data.packing_buffer,
        shuffle_buffer_size=data.shuffle_buffer or None,
        blend_mode=DatasetBlendMode.DATASET_WEIGHT,
    )
    return SimpleSavableDatasetWrapper(dataset, place, NoCachePool())


def keys(batches: Iterator[tuple[int, int, PackedMicroBatch]]) -> list[str]:
    return [key for _, _, batch in batches for key in batch.sample_keys if key]


def of_dataset(found: list[str]) -> Counter[str]:
    return Counter(key.split("/")[0] for key in found)


@pytest.mark.parametrize("readers", [1, 3])
@pytest.mark.parametrize("shuffle_buffer", [0, 4])
def test_every_key_comes_as_often_as_it_is_repeated(root: Path, tmp_path: Path, readers: int, shuffle_buffer: int) -> None:
    data = config(root, readers, shuffle_buffer, a={"repeats": 2}, c={"repeats": 1, "weight": 5.0})
    found = [key for n in range(readers) for key in keys(iter(pipeline(data, tmp_path / "ledger", n)))]
    expected = {f"a/t{i:04d}": 2 for i in range(12)} | {f"c/t{i:04d}": 1 for i in range(31)}
    assert Counter(found) == expected


@pytest.mark.parametrize("readers", [1, 3])
def test_a_cap_takes_the_first_samples_of_the_stored_order(root: Path, tmp_path: Path, readers: int) -> None:
    data = config(root, readers, a={"repeats": 1, "max_samples": 7}, c={"repeats": 3, "max_samples": 100})
    found = [key for n in range(readers) for key in keys(iter(pipeline(data, tmp_path / "ledger", n)))]
    expected = {f"a/t{i:04d}": 1 for i in range(7)} | {f"c/t{i:04d}": 3 for i in range(31)}
    assert Counter(found) == expected


def test_an_endless_dataset_with_a_cap_goes_through_its_samples_again_and_again(root: Path, tmp_path: Path) -> None:
    found = Counter(keys(islice(pipeline(config(root, c={"max_samples": 4}), tmp_path / "ledger"), 60)))
    assert found.keys() == {f"c/t{i:04d}" for i in range(4)}
    assert max(found.values()) - min(found.values()) <= 4  # what the buffers hold


def test_samples_come_in_the_proportion_of_the_weights(root: Path, tmp_path: Path) -> None:
    data = config(root, a={"weight": 1.0}, b={"weight": 2.0, "repeats": 10_000}, c={"weight": 5.0})
    found = keys(islice(pipeline(data, tmp_path / "ledger"), 400))
    counts = of_dataset(found)
    assert len(found) > 1000
    for name, share in {"a": 1 / 8, "b": 2 / 8, "c": 5 / 8}.items():
        assert abs(counts[name] / len(found) - share) < 0.04


def test_a_dataset_that_is_used_up_leaves_its_share_to_all_others(root: Path, tmp_path: Path) -> None:
    data = config(root, a={"weight": 8.0, "repeats": 1}, b={"weight": 1.0}, c={"weight": 3.0})
    found = keys(islice(pipeline(data, tmp_path / "ledger"), 400))
    last = max(i for i, key in enumerate(found) if key.startswith("a/"))
    after = of_dataset(found[last + 1 :])
    assert of_dataset(found)["a"] == 12 and last < 60
    assert abs(after["b"] / after.total() - 1 / 4) < 0.03


def test_passes_without_end_in_sight_come_in_the_order_of_endless_ones(root: Path, tmp_path: Path) -> None:
    for readers, shuffle_buffer in ((1, 0), (2, 4)):
        endless = config(root, readers, shuffle_buffer, a={"weight": 2.0}, c={})
        many = config(root, readers, shuffle_buffer, a={"weight": 2.0, "repeats": 1000}, c={"repeats": 1000})
        ours = pipeline(many, tmp_path / "ledger", readers - 1)
        energons = pipeline(endless, tmp_path / "ledger", readers - 1, own_blend=False)
        assert keys(islice(ours, 30)) == keys(islice(energons, 30))


@settings(max_examples=12, deadline=None)
@given(step=st.integers(0, 22), shuffle_buffer=st.sampled_from([0, 4]))
def test_a_restart_changes_no_pass(root: Path, tmp_path_factory: pytest.TempPathFactory, step: int, shuffle_buffer: int) -> None:
    ledger = tmp_path_factory.mktemp("ledger") / "ledger"
    data = config(root, 1, shuffle_buffer, a={"repeats": 2, "max_samples": 9}, b={"repeats": 1}, c={"repeats": 2, "weight": 3.0})
    whole = [keys(iter([batch])) for batch in pipeline(data, ledger)]
    first = pipeline(data, ledger)
    before = [keys(iter([batch])) for batch in islice(first, step)]
    state = pickle.dumps(first.save_state())
    second = pipeline(data, ledger)
    second.restore_state(pickle.loads(state))
    assert len(whole) > 22 and before + [keys(iter([batch])) for batch in second] == whole


def test_a_cap_below_the_number_of_readers_is_refused(root: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"dataset a in .* has 2 samples, fewer than data\.global_data_workers = 3.*max_samples"):
        pipeline(config(root, 3, a={"max_samples": 2}), tmp_path / "ledger")


def test_a_source_carries_what_identifies_its_samples(root: Path, tmp_path: Path) -> None:
    data = config(root, a={"repeats": 2}, b={"max_samples": 3}, c={})
    a, b, c = blend(data.datasets, data.mixture, data.root, "data.datasets")
    assert (a.repeats, a.max_samples, b.repeats, b.max_samples) == (2, None, None, 3)
    assert a.digest == b.digest != c.digest  # a and b hold the same bytes

"""Which shards a reader reads: what is predicted, against what real readers open."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from megatron.energon.epathlib import EPath

from data_pipeline.loader.blend import blend
from data_pipeline.loader.ledger import Ledger
from data_pipeline.loader.readers import ReaderParts
from data_pipeline.loader.shares import wanted_shards
from data_pipeline.shards import write_samples
from moss_train.config.schema import DataConfig, DatasetConfig
from tests.data_pipeline.helpers import model_config, stage_config, text_sample, tokenizer


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("shards")
    for name, samples, of_a_shard in (("a", 23, 3), ("b", 17, 2), ("c", 11, 4)):
        write_samples(root / name, (text_sample(i) for i in range(samples)), of_a_shard)
    return root


def data_of(root: Path, readers: int, repeats: int | None) -> DataConfig:
    caps = {"a": None, "b": 13, "c": None}
    datasets = [
        DatasetConfig(name=name, path=name, modality="text", repeats=repeats if name == "a" else None, max_samples=cap)
        for name, cap in caps.items()
    ]
    small = {"shuffle_buffer": 4, "packing_buffer": 2, "samples_per_pack": 1, "worker_processes": 0}
    return DataConfig(root=str(root), datasets=datasets, global_data_workers=readers, **small)


@pytest.mark.parametrize(("readers", "repeats"), [(1, None), (3, None), (5, 2)])
def test_every_reader_opens_the_predicted_shards_and_no_others(
    shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, readers: int, repeats: int | None
) -> None:
    data = data_of(shards, readers, repeats)
    sources = blend(data.datasets, data.mixture, data.root, "data.datasets", data.storage)
    parts = ReaderParts(data, stage_config(), model_config(), tokenizer(), Ledger(tmp_path / "ledger.jsonl", 0), sources)
    opened: set[str] = set()
    original = EPath.open

    def watched(path: EPath, *arguments: Any, **options: Any) -> Any:
        if path.name.endswith(".tar"):
            opened.add(f"{path.parent.name}/{path.name}")
        return original(path, *arguments, **options)

    monkeypatch.setattr(EPath, "open", watched)
    everything = set()
    for number in range(readers):
        opened.clear()
        reader = parts.open(number)
        for _ in range(150):
            if next(reader, None) is None:
                break
        predicted = {f"{one.name}/{shard}" for one in wanted_shards(data, {number}, False) for shard in one.needed}
        assert opened == predicted
        everything |= predicted
    whole = wanted_shards(data, None, False)
    assert everything == {f"{one.name}/{shard}" for one in whole for shard in one.needed}
    assert [len(one.samples) for one in whole] == [3, 9, 8]  # c, whose samples are read most often, gets room first
    assert {one.name: len(one.needed) for one in whole} == {"a": 8, "b": 7, "c": 3}  # of b the first 13 samples take part

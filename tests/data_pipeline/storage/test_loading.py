"""Training's loader on folders of real servers, healthy, flaky and dead."""

from __future__ import annotations

import json
import pickle
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from data_pipeline.loader import build_loader
from data_pipeline.loader.folder import shard_sizes
from data_pipeline.packing.batch import PackedMicroBatch
from data_pipeline.shards import write_samples
from data_pipeline.storage.errors import StorageError
from model.errors import InputError
from moss_train.config.schema import DataConfig, DatasetConfig, StorageConfig
from tests.data_pipeline.helpers import image_sample, model_config, stage_config, tokenizer, video_sample
from tests.data_pipeline.storage.servers import FAULTS, FlakyProxy, WebServer, s3_server, serving, upload

TOKENIZER = tokenizer()
MODEL = model_config()
NAMES = ("video", "image")
BATCHES = 16


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("shards")
    for name, make in zip(NAMES, (video_sample, image_sample), strict=True):
        write_samples(root / name, (make(i) for i in range(12)), samples_per_shard=2)
    return root


@pytest.fixture(scope="module")
def web(shards: Path) -> Iterator[WebServer]:
    with serving(WebServer(shards)) as server:
        yield server


@pytest.fixture(scope="module")
def s3(shards: Path) -> Iterator[int]:
    with s3_server() as port:
        upload(port, "bucket", "data", shards)
        yield port


@pytest.fixture
def aws(s3: int, monkeypatch: pytest.MonkeyPatch) -> str:
    """Root of the folders in S3."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{s3}")
    return "s3://bucket/data"


def config(root: str, retries: int = 2, timeout_seconds: float = 10.0, **values: Any) -> DataConfig:
    datasets = [DatasetConfig(name=n, path=f"{root}/{n}", modality=n) for n in NAMES]
    storage = StorageConfig(retries=retries, timeout_seconds=timeout_seconds, backoff_seconds=0.005)
    defaults = {"global_data_workers": 1, "worker_processes": 0, "shuffle_buffer": 4, "packing_buffer": 6}
    return DataConfig(datasets=datasets, validation=datasets, storage=storage, **{**defaults, **values})


def loader(data: DataConfig, **values: Any) -> Any:
    return build_loader(data, stage_config(), MODEL, TOKENIZER, **values)


def take(batches: Any, count: int = BATCHES) -> list[PackedMicroBatch]:
    taken = [next(batches) for _ in range(count)]
    batches.close()
    return taken


def same(a: list[PackedMicroBatch], b: list[PackedMicroBatch]) -> bool:
    return len(a) == len(b) and all(
        torch.equal(value, getattr(y, name)) if isinstance(value, torch.Tensor) else value == getattr(y, name)
        for x, y in zip(a, b, strict=True)
        for name, value in vars(x).items()
    )


@pytest.fixture(scope="module")
def expected(shards: Path) -> list[PackedMicroBatch]:
    return take(loader(config(str(shards))))


def test_the_same_micro_batches_come_from_everywhere(
    expected: list[PackedMicroBatch],
    web: WebServer,
    s3: int,
    aws: str,
    shards: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    profiles = {
        "store": {"type": "s3", "options": {"base_path": "bucket/data", "endpoint_url": f"http://127.0.0.1:{s3}"}},
        "disk": {"type": "file", "options": {"base_path": str(shards)}},
    }
    (tmp_path / "msc.json").write_text(json.dumps({"profiles": {n: {"storage_provider": p} for n, p in profiles.items()}}))
    monkeypatch.setenv("MSC_CONFIG", str(tmp_path / "msc.json"))
    for root in (web.address, aws, "msc://store", "msc://disk"):
        assert same(take(loader(config(root))), expected), root
    assert same(take(loader(config(aws, worker_processes=1))), expected)


def test_the_held_out_side_reads_remote_folders_too(shards: Path, aws: str) -> None:
    local = list(loader(config(str(shards)), split="validation"))
    assert len(local) > 3 and same(list(loader(config(aws), split="validation")), local)


def test_a_run_goes_on_exactly_from_another_place_of_the_same_shards(
    expected: list[PackedMicroBatch], aws: str, shards: Path, web: WebServer
) -> None:
    for first, second, step in ((aws, aws, 3), (str(shards), aws, 6), (aws, web.address, 11)):
        before = loader(config(first))
        begin = [next(before) for _ in range(step)]
        state = pickle.dumps(before.state_dict())
        after = loader(config(second))
        after.load_state_dict(pickle.loads(state))
        assert same(begin + take(after, BATCHES - step), expected)


@pytest.mark.parametrize("kind", ["web", "s3"])
def test_a_flaky_server_changes_nothing(
    expected: list[PackedMicroBatch], kind: str, web: WebServer, s3: int, aws: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving(FlakyProxy(web.server_port if kind == "web" else s3, 0.5, FAULTS, slow_seconds=0.3, seed=1)) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.address)
        assert same(take(loader(config(proxy.address if kind == "web" else aws, retries=30, timeout_seconds=0.1))), expected)
    assert all(proxy.seen[fault] for fault in FAULTS)


@pytest.mark.parametrize("processes", [0, 1])
def test_a_server_that_dies_ends_the_run_with_one_sentence(web: WebServer, tmp_path: Path, processes: int) -> None:
    with serving(FlakyProxy(web.server_port, 0.0, FAULTS, slow_seconds=1)) as proxy:
        batches = loader(config(proxy.address, worker_processes=processes), ledger=tmp_path / "ledger.jsonl")
        next(batches)
        proxy.faults, proxy.chance = ("busy",), 1.0
        begun = time.monotonic()
        with pytest.raises(InputError) as told:
            for _ in range(1000):
                next(batches)
        batches.close()
    assert time.monotonic() - begun < 30
    where = rf"{proxy.address}/(video|image)/shard-\d+\.tar(\.idx)? cannot be read: the server answered 503 Service Unavailable"
    assert told.match(rf"^{where} \(3 attempts, data\.storage\.retries = 2\); [^\n]*$")
    assert not (tmp_path / "ledger.jsonl").exists() or "bad" not in (tmp_path / "ledger.jsonl").read_text()


def test_a_missing_denied_or_shortened_shard_is_told_at_once(shards: Path, tmp_path: Path) -> None:
    shutil.copytree(shards, tmp_path / "copy")
    shard = tmp_path / "copy/video/shard-000001.tar"
    with serving(WebServer(tmp_path / "copy")) as server:
        data = config(server.address, retries=50)
        server.denied.add("/video/shard-000001.tar")
        with pytest.raises(StorageError, match=r"/video/shard-000001\.tar may not be read \(403 Forbidden\)"):
            take(loader(data))
        server.denied.clear()
        shard.write_bytes(shard.read_bytes()[:-1024])
        with pytest.raises(
            StorageError, match=r"/video/shard-000001\.tar has [\d,]+ bytes instead of [\d,]+; copy it there again"
        ):
            take(loader(data))
        shard.unlink()
        with pytest.raises(StorageError, match=r"/video/shard-000001\.tar does not exist \(404 Not Found\)"):
            take(loader(data))
        assert sum(path == "/video/shard-000001.tar" for path, _ in server.requests) == 3


def test_a_damaged_sample_of_a_remote_shard_has_its_name_in_the_ledger(
    shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("megatron.energon.local_copy.LOCAL_COPY_TMP_DIR", tmp_path / "index")
    shutil.copytree(shards, tmp_path / "copy")
    shard = tmp_path / "copy/video/shard-000001.tar"
    content = bytearray(shard.read_bytes())
    content[:512] = b"?" * 512  # the header of its first member
    shard.write_bytes(content)
    with serving(WebServer(tmp_path / "copy")) as server:
        take(loader(config(server.address), ledger=tmp_path / "ledger.jsonl"))
    entries = [json.loads(line) for line in (tmp_path / "ledger.jsonl").read_text().splitlines()]
    assert [(e["kind"], e["dataset"], e["shard"], e["key"]) for e in entries] == [("bad", "video", "shard-000001.tar", "v0002")]


def test_the_manifest_of_a_remote_folder_is_that_of_the_local_one(shards: Path, tmp_path: Path) -> None:
    local = shard_sizes("video", str(shards))
    shutil.copytree(shards, tmp_path / "copy")
    with serving(WebServer(tmp_path / "copy")) as server:
        assert len(local) == 6 and shard_sizes("video", server.address) == local
        (tmp_path / "copy/video/summary.json").unlink()  # as of shards that another tool wrote
        assert shard_sizes(f"{server.address}/video", ".") == local
        with pytest.raises(InputError, match=r"dense: .*/dense does not exist or has no index"):
            shard_sizes("dense", server.address)


def test_a_folder_that_is_not_there_is_named_with_its_field(web: WebServer) -> None:
    data = config(f"{web.address}/nowhere")
    with pytest.raises(InputError, match=r"data\.datasets\[video\]\.path: .*/nowhere/video does not exist or has no index"):
        loader(data)

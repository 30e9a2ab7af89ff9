"""What is said when S3 or a profile of the multi-storage-client refuses."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from data_pipeline.storage.errors import AbsentError, StorageError
from data_pipeline.storage.files import exists, open_file, read_bytes
from data_pipeline.storage.patience import Patience
from tests.data_pipeline.storage.servers import FlakyProxy, client, s3_server, serving, upload

BRISK = Patience(retries=1, timeout_seconds=1.0, backoff_seconds=0.01)


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    folder = tmp_path_factory.mktemp("objects")
    (folder / "a name.tar").write_bytes(bytes(range(256)) * 1000)
    with s3_server() as port:
        upload(port, "bucket", "data", folder)
        yield port


@pytest.fixture(autouse=True)
def aws(s3: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{s3}")


def profile(folder: Path, monkeypatch: pytest.MonkeyPatch, name: str, **options: Any) -> None:
    store = {"type": "s3", "options": {"base_path": "bucket", "retries": {"total_max_attempts": 1}, **options}}
    profiles = {name: {"storage_provider": store, "retry": {"attempts": 1}}}
    (folder / "msc.json").write_text(json.dumps({"profiles": profiles}))
    monkeypatch.setenv("MSC_CONFIG", str(folder / "msc.json"))


def test_an_object_is_read_in_parts() -> None:
    with open_file("s3://bucket/data/a name.tar") as file:
        assert file.seek(200_000) and file.read(3) == bytes([200_000 % 256, 200_001 % 256, 200_002 % 256])
    assert exists("s3://bucket/data/a name.tar") and not exists("s3://bucket/data/another")


def test_the_code_of_s3_is_in_the_sentence() -> None:
    with pytest.raises(AbsentError, match=r"s3://bucket/none does not exist \(404 NoSuchKey\)"):
        read_bytes("s3://bucket/none", BRISK)
    with pytest.raises(AbsentError, match=r"s3://other/none does not exist \(404 NoSuchBucket\)"):
        read_bytes("s3://other/none", BRISK)


def test_unusable_credentials_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_PROFILE", "nobody")
    with pytest.raises(StorageError, match=r"s3://bucket/x cannot be read: .*nobody.*; check the settings of AWS"):
        read_bytes("s3://bucket/x", BRISK)


def test_public_objects_are_read_without_credentials(tmp_path: Path, s3: int, monkeypatch: pytest.MonkeyPatch) -> None:
    client(s3).put_object(Bucket="bucket", Key="public", Body=b"content", ACL="public-read")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    for name in ("AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    assert read_bytes("s3://bucket/public", BRISK) == b"content"
    with pytest.raises(StorageError, match=r"a name\.tar may not be read \(403 .*\); no credentials of AWS were found"):
        read_bytes("s3://bucket/data/a name.tar", BRISK)


def test_a_profile_reads_and_refuses_like_the_others(tmp_path: Path, s3: int, monkeypatch: pytest.MonkeyPatch) -> None:
    profile(tmp_path, monkeypatch, "good", endpoint_url=f"http://127.0.0.1:{s3}")
    assert read_bytes("msc://good/data/a name.tar") == bytes(range(256)) * 1000
    with pytest.raises(AbsentError, match=r"msc://good/data/none does not exist"):
        read_bytes("msc://good/data/none", BRISK)
    with pytest.raises(StorageError, match=r"msc://unknown/x cannot be read: .*; check the profile unknown in"):
        read_bytes("msc://unknown/x", BRISK)


def test_a_profile_of_a_dead_server_is_told(tmp_path: Path, s3: int, monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(FlakyProxy(s3, 1.0, ("busy",), slow_seconds=1)) as proxy:
        profile(tmp_path, monkeypatch, "dead", endpoint_url=proxy.address)
        with pytest.raises(StorageError, match=r"msc://dead/data/a name\.tar cannot be read: .* \(2 attempts, data"):
            read_bytes("msc://dead/data/a name.tar", BRISK)
    assert proxy.seen["busy"] == 2


def test_a_profile_on_a_flaky_server_gives_the_same_bytes(tmp_path: Path, s3: int, monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(FlakyProxy(s3, 0.5, ("reset", "short", "busy"), slow_seconds=1, seed=2)) as proxy:
        profile(tmp_path, monkeypatch, "flaky", endpoint_url=proxy.address)
        patient = Patience(retries=20, backoff_seconds=0.001)
        assert read_bytes("msc://flaky/data/a name.tar", patient) == bytes(range(256)) * 1000
    assert sum(proxy.seen[fault] for fault in ("reset", "short", "busy")) > 0


@pytest.mark.parametrize("address", ["s3://Bad_Bucket!/f", "http://a..b/f"])
def test_a_name_that_no_store_can_have_is_told_at_once(address: str) -> None:
    with pytest.raises(StorageError) as refused:
        exists(address, Patience(retries=3, timeout_seconds=5.0, backoff_seconds=30.0))
    assert re.fullmatch(rf"{re.escape(address)} cannot be read: [^\n]*; check [^\n]*", str(refused.value))
    assert "attempts" not in str(refused.value)

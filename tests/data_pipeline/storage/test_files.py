"""Reading files of real servers: in parts, under faults, and when nothing helps."""

from __future__ import annotations

import base64
import os
import pickle
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from data_pipeline.storage.errors import AbsentError, StorageError
from data_pipeline.storage.files import exists, open_file, open_path, read_bytes
from data_pipeline.storage.patience import Patience
from tests.data_pipeline.storage.servers import FAULTS, FlakyProxy, WebServer, serving

SIZE = 3_000_001
BRISK = Patience(retries=1, timeout_seconds=0.3, backoff_seconds=0.01)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("files")
    (folder / "large").write_bytes(os.urandom(SIZE))
    (folder / "small name").write_bytes(b"content")
    (folder / "empty").write_bytes(b"")
    return folder


@pytest.fixture
def server(folder: Path) -> Iterator[WebServer]:
    with serving(WebServer(folder)) as server:
        yield server


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    steps=st.lists(
        st.tuples(st.integers(0, SIZE + 10) | st.none(), st.sampled_from([0, 1, 512, 70_000, 1_500_000, -1])), max_size=6
    )
)
def test_any_seeks_and_reads_give_what_a_local_file_gives(folder: Path, server: WebServer, steps: list[tuple[int, int]]) -> None:
    with open_file(f"{server.address}/large") as remote, open(folder / "large", "rb") as local:
        for place, size in steps:
            if place is not None:
                assert remote.seek(place) == local.seek(place)
            assert remote.read(size) == local.read(size) and (place or 0) <= remote.tell()
        assert remote.seek(-5, os.SEEK_END) == SIZE - 5 and remote.read() == (folder / "large").read_bytes()[-5:]


def test_small_reads_in_a_row_share_requests(server: WebServer) -> None:
    with open_file(f"{server.address}/large") as file:
        while file.read(512):
            pass
    sizes = [int(last) - int(first) + 1 for first, last in (r[6:].split("-") for _, r in server.requests if r)]
    assert len(sizes) <= 8 and sizes[0] == 64 * 1024 and max(sizes) == 1024 * 1024


def test_small_and_empty_files_are_read_whole(server: WebServer) -> None:
    assert read_bytes(f"{server.address}/small name") == b"content"
    assert read_bytes(f"{server.address}/empty") == b""
    assert open_path(f"{server.address}/small name").read_text() == "content"


def test_a_path_can_be_sent_to_another_process(server: WebServer) -> None:
    path = open_path(server.address) / "small name"
    again = pickle.loads(pickle.dumps(path))
    assert again.read_bytes() == b"content" and str(again) == f"{server.address}/small name" == str(again.parent / again.name)


def test_local_files_take_the_same_functions(folder: Path) -> None:
    assert read_bytes(folder / "small name") == b"content" and exists(folder / "empty") and not exists(folder / "none")


@pytest.mark.parametrize("fault", FAULTS)
def test_no_fault_gives_wrong_bytes(folder: Path, server: WebServer, fault: str) -> None:
    with serving(FlakyProxy(server.server_port, 0.4, (fault,), slow_seconds=0.5, seed=3)) as proxy:
        content = read_bytes(f"{proxy.address}/large", Patience(retries=20, timeout_seconds=0.2, backoff_seconds=0.001))
    assert content == (folder / "large").read_bytes()
    assert proxy.seen[fault] >= 1 and proxy.seen[None] >= 2


WORDS = {
    "reset": r"the connection broke after 32,768 of 65,536 bytes",
    "short": r"the connection broke after 32,768 of 65,536 bytes",
    "slow": r"no bytes for 0\.3 s after 32,768 of 65,536 bytes",
    "drip": r"the server took more than 0\.3 s for a MiB, [\d,]+ of 65,536 bytes came",
    "mute": r"no bytes for 0\.3 s",
    "busy": r"the server answered 503",
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_that_stays_is_told_within_bounded_time(server: WebServer, fault: str) -> None:
    begun = time.monotonic()
    with (
        serving(FlakyProxy(server.server_port, 1.0, (fault,), slow_seconds=3)) as proxy,
        pytest.raises(StorageError, match=rf"{proxy.address}/large cannot be read: {WORDS[fault]}.* \(2 attempts, data\.storage"),
    ):
        read_bytes(f"{proxy.address}/large", BRISK)
    assert proxy.seen == {fault: 2} and time.monotonic() - begun < 10


def test_a_server_that_is_gone_is_told(server: WebServer) -> None:
    with serving(WebServer(server.folder)) as gone:
        address = f"{gone.address}/large"
    with pytest.raises(StorageError, match=r"large cannot be read: no connection \(.*refused\) \(2 attempts"):
        read_bytes(address, BRISK)


def test_a_missing_or_denied_file_is_told_at_once(server: WebServer) -> None:
    server.denied.add("/large")
    with pytest.raises(AbsentError, match=r"/none does not exist \(404 Not Found\); check the address"):
        read_bytes(f"{server.address}/none")
    with pytest.raises(StorageError, match=r"/large may not be read \(403 Forbidden\); check the permissions"):
        read_bytes(f"{server.address}/large")
    assert len(server.requests) == 2
    assert not exists(f"{server.address}/none")
    with pytest.raises(StorageError, match="may not be read"):
        exists(f"{server.address}/large")


def test_the_login_of_netrc_is_used(server: WebServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server.login = "Basic " + base64.b64encode(b"me:secret").decode()
    with pytest.raises(StorageError, match=r"may not be read \(401 Unauthorized\).*netrc"):
        read_bytes(f"{server.address}/small name")
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login me password secret\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    assert read_bytes(f"{server.address}/small name") == b"content"


def test_a_server_without_range_requests_serves_small_files_only(folder: Path) -> None:
    with serving(WebServer(folder, ranges=False)) as plain:
        assert read_bytes(f"{plain.address}/small name") == b"content"
        with pytest.raises(StorageError, match=r"large cannot be read in parts: the server does not answer range requests"):
            read_bytes(f"{plain.address}/large")


def test_a_file_that_is_replaced_while_it_is_read_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"a" * 200_000)
    with serving(WebServer(tmp_path)) as server, open_file(f"{server.address}/file") as file:
        assert file.read(10) == b"a" * 10
        (tmp_path / "file").write_bytes(b"b" * 200_000)
        with pytest.raises(StorageError, match=r"/file was replaced while it was read"):
            file.read()

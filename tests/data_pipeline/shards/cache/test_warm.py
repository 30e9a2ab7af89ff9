"""Warming real caches: from a web server, killed in the middle, by two callers, on full disks, within limits."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from data_pipeline.shards.cache.entry import Entry, entries
from data_pipeline.shards.cache.inventory import clear, held
from data_pipeline.shards.cache.plan import GIB
from data_pipeline.storage.errors import StorageError
from model.errors import InputError
from tests.data_pipeline.shards.cache.warmed import batches_of, data_of, open_loader, warm, write
from tests.data_pipeline.storage.servers import WebServer, serving

FORK = multiprocessing.get_context("fork")


@pytest.fixture(scope="module")
def corpora(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, int]:
    """Four folders of the same size, and the size of each in a cache."""
    root = tmp_path_factory.mktemp("corpora")
    for name in "abcd":
        write(root / name, samples=4, names=("text",))
    warm(root / "cache", data_of(root / "a", ("text",)))
    return root, held(root / "cache")[0].bytes


class _Usage(NamedTuple):
    total: int
    used: int
    free: int


@pytest.fixture(autouse=True)
def roomy(monkeypatch: pytest.MonkeyPatch) -> None:
    """These tests do not depend on how full this machine's disk is."""
    monkeypatch.setattr(shutil, "disk_usage", lambda path: _Usage(1000 * GIB, 500 * GIB, 500 * GIB))


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("shards")
    write(root)
    return root


@pytest.fixture
def web(shards: Path) -> Iterator[WebServer]:
    with serving(WebServer(shards)) as server:
        yield server


def tars(server: WebServer) -> Counter[str]:
    return Counter(path for path, _ in server.requests if path.endswith(".tar"))


def name(number: int) -> str:
    return f"/text/shard-{number:06d}.tar"


def started(action: Callable[[], object]) -> Any:
    process = FORK.Process(target=action, daemon=True)
    process.start()
    return process


def wait_for(condition: Callable[[], object]) -> None:
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)


def test_what_was_copied_before_a_kill_stays_and_the_rest_follows(shards: Path, web: WebServer, tmp_path: Path) -> None:
    cache, data = tmp_path / "cache", data_of(web.address, ("text",))
    entry = Entry.of(cache, f"{web.address}/text")
    web.held.add(name(3))
    process = started(lambda: warm(cache, data, processes=1))
    wait_for(lambda: name(3) in tars(web))
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    web.released.set()
    assert [one for one in entry.names() if one.endswith(".tar")] == [f"shard-{n:06d}.tar" for n in range(3)]
    assert list(entry.partial.iterdir())
    outcome = warm(cache, data)
    assert (outcome.parts[0].here, outcome.parts[0].needed) == (6, 6) and not list(entry.partial.iterdir())
    assert tars(web) == {name(n): 2 if n == 3 else 1 for n in range(6)}
    for path in (shards / "text").rglob("*"):
        if path.is_file():
            assert (entry.folder / path.relative_to(shards / "text")).read_bytes() == path.read_bytes()


def test_a_second_caller_waits_and_finds_all_done(web: WebServer, tmp_path: Path) -> None:
    cache, data = tmp_path / "cache", data_of(web.address, ("text",))
    web.held.add(name(3))
    first = started(lambda: warm(cache, data))
    wait_for(lambda: name(3) in tars(web))
    told: list[str] = []

    def tell(sentence: str) -> None:
        told.append(sentence)
        web.released.set()

    outcome = warm(cache, data, tell=tell)
    first.join()
    assert first.exitcode == 0 and told == [f"another `moss data cache` on this node works in {cache}; waiting for it"]
    assert outcome.copied.files == 0 and outcome.parts[0].here == 6
    assert tars(web) == {name(n): 1 for n in range(6)}


def test_shards_that_another_tool_wrote_are_copied_again_when_they_change(tmp_path: Path) -> None:
    root, cache = tmp_path / "shards", tmp_path / "cache"
    write(root, names=("text",))
    (root / "text" / "summary.json").unlink()  # so there are no digests
    with serving(WebServer(root)) as server:
        for data in (data_of(root, ("text",)), data_of(server.address, ("text",))):
            assert warm(cache, data).parts[0].here == 6 and warm(cache, data).copied.files == 0
            (root / "text" / "shard-000002.tar").touch()
            assert warm(cache, data).copied.files == 2  # with its index


def test_a_shard_that_is_not_what_was_written_is_left_to_the_source(tmp_path: Path) -> None:
    root, cache = tmp_path / "shards", tmp_path / "cache"
    write(root, names=("text",))
    path = root / "text" / "shard-000001.tar"
    content = bytearray(path.read_bytes())
    content[2000] ^= 1
    path.write_bytes(content)
    outcome = warm(cache, data_of(root, ("text",)))
    assert outcome.copied.differing == [f"text: {path} is not what was written there (its SHA-256 differs)"]
    assert outcome.parts[0].here == 5 and not (Entry.of(cache, str(root / "text")).folder / path.name).exists()


def test_limits_leave_whole_shards_at_the_source(shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache, data = tmp_path / "cache", data_of(shards)
    warm(tmp_path / "whole", data)
    needed = sum(one.bytes for one in held(tmp_path / "whole"))
    for share, copied in ((0.9, [6, 4]), (0.5, [6, 0]), (0.1, [0, 0]), (0.8, [6, 2])):  # text has more passes a byte
        planned = warm(cache, data, max_gib=share * needed / GIB, dry_run=True)
        outcome = warm(cache, data, max_gib=share * needed / GIB)
        assert [part.here + part.missing for part in planned.parts] == [part.here for part in outcome.parts] == copied
        assert sum(one.bytes for one in held(cache)) <= outcome.room == int(share * needed)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: _Usage(100 * GIB, 95 * GIB, 5 * GIB - 1))
    assert sum(part.here for part in warm(tmp_path / "third", data).parts) == 0  # 5 % of the disk stay free


def test_a_disk_that_becomes_full_keeps_what_is_whole(shards: Path, tmp_path: Path) -> None:
    cache, data = tmp_path / "small", data_of(shards)
    cache.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=200k", "tmpfs", str(cache)], capture_output=True).returncode:
        pytest.skip("a small file system cannot be mounted here")
    try:
        outcome = warm(cache, data)
        assert outcome.copied.full and 0 < sum(part.here for part in outcome.parts) < 12
        assert not [path for entry in entries(cache) for path in entry.partial.iterdir()]
        expected = batches_of(data)
        assert [b.sample_keys for b in batches_of(data, cache)] == [b.sample_keys for b in expected]
    finally:
        subprocess.run(["umount", "--lazy", str(cache)], check=True)


@settings(max_examples=10, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    runs=st.lists(st.sampled_from("abcd"), min_size=2, max_size=6),
    reading=st.sampled_from("abcd"),
    room=st.sampled_from([1, 2, 3]),
)
def test_old_copies_go_in_the_order_of_their_last_use_and_none_that_is_read(
    tmp_path_factory: pytest.TempPathFactory, corpora: tuple[Path, int], runs: list[str], reading: str, room: int
) -> None:
    root, size = corpora
    cache = tmp_path_factory.mktemp("cache")
    data = {name: data_of(root / name, ("text",)) for name in "abcd"}
    limit = 1.2 * room * size / GIB
    warm(cache, data[reading], max_gib=limit)
    loader = open_loader(data[reading], cache)
    held_by_use = [reading]  # what should be there, used longest ago first
    for run in runs:
        time.sleep(0.01)  # the times of two uses differ
        outcome = warm(cache, data[run], max_gib=limit)
        evicted = []
        if run in held_by_use or room > 1:  # else the copies that are read leave no room
            held_by_use = [name for name in held_by_use if name != run] + [run]
            while len(held_by_use) > room:
                evicted.append(next(name for name in held_by_use if name not in (run, reading)))
                held_by_use.remove(evicted[-1])
        assert [Path(source).parent.name for source in outcome.evicted] == evicted
        assert {Path(one.source).parent.name: one.shards for one in held(cache)} == dict.fromkeys(held_by_use, 2)
    loader.close()


def test_what_is_wrong_is_said_in_a_sentence(shards: Path, tmp_path: Path, web: WebServer) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(
        InputError, match=r"^launcher\.cache\.folder: .*/file/cache cannot be written: Not a directory; choose a folder"
    ):
        warm(tmp_path / "file" / "cache", data_of(shards))
    with pytest.raises(InputError, match=r"^data\.datasets\[text\]\.path: the folder .*/gone/text does not exist"):
        warm(tmp_path / "cache", data_of(shards / "gone"))
    web.denied.add(name(2))
    with pytest.raises(StorageError, match=r"/text/shard-000002\.tar may not be read \(403 Forbidden\)"):
        warm(tmp_path / "cache", data_of(web.address))
    assert not [path for entry in entries(tmp_path / "cache") for path in entry.partial.iterdir()]
    web.denied.clear()
    assert warm(tmp_path / "cache", data_of(web.address)).parts[0].here == 6


def test_only_its_own_folders_are_removed(shards: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / ("f" * 32)).mkdir()
    warm(tmp_path, data_of(shards, ("text",)))
    assert clear(tmp_path, print) == ([str(shards / "text")], [])
    assert sorted(path.name for path in tmp_path.iterdir()) == [".lock", "f" * 32, "mine"]

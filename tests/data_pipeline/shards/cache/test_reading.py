"""Training's loader with copies on the node: the same micro-batches, whatever became of the copies."""

from __future__ import annotations

import io
import os
import pickle
import random
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from data_pipeline.packing.batch import PackedMicroBatch
from data_pipeline.shards.cache.entry import BLOCK, Entry, Record
from data_pipeline.shards.cache.inventory import clear, held
from data_pipeline.shards.cache.reading import CopiedFile
from tests.data_pipeline.shards.cache.warmed import batches_of, data_of, open_loader, warm, write
from tests.data_pipeline.storage.servers import WebServer, serving


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("shards")
    write(root)
    return root


@pytest.fixture(scope="module")
def web(shards: Path) -> Iterator[WebServer]:
    with serving(WebServer(shards)) as server:
        yield server


@pytest.fixture(scope="module")
def expected(shards: Path) -> list[PackedMicroBatch]:
    return batches_of(data_of(shards))


def same(a: list[PackedMicroBatch], b: list[PackedMicroBatch]) -> bool:
    return len(a) == len(b) and all(
        torch.equal(value, getattr(y, name)) if isinstance(value, torch.Tensor) else value == getattr(y, name)
        for x, y in zip(a, b, strict=True)
        for name, value in vars(x).items()
    )


def of_shards(server: WebServer) -> list[str]:
    return [path for path, _ in server.requests if path.endswith((".tar", ".idx"))]


@pytest.mark.parametrize("processes", [0, 1])
def test_copies_of_a_remote_folder_give_the_same_and_leave_its_shards_alone(
    expected: list[PackedMicroBatch], shards: Path, web: WebServer, tmp_path: Path, processes: int
) -> None:
    data = data_of(web.address, worker_processes=processes)
    outcome = warm(tmp_path / "cache", data, held_out=True)
    assert [(part.name, part.here, part.needed) for part in outcome.parts] == [("text", 6, 6), ("image", 6, 6)]
    local = list(open_loader(data_of(shards), split="validation"))
    web.requests.clear()
    assert same(batches_of(data, tmp_path / "cache"), expected)
    held_out = open_loader(data, tmp_path / "cache", split="validation")
    assert same(list(held_out), local) and len(local) > 2
    held_out.close()
    assert not of_shards(web)
    warm(tmp_path / "cache", data)
    assert not of_shards(web)  # nothing changed, so nothing is copied again


def test_a_run_moves_between_copies_and_source(
    expected: list[PackedMicroBatch], shards: Path, web: WebServer, tmp_path: Path
) -> None:
    cache = tmp_path / "cache"
    for first, second in ((shards, web.address), (web.address, shards)):
        warm(cache, data_of(first))
        for begin_cached in (True, False):
            before = open_loader(data_of(first), cache if begin_cached else None)
            begin = [next(before) for _ in range(5)]
            state = pickle.loads(pickle.dumps(before.state_dict()))
            before.close()
            after = open_loader(data_of(second), None if begin_cached else cache)
            after.load_state_dict(state)  # refuses another identity
            assert same(begin + [next(after) for _ in range(9)], expected)
            after.close()


def damage(entry: Entry, how: str) -> None:
    """Spoil every shard and index."""
    for name in [name for name in entry.names() if name.endswith((".tar", ".idx"))]:
        path = entry.path(name)
        content, times = bytearray(path.read_bytes()), path.stat().st_mtime_ns
        if how == "gone":
            path.unlink()
        elif how == "short":
            path.write_bytes(content[:-8])
        else:
            content[5] ^= 4
            path.write_bytes(content)
            os.utime(path, ns=(times, times))  # a disk that errs does not tell


@pytest.mark.parametrize("how", ["bits", "short", "gone"])
def test_damaged_copies_are_noticed_read_from_the_source_and_made_anew(
    expected: list[PackedMicroBatch], shards: Path, tmp_path: Path, how: str, capfd: pytest.CaptureFixture[str]
) -> None:
    cache, data = tmp_path / "cache", data_of(shards)
    warm(cache, data)
    for name in ("text", "image"):
        damage(Entry.of(cache, str(shards / name)), how)
    assert same(batches_of(data, cache), expected)
    told = capfd.readouterr().err
    if how == "bits":
        first = shards / "image" / "shard-000000.tar"
        assert f"shard-000000.tar is damaged (its checksum differs behind byte 0); {first} is read instead\n" in told
        assert told.count("is read instead") == told.count("\n") == 24  # once for each file
    outcome = warm(cache, data)
    assert outcome.copied.files == 24 and same(batches_of(data, cache), expected) and not capfd.readouterr().err


def test_copies_of_other_shards_are_not_read(tmp_path: Path) -> None:
    root, cache = tmp_path / "shards", tmp_path / "cache"
    write(root, names=("text",))
    data = data_of(root, ("text",))
    warm(cache, data)
    loader = open_loader(data, cache)
    next(loader)
    write(root, samples=10, names=("text",))
    expected = batches_of(data)
    assert same(batches_of(data, cache), expected)
    outcome = warm(cache, data)
    assert outcome.parts[0].busy and outcome.copied.files == 0  # a run reads the former ones
    loader.close()
    outcome = warm(cache, data)
    assert not outcome.parts[0].busy and outcome.parts[0].here == 5 and same(batches_of(data, cache), expected)


def test_copies_stay_as_long_as_a_run_or_its_reader_process_has_them(shards: Path, tmp_path: Path) -> None:
    cache, data = tmp_path / "cache", data_of(shards, worker_processes=1)
    warm(cache, data)
    loader = open_loader(data, cache)
    next(loader)
    assert clear(cache, print) == ([], [one.source for one in sorted(held(cache), key=lambda one: one.folder)])
    assert [one.in_use for one in held(cache)] == [True, True] and len(warm(cache, data).evicted) == 0
    loader.close()
    assert [one.in_use for one in held(cache)] == [False, False]
    assert len(clear(cache, print)[0]) == 2 and not held(cache)


@given(seed=st.integers(0, 2**32), flips=st.integers(0, 3), cut=st.integers(0, 2), data=st.data())
def test_any_reads_of_any_damaged_copy_give_the_bytes_of_the_source(
    tmp_path_factory: pytest.TempPathFactory, seed: int, flips: int, cut: int, data: st.DataObject
) -> None:
    chance = random.Random(seed)
    content = chance.randbytes(chance.choice([0, 1, BLOCK - 1, BLOCK, 2 * BLOCK + 77]))
    sums = "".join(f"{zlib.crc32(content[i : i + BLOCK]):08x}" for i in range(0, len(content), BLOCK))
    copy = bytearray(content)
    for _ in range(flips if content else 0):
        copy[chance.randrange(len(copy))] ^= 1 << chance.randrange(8)
    path = tmp_path_factory.mktemp("copy") / "file"
    path.write_bytes(copy[: len(copy) - cut])
    whys: list[str] = []

    def instead(why: str) -> io.BytesIO:
        whys.append(why)
        return io.BytesIO(content)

    with CopiedFile(path.open("rb", buffering=0), Record(len(content), "", 0, sums), instead) as file:
        for _ in range(4):
            place = data.draw(st.integers(0, len(content) + 2))
            size = data.draw(st.sampled_from([-1, 0, 1, 512, BLOCK, 3 * BLOCK]))
            file.seek(place)
            assert file.read(size) == (content[place:] if size < 0 else content[place : place + size])
    assert len(whys) <= 1 and (not whys or bytes(copy[: len(copy) - cut]) != content)

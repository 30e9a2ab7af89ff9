"""The quarantine ledger by itself: what is entered, when it ends reading, and what a damaged file or a full disk does."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from data_pipeline.loader.ledger import Ledger, ReadingStopped
from data_pipeline.loader.ledger_lines import DECODE
from model.errors import InputError


def lines(path: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_sample_that_several_ranks_entered_counts_once(tmp_path: Path) -> None:
    """Ledgers of older runs may hold a sample once for each rank that met it."""
    path = tmp_path / "quarantine.jsonl"
    line = json.dumps({"kind": "bad", "dataset": "d", "shard": "s", "key": "k0", "reason": "r"}) + "\n"
    path.write_text(line * 8)
    ledger = Ledger(path, budget=2)
    ledger.add("d", "s", "k1", "r")
    with pytest.raises(ReadingStopped, match="3 samples could not be read"):
        ledger.add("d", "s", "k2", "r")


def test_an_entry_says_what_where_and_why(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "run" / "q.jsonl", budget=9)
    ledger.add("d", "s", "caf\udce9", "two\nlines", at=DECODE)  # a name that is no UTF-8
    entry = {"kind": "bad", "dataset": "d", "shard": "s", "key": "caf\udce9", "at": "decode", "reason": "two lines"}
    assert ledger.entries() == [entry] == lines(ledger.path)
    assert ledger.bad_samples() == {"d": 1}


def _enter_300(path: Path, first: int) -> None:
    ledger = Ledger(path, budget=10_000)
    for i in range(first, first + 300):
        ledger.add("d", "shard-000000.tar", f"k{i}", "damaged " * 40)


def test_processes_enter_every_sample_once(tmp_path: Path) -> None:
    """Four at once, whose samples overlap."""
    path = tmp_path / "q.jsonl"
    fork = multiprocessing.get_context("fork")
    writers = [fork.Process(target=_enter_300, args=(path, first)) for first in (0, 0, 150, 200)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(timeout=120)
    assert [writer.exitcode for writer in writers] == [0] * 4
    assert sorted(e["key"] for e in lines(path)) == sorted(f"k{i}" for i in range(500))


@pytest.mark.parametrize("cut", [1, 20, 70])
def test_a_line_that_was_cut_is_none_and_the_next_begins_anew(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "q.jsonl"
    before = Ledger(path, budget=9)
    for key in ("k0", "k1"):
        before.add("d", "s", key, "reason")
    path.write_bytes(path.read_bytes()[:-cut])
    known = ["k0"] if cut > 1 else ["k0", "k1"]  # only the end of the line is missing
    ledger = Ledger(path, budget=9)
    assert [e["key"] for e in ledger.entries()] == known
    for key in ("k2", "k1", "k0", "k2"):
        ledger.add("d", "s", key, "reason")
    again = Ledger(path, budget=9)
    again.add("d", "s", "k1", "reason")
    assert sorted(e["key"] for e in again.entries()) == ["k0", "k1", "k2"]
    assert path.read_bytes().endswith(b"}\n")


def test_past_its_budget_a_dataset_ends_reading_again_and_again(tmp_path: Path) -> None:
    path = tmp_path / "q.jsonl"
    ledger = Ledger(path, budget=0, budgets={"d": 1})
    ledger.add("d", "s", "k0", "first")
    ledger.add("d", "s", "long", "too long", kind="skipped")
    sentence = r"dataset d: 2 samples could not be read, more than its max_bad_samples = 1; the latest is d/k1 in s"
    with pytest.raises(ReadingStopped, match=sentence):
        ledger.add("d", "s", "k1", "second")
    resumed = Ledger(path, budget=0, budgets={"d": 1})
    with pytest.raises(ReadingStopped, match=r"the latest is d/k1"):  # although it is listed already
        resumed.add("d", "s", "k1", "second")
    raised = Ledger(path, budget=0, budgets={"d": 2})
    raised.add("d", "s", "k1", "second")
    with pytest.raises(ReadingStopped, match=r"dataset e: 1 samples could not be read, more than data\.max_bad_samples = 0"):
        raised.add("e", "s", "k0", "other")
    assert [e["kind"] for e in lines(path)] == ["bad", "skipped", "bad", "fatal", "fatal", "bad", "fatal"]


def test_the_reason_is_told_across_other_errors(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "q.jsonl", budget=9)
    try:
        try:
            ledger.stop("nothing is left to read")
        except ReadingStopped as inner:
            raise RuntimeError("a library's wrapping") from inner
    except RuntimeError as error:
        with pytest.raises(InputError, match=r"^nothing is left to read$"):
            ledger.raise_fatal(error)
    ledger.raise_fatal(RuntimeError("of something else"))
    assert ledger.entries()[-1]["kind"] == "fatal"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 16 KiB."""
    place = tmp_path / "disk"
    place.mkdir()
    made = shutil.which("mount") and subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=16k", "tmpfs", str(place)], capture_output=True, check=False
    )
    if not made or made.returncode:
        pytest.skip("no file system can be mounted here (needs root)")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def test_a_disk_that_fills_up_loses_no_entry_silently(small_disk: Path) -> None:
    path = small_disk / "q.jsonl"
    ledger = Ledger(path, budget=10_000)
    entered: list[str] = []
    with pytest.raises(ReadingStopped, match=r"q\.jsonl cannot be written \(No space left on device\), .*is d/k\d+ in s"):
        for i in range(1000):
            ledger.add("d", "s", f"k{i}", "why " * 300)
            entered.append(f"k{i}")
    assert entered and [e["key"] for e in Ledger(path, 9).entries()] == entered  # the cut line at the end is none
    (small_disk / "q.jsonl").write_bytes(path.read_bytes()[-5000:])  # room again
    Ledger(path, budget=10_000).add("d", "s", "later", "why")
    assert Ledger(path, 9).entries()[-1]["key"] == "later"


def test_a_folder_that_takes_no_file_ends_reading(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ReadingStopped, match=r"cannot be written \((Not a directory|File exists)\)"):
        Ledger(tmp_path / "file" / "q.jsonl", budget=9).add("d", "s", "k", "why")
    locked = tmp_path / "locked"
    locked.mkdir(mode=0o500)
    if os.geteuid():
        with pytest.raises(ReadingStopped, match=r"cannot be written \(Permission denied\)"):
            Ledger(locked / "q.jsonl", budget=9).add("d", "s", "k", "why")

"""Reader processes: what they outlive, and how their end is told."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from socket import gethostname
from typing import Any

import pytest
import torch

from data_pipeline.loader import build_loader
from data_pipeline.loader.workers import ReaderProcess
from model.errors import InputError
from tests.data_pipeline.helpers import data_config, model_config, stage_config, tokenizer, write_mixture

TOKENIZER = tokenizer()


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("shards")
    write_mixture(root)
    return root


def loader(shards: Path, **values: Any) -> Any:
    data = data_config(shards, **{"global_data_workers": 2, "worker_processes": None, **values})
    return build_loader(data, stage_config(), model_config(), TOKENIZER)


@pytest.fixture
def running(shards: Path) -> Iterator[Any]:
    """Two processes of a reader each that gave a micro-batch and wait with the next ones ready."""
    batches = loader(shards, worker_timeout_seconds=1.5)
    for _ in range(2):
        next(batches)
    time.sleep(0.5)
    yield batches
    batches.close()


def processes(batches: Any) -> list[ReaderProcess]:
    return list(batches._turns._processes)


def ended(pid: int, within: float) -> bool:
    """Whether no such process is there any more."""
    deadline = time.monotonic() + within
    while time.monotonic() < deadline:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
        except OSError:
            return True
        if state == "Z":
            return True
        time.sleep(0.05)
    return False


def until_refused(batches: Any) -> str:
    with pytest.raises(InputError) as refusal:
        for _ in range(20):
            next(batches)
    return str(refusal.value)


@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGINT])
def test_processes_go_on_after_signals_to_the_group(running: Any, sent: signal.Signals) -> None:
    for process in processes(running):
        os.kill(process.pid, sent)
    time.sleep(0.2)
    assert all(next(running).num_rows == 128 for _ in range(12))


def test_a_killed_process_is_one_sentence(running: Any) -> None:
    first = processes(running)[0]
    os.kill(first.pid, signal.SIGKILL)
    begin = time.monotonic()
    sentence = until_refused(running)
    assert time.monotonic() - begin < 5
    assert f"loader process {first.pid} on {gethostname()} with reader 0 of 2 was killed by SIGKILL" in sentence
    assert "the last sample that it gave is " in sentence and "data.prefetch" in sentence


def test_a_process_that_gives_nothing_is_one_sentence(running: Any) -> None:
    second = processes(running)[1]
    os.kill(second.pid, signal.SIGSTOP)
    sentence = until_refused(running)
    assert f"loader process {second.pid} on {gethostname()} with reader 1 of 2 gave no micro-batch for 1.5 seconds" in sentence
    assert "data.worker_timeout_seconds" in sentence


def test_closing_ends_the_processes_at_once(shards: Path) -> None:
    batches = loader(shards)
    next(batches)
    pids = [process.pid for process in processes(batches)]
    begin = time.monotonic()
    batches.close()
    assert time.monotonic() - begin < 1
    assert len(pids) == 2 and all(ended(pid, 0) or not Path(f"/proc/{pid}").exists() for pid in pids)


def test_a_failure_inside_names_its_place(shards: Path) -> None:
    """What is no fault of the input comes with the stack of the process."""
    batches = loader(shards)
    batches._parts.data.packing_buffer = "6"
    with pytest.raises(RuntimeError, match=r"loader process \d+ on \S+ with reader 0 of 2 failed:(.|\n)*Traceback(.|\n)*TypeErr"):
        next(batches)
    with pytest.raises(InputError, match="with reader 0 of 2 ended with exit code 0; it had given no sample yet"):
        next(batches)
    batches.close()


def test_large_tensors_arrive_whole(shards: Path) -> None:
    model = model_config(image_size=448)
    data = data_config(shards, ("video",))
    here = build_loader(data, stage_config(), model, TOKENIZER)
    data.worker_processes = 1
    there = build_loader(data, stage_config(), model, TOKENIZER)
    for _ in range(3):
        one, two = next(here), next(there)
        assert two.frames.nbytes > 1 << 21
        two.frames[0] += 1  # it may be written to
        two.frames[0] -= 1
        assert one.sample_keys == two.sample_keys
        pairs = [(value, getattr(two, name)) for name, value in vars(one).items() if isinstance(value, torch.Tensor)]
        assert all(torch.equal(a, b) and a.dtype == b.dtype for a, b in pairs)
    there.close()


_PARENT = """
import sys, time
from pathlib import Path
from tests.data_pipeline.loader.test_workers import loader, processes
batches = loader(Path(sys.argv[1]))
next(batches)
print(*[p.pid for p in processes(batches)], flush=True)
if sys.argv[2] == "wait":
    time.sleep(600)
"""


@pytest.mark.parametrize("end", ["kill", "kill while they are stopped", "exit"])
def test_no_process_outlives_the_training_process(shards: Path, end: str) -> None:
    command = [sys.executable, "-c", _PARENT, str(shards), "exit" if end == "exit" else "wait"]
    parent = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    pids = [int(pid) for pid in parent.stdout.readline().split()]
    begin = time.monotonic()
    if end == "kill while they are stopped":
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
    if end != "exit":
        parent.kill()
    parent.wait(20)
    assert len(pids) == 2 and all(ended(pid, 10) for pid in pids)
    assert time.monotonic() - begin < 10

"""Reading a step ahead changes nothing: a run that is told to end goes on where it stopped, not where it had read to."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from moss_train.feed.one_thread import OneThread
from moss_train.feed.sample_log import read_sample_log
from moss_train.parallel.layout import stop_layout
from moss_train.setup import start_session
from moss_train.trainer import Trainer
from tests.moss_train.resume_ranks import rows
from tests.moss_train.runs import run_config, write_data
from tests.moss_train.test_trainer import Terminate


@pytest.fixture(autouse=True)
def layout_ends() -> Iterator[None]:
    """Each run starts its own layout."""
    yield
    stop_layout()


def test_a_run_that_reads_ahead_equals_one_that_does_not(tmp_path: Path) -> None:
    write_data(tmp_path)

    def run(name: str, processes: int, stop_after: int | None = None) -> int:
        stop_layout()
        changes = {"data__global_data_workers": 2, "data__worker_processes": processes, "data__log_samples": True}
        config = run_config(tmp_path, tmp_path / name, "pt2", 6, train__eval_batches=0, train__save_every=2, **changes)
        trainer = Trainer(start_session(config))
        if stop_after is not None:
            trainer._monitors.append(Terminate(stop_after, signal.SIGUSR1))
        return trainer.run().step

    assert run("plain", 0) == 6
    assert run("ahead", 2, stop_after=2) == 3
    assert run("ahead", 1) == 6
    assert rows(tmp_path / "ahead") == rows(tmp_path / "plain")
    assert read_sample_log(tmp_path / "ahead") == read_sample_log(tmp_path / "plain")
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("moss-feed")]


def test_work_that_was_begun_is_done_once_and_elsewhere() -> None:
    thread: OneThread[str] = OneThread(torch.device("cpu"))
    name = threading.current_thread().name
    assert thread.result(lambda: threading.current_thread().name) == name
    thread.begin(lambda: threading.current_thread().name)
    assert thread.result(lambda: "not called").startswith("moss-feed")
    assert thread.result(lambda: "called") == "called"

    def fail() -> str:
        raise KeyError("of the thread")

    thread.begin(fail)
    with pytest.raises(KeyError, match="of the thread"):
        thread.result(lambda: "not called")
    thread.begin(fail)
    thread.close()  # what nobody asks for any more is nobody's error

"""Shared fixtures. The device shim is installed here, before any test module imports megatron-core."""

# ruff: noqa: E402 - cores and variables come before what starts threads and reads them
from __future__ import annotations

import gc
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.workers import RANKS, cores_of_worker, scheduling

OWN_CORES = cores_of_worker()
if OWN_CORES:
    os.sched_setaffinity(0, OWN_CORES)  # before threads are started
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("CUDA_DEVICE_MAX_CONNECTIONS", "1")
os.environ.setdefault("WANDB_MODE", "offline")

import pytest
import torch
from hypothesis import HealthCheck, settings

from moss_train import platform
from tests.ranks import Answer, Launch, Ranks, RunRanks

platform.install()
torch.set_num_threads(1)

REPOSITORY = Path(__file__).resolve().parent.parent

# A shell's background jobs and nohup ignore these, and what is ignored here would be ignored in every process that tests start.
for number, handler in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
    if signal.getsignal(number) is signal.SIG_IGN:
        signal.signal(number, handler)

settings.register_profile("few", max_examples=20, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("many", max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "few"))


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests marked `ranks` never share the cores: where test processes have none of their own, all are one process's.
    Their files come first, since they take longest; `gpu` skips without CUDA, `slow` without MOSS_SLOW_TESTS, `cluster` without
    MOSS_CLUSTER_TESTS."""
    for item in items:
        if item.get_closest_marker("ranks") and not OWN_CORES:
            item.add_marker(pytest.mark.xdist_group(RANKS))
        if item.get_closest_marker("gpu") and not torch.cuda.is_available():
            item.add_marker(pytest.mark.skip(reason="no CUDA device"))
        if item.get_closest_marker("cluster") and not os.environ.get("MOSS_CLUSTER_TESTS"):
            item.add_marker(pytest.mark.skip(reason="for `make test-cluster`"))
        if item.get_closest_marker("slow") and not os.environ.get("MOSS_SLOW_TESTS"):
            item.add_marker(pytest.mark.skip(reason="slow; set MOSS_SLOW_TESTS=1"))
    if "PYTEST_XDIST_WORKER" in os.environ:
        long = {item.path for item in items if item.get_closest_marker("ranks")}
        items.sort(key=lambda item: item.path not in long)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    return scheduling(config, log) if config.getoption("dist") == "loadgroup" else None


@pytest.hookimpl(trylast=True)
def pytest_collection_finish() -> None:
    """What is there by now stays to the end, thousands of tests with it: collections of garbage, of which each end of a
    layout makes one, need not look at it again."""
    gc.collect()
    gc.freeze()


@pytest.hookimpl(trylast=True)
def pytest_unconfigure() -> None:
    gc.unfreeze()


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Name what failed at once: where the run itself is ended later, its summary never comes."""
    if report.failed and "PYTEST_XDIST_WORKER" not in os.environ:
        print(f"\nfailed: {report.nodeid} ({report.when})\n{report.longreprtext[-2000:]}", file=sys.stderr, flush=True)


@pytest.fixture(scope="module", autouse=True)
def layouts_end() -> Iterator[None]:
    """No file leaves its layout, with the threads of its groups, to the next one, nor what collections of garbage look at:
    imports and caches of thousands of tests would make each of them take most of a second."""
    yield
    layout = sys.modules.get("moss_train.parallel.layout")  # most files load no megatron-core
    if layout is not None:
        layout.stop_layout()
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def reference_data() -> Path:
    """Folder of recorded reference data; set MOSS_REFERENCE_DATA, or the test is skipped."""
    folder = Path(os.environ.get("MOSS_REFERENCE_DATA", REPOSITORY.parent / "shared" / "reference" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no reference data at {folder}; set MOSS_REFERENCE_DATA")
    return folder


@pytest.fixture(scope="session")
def starter() -> Iterator[Ranks]:
    """What starts ranks, with the processes that they are forked from."""
    starter = Ranks()
    yield starter
    starter.close()


@pytest.fixture(scope="session")
def run_ranks(starter: Ranks) -> RunRanks:
    """`run_ranks(module, nproc, *args, timeout=120)` -> output of ranks that ended with exit code 0."""
    return starter.run


@pytest.fixture(scope="session")
def launch(starter: Ranks) -> Launch:
    """`launch(ranks, lambda: start_local_ranks(...))` -> exit code and output of ranks under the real launcher."""
    return starter.launch


@pytest.fixture(scope="session")
def answer_of_ranks(starter: Ranks) -> Answer:
    """What tests put in the place of `run_on_ranks`, see `Ranks.answer`."""
    return starter.answer

"""What single monitors add to a record."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from moss_train.config.schema import RunConfig
from moss_train.feed.feed import Delivery
from moss_train.monitors.base import Monitor, SaveEvent, Update
from moss_train.monitors.checkpoint_stall import CheckpointStall
from moss_train.monitors.data_wait import DataWait
from moss_train.monitors.elapsed import WINDOW, Elapsed, TimeLeft
from moss_train.monitors.learning_rates import LearningRates
from moss_train.monitors.memory import Memory, resident_bytes
from moss_train.monitors.mfu import Mfu, ideal_seconds
from moss_train.monitors.monitor_time import MonitorTime
from moss_train.planning.flops import PEAK, Flops, Work, model_flops
from moss_train.statistics import StepStatistics
from tests.moss_train.runs import run_config, run_model


def update(step: int = 1, seconds: float = 2.0, **values: Any) -> Update:
    data = Delivery([], {}, 100, 80, 0.5, 0.1, Work(rows=100, frames=3, self_pairs=2000, cross_pairs=90, head_rows=40))
    statistics = StepStatistics(1.0, 40, {}, {}, 80, 3)
    return Update(step, data, statistics, 1.0, {"decoder": 1e-3, "vision": 1e-4}, seconds=seconds, **values)


@given(seconds=st.floats(0.01, 100), between=st.floats(0, 50), steps=st.integers(0, 1000), done=st.integers(2, 2 * WINDOW))
def test_time_left_of_even_steps(seconds: float, between: float, steps: int, done: int) -> None:
    left = TimeLeft()
    left.add(1000 * seconds, None)  # the first one compiles
    assert left.seconds(steps) is None
    for _ in range(done - 1):
        left.add(seconds, between)
    assert left.seconds(steps) == pytest.approx(steps * (seconds + between))


def test_time_left_counts_evaluations_as_often_as_they_were() -> None:
    left = TimeLeft()
    left.add(60.0, None)
    for step in range(1, 101):
        left.add(2.0, 5.0 if step % 10 == 0 else 0.0)
    assert left.seconds(100) == pytest.approx(100 * 2.0 + 10 * 5.0)


def test_elapsed_goes_on_over_processes() -> None:
    now = 100.0
    first = Elapsed(lambda: now)
    first.started(0, 10)
    now = 103.0
    assert first.measured(update(1, 3.0)) == {"elapsed_seconds": 3.0}
    now = 106.0
    record = first.measured(update(2, 2.0))
    assert record == {"elapsed_seconds": 6.0, "between_seconds": 1.0, "eta_seconds": 8 * 3.0}
    now = 107.0
    second = Elapsed(lambda: now)
    second.load_state_dict(first.state_dict())
    now = 500.0
    second.started(2, 10)
    now = 504.0
    assert second.measured(update(3, 4.0)) == {"elapsed_seconds": 11.0}


def test_operations_and_utilisation() -> None:
    config = run_config_of()
    flops = model_flops(run_model(), update().data.work, config.stage, config.lora)
    assert flops.vision > 0 and flops.cross > 0
    plain = Mfu(config, run_model(), None, 1, "cpu").measured(update())
    assert plain["tflops_per_second"] == pytest.approx(flops.total / 2.0 / 1e12) and "mfu" not in plain
    assert sum(plain["tflops"].values()) == pytest.approx(flops.total / 1e12)
    known = Mfu(config, run_model(), PEAK["H200"], 4, "NVIDIA H200").measured(update())
    assert known["mfu"] == pytest.approx(flops.total / (PEAK["H200"].bf16 * 4 * 2.0))


def test_each_part_is_measured_against_the_peak_of_its_format() -> None:
    gpu = PEAK["H100"]
    fp8 = gpu.peak(True)
    flops = Flops(vision=1e15, projector=2e15, text=4e15, cross=8e15, head=16e15)
    mixed = run_config_of(precision__dtype="bf16", precision__fp8="current")
    assert ideal_seconds(flops, gpu, mixed) == pytest.approx(4e15 / fp8 + 27e15 / gpu.bf16)
    most = run_config_of(
        precision__dtype="bf16", precision__fp8="current", precision__fp8_cross_layers=True, precision__fp8_vision=True
    )
    assert ideal_seconds(flops, gpu, most) == pytest.approx(13e15 / fp8 + 18e15 / gpu.bf16)
    assert ideal_seconds(flops, gpu, run_config_of(precision__dtype="bf16")) == pytest.approx(31e15 / gpu.bf16)


def run_config_of(**changes: Any) -> RunConfig:
    return run_config(Path("data"), Path("run"), **changes)


def test_an_unknown_gpu_is_told_once(capsys: pytest.CaptureFixture[str]) -> None:
    Mfu(run_config_of(), run_model(), None, 1, "Other GPU").started(0, 1)
    Mfu(run_config_of(), run_model(), None, 1, "cpu").started(0, 1)
    assert capsys.readouterr().err.count("no utilisation") == 1


def test_stalls_add_up_over_processes() -> None:
    first = CheckpointStall()
    assert first.measured(update()) == {}
    first.saved(SaveEvent(1, "begun", 0.5))
    first.saved(SaveEvent(1, "published", 0.25))
    assert first.measured(update()) == {"checkpoint_stall_seconds": 0.75, "checkpoint_stall_total": 0.75}
    first.stepped({"step": 2})
    assert first.measured(update()) == {"checkpoint_stall_seconds": 0.0, "checkpoint_stall_total": 0.75}
    second = CheckpointStall()
    second.load_state_dict(first.state_dict())
    second.saved(SaveEvent(2, "begun", 1.0))
    assert second.measured(update()) == {"checkpoint_stall_seconds": 1.0, "checkpoint_stall_total": 1.75}


def test_a_stall_waits_for_the_record_that_is_written() -> None:
    stall = CheckpointStall(every=10)
    stall.saved(SaveEvent(10, "begun", 0.5))
    for step in (11, 19, 20):
        assert stall.measured(update())["checkpoint_stall_seconds"] == 0.5
        stall.stepped({"step": step})
    assert stall.measured(update())["checkpoint_stall_seconds"] == 0.0


def test_data_wait_and_rates() -> None:
    assert DataWait().measured(update()) == {
        "padding": pytest.approx(0.2), "data_seconds": 0.5, "data_share": 0.25, "feed_seconds": 0.1
    }  # fmt: skip
    one = update()
    assert LearningRates().measured(one) == {"learning_rate": 1e-3, "vision_learning_rate": 1e-4}
    one.learning_rates["gates"] = 5e-3
    assert LearningRates().measured(one)["learning_rates"] == {"gates": 5e-3}


def test_memory_of_this_process() -> None:
    assert 10 * 2**20 < resident_bytes() < 2**40 and resident_bytes(2**22 + 1) == 0
    monitor = Memory(torch.device("cpu"), every=5, world_size=1)
    first = monitor.measured(update(3))["memory"]
    assert first["host"] == pytest.approx(resident_bytes(os.getpid()) / 2**30, rel=0.5) and first["loaders"] == 0.0
    assert monitor.measured(update(4)) == {} and set(monitor.measured(update(5))["memory"]) == {"host", "loaders"}


class SlowMonitor(Monitor):
    def stepped(self, record: dict[str, Any]) -> None:
        end = os.times().elapsed + 0.03
        while os.times().elapsed < end:
            pass


def test_monitors_are_timed_by_the_hooks_that_they_have() -> None:
    slow, quiet = SlowMonitor(), DataWait()
    watch = MonitorTime([slow, quiet])
    assert quiet.measured(update())["data_seconds"] == 0.5
    slow.stepped({})
    seconds = watch.measured(update())["monitor_seconds"]
    assert seconds["slow_monitor"] >= 0.02 > seconds["data_wait"] > 0
    assert seconds["total"] == pytest.approx(seconds["slow_monitor"] + seconds["data_wait"])
    assert watch.measured(update()) == {"monitor_seconds": {"total": 0}}

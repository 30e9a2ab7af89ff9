"""Parts of a step: seconds by name, and ranges in the traces of profilers."""

from __future__ import annotations

import time

import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from moss_train.phases import MARKING, Phases, mark


def test_seconds_add_up_by_name() -> None:
    phases = Phases()
    for _ in range(2):
        with phases("decode"):
            time.sleep(0.01)
    with pytest.raises(ValueError), phases("return"):
        time.sleep(0.02)
        raise ValueError
    seconds = phases.take()
    assert set(seconds) == {"decode", "return"}
    assert 0.02 <= seconds["decode"] < 0.5 and 0.02 <= seconds["return"] < 0.5
    assert phases.take() == {}


def test_marks_are_in_the_trace_only_where_asked_for() -> None:
    phases = Phases()
    found = []
    for record in (False, True):
        MARKING.record = record
        try:
            with profile(activities=[ProfilerActivity.CPU]) as made, phases("encode"), mark("encode chunk"):
                torch.ones(3).sum()
        finally:
            MARKING.record = False
        found.append({event.key for event in made.key_averages()})
    assert not {"encode", "encode chunk"} & found[0]
    assert {"encode", "encode chunk", "aten::sum"} <= found[1]


@pytest.mark.gpu
def test_seconds_on_a_gpu_are_the_devices() -> None:
    """Within a hundredth of what a synchronised clock says, without waiting; what still runs is counted in the next take."""
    device = torch.device("cuda", torch.cuda.current_device())
    matrix = torch.randn(4096, 4096, device=device)

    def work(times: int) -> None:
        for _ in range(times):
            matrix @ matrix

    work(3)
    torch.cuda.synchronize()
    begin = time.perf_counter()
    work(200)
    torch.cuda.synchronize()
    expected = time.perf_counter() - begin
    phases = Phases(device)
    begin = time.perf_counter()
    with phases("first"):
        work(200)
    with phases("second"):
        work(100)
    assert time.perf_counter() - begin < expected / 2  # the host did not wait
    taken = phases.take()
    assert taken == {}
    torch.cuda.synchronize()
    taken = phases.take()
    assert taken["first"] == pytest.approx(expected, rel=0.05)
    assert taken["second"] == pytest.approx(expected / 2, rel=0.05)
    assert phases.take() == {}

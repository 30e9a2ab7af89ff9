"""The profiling window: what it writes, and when it lies before, behind or across what a run trains."""

from __future__ import annotations

import gzip
import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from model.errors import InputError
from moss_train.config.compose import choices, compose
from moss_train.config.profile import ProfileConfig
from moss_train.monitors.profiler import Profiler
from moss_train.parallel.layout import stop_layout
from moss_train.phases import MARKING
from moss_train.trainer import train
from tests.moss_train.runs import run_config, write_data

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def layout_ends() -> Iterator[None]:
    yield
    stop_layout()


def names(path: Path) -> Counter[str]:
    """Ranges of ours in a trace."""
    events = json.loads(gzip.decompress(path.read_bytes()))["traceEvents"]
    return Counter(event["name"] for event in events if event.get("cat") == "user_annotation")


def test_window_of_a_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Steps 2 and 3 of 4: every part of a step and every forward pass is there twice."""
    write_data(tmp_path)
    changes: dict[str, Any] = {"data__global_data_workers": 1, "data__worker_processes": 0, "train__eval_batches": 0}
    changes |= {"profile__first_step": 2, "profile__steps": 2, "profile__memory": True, "train__save_every": 2}
    train(run_config(tmp_path, tmp_path / "run", steps=4, **changes))
    folder = tmp_path / "run" / "profile"
    assert sorted(path.name for path in folder.iterdir()) == [
        "rank_00000.json.gz", "rank_00000_memory.txt", "rank_00000_operators.txt",
    ]  # fmt: skip
    found = names(folder / "rank_00000.json.gz")
    for name in ("feed", "encode", "decode", "return", "statistics", "monitors"):
        assert found[name] == 2, found
    assert found["decode chunk"] == 4  # two micro-batches a step
    assert found["save"] == 1 and found["optimizer"] >= 2
    table = (folder / "rank_00000_operators.txt").read_text()
    assert table.startswith("steps 2 to 3 on rank 0, by self_cpu_time_total") and "aten::mm" in table
    memory = (folder / "rank_00000_memory.txt").read_text()
    assert "by self_cpu_memory_usage" in memory and "aten::empty" in memory
    assert "no GPU whose memory could be recorded" in capsys.readouterr().err
    assert MARKING.record is False


class Steps:
    """Calls of a trainer on the profiler alone, with an operator in each step."""

    def __init__(self, folder: Path, first: int, steps: int, **settings: Any) -> None:
        made = Profiler.make(ProfileConfig(first_step=first, steps=steps, **settings), folder, 0, 1, CPU)
        assert made is not None
        self.profiler = made

    def run(self, begin: int, end: int, last: int) -> None:
        """Steps begin + 1 to end of a run of `last` steps."""
        self.profiler.started(begin, last)
        for step in range(begin + 1, end + 1):
            self.profiler.begun(step)
            with torch.profiler.record_function(f"step {step}"):
                torch.ones(4).sum()
            self.profiler.stepped({"step": step})
        self.profiler.finished()


@pytest.mark.parametrize(
    ("begin", "end", "expected"),
    [
        (0, 9, ["step 4", "step 5", "step 6"]),
        (4, 9, ["step 5", "step 6"]),  # a continued run
        (5, 9, ["step 6"]),
        (3, 5, ["step 4", "step 5"]),  # ended inside, by a signal or an error
        (0, 3, []),  # ended just before, though the profiler was ready
        (6, 9, []),
    ],
)
def test_windows_that_runs_cut(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], begin: int, end: int, expected: list[str]
) -> None:
    Steps(tmp_path, 4, 3).run(begin, end, 9)
    trace = tmp_path / "profile" / "rank_00000.json.gz"
    assert trace.is_file() == bool(expected)
    if expected:
        assert sorted(name for name in names(trace) if name.startswith("step ")) == expected
    assert "failed" not in capsys.readouterr().err
    assert MARKING.record is False


def test_a_window_outside_the_run_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Steps(tmp_path, 10, 3).run(0, 4, 4)
    assert "the window begins with step 10 and takes 3, this run goes from step 1 to 4" in capsys.readouterr().err
    Steps(tmp_path, 3, 2).run(0, 3, 3)  # the run ends inside
    assert [name for name in names(tmp_path / "profile" / "rank_00000.json.gz") if name.startswith("step ")] == ["step 3"]
    assert "nothing is profiled" not in capsys.readouterr().err


def test_a_disk_that_refuses_does_not_end_the_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "profile").write_text("in the way")
    Steps(tmp_path, 2, 1).run(0, 3, 3)
    assert "profiling failed: FileExistsError" in capsys.readouterr().err


def test_ranks_and_settings_that_cannot_be() -> None:
    settings = ProfileConfig(first_step=1, ranks=[0, 3])
    assert Profiler.make(settings, Path("x"), 1, 4, CPU) is None
    assert Profiler.make(settings, Path("x"), 3, 4, CPU) is not None
    assert Profiler.make(ProfileConfig(ranks=[9]), Path("x"), 0, 1, CPU) is None  # nothing is profiled
    with pytest.raises(InputError, match=r"profile.ranks is \[0, 3\], but the run has ranks 0 to 1"):
        Profiler.make(settings, Path("x"), 0, 2, CPU)
    with pytest.raises(InputError, match=r"profile.memory is true with profile.first_step 0"):
        ProfileConfig(memory=True)
    with pytest.raises(InputError, match="with nothing to record"):
        ProfileConfig(first_step=3, trace=False)


def test_one_flag_each() -> None:
    assert set(choices("profile")) == {"none", "window", "memory", "nvtx"}
    made = {name: compose(["stage=pt1", f"profile={name}"]).profile for name in choices("profile")}
    assert made["none"] == ProfileConfig()
    recorded = {name: (p.trace, p.memory, p.nvtx) for name, p in made.items() if p.first_step}
    assert recorded == {"window": (True, False, False), "memory": (False, True, False), "nvtx": (False, False, True)}

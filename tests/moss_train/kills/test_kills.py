"""Four kills of the kinds of `python -m tests.moss_train.kills`, and the rules by which its rows are judged."""

from __future__ import annotations

import json
import math
import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moss_train.config.schema import RunConfig
from moss_train.parallel.local_ranks import start_local_ranks
from tests.moss_train.kills.compare import comparable, first_difference, lines_differ, relative_losses
from tests.moss_train.kills.experiment import KINDS, MANY, Kill, carry_out, draw, faults
from tests.moss_train.kills.injected import MODULE
from tests.moss_train.kills.layouts import LAYOUTS, SAVE_EVERY
from tests.moss_train.kills.start import LIMIT, Start
from tests.moss_train.runs import save_run_config, write_data
from tests.ranks import Ranks

STEPS = 13
ONE, TWO = LAYOUTS["single"], LAYOUTS["dp2"]
KILLS = (
    Kill("decode", TWO, TWO, started_from=0, step=8, rank=1, part=0.5, count=1),
    Kill("file", TWO, TWO, started_from=5, step=10, rank=0, part=0.0, count=4),
    Kill("publish", TWO, ONE, started_from=0, step=5, rank=0, part=0.0, count=2),
    Kill("SIGTERM", TWO, TWO, started_from=5, step=9, rank=0, part=0.0, count=1),
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("kills")
    write_data(folder / "data")
    return folder


class StartOfForks(Start):
    """A start that needs nothing from outside: the launcher runs here, and its ranks are forks."""

    def __init__(self, starter: Ranks, config: RunConfig, ranks: int, plan: dict[str, Any] | None) -> None:
        self.run_dir, self.ranks = Path(config.run_dir), ranks
        self._starter, self._plan, self._said = starter, plan, ""
        self._file = save_run_config(config, self.run_dir.with_name(self.run_dir.name + ".yaml"))

    def wait(self) -> int:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("MOSS_KILL", json.dumps(self._plan))
            arguments = ["train", "--config", str(self._file)]
            code, self._said = self._starter.launch(self.ranks, lambda: start_local_ranks(self.ranks, MODULE, arguments))
        return code

    def leaders(self) -> list[int]:
        return self._starter.pids

    def messages(self) -> str:
        return self._said


@pytest.mark.ranks
@pytest.mark.parametrize("kill", KILLS, ids=lambda kill: kill.kind)
def test_a_killed_run_continues_as_if_nothing_had_happened(folder: Path, kill: Kill, starter: Ranks) -> None:
    """One is killed as the command with its launcher; all else is without the time that processes take to start."""

    def left_alone(config: RunConfig, ranks: int) -> str | None:
        file = save_run_config(config, folder / "left_alone.yaml")
        starter.run("tests.moss_train.train_ranks", ranks, file, timeout=LIMIT)
        return None

    starts: list[Start] = []

    def begin(config: RunConfig, ranks: int, plan: dict[str, Any] | None) -> Start:
        starts.append(Start(config, ranks, plan) if kill.kind == "SIGTERM" else StartOfForks(starter, config, ranks, plan))
        return starts[-1]

    row = carry_out(kill, folder, STEPS, random.Random(1), left_alone, begin)
    assert faults(row) == [], row
    said = starts[-1].messages()
    assert kill.kind != "SIGTERM" or ("was told to end and saved" in said and "Traceback" not in said), said
    assert kill.kind == "SIGTERM" or row["exit_code"] != 0
    assert row["state_equal"] is (True if kill.before == kill.after else None)
    assert row["continued_from"] % SAVE_EVERY == 0 or kill.kind == "SIGTERM"


def rows(losses: list[float], **values: Any) -> list[dict[str, Any]]:
    return [{"step": step, "loss": loss, "seconds": 1.0, **values} for step, loss in enumerate(losses, start=1)]


@given(losses=st.lists(st.floats(0.1, 9.0), min_size=3, max_size=6), at=st.integers(0, 2))
def test_a_single_bit_is_a_difference(losses: list[float], at: int) -> None:
    other = [*losses]
    other[at] = math.nextafter(losses[at], 10.0)
    assert first_difference(rows(losses), rows(losses), 0, 9) is None
    found = first_difference(rows(other), rows(losses), 0, 9)
    assert found == f"step {at + 1}, update, loss: {other[at]!r} instead of {losses[at]!r}"
    assert first_difference(rows(other), rows(losses), at + 2, 9) is None
    assert relative_losses(rows(other), rows(losses), 1)[at + 1] == pytest.approx(2e-16, rel=10)


def test_lines_that_are_missing_or_doubled_are_differences() -> None:
    reference = [*rows([3.0, 2.0]), {"step": 2, "eval_loss": 2.5}]
    assert (
        first_difference(reference[:2], reference, 0, 2)
        == "step 2, evaluation: missing"
        == lines_differ(reference[:2], reference)
    )
    assert lines_differ(reference, reference) is None
    assert first_difference(reference, reference[1:], 0, 2) == "step 1, update: not in the reference"
    assert first_difference([*reference, reference[1]], reference, 0, 2) == "step 2 stands twice in the metrics"


def test_only_what_no_clock_decides_is_compared() -> None:
    row = {
        "step": 1, "loss": 1.0, "loss_text": 1.0, "grad_norm": 2.0, "learning_rate": 1e-3, "dataset_loss": {"a": 1.0},
        "frames": 3, "seconds": 9.0, "tokens_per_second": 5.0, "data_seconds": 1.0, "eval_loss": 1.0, "eval_seconds": 3.0,
    }  # fmt: skip
    dropped = {"step", "seconds", "tokens_per_second", "data_seconds", "eval_seconds"}
    assert comparable(row).keys() == row.keys() - dropped


@given(kind=st.sampled_from(KINDS), seed=st.integers(0, 1000))
def test_drawn_kills_can_happen(kind: str, seed: int) -> None:
    kill = draw(kind, random.Random(seed), 60)
    assert 0 <= kill.started_from < kill.step <= 60 - MANY and kill.started_from % SAVE_EVERY == 0
    assert kill.rank < kill.before.ranks


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"first_difference": "step 3"}, "step 3"),
        ({"samples_differ": "step 4"}, "samples: step 4"),
        ({"state_equal": False}, "the final weights"),
        ({"first_step_relative": 2e-6}, "first step differs"),
        ({"largest_relative_20": 2e-4}, "next 20 steps"),
        ({"saved_in_time": False}, "not saved"),
        ({"left_over": 1}, "1 processes left over"),
    ],
)
def test_each_fault_is_named(change: dict[str, Any], fault: str) -> None:
    good = {
        "first_difference": None, "samples_differ": None, "state_equal": True, "first_step_relative": 1e-7,
        "largest_relative_20": 1e-5, "saved_in_time": True, "left_over": 0,
    }  # fmt: skip
    assert faults(good) == []
    found = faults(good | change)
    assert len(found) == 1 and fault in found[0]

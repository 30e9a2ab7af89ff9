"""The DeepSpeed engine on two real ranks beside megatron-core's: losses, norms, weights, checkpoints."""

from __future__ import annotations

import importlib.util
import json
import os
from typing import Any

import pytest

from tests.moss_train.runs import write_data
from tests.ranks import RunRanks

pytestmark = [
    pytest.mark.ranks,
    pytest.mark.timeout(1000),  # two ranks that exchange much on cores that others use too
    pytest.mark.skipif(importlib.util.find_spec("deepspeed") is None, reason="deepspeed is not installed"),
]


STEPS = 20 if os.environ.get("MOSS_SLOW_TESTS") else 4
"""Past the step 3 at which copies are compared; all twenty of docs/deepspeed.md with the slow tests."""


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory, run_ranks: RunRanks) -> dict[str, Any]:
    """Everything that one start of two processes found."""
    root = tmp_path_factory.mktemp("data")
    write_data(root)
    folder = tmp_path_factory.mktemp("runs")
    output = run_ranks("tests.moss_train.engines.deepspeed_ranks", 2, root, folder, STEPS, timeout=900)
    found: dict[str, Any] = json.loads(next(line for line in output.splitlines() if "REPORT " in line).split("REPORT ", 1)[1])
    assert "Warning" not in output, output
    return found


def whole(report: dict[str, Any]) -> list[dict[str, Any]]:
    """The records of the stage 3 run that nothing interrupted, and that was taken back to its middle afterwards."""
    rows: list[dict[str, Any]] = report["runs"]["zero3"]
    return rows


def close(one: list[dict[str, Any]], two: list[dict[str, Any]], tolerance: float) -> None:
    """The same records: counts equal, losses and norms within a relative tolerance."""
    assert [row.keys() for row in one] == [row.keys() for row in two]
    for a, b in zip(one, two, strict=True):
        for key, value in a.items():
            # Norms of single modules see rounding that the losses average out.
            assert b[key] == pytest.approx(value, rel=10 * tolerance if key == "grad_norms" else tolerance, abs=0.0), (
                a["step"],
                key,
            )


@pytest.mark.parametrize("stage", ["zero1", "zero2", "zero3"])
def test_every_step_has_the_losses_of_megatron(report: dict[str, Any], stage: str) -> None:
    """Loss by class and data set, held-out loss, gradient norms and counts, to 1e-5, while the model learns."""
    runs = report["runs"]
    steps = [row for row in runs["megatron"] if "loss" in row]
    assert [row["step"] for row in steps] == list(range(1, STEPS + 1))
    assert steps[-1]["loss"] < (0.9 if STEPS == 20 else 0.98) * steps[0]["loss"]
    assert {"vision_tower", "projector", "cross_layers", "embedding", "head"} <= set(steps[-1]["grad_norms"])
    close(runs["megatron"], runs[stage], 1e-5)


def test_a_continued_run_repeats_the_whole_one_bit_for_bit(report: dict[str, Any]) -> None:
    assert [row for row in report["again"] if "loss" in row] == [row for row in whole(report) if "loss" in row]
    assert len(whole(report)) > STEPS


def test_a_rewind_in_the_running_processes_brings_the_old_weights_back(report: dict[str, Any]) -> None:
    """The held-out loss of the checkpoint, after later steps and weights that stage 3 had fetched ahead."""
    held_out = {row["step"]: row["eval_loss"] for row in whole(report) if "eval_loss" in row}
    assert report["rewound"] == held_out[STEPS // 2] != held_out[STEPS]


@pytest.mark.parametrize("switch", ["megatron-zero2", "zero3-megatron"])
def test_the_other_engine_goes_on_with_weights_and_optimizer(report: dict[str, Any], switch: str) -> None:
    """The first loss after the change is that of weights and data; the later ones that of the optimizer's states."""
    stayed, switched = ([row for row in rows if "loss" in row] for rows in (whole(report), report["switched"][switch]))
    assert [row["step"] for row in switched] == [row["step"] for row in stayed]
    close(stayed, switched, 1e-5)


@pytest.mark.parametrize("stage", ["zero1", "zero2", "zero3"])
def test_a_rank_without_frames_and_a_dropped_update(report: dict[str, Any], stage: str) -> None:
    """No rank waits for another, the update that was not applied leaves no trace, and the weights are megatron's."""
    ours, theirs = report["uneven"][stage], report["uneven"]["megatron"]
    assert ours["losses"] == pytest.approx(theirs["losses"], rel=1e-6)
    assert ours["norms"] == pytest.approx(theirs["norms"], rel=1e-5)
    assert theirs["losses"][1] != theirs["losses"][2]
    assert ours["updates"] == theirs["updates"] == 2
    assert ours["distance"] < 1e-6

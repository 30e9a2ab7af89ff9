"""Streaming evaluations on several ranks: training does not notice them, also where they fail."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from moss_train.convert.to_hf import checkpoint_to_hf
from tests.moss_train.evaluation.scenarios import write_scenarios
from tests.moss_train.resume_ranks import rows
from tests.moss_train.runs import write_data
from tests.ranks import RunRanks

pytestmark = pytest.mark.ranks

EXACT = ("step", "loss", "dataset_", "grad_norm", "learning_rate", "targets", "tokens", "frames")
"""Begins of the names of figures that no clock and no memory decides, but for speeds."""


def _state(run_dir: Path) -> dict[str, bytes]:
    """Files of the last checkpoint: weights, optimizer and random states, places in the data; not what describes it."""
    folder = run_dir / "checkpoints" / "step_00000003"
    found = {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}
    return {name: content for name, content in found.items() if not name.endswith(".json") and not name.startswith(".")}


def _check_published(run_dir: Path) -> None:
    """What the evaluation after the last step was given is what a conversion of the last checkpoint gives."""
    checkpoint_to_hf(run_dir, run_dir / "hf")
    converted, given = load_file(run_dir / "hf" / "model.safetensors"), load_file(run_dir / "kept.safetensors")
    assert set(given) == set(converted) and len(given) > 50
    for name, tensor in converted.items():
        # Adapters are merged in shares here and in blocks of rows there.
        assert torch.allclose(given[name], tensor, rtol=0, atol=1e-6), name


def test_training_does_not_notice(run_ranks: RunRanks, tmp_path: Path) -> None:
    """Bit for bit, at every layout, with one and with two ranks that run scenarios."""
    write_data(tmp_path / "data")
    scenarios = write_scenarios(tmp_path / "good")
    damaged = write_scenarios(tmp_path / "bad", lost=1)
    module = "tests.moss_train.evaluation.evaluation_ranks"
    output = run_ranks(module, 2, tmp_path / "data", tmp_path, scenarios, damaged, timeout=240)

    def split(name: str) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        found = rows(tmp_path / name)
        training = [
            {key: value for key, value in row.items() if key.startswith(EXACT) and not key.endswith("_second")}
            for row in found
            if "loss" in row
        ]
        assert len(training) == 3
        return training, [row for row in found if "loss" not in row]

    plain = {layout: split(f"{layout}_plain")[0] for layout in ("tp2", "pp2", "dp2", "lora")}
    for name in ("tp2_first", "dp2_first", "dp2_both"):
        training, evaluations = split(name)
        assert training == plain[name[:3]], name
        assert [row["step"] for row in evaluations] == [2, 3], name
        assert all(row["eval_streaming_scenarios"] == 3 for row in evaluations), name
        assert all("eval_streaming_speak_f1" in row and "eval_streaming_question_accuracy" in row for row in evaluations), name
    for layout in ("tp2", "dp2"):
        state = _state(tmp_path / f"{layout}_plain")
        assert sum(map(len, state.values())) > 100_000 and any(name.startswith("random") for name in state)
        for what in ("first", *(["drawing"] if layout == "tp2" else ["both", "damaged"])):
            assert _state(tmp_path / f"{layout}_{what}") == state, what
    one, both = split("dp2_first")[1], split("dp2_both")[1]
    times = {"eval_streaming_seconds"}
    assert [{k: v for k, v in row.items() if k not in times} for row in one] == [
        {k: v for k, v in row.items() if k not in times} for row in both
    ]
    training, evaluations = split("dp2_damaged")
    assert training == plain["dp2"]
    assert ["scenario_1" in row["eval_streaming_failed"] for row in evaluations] == [True, True]
    for layout in ("pp2", "lora"):
        assert split(f"{layout}_kept")[0] == plain[layout]
        _check_published(tmp_path / f"{layout}_kept")
    training, (last_rank, first_rank, good) = split("tp2_drawing")
    assert training == plain["tp2"]
    assert all("no room for" in row["eval_streaming_failed"] for row in (last_rank, first_rank))
    assert good["eval_streaming_sum"] == 1.0 and "eval_streaming_failed" not in good
    assert output.count("training goes on: ") == 4, output  # each failed evaluation once, by one rank
    assert json.dumps(plain["tp2"]) != json.dumps(plain["lora"])

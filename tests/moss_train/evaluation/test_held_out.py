"""Held-out losses by set: counts, a mean in which every set counts as much, and sets that are not seen."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from moss_train.parallel.layout import stop_layout
from moss_train.trainer import train
from tests.moss_train.runs import run_config, write_data


@pytest.fixture(autouse=True)
def layout_ends() -> Iterator[None]:
    yield
    stop_layout()


def test_every_set_counts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_data(tmp_path)
    sets = [{"name": kind, "path": f"held_out_{kind}", "modality": kind} for kind in ("video", "text")]
    inside: dict[str, Any] = {"data__global_data_workers": 1, "data__worker_processes": 0, "data__validation": sets}
    first: dict[int, dict[str, Any]] = {}
    for batches in (1, 2, 3):
        train(run_config(tmp_path, tmp_path / f"run_{batches}", steps=1, train__eval_batches=batches, **inside))
        stop_layout()
        first[batches] = json.loads((tmp_path / f"run_{batches}" / "metrics.jsonl").read_text().splitlines()[0])
        unseen = "sees nothing of text" in capsys.readouterr().err
        assert unseen == (batches == 1)
    assert first[1]["eval_dataset_targets"] == {"video": first[1]["eval_targets"], "text": 0}
    for record in first.values():
        losses, targets = record["eval_dataset_loss"], record["eval_dataset_targets"]
        assert sum(targets.values()) == record["eval_targets"]
        weighted = sum(loss * targets[name] for name, loss in losses.items()) / record["eval_targets"]
        assert weighted == pytest.approx(record["eval_loss"], rel=1e-5)
        assert record["eval_mean_dataset_loss"] == pytest.approx(sum(losses.values()) / len(losses))
    assert set(first[2]["eval_dataset_loss"]) == {"video", "text"}

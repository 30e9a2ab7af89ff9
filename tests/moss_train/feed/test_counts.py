"""Samples used and samples left out, by dataset."""

from __future__ import annotations

import json
from pathlib import Path

from moss_train.feed.counts import SampleCounts
from moss_train.feed.left_out import LeftOut


def test_passes_are_counted_on() -> None:
    counts = SampleCounts({"clips": 8, "text": 4}, {"clips": 6})
    counts.add({"clips": 3, "text": 2, "unused": 0})
    assert counts.record() == {
        "dataset_samples": {"clips": 9, "text": 2},
        "dataset_epochs": {"clips": 9 / 8, "text": 0.5},
    }
    continued = SampleCounts({"clips": 8, "text": 4}, counts.samples)
    assert continued.record() == counts.record()


def test_a_dataset_that_takes_no_part_any_more_keeps_its_samples() -> None:
    counts = SampleCounts({"text": 4}, {"clips": 6})
    counts.add({"text": 1})
    assert counts.samples == {"text": 1, "clips": 6}
    assert counts.record()["dataset_epochs"] == {"text": 0.25}


def _line(dataset: str, key: str, kind: str = "bad") -> str:
    return json.dumps({"kind": kind, "dataset": dataset, "shard": "s", "key": key, "reason": "r"}) + "\n"


def test_left_out_follows_the_ledger(tmp_path: Path) -> None:
    path = tmp_path / "quarantine.jsonl"
    left_out = LeftOut(path)
    assert left_out.counts() == {}
    path.write_text(_line("b", "1") + _line("a", "1", "skipped") + _line("b", "1") + _line("", "", "fatal"))
    assert left_out.counts() == {"a": 1, "b": 1}
    with path.open("a") as file:
        file.write(_line("b", "2") + _line("b", "3")[:-9])  # the last line is still being written
    assert left_out.counts() == {"a": 1, "b": 2}
    with path.open("a") as file:
        file.write(_line("b", "3")[-9:] + "no json\n" + _line("b", "4"))
    assert left_out.counts() == {"a": 1, "b": 4}

"""The demo's first stage, shortened, really learns on the rendered world: no later stage can work without it."""

from __future__ import annotations

import json
import math
from pathlib import Path

from data_pipeline.world.palette import NUM_PATCH_CLASSES
from moss_train.cli.main import main

PLACES = 16
"""Pooled cells of the small model."""


def test_the_tower_learns_what_it_sees_and_where(tmp_path: Path) -> None:
    data, run = tmp_path / "data", tmp_path / "run"
    assert main(["data", "world", str(data), "--split", "train", "--dense", "200", "--tokenizer", "1000"]) == 0
    assert main(["data", "world", str(data), "--split", "validation", "--dense", "8"]) == 0
    words = ["train", "demo=warm_vision", f"run_dir={run}", f"data.root={data}", "train.steps=100", "device=cpu"]
    assert main([*words, "logging.progress=false", "train.eval_batches=4", "data.global_data_workers=1"]) == 0
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    first, last = (row["eval_loss"] for row in rows if "eval_loss" in row)
    assert first > math.log(NUM_PATCH_CLASSES)
    # One who only knows how common each class is still pays the places in full.
    assert last < 0.6 * math.log(PLACES)

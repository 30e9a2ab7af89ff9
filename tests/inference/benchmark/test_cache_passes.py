"""The measurement of a policy's passes runs, and each pass does to its session what its name says."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from inference.benchmark.cache_passes import KEPT_FRAMES, KEPT_ROWS, RECALLED, Passes, main
from inference.cache.frame_page import PageKind


def test_each_pass_does_its_work() -> None:
    passes = {one.name: one for one in Passes("tiny", torch.device("cpu")).all()}
    found = {}
    for name, one in passes.items():
        found[name] = one.prepare()
        one.run(found[name])
    renumbered = found["renumber"]
    assert renumbered.renumberings == 1 and renumbered.row_positions == list(range(KEPT_ROWS))
    assert [page.kind for page in found["pool a batch"].pages] == [PageKind.POOLED] * 2
    assert [page.kind for page in found["keep class tokens"].pages] == [PageKind.CLASS]
    assert len(found["put a frame away"].archive) == 1 and found["put a frame away"].frames == KEPT_FRAMES
    assert found["fetch for a prompt"].frames == KEPT_FRAMES + RECALLED
    assert all(one.num_bytes > 0 for one in passes.values())


def test_the_command_writes_every_pass(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "passes.json"
    assert main(["--model", "tiny", "--device", "cpu", "--out", str(out)]) == 0
    written = json.loads(out.read_text())
    assert written["device"] == "cpu" and len(written["passes"]) == 6
    assert all(numbers["wall_ms"] >= numbers["host_ms"] > 0 for numbers in written["passes"].values())
    assert len(capsys.readouterr().out.splitlines()) == 6

"""The measuring program of the vision path runs whole on a CPU; only its numbers need a GPU."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from inference.benchmark.vision import main


def test_every_part_is_measured_and_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "deep" / "vision.json"
    assert main(["--dry-run", "--out", str(out)]) == 0
    content = json.loads(out.read_text())
    parts = content["parts"]
    assert content["dry_run"] is True and content["left_out"] == []
    assert [name for name, part in parts.items() if "problem" in part] == []
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2 * len(parts) == 24
    assert lines[0].startswith("clip exact: begins at ") and lines[1].startswith("clip exact: ends at ")
    assert len(parts["clip exact"]["seconds"]) == 1 and parts["clip fast"]["frames"] == 5
    # 5 of 8 rows of patches hold a 16:9 picture; a token for each of the two squares below counts as often as its 12 patches.
    assert (parts["attention"]["tokens"], parts["attention"]["keys"]) == (72, 72)
    assert (parts["attention valid_rows"]["tokens"], parts["attention valid_rows"]["keys"]) == (50, 72)
    assert {"plain", "sdpa"} <= {name for name, entry in parts["attention"].items() if isinstance(entry, dict) and "ms" in entry}
    assert set(parts["latency exact"]) == {"graph_1_ms", "graph_2_ms", "direct_1_ms", "direct_2_ms", "submitted_frame_ms"}
    flops = parts["products"]["qkv"]["dense"]["tflops"] * parts["products"]["qkv"]["dense"]["ms"] * 1e9
    assert flops == pytest.approx(2 * 144 * 32 * 96)


def test_what_is_out_of_time_is_named(tmp_path: Path) -> None:
    out = tmp_path / "vision.json"
    assert main(["--dry-run", "--out", str(out), "--only", "upload; products", "--limit-seconds", "0"]) == 0
    assert json.loads(out.read_text())["left_out"] == ["upload", "products"]


def test_bad_arguments(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = str(tmp_path / "vision.json")
    assert main(["--dry-run", "--out", out, "--only", "norms"]) == 2
    assert "--only names 'norms'; use some of: clip exact; " in capsys.readouterr().err
    assert main(["--dry-run", "--out", out, "--runs", "0"]) == 2
    assert "--runs is 0; it must be at least 1" in capsys.readouterr().err
    if not torch.cuda.is_available():
        assert main(["--out", out]) == 2
        assert "torch finds no CUDA device" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())

"""The kernels' benchmark as far as it goes without a GPU: its problems, their bytes, its refusals."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from inference.benchmark.kernel_problems import Dimensions, problems
from inference.benchmark.kernels import COLD_BYTES, copies_of, floor_us, main


def test_bytes_are_those_of_the_11b_model() -> None:
    found = {(p.group, p.name, p.shape["rows"], p.shape.get("keys")): p for p in problems(Dimensions())}
    assert found["product", "qkv", 1, None].num_bytes == (4096 + 2 * 1024) * 4096 * 2
    assert found["product, fp8", "down", 16, None].num_bytes == 4096 * 14336 + 4 * 4096
    frames = found["cross attention", "one session", 1, 256 * 101]
    assert frames.num_bytes == 256 * 101 * 1024 * 2 * 2  # an eighth of 3.156 MiB for each of 256 frames
    assert copies_of(frames) * frames.num_bytes >= COLD_BYTES
    assert floor_us(frames) == pytest.approx(24.63, abs=0.01)


def test_a_dry_run_needs_no_device(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--dry-run", "--only", "product: qkv"]) == 0
    assert capsys.readouterr().out.splitlines()[0] == "product: qkv rows=1 out=6144 in=4096: 50.33 MB x 3, at least 11.7 us"


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_refusals(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "kernels.json"
    assert main(["--out", str(out)]) == 2 and not out.exists()
    assert "there is no CUDA device; kernels are timed on a GPU only" in capsys.readouterr().err
    assert main(["--only", "nothing of ours"]) == 2
    assert "--only 'nothing of ours' names no problem" in capsys.readouterr().err

"""`moss bench cross-attention` at a size that the CPU measures in a moment."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from moss_train.cli.main import EXIT_BAD_INPUT, main

SIZES = {"--device": "cpu", "--rows": "48", "--frames": "4,2", "--heads": "4/2", "--width": "8", "--repeats": "1"}
SMALL = ["bench", "cross-attention", *(word for pair in SIZES.items() for word in pair)]


def test_the_table_and_the_file_hold_every_measurement(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "made" / "found.json"
    backends = "dense mask,no mask,torch,flex,varlen,flash"
    assert main([*SMALL, "--workloads", "growing,offline", "--backends", backends, "--out", str(out)]) == 0
    found = json.loads(out.read_text())
    assert found["versions"]["torch"] and found["hardware"]["device"] and found["date"] and "command" in found
    assert [(r["workload"], r["backend"]) for r in found["results"]] == [
        (f"{name}, {frames} frames", backend)
        for name in ("growing prefix", "offline")
        for frames in (4, 2)
        for backend in ("dense mask", "no mask", "torch", "varlen")
    ]
    assert list(found["not_measured"]) == ["flex", "flash"]
    for result in found["results"]:
        assert result["both_ms"] > 0 and result["first_call_s"] >= 0
        if result["backend"] != "no mask":
            assert set(result["errors"]) == {"out", "dq", "dk", "dv"}
            assert max(result["errors"].values()) < 1e-5
    printed = capsys.readouterr().out
    assert printed.count("varlen") == 4 and "flash: not measured: attention.cross is flash" in printed


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--backends", "torch,fast"], "--backends has 'fast'; use some of auto, torch"),
        (["--workloads", "shrinking"], "--workloads has 'shrinking'; use some of growing"),
        (["--frames", "8,none"], "--frames has 'none'; it takes numbers of at least 1"),
        (["--heads", "0/2"], "--heads has '0'"),
        (["--heads", "6/4"], "--heads is 6/4"),
        (["--rows", "0"], "--rows has '0'"),
        (["--width", "-8"], "--width has '-8'"),
        (["--repeats", "0"], "--repeats has '0'"),
        (["--backends", ","], "--backends is empty; use some of auto, torch"),
        (["--out", "."], "--out . is a folder"),
    ],
)
def test_bad_arguments_are_named(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*SMALL, *arguments]) == EXIT_BAD_INPUT
    assert message in capsys.readouterr().err

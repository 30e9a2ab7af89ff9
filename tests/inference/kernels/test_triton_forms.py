"""The Triton forms: interpreted on a CPU, compiled on a GPU."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
CHECKS = sorted(str(path) for path in (HERE / "forms").glob("check_*.py"))
needs_triton = pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="triton is not installed")


def _run(*command: str, **environment: str) -> str:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("TRITON_", "PYTEST_"))}
    done = subprocess.run(
        [sys.executable, *command], cwd=HERE.parents[2], env=kept | environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{done.stdout[-6000:]}\n{done.stderr[-2000:]}"
    return done.stdout


def _checks(**environment: str) -> str:
    # Without the suite's conftest, which puts a device of its own in the place of torch.cuda.
    options = ("-q", "-x", "--noconftest", "-p", "no:cacheprovider", "-p", "no:xdist")
    return _run("-m", "pytest", *options, *CHECKS, **environment)


@needs_triton
def test_interpreted() -> None:
    assert " passed" in _checks(TRITON_INTERPRET="1")


@needs_triton
@pytest.mark.gpu
def test_on_the_gpu() -> None:
    assert " passed" in _checks()

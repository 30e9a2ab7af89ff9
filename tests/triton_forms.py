"""Runs checks of Triton kernels in a process of their own: interpreted on a CPU, compiled on a GPU."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

needs_triton = pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="triton is not installed")


def run_python(*command: str, **environment: str) -> str:
    """Output of Python, which has to succeed, with no other variables of Triton and pytest than these."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("TRITON_", "PYTEST_"))}
    root = Path(__file__).resolve().parents[1]
    done = subprocess.run(
        [sys.executable, *command], cwd=root, env=kept | environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{done.stdout[-6000:]}\n{done.stderr[-2000:]}"
    return done.stdout


def run_checks(folder: Path, **environment: str) -> str:
    """Output of pytest over a folder's files check_*.py; TRITON_INTERPRET=1 in the environment interprets."""
    checks = sorted(str(path) for path in folder.glob("check_*.py"))
    # Without the suite's conftest, which puts a device of its own in the place of torch.cuda.
    options = ("-q", "-x", "--noconftest", "-p", "no:cacheprovider", "-p", "no:xdist")
    return run_python("-m", "pytest", *options, *checks, **environment)

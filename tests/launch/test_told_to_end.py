"""launch/gpu_scaling.sh and gpu_training.sh that are told to end: no process stays behind, and what was found does."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from moss_train.launching.folder import launch_dir

STUB = """#!/usr/bin/env bash
# In the place of Python: stands still, with a process of its own; what joins the parts is real.
[ "$2" = moss_train.bench.scaling.joined ] && exec "$REAL" "$@"
mkdir -p "$SAVE_DIR/moss-full/checkpoints"
echo $$ >"$PIDS/$4"
sleep 50 &
echo $! >"$PIDS/$4.child"
wait
"""


def _wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize(
    ("words", "part"),
    [(("gpu_scaling.sh", "2", "OUT", "scaling", "full"), "scaling"), (("gpu_training.sh", "full", "OUT"), "full")],
)
def test_its_part_ends_with_it(words: tuple[str, ...], part: str, number: int, tmp_path: Path) -> None:
    stub, pids, out, save = (tmp_path / name for name in ("python", "pids", "out", "save"))
    stub.write_text(STUB)
    stub.chmod(0o755)
    pids.mkdir()
    variables = {**os.environ, "PYTHON": str(stub), "REAL": sys.executable, "PIDS": str(pids), "SAVE_DIR": str(save)}
    command = ["bash", str(launch_dir() / words[0]), *(str(out) if word == "OUT" else word for word in words[1:])]
    with subprocess.Popen(command, env=variables, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        _wait_for(lambda: {path.name for path in pids.iterdir() if path.read_text().strip()} == {part, f"{part}.child"})
        _wait_for((save / "moss-full").is_dir)
        process.send_signal(number)  # to the script alone
        said = process.communicate(timeout=60)[1]
        assert process.returncode == 128 + number and said.count(f"ended early; what was found is in {out}") == 1, said
    _wait_for(lambda: not any(Path("/proc", path.read_text().strip()).exists() for path in pids.iterdir()))
    assert sorted(path.name for path in pids.iterdir()) == [part, f"{part}.child"], "nothing was begun behind the signal"
    assert (out / f"{part}.log").is_file()
    if part == "scaling":
        assert (out / "gpus-2.json").is_file() and (save / "moss-full").exists()
    else:
        assert not (save / "moss-full").exists(), "85 GB of memory"

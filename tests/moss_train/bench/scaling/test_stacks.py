"""Where ranks stand is read from what Python's own handler writes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from moss_train.bench.scaling.stacks import stack_file, standing

RANK = """
import faulthandler, sys, threading, time

def reads_for_ever():
    time.sleep(9)

def the_collective():
    time.sleep(0.4)

def the_step():
    the_collective()

threading.Thread(target=reads_for_ever, daemon=True).start()
faulthandler.dump_traceback_later(0.1, file=open(sys.argv[1], "w"))
the_step()
"""


def test_the_thread_that_trains_is_told_innermost_first(tmp_path: Path) -> None:
    lines = tmp_path / "lines"
    subprocess.run([sys.executable, "-c", RANK, stack_file(lines, 1)], check=True)
    told = standing(lines, 3)
    assert told[0] == "rank 1:" and " in the_collective" in told[1] and " in the_step" in told[2]
    assert not any("reads_for_ever" in line for line in told)


def test_ranks_that_wrote_nothing_are_left_out(tmp_path: Path) -> None:
    stack_file(tmp_path / "lines", 0).touch()
    assert standing(tmp_path / "lines", 2) == []

"""RUN/ending.json where hosts that cannot see each other both speak: those that still have the store know better."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from moss_train.config.compose import compose
from moss_train.guards.cause import EXIT_LOST_RANK, Cause, Whereabouts
from moss_train.guards.ending import read_ending
from moss_train.guards.watch import Watch


@pytest.mark.parametrize("first", ["cut off", "with the store"])
def test_host_that_is_cut_off_does_not_overwrite_the_blame(tmp_path: Path, first: str) -> None:
    (tmp_path / "ending.json").write_text("{}")  # of an earlier start
    watch = Watch(compose(["stage=pt1", f"run_dir={tmp_path}"]), Whereabouts.of_environment(3, 4), None)
    blames = {"cut off": ((0, 1), False), "with the store": ((2, 3), True)}
    for name in sorted(blames, key=lambda name: name != first):
        lost, ask = blames[name]
        watch._record(Cause(name, EXIT_LOST_RANK, -1, 0, lost), ask)
    ending = read_ending(tmp_path)
    assert ending is not None and (ending.sentence, ending.ranks) == ("with the store", (2, 3))


def test_host_that_is_cut_off_speaks_where_nobody_else_does(tmp_path: Path) -> None:
    watch = Watch(compose(["stage=pt1", f"run_dir={tmp_path}"]), Whereabouts.of_environment(3, 4), None)
    watch._record(Cause("cut off", EXIT_LOST_RANK, -1, 0, (0, 1)), False)
    ending = read_ending(tmp_path)
    assert ending is not None and ending.ranks == (0, 1)


def test_a_file_system_that_hangs_keeps_no_process_from_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("moss_train.guards.watch._WRITING", 0.3)
    pipe = tmp_path / f".ending.json.{os.getpid()}"
    os.mkfifo(pipe)  # whoever opens it to write waits for a reader
    watch = Watch(compose(["stage=pt1", f"run_dir={tmp_path}"]), Whereabouts.of_environment(0, 1), None)
    begin = time.monotonic()
    watch._record(Cause("it hangs", 4, 0, 0))
    assert 0.3 <= time.monotonic() - begin < 5
    assert read_ending(tmp_path) is None
    with pipe.open("rb") as reader:  # it answers again
        assert b"it hangs" in reader.read()

"""Ranks that hang, die or fail while others wait for them: all end soon, with one sentence that says why."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from moss_train.guards.cause import EXIT_BAD_INPUT, EXIT_HANG, EXIT_LOST_RANK
from moss_train.parallel.local_ranks import start_local_ranks
from tests.ranks import Launch, RunRanks

pytestmark = pytest.mark.ranks

MODULE, RANKS = "tests.moss_train.guards.watch_ranks", 3


def _sentences(output: str) -> list[str]:
    return [line.removeprefix("moss: error: ") for line in output.splitlines() if line.startswith("moss: error: ")]


def test_a_rank_that_is_elsewhere(run_ranks: RunRanks, tmp_path: Path) -> None:
    output = run_ranks(MODULE, RANKS, tmp_path / "run", "sleep", expect=EXIT_HANG)
    (sentence,) = _sentences(output)
    assert sentence.startswith("step 4 made no progress for 2 s: rank 2 on host ") and "make_trouble (step), in no" in sentence
    assert "; ranks 0, 1 on host " in sentence and "wait in all_reduce at tests/moss_train/guards/watch_ranks.py" in sentence
    files = sorted((tmp_path / "run" / "hang").iterdir())
    assert [file.name for file in files] == [f"rank_0000{rank}.txt" for rank in range(RANKS)]
    assert all("in main" in file.read_text() for file in files)
    assert "Traceback" not in output


@pytest.mark.parametrize("trouble", ["holds_the_lock", pytest.param("stopped", marks=pytest.mark.slow)])
def test_a_rank_that_says_nothing(tmp_path: Path, trouble: str, launch: Launch) -> None:
    """Python cannot run there: the others end, and the launcher ends it."""
    begin = time.monotonic()
    code, output = launch(RANKS, lambda: start_local_ranks(RANKS, MODULE, [str(tmp_path / "run"), trouble]))
    assert code == EXIT_LOST_RANK, output
    assert time.monotonic() - begin < 40
    (sentence,) = _sentences(output)
    assert sentence.startswith("rank 2 on host ") and "gave no sign of life for 3 s" in sentence
    left = tmp_path / "run" / "hang" / "rank_00002.txt"
    if trouble == "holds_the_lock":
        assert str(left) in sentence and "in make_trouble" in left.read_text()


@pytest.mark.slow
def test_a_killed_rank(run_ranks: RunRanks, tmp_path: Path) -> None:
    """Without a launcher that tells of it."""
    begin = time.monotonic()
    output = run_ranks(MODULE, RANKS, tmp_path / "run", "killed", expect=None)
    (sentence,) = _sentences(output)
    assert "rank 2 on host " in sentence and "closed its connections" in sentence and "no cause came" not in output
    assert time.monotonic() - begin < 30


def test_what_ends_one_rank_ends_all(run_ranks: RunRanks, tmp_path: Path) -> None:
    output = run_ranks(MODULE, RANKS, tmp_path / "run", "input", expect=EXIT_BAD_INPUT)
    assert output.count("the sample is bad") == 1 and "Traceback" not in output, output


def test_a_good_run_leaves_nothing(run_ranks: RunRanks, tmp_path: Path) -> None:
    output = run_ranks(MODULE, RANKS, tmp_path / "run", "nothing")
    assert output.count("is done") == RANKS and not _sentences(output)
    assert not (tmp_path / "run" / "hang").exists()

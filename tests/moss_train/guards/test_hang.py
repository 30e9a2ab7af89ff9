"""The sentence about a run that hangs, the place of the loop, and silence."""

from __future__ import annotations

import sys
import threading
import time
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from moss_train.guards.cause import Cause, Whereabouts
from moss_train.guards.hang import Report, explain, ranks_of
from moss_train.guards.heartbeat import Silence
from moss_train.guards.position import Position
from moss_train.guards.stacks import spot_of


def report(rank: int, collective: str = "", where: str = "a.py:1 f", host: str = "h") -> Report:
    return Report(rank, host, 7, "data", collective, where, 3.0)


def test_ranks() -> None:
    assert ranks_of([3]) == "rank 3" and ranks_of([5, 4, 1, 6, 8, 9]) == "ranks 1, 4-6, 8, 9"


@given(st.sets(st.integers(0, 15)), st.integers(0, 15))
def test_every_rank_that_did_not_answer_is_named(silent: set[int], busy: int) -> None:
    reports = {rank: report(rank, "" if rank == busy else "all_reduce") for rank in range(16) if rank not in silent}
    sentence = explain(reports, 16, 60.0, None)
    assert (f"{ranks_of(sorted(silent))} gave no answer" in sentence) == bool(silent)
    if busy in reports:
        assert f"rank {busy} on host h is at a.py:1 f (data)" in sentence
    waiting = [rank for rank in reports if rank != busy]
    assert not waiting or f"{ranks_of(waiting)} on host h wait" in sentence


def test_the_odd_collective_comes_first() -> None:
    reports = {rank: report(rank, "all_reduce" if rank != 1 else "broadcast", "b.py:2 g") for rank in range(4)}
    sentence = explain(reports, 4, 9.0, Path("run/hang"))
    assert sentence == (
        "step 7 made no progress for 9 s: rank 1 on host h waits in broadcast at b.py:2 g (data); "
        "ranks 0, 2, 3 on host h wait in all_reduce at b.py:2 g (data); the stacks of all threads are in run/hang"
    )


def test_a_place_may_be_kept_for_its_time() -> None:
    position = Position(hang_seconds=10.0, slow_seconds=100.0, data_seconds=50.0)
    now = time.monotonic()
    assert not position.overdue(now + 1e9)  # nothing has begun
    for phase, step, limit in (("start", 0, 100), ("data", 1, 60), ("step", 1, 100), ("step", 2, 10), ("evaluation", 2, 100)):
        position.at(phase, step)
        since = position.place.since
        assert position.overdue(since + limit + 1) and not position.overdue(since + limit - 1), phase
    position.forgive(1000.0)
    assert not position.overdue(since + 101)
    position.rest()
    position.forgive(1000.0)
    assert not position.overdue(now + 1e9)
    unwatched = Position(0.0, 0.0, 50.0)
    unwatched.at("step", 1)
    assert not unwatched.overdue(now + 1e9)


@given(st.lists(st.tuples(st.floats(0.1, 20), st.booleans()), min_size=1, max_size=30))
def test_silence_is_the_time_since_the_last_new_pulse(turns: list[tuple[float, bool]]) -> None:
    silence, now, count, heard = Silence(0.0), 0.0, 0, 0.0
    for seconds, beats in turns:
        now += seconds
        if beats:
            count, heard = count + 1, now
        assert silence.hear(count, now) == now - heard
    assert silence.hear(-5, now + 1e6) == 0.0  # it has left


@given(st.integers(1, 4), st.integers(1, 4), st.sets(st.integers(0, 15)), st.integers(-1, 15))
def test_one_rank_of_each_node_speaks(nodes: int, size: int, lost: set[int], author: int) -> None:
    world = nodes * size
    lost = {rank for rank in lost if rank < world}
    author = author if author < world and author not in lost else -1
    cause = Cause("x", 3, author, author // size if author >= 0 else 0, tuple(sorted(lost)))
    assert Cause.from_json(cause.to_json()) == cause
    for node in range(nodes):
        living = [rank for rank in range(node * size, (node + 1) * size) if rank not in lost]
        speaking = [rank for rank in living if Whereabouts(rank, world, rank % size, node).speaks(cause)]
        assert len(speaking) == bool(living), (node, speaking)


def test_a_lock_is_no_collective() -> None:
    seen = threading.Event()

    def wait_for_nothing() -> None:
        seen.set()
        event.wait(30)

    event = threading.Event()
    thread = threading.Thread(target=wait_for_nothing, daemon=True)
    thread.start()
    seen.wait()
    time.sleep(0.1)
    spot = spot_of(sys._current_frames()[thread.ident or 0])
    event.set()
    thread.join()
    assert "test_hang.py" in spot.where and "wait_for_nothing" in spot.where
    assert spot.collective == ""

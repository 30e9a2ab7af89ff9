"""Which checkpoints stay, and what is cleared after a process that was ended."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from moss_train.checkpoint.description import CheckpointDescription, newest_checkpoint, step_name, write_description
from moss_train.checkpoint.retention import clear_leftovers, kept, remove_old
from tests.moss_train.checkpoint.folders import names_in

_STEPS = st.sets(st.integers(0, 60), min_size=1)


def _make(run: Path, *steps: int) -> None:
    for step in steps:
        folder = run / "checkpoints" / step_name(step)
        folder.mkdir(parents=True)
        write_description(folder, CheckpointDescription(step=step, model={}))


@given(steps=_STEPS, keep_last=st.integers(1, 5), keep_every=st.integers(0, 7), protected=_STEPS)
def test_the_newest_the_multiples_and_the_protected_stay(
    steps: set[int], keep_last: int, keep_every: int, protected: set[int]
) -> None:
    stay = kept(steps, keep_last, keep_every, protected)
    assert stay <= steps and max(steps) in stay
    for step in steps:
        newer = sum(other > step for other in steps)
        assert (step in stay) == (newer < keep_last or step in protected or (keep_every > 0 and step % keep_every == 0))


def test_old_ones_go_and_the_best_stays(tmp_path: Path) -> None:
    _make(tmp_path, 2, 3, 4, 5, 6, 7)
    (tmp_path / "best").write_text(step_name(3))
    assert remove_old(tmp_path, 2, 4, [step_name(2)]) == [step_name(5)]
    assert names_in(tmp_path) == [step_name(step) for step in (2, 3, 4, 6, 7)]
    (tmp_path / "best").write_bytes(b"\xff")
    assert remove_old(tmp_path, 1) == [step_name(step) for step in (2, 3, 4, 6)]


def test_leftovers_go_and_a_replaced_checkpoint_without_successor_comes_back(tmp_path: Path) -> None:
    _make(tmp_path, 1, 2, 3)
    folders = tmp_path / "checkpoints"
    (folders / step_name(2)).rename(folders / f"{step_name(2)}.replaced.tmp")
    (folders / f"{step_name(1)}.replaced.tmp").mkdir()
    (folders / f"{step_name(4)}.2.tmp" / "inside").mkdir(parents=True)
    (folders / f"{step_name(5)}.tmp").write_text("a file")
    assert len(clear_leftovers(tmp_path)) == 3
    assert names_in(tmp_path) == [step_name(step) for step in (1, 2, 3)]
    assert newest_checkpoint(tmp_path) == folders / step_name(3)
    assert clear_leftovers(tmp_path / "elsewhere") == []

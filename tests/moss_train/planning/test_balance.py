"""Frames are spread evenly over 8 to 512 ranks on the workload, and the command says so."""

from __future__ import annotations

from pathlib import Path

import pytest

from moss_train.cli.main import main
from moss_train.planning.balance import simulate
from moss_train.planning.workload import STAGES


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize(("ranks", "replica_ranks"), [(8, 1), (64, 8), (512, 1)])
def test_busiest_rank_has_at_most_a_twentieth_more_than_the_mean(stage: str, ranks: int, replica_ranks: int) -> None:
    found = simulate(stage, ranks, steps=2, replica_ranks=replica_ranks)
    assert 1 <= found.by_frame <= found.worst <= 1.05
    assert found.in_windows <= 1.05
    assert found.by_frame < found.whole_samples <= found.pack_a_rank + 0.01 and found.pack_a_rank < found.sample_a_rank
    assert 0 < found.moved < 0.5


def test_narrow_windows_cost_balance() -> None:
    """512 ranks of 64 replicas do not fit one window where each reads eight full packs."""
    found = simulate("pt2", 512, steps=2, replica_ranks=8)
    assert found.windows > 1 and found.in_windows >= found.by_frame


def test_command_prints_a_row_for_each_pair(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "balance", "--ranks", "8", "16", "--stage", "pt1", "--steps", "1"]) == 0
    rows = capsys.readouterr().out.splitlines()
    assert [row.split("|")[1:3] for row in rows[2:]] == [[" pt1 ", " 8 "], [" pt1 ", " 16 "]]
    assert all(row.count("|") == rows[0].count("|") for row in rows)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--stage", "pt9"], "--stage is 'pt9', which is not in the workload; use one of pt1"),
        (["--ranks", "8", "--replica-ranks", "3"], "--ranks is 8, no multiple of --replica-ranks 3"),
        (["--steps", "0"], "--steps is 0"),
        (["--ranks", "8", "-1"], "--ranks is -1"),
    ],
)
def test_bad_arguments_end_in_a_sentence(arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "balance", *arguments]) == 2
    printed = capsys.readouterr()
    assert words in printed.err and not printed.out  # no table is begun that cannot be finished


def test_page_holds_what_the_command_prints(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "balance", "--ranks", "8", "64"]) == 0
    page = (Path(__file__).resolve().parents[3] / "docs" / "training.md").read_text(encoding="utf-8")
    assert not [row for row in capsys.readouterr().out.splitlines() if row not in page]

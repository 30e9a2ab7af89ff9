"""No check passes where what it checks is broken, on the last rank alone too."""

from __future__ import annotations

from pathlib import Path

import pytest

from moss_train.verify.ranks import sweep
from moss_train.verify.ranks.names import Job
from moss_train.verify.ranks.sweep import run_checks
from tests.moss_train.verify.test_golden import _write as write_golden
from tests.ranks import Answer

FAULTS = {
    "forget_a_group": ("guards", "copies", "1 kinds of copies are compared, not 2"),
    "name_another_parameter": ("guards", "copies", "is told as"),
    "apply_the_first_update_alone": ("guards", "skip", "the next update changes no tensor"),
    "spoil_the_checkpoint_before": ("guards", "failed save", "checkpoint before"),
    "another_step_on_the_last_rank": ("chain", "resume", "the checkpoint says step 3, not 2"),
    "another_norm_on_the_last_rank": ("chain", "resume", "losses and norms"),
    "no_weights": ("chain", "reshard", "the first rank was given no weights to compare"),
    "repeatable_text_attends_to_nothing": ("alone", "kernels", "with train.deterministic norm is"),
    "lose_a_line": ("chain", "chain", "results arrived; see what else the ranks print"),
    "nothing_is_compared": ("golden", "golden", "the recording holds nothing that training computes"),
}
"""The job that a fault is run in, the check that must fail, and what it says."""


@pytest.mark.ranks
@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_found(fault: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer_of_ranks: Answer) -> None:
    work, check, said = FAULTS[fault]
    write_golden(tmp_path)
    monkeypatch.setattr(sweep, "run_on_ranks", answer_of_ranks)
    monkeypatch.setattr(sweep, "MODULE", "tests.moss_train.verify.ranks.broken_process")
    monkeypatch.setattr(sweep, "jobs_of", lambda kinds, golden: [Job(work, *kinds[: work != "golden"])])
    monkeypatch.setenv("FAULT", fault)
    results = run_checks(2, ["torch"], "cpu", lambda _: None, golden=tmp_path)
    failed = [result for result in results if result.check == check and result.verdict == "FAILS"]
    assert failed, [(result.check, result.layout, result.verdict) for result in results]
    assert any(said in reason for result in failed for reason in result.reasons), [result.reasons for result in failed]

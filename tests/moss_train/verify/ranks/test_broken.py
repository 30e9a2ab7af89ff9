"""No check passes where what it checks is broken, on the last rank alone too."""

from __future__ import annotations

import pytest

from moss_train.verify.ranks import sweep
from moss_train.verify.ranks.findings import CaseResult
from moss_train.verify.ranks.names import Job
from moss_train.verify.ranks.sweep import run_checks
from tests.moss_train.verify.test_golden import _write as write_golden
from tests.ranks import Answer

FAULTS = {
    "forget_a_group": ("guards", "copies", "1 kinds of copies are compared, not 2"),
    "name_another_parameter": ("guards", "copies", "is told as"),
    "apply_the_first_update_alone": ("guards", "skip", "the next update changes no tensor"),
    "lose_what_is_beside": ("guards", "overlap", "with train.overlap_grad_reduce the update has loss and norm"),
    "spoil_the_checkpoint_before": ("guards", "failed save", "checkpoint before"),
    "another_step_on_the_last_rank": ("chain", "resume", "the checkpoint says step 3, not 2"),
    "another_norm_on_the_last_rank": ("chain", "resume", "losses and norms"),
    "no_weights": ("chain", "reshard", "the first rank was given no weights to compare"),
    "repeatable_text_attends_to_nothing": ("alone", "kernels", "with train.deterministic norm is"),
    "lose_a_line": ("chain", "chain", "results arrived; see what else the ranks print"),
    "nothing_is_compared": ("golden", "golden", "the recording holds nothing that training computes"),
}
"""The job that a fault is run in, the check that must fail, and what it says."""


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory, answer_of_ranks: Answer) -> list[CaseResult]:
    """One start of the ranks, which do each job with all of its faults: none of them makes what another one is told by."""
    folder = tmp_path_factory.mktemp("golden")
    write_golden(folder)
    works = list(dict.fromkeys(work for work, _, _ in FAULTS.values()))
    faults = [f"{work}:{','.join(name for name, (job, _, _) in FAULTS.items() if job == work)}" for work in works]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sweep, "run_on_ranks", answer_of_ranks)
        patch.setattr(sweep, "MODULE", "tests.moss_train.verify.ranks.broken_process")
        patch.setattr(sweep, "jobs_of", lambda kinds, golden: [Job(work, *kinds[: work != "golden"]) for work in works])
        patch.setenv("FAULTS", " ".join(faults))
        return run_checks(2, ["torch"], "cpu", lambda _: None, golden=folder)


@pytest.mark.ranks
@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_found(fault: str, results: list[CaseResult]) -> None:
    _, check, said = FAULTS[fault]
    failed = [result for result in results if result.check == check and result.verdict == "FAILS"]
    assert failed, [(result.check, result.layout, result.verdict) for result in results]
    assert any(said in reason for result in failed for reason in result.reasons), [result.reasons for result in failed]


@pytest.mark.ranks
def test_what_no_fault_is_in_passes(results: list[CaseResult]) -> None:
    assert [result.verdict for result in results if result.check == "agreement"] == ["ok"]

"""Every kind of parallel layout computes what one rank computes, by the check that `moss verify layouts` runs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from moss_train.parallel.layout import ParallelLayout
from moss_train.parallel.world import start_world, stop_world
from moss_train.verify.layouts import ranks, sweep
from moss_train.verify.layouts.findings import BF16_REFERENCE
from moss_train.verify.layouts.names import PRESETS, Trial, choose_layouts, parse_layout
from moss_train.verify.layouts.subject import FRAMES
from moss_train.verify.layouts.sweep import Sweep
from moss_train.verify.layouts.trial import Outcome, run_trial
from tests.ranks import Answer

pytestmark = pytest.mark.ranks

# Where tensors are split, the presets whose gradients pass what is not trained, and the one that leaves the decoder out; stages
# without a cross layer at either end with the presets that then train nothing, or hand no gradient on; replicas and context
# with one that leaves out a part. Everything is trained in larger layouts and in those below, each kind of parallelism twice.
LAYOUTS = (
    *("tp2:vision_tower,dense_labels", "pp2.l1-5:projector_only", "pp2.l5-1:vision+projector+xattn"),
    *("dp2:text_only", "cp2:projector_only", "tp4.sp:all", "tp2.pp2.l1-5:all"),
)
BF16 = ("tp2.sp.rc:all", "pp2.vpp3:all", "cp2.dp2:all")
"""In fp32 and in bf16."""

UPDATES = 2
"""The second begins with weights, momentum and variance that the first left; what it leaves is compared whole."""


@pytest.fixture(autouse=True)
def forked(monkeypatch: pytest.MonkeyPatch, answer_of_ranks: Answer) -> None:
    """Without the start of the ranks, which is tested with the command."""
    monkeypatch.setattr(sweep, "run_on_ranks", answer_of_ranks)


def check(layouts: Sequence[str], bf16: bool) -> set[str]:
    """Runs the layouts on the CPU, asserts what every result must show, and returns the layouts that gave results."""
    chosen = choose_layouts(layouts, 8)
    results = Sweep(PRESETS, "cpu", bf16, lambda _: None, updates=UPDATES).run(chosen)
    for result in results:
        assert not result.reasons, (result.layout, result.preset, result.optimizer, result.reasons)
        found = result.findings
        assert found is not None
        keeps_one = result.preset == "all" and result.optimizer == "sgd"  # and encodes the other frames a second time
        for planned, ran, distinct in zip(found.planned, found.towers, found.distinct, strict=True):
            assert len(planned) == result.ranks
            assert sum(planned) == FRAMES and max(planned) - min(planned) <= 1 and min(planned) > 0, (result.layout, planned)
            assert ran == [frames + (frames - 1 if keeps_one else 0) for frames in planned], (result.layout, ran, planned)
            assert distinct == FRAMES, (result.layout, distinct)  # no frame is left out, none is encoded by two ranks
        if result.optimizer == "sgd":
            assert found.gradients is not None and found.trained is not None and found.trained > 0
    return {result.layout for result in results}


def names(layouts: Sequence[str]) -> set[str]:
    """What must give results: every layout."""
    return {layout.name for layout in choose_layouts(layouts, 8)}


def test_layouts_of_up_to_four_ranks() -> None:
    assert check(LAYOUTS, bf16=False) == names(LAYOUTS)


def test_layouts_in_bf16_too() -> None:
    assert check(BF16, bf16=True) == names(BF16) | {BF16_REFERENCE}


@pytest.mark.parametrize("preset", ["dense_labels", pytest.param("all", marks=pytest.mark.slow)])
def test_the_modules_of_a_run(preset: str) -> None:
    """The tower alone, since gradients of the decoder in a run's widths take a CPU long in bf16."""
    results = Sweep(PRESETS, "cpu", False, lambda _: None, "both", 1).run(choose_layouts([f"tp2.sp:{preset}"], 2))
    assert [(r.modules, r.dtype, r.optimizer) for r in results] == [
        (modules, dtype, optimizer) for modules, dtype in (("torch", "fp32"), ("auto", "bf16")) for optimizer in ("sgd", "adamw")
    ]
    for result in results:
        found = result.findings
        assert not result.reasons and found is not None, result.reasons
        measured = found.loss.value if preset == "all" else found.all_gradients
        assert measured is None or measured > 0, "a difference that is measured is not 0"
    assert {r.made_of for r in results} == {"ColumnParallelLinear, cross-attention auto, tower torch"}


def test_a_limit_of_time() -> None:
    layouts = choose_layouts(["tp2.sp:dense_labels"], 2)
    results = Sweep(PRESETS, "cpu", False, lambda _: None, updates=1, seconds=1e-3).run(layouts)
    assert [(r.skipped, r.reasons) for r in results] == [(True, [])] * 2


@pytest.mark.slow
@pytest.mark.parametrize(
    "layouts",
    [
        ("tp2.sp.pp2.dp2:all", "tp2.pp4:all", "tp2.sp.pp2.cp2:all"),
        ("tp2", *(f"{layout}:all" for layout in ("tp2.sp.rc", "dp2", "cp2", "tp4.sp", "tp2.pp2.l1-5"))),
    ],
    ids=["eight ranks", "every preset where tensors are split, all in bf16"],
)
def test_more(layouts: tuple[str, ...]) -> None:
    assert check(layouts, bf16=True) == names(layouts) | {BF16_REFERENCE}


def test_a_trial_that_fails_on_one_rank_costs_no_other(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A kernel that does not compile, say: the others have their outcomes, and this one's layouts say why they have none."""

    def broken(trial: Trial, layout: ParallelLayout, updates: int) -> Outcome:
        if trial.modules == "auto":
            raise RuntimeError("no kernel\nfor this")
        return run_trial(trial, layout, updates)

    monkeypatch.setattr(ranks, "run_trial", broken)
    start_world(torch.device("cpu"))
    trials = [Trial("text_only", "sgd"), Trial("text_only", "sgd", "bf16", "auto")]
    results = ranks.write_reference(trials, torch.device("cpu"), tmp_path / "one.pt", 1)
    assert [(r["layout"], r["modules"]) for r in results] == [("one", "auto")]
    assert results[0]["reasons"][0].startswith("on one rank: RuntimeError: no kernel (test_exact.py:")
    reference = ranks.read_reference(tmp_path / "one.pt")
    assert list(reference) == [trials[0].key]
    found = ranks._run_layout(parse_layout("rc"), trials, reference, torch.device("cpu"), 1)
    assert [r["reasons"] for r in found] == [[], ["there is nothing on one rank to compare with"]]
    stop_world()

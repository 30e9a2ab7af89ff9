"""Which cases are measured, and how their frames are dealt."""

from __future__ import annotations

import itertools
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.errors import InputError
from moss_train.bench.scaling.cases import LAYOUTS, Case, Options, make_cases
from moss_train.bench.scaling.deal import dealt, own_frames
from moss_train.bench.scaling.predict import all_packs, planned_bytes, work_of
from moss_train.frames import plan
from moss_train.frames.assignment import assign_frames
from moss_train.parallel.layout import place_of
from moss_train.verify.layouts.names import parse_layout


@pytest.mark.parametrize("gpus", [2, 4, 8])
def test_every_case_of_a_machine_has_the_work_of_its_baseline_for_each_gpu(gpus: int) -> None:
    cases, left_out = make_cases(Options(gpus=(1, gpus), model="tiny", precision="fp32", optimizer="adamw", rows=96, frames=8))
    assert [case.layout for case in cases if case.kind == "pt2"] == ["one", f"dp{gpus}"]
    assert len({case.name for case in cases}) == len(cases) and all(
        case.ranks == parse_layout(case.layout).ranks for case in cases
    )
    own, sft = (next(case for case in cases if case.kind == kind and case.ranks == gpus) for kind in ("own", "sft"))
    assert own.frames == sft.frames and own.group == sft.group, "they share a model"
    assert {14, 2} == {count for row in sft.frames for count in row} and sum(map(sum, sft.frames)) == 8 * gpus
    assert set(LAYOUTS[gpus]) == {case.layout for case in cases if case.ranks == gpus} | {
        name for name in LAYOUTS[gpus] if any(f" {name}," in entry["name"] for entry in left_out)
    }
    one = work_of(all_packs(next(case for case in cases if case.kind == "pt2"), 0))
    for case in cases:
        if case.stage == "pt2":
            assert work_of(all_packs(case, 0)) == sum([one] * (sum(map(len, case.frames)) - 1), one)
            assert Case.of(json.loads(json.dumps(case.to_dict()))) == case and planned_bytes(case, 0) > 1 << 20
    groups = [(case.ranks, case.kind == "strong", case.group) for case in cases]
    assert len([1 for a, b in itertools.pairwise(groups) if a != b]) == len(set(groups)) - 1, "none is built twice"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"kinds": ("pt3",)}, "--cases has 'pt3'"),
        ({"optimizer": "sgd"}, "--optimizer has 'sgd'"),
        ({"rows": 64, "frames": 32}, "--rows is 64"),
        ({"layouts": ("tp2",)}, "--layouts tp2 has none for --gpus 4"),
        ({"layouts": ("xp2",)}, "'xp2' is no part of a layout"),
    ],
)
def test_what_cannot_be_measured_is_said(options: dict[str, object], said: str) -> None:
    with pytest.raises(InputError, match=said):
        make_cases(Options(gpus=(4,), model="tiny", **{"precision": "fp32", "rows": 96, "frames": 8, **options}))  # type: ignore[arg-type]


def test_a_layout_that_the_model_does_not_have_is_left_out_with_the_reason() -> None:
    cases, left_out = make_cases(
        Options(gpus=(16,), layouts=("tp16", "dp16"), model="tiny", precision="fp32", optimizer="adamw", rows=96, frames=8)
    )
    assert {case.layout for case in cases} == {"dp16"} and len(left_out) == 1 and "16" in left_out[0]["reason"]


@given(st.lists(st.integers(0, 40), min_size=1, max_size=5), st.integers(1, 3))
def test_own_frames_never_leave_their_replica(frames: list[int], each: int) -> None:
    members = [list(range(replica * each, (replica + 1) * each)) for replica in range(len(frames))]
    spans = own_frames(frames, members)
    for replica, (count, ranks) in enumerate(zip(frames, members, strict=True)):
        mine = [span for span in spans if span.replica == replica]
        assert {span.rank for span in mine} <= set(ranks)
        assert [n for span in mine for n in range(span.begin, span.end)] == list(range(count))
        sizes = [sum(span.size for span in mine if span.rank == rank) for rank in ranks]
        assert max(sizes) - min(sizes) <= 1


def test_a_plan_within_deals_so_and_the_next_as_before() -> None:
    places = [place_of(rank, parse_layout("dp2").sizes, 2) for rank in range(2)]

    def encoded() -> list[int]:
        return plan.plan_frames([[14], [2]], places, [True, True]).encoded_by_rank(2)

    with dealt("own"):
        assert encoded() == [14, 2]
    assert encoded() == [8, 8] and vars(plan)["assign_frames"] is assign_frames
    with dealt("world"):
        assert encoded() == [8, 8]

"""What of communication nothing covers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moss_train.bench.scaling.traffic import exposed, kind_of, over_ranks
from moss_train.bench.train.profile import Span

NAMES = ("ncclDevKernel_AllReduce_Sum_bf16_RING_LL(ncclDevKernelArgsStorage<4096ul>)", "gemm", "Memcpy DtoD")
SPANS = st.lists(st.tuples(st.sampled_from(NAMES), st.integers(0, 40), st.integers(0, 12)), max_size=12)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("ncclDevKernel_ReduceScatter_Sum_f32_RING_LL(ncclDevKernelArgsStorage<4096ul>)", "reduce-scatter"),
        ("ncclDevKernel_AllGather_RING_LL(ncclDevKernelArgsStorage<4096ul>)", "all-gather"),
        ("ncclDevKernel_SendRecv(ncclDevKernelArgsStorage<4096ul>)", "send-receive"),
        ("ncclKernel_AllReduce_RING_LL_Sum_float(ncclWorkElem)", "all-reduce"),
        ("ncclDevKernel_Broadcast_RING_LL(ncclDevKernelArgsStorage<4096ul>)", "broadcast"),
        ("c10d::_reduce_scatter_base_", "reduce-scatter"),
        ("c10d::alltoall_base_", "send-receive"),
        ("void at::native::reduce_kernel<512, 1>", None),
        ("gather_kernel", None),
    ],
)
def test_kinds_are_told_by_their_names(name: str, kind: str | None) -> None:
    assert kind_of(name) == kind


@given(SPANS)
def test_exposed_is_when_communication_runs_and_nothing_else_does(made: list[tuple[str, int, int]]) -> None:
    found = exposed([Span(name, float(begin), float(length), "decode") for name, begin, length in made])
    ticks = [
        {(name in NAMES[:1]) for name, begin, length in made if begin <= tick < begin + length} for tick in range(60)
    ]  # every tick of a microsecond: whether communication, and whether something else, ran
    assert found["seconds"] * 1e6 == pytest.approx(sum(True in tick for tick in ticks))
    assert found["exposed"] * 1e6 == pytest.approx(sum(tick == {True} for tick in ticks))
    calls = sum(name == NAMES[0] for name, _, _ in made)
    assert (calls == 0) == (found["kinds"] == {}) and (not calls or found["kinds"]["all-reduce"]["calls"] == calls)


def test_phases_and_ranks_are_kept_apart() -> None:
    slow = exposed([Span(NAMES[0], 0.0, 4e6, "decode"), Span(NAMES[1], 1e6, 1e6, "decode"), Span(NAMES[0], 5e6, 1e6, "return")])
    quick = exposed([Span(NAMES[0], 0.0, 1e6, "decode")])
    assert slow["phases"] == {"decode": pytest.approx(3.0), "return": pytest.approx(1.0)}
    both = over_ranks([slow, quick], [8.0, 10.0])
    assert (both["most"], both["least"], both["share"], both["least_share"]) == (4.0, 1.0, 0.4, 0.1)
    assert both["kinds"]["all-reduce"] == {"calls": 2, "most": 4.0, "least": 1.0}
    assert both["phases"]["return"] == {"most": 1.0, "least": 0.0}

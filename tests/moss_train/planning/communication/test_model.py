"""What must hold of planned calls in any layout: nobody waits for a call that another rank does not make, no byte is lost."""

from __future__ import annotations

import dataclasses
from collections import defaultdict

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from model.errors import InputError
from model.lora.spec import MODULES
from moss_train.config.schema import LoraConfig, ParallelConfig, RunConfig
from moss_train.feed.wire import pack_rows
from moss_train.parallel.layout import RankPlace, place_of
from moss_train.planning.communication.calls import Calls, Key, Kind, Traffic, on_wire
from moss_train.planning.communication.control import BATCH, content_bytes, modules_of
from moss_train.planning.communication.gradients import buffer_elements
from moss_train.planning.communication.links import carried, spread_of
from moss_train.planning.communication.rank import Rank
from moss_train.planning.communication.shape import Pack, StepShape
from moss_train.planning.communication.step import step_traffic
from moss_train.planning.communication.tensors import Tensor
from moss_train.planning.hardware import Cluster
from moss_train.verify.communication.case import Case
from moss_train.verify.communication.trial import packs_of, run_config, shape_of

PRESETS = ("all", "projector_only", "vision+projector+xattn", "text_only", "dense_labels")
layouts = st.builds(
    ParallelConfig,
    tensor=st.sampled_from([1, 2, 4]),
    pipeline=st.sampled_from([1, 2, 3]),
    context=st.sampled_from([1, 2]),
    recompute=st.sampled_from(["none", "full"]),
)


@st.composite
def runs(draw: st.DrawFn) -> tuple[RunConfig, int, StepShape]:
    """A run, its ranks and a step's packs."""
    sizes, replicas, count = draw(layouts), draw(st.integers(1, 3)), draw(st.integers(1, 3))
    sizes = dataclasses.replace(sizes, sequence_parallel=sizes.tensor > 1 and draw(st.booleans()))
    config = run_config(Case("one", draw(st.sampled_from(PRESETS)), draw(st.sampled_from(["sharded", "whole", "muon"]))))
    if config.stage.objective == "next_token" and draw(st.booleans()):
        targets = draw(st.lists(st.sampled_from(sorted(MODULES)), min_size=1, unique=True))
        also = draw(st.lists(st.sampled_from(["norms", "gates"]), unique=True))
        config = dataclasses.replace(config, lora=LoraConfig(rank=4, targets=targets, train_also=also))
    frames = st.integers(0, 5)
    packs = [[Pack((8, 16), draw(frames), (3,) * sizes.context) for _ in range(count)] for _ in range(replicas)]
    shape = StepShape(tuple(tuple(row) for row in packs), 2)
    ranks = sizes.tensor * sizes.pipeline * sizes.context * replicas
    return dataclasses.replace(config, parallel=sizes), ranks, shape


def _members(group: str, place: RankPlace) -> tuple[int, ...]:
    """What is equal of all ranks of a group."""
    t, p, c, d = place.tensor, place.pipeline, place.context, place.data
    return {
        "tensor": (p, c, d), "context": (t, p, d), "pipeline": (t, c, d), "data": (t, p), "model": (c, d), "replica": (d,),
        "world": (),
    }[group]  # fmt: skip


@given(runs())
def test_all_ranks_of_a_group_make_the_same_calls_and_what_is_sent_arrives(run: tuple[RunConfig, int, StepShape]) -> None:
    config, ranks, shape = run
    replicas = len(shape.packs)
    by_group: dict[tuple[Key, tuple[int, ...]], set[float]] = defaultdict(set)
    sums: dict[str, float] = defaultdict(float)
    for rank in range(ranks):
        place = place_of(rank, config.parallel, replicas)
        assert Rank.of(config, ranks, shape, rank).number == rank
        traffic = step_traffic(config, ranks, shape, rank)
        for key, calls in traffic:
            assert calls.count > 0 and calls.payload >= 0 and key.ranks > 1
            if key.kind in ("send", "receive"):
                sums["pairs"] += calls.gives - calls.gets
            elif key.kind == "exchange":
                sums[key.purpose] += calls.gives - calls.gets
            if key.kind not in ("send", "receive"):
                by_group[key, _members(key.group, place)].add(calls.count)
        present = {key for key, _ in traffic}
        for (key, members), counts in by_group.items():
            if members == _members(key.group, place):
                assert key in present and len(counts) == 1, key
    assert all(value == 0 for value in sums.values())


@given(
    st.sampled_from(["all-reduce", "all-gather", "reduce-scatter", "all-to-all", "send"]),
    st.integers(2, 512),
    st.integers(1, 10**9),
)
def test_a_sum_moves_as_much_as_scattering_and_gathering(kind: Kind, ranks: int, size: int) -> None:
    wire = on_wire(Key("x", kind, "data", ranks), Calls(1, size, size))
    assert wire <= 2 * size
    both = sum(on_wire(Key("x", half, "data", ranks), Calls(1, size, size)) for half in ("reduce-scatter", "all-gather"))
    assert kind != "all-reduce" or wire == pytest.approx(both)
    assert kind != "send" or wire == size


@given(layouts, st.integers(1, 64), st.sampled_from([1, 4, 8]))
def test_groups_lie_where_their_ranks_do(sizes: ParallelConfig, replicas: int, node: int) -> None:
    ranks = sizes.tensor * sizes.pipeline * sizes.context * replicas
    assume(ranks % node == 0 or ranks < node)
    places = [place_of(rank, sizes, replicas) for rank in range(ranks)]
    for group in ("tensor", "context", "data", "pipeline", "model", "replica", "world"):
        found = spread_of(group, sizes, replicas, node)
        own = [rank for rank, place in enumerate(places) if _members(group, place) == _members(group, places[0])]
        assert found.ranks == len(own)
        if all(size & (size - 1) == 0 for size in (sizes.pipeline, replicas)):  # nodes then cut no group in unequal parts
            assert found.in_node == sum(rank < node for rank in own), group


def test_what_stays_in_a_node_touches_no_network_and_a_ring_shares_the_cards_of_its_node() -> None:
    sizes, size = ParallelConfig(tensor=2), 8e9
    one = carried(Key("x", "all-reduce", "tensor", 2), Calls(1, size, size), sizes, 8, 8)
    assert one.network == 0 and one.nvlink == size
    ring = carried(Key("x", "all-reduce", "data", 8), Calls(1, size, size), sizes, 8, 8)  # four of its ranks in each node
    assert ring.network == ring.nvlink / 4 == pytest.approx(2 * 7 / 8 * size / 4)
    assert ring.seconds(Cluster.of("H100")) > one.seconds(Cluster.of("H100"))


@given(st.lists(st.integers(1, 5000), min_size=1, max_size=9), st.integers(1, 600))
def test_buffers_are_padded_for_every_rank(sizes: list[int], ranks: int) -> None:
    tensors = [Tensor(size, trains=True) for size in sizes]
    padded = buffer_elements([*tensors, Tensor(77, trains=False)], ranks, sharded=True)
    assert padded % ranks == padded % 128 == 0
    assert sum(sizes) <= padded <= sum(sizes) + 63 * len(sizes) + 128 * ranks
    assert buffer_elements(tensors, ranks, sharded=False) == sum(sizes)


@pytest.mark.parametrize("layout", ["tp2", "pp2.dp2"])
def test_rows_that_are_handed_out_take_about_what_is_estimated(layout: str) -> None:
    case = Case(layout)
    shape = dataclasses.replace(shape_of(case, 2 if "dp" in layout else 1), content=None)
    each = len(packs_of(case)) // len(shape.packs)
    real = len(pack_rows(packs_of(case)[:each]))
    planned = content_bytes(Rank.of(run_config(case), case.ranks, shape, 0))
    assert abs(planned - real) < BATCH * each


def test_modules_whose_norms_are_told_apart_are_counted() -> None:
    from moss_train.monitors.gradient_norms import modules_of as really

    rank = Rank.of(run_config(Case("one")), 1, shape_of(Case("one"), 1), 0)
    assert modules_of(rank) == len(really(rank.model))


def test_what_is_not_counted_is_refused() -> None:
    config, shape = run_config(Case("dp2")), shape_of(Case("dp2"), 2)
    plain = type(config.optimizer)(distributed=False)
    with pytest.raises(InputError, match="engine is deepspeed"):
        step_traffic(dataclasses.replace(config, engine="deepspeed", optimizer=plain), 2, shape)
    assert isinstance(step_traffic(config, 2, shape), Traffic)

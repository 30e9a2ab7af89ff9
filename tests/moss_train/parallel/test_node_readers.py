"""Which readers a node runs, against the layout of the ranks."""

from __future__ import annotations

import copy

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.errors import InputError
from moss_train.config.compose import compose
from moss_train.config.schema import RunConfig
from moss_train.parallel.layout import place_of
from moss_train.parallel.node_readers import node_readers

CONFIG = compose(["stage=pt1"])


def config_of(tensor: int = 1, context: int = 1, pipeline: int = 1, readers: int = 1, **launcher: object) -> RunConfig:
    config = copy.deepcopy(CONFIG)
    config.parallel.tensor, config.parallel.context, config.parallel.pipeline = tensor, context, pipeline
    config.data.global_data_workers = readers
    for name, value in launcher.items():
        setattr(config.launcher, name, value)
    return config


def environment(node: int, nodes: int, processes: int) -> dict[str, str]:
    return {"NODE_RANK": str(node), "NNODES": str(nodes), "NPROC_PER_NODE": str(processes)}


SMALL = st.sampled_from([1, 2, 4])


@given(tensor=SMALL, context=SMALL, pipeline=SMALL, replicas=st.integers(1, 6), each=st.integers(1, 3), nodes=st.integers(1, 8))
def test_a_node_runs_the_readers_of_the_replicas_that_begin_on_it(
    tensor: int, context: int, pipeline: int, replicas: int, each: int, nodes: int
) -> None:
    world = tensor * context * pipeline * replicas
    if world % nodes:
        return
    processes = world // nodes
    config = config_of(tensor, context, pipeline, readers=replicas * each)
    places = [place_of(rank, config.parallel, replicas) for rank in range(world)]
    everything: list[int] = []
    for node in range(nodes):
        reading = {
            place.data
            for place in places[node * processes : (node + 1) * processes]
            if (place.tensor, place.context, place.pipeline) == (0, 0, 0)
        }
        found = node_readers(config, environment(node, nodes, processes))
        assert found == {number for number in range(replicas * each) if number % replicas in reading}
        everything += found
    assert sorted(everything) == list(range(replicas * each))


def test_where_ranks_may_move_all_is_wanted() -> None:
    here = environment(1, 2, 4)
    config = config_of(readers=8)
    assert node_readers(config, here) == {4, 5, 6, 7}
    assert node_readers(config, {}) is None
    assert node_readers(config_of(readers=8, elastic=True), here) is None
    assert node_readers(config_of(readers=8, max_restarts=1), here) is None
    assert node_readers(config, here | {"MIN_NODES": "1"}) is None
    with pytest.raises(InputError, match=r"^NODE_RANK is 2 with NNODES=2 and NPROC_PER_NODE=4; it must be below NNODES$"):
        node_readers(config, environment(2, 2, 4))
    with pytest.raises(InputError, match=r"^NNODES is 'two'; it must be a whole number$"):
        node_readers(config, here | {"NNODES": "two"})

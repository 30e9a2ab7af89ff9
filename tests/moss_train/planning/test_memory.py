"""Predicted memory against peaks that were measured on GPUs, and rules that hold for every layout."""

from __future__ import annotations

import dataclasses
import itertools
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from megatron.core.pipeline_parallel.schedules import get_schedule_table

from model.config import VideoMllamaConfig
from model.errors import InputError
from moss_train.config.compose import compose
from moss_train.config.schema import ParallelConfig, RunConfig
from moss_train.parallel.sizes import check_sizes
from moss_train.planning import activations
from moss_train.planning.activations import LayerShape, Trains
from moss_train.planning.flops import Gradients
from moss_train.planning.memory import PackLoad, StageMemory, in_flight, plan_memory

FIXTURE = Path(__file__).resolve().parents[3] / "docs" / "benchmarks" / "plan-memory.json"
CASES = json.loads(FIXTURE.read_text(encoding="utf-8"))["cases"]
NEAR = 0.02
"""Every phase of every case; the peak of a step is nearer."""
PEAK = 0.01
BEFORE = ["vision.layers=torch", "vision.again_chunk_frames=8"]
"""How cases without a date were run: the tower by operators. Their decoder kept all logits and more of each MLP than today's."""


def overrides_of(case: dict[str, Any]) -> list[str]:
    """A case's run as it would be configured today."""
    words: list[str] = case["overrides"]
    if "date" in case:
        return words
    return [*words, *BEFORE, *(["vision.keep_mode=all"] if not any("keep_mode" in word for word in words) else [])]


def measured(case: dict[str, Any], rank: int) -> tuple[dict[str, int], dict[str, int]]:
    """Bytes by phase: measured, predicted."""
    stages = plan_memory(compose(overrides_of(case)), len(case["ranks"]), PackLoad.of_samples(case["samples"])).stages
    stage: StageMemory = stages[rank if len(stages) > 1 else 0]
    found = case["ranks"][rank]["peaks"]
    real = {
        "encode": found["encode"], "decode": max(found["forward"], found["backward"]), "return": found["return"],
        "update": found["update"],
    }  # fmt: skip
    predicted = {phase: stage.allocated(phase) for phase in ("encode", "return", "update")}
    predicted["decode"] = max(stage.allocated("losses"), stage.allocated("backward"))
    if "date" not in case:
        del real["decode"]
        if "vision.keep_mode=attention" in case["overrides"]:
            del real["return"]  # 49 frames are 7 times 7 today, and were 6 times 8 and 1
    return real, {phase: predicted[phase] for phase in real}


@pytest.mark.parametrize("case", CASES, ids=[case["name"] for case in CASES])
def test_every_phase_is_as_measured(case: dict[str, Any]) -> None:
    for rank in range(len(case["ranks"])):
        real, predicted = measured(case, rank)
        for phase, bytes_ in real.items():
            assert predicted[phase] == pytest.approx(bytes_, rel=NEAR), (rank, phase)
        assert max(predicted.values()) == pytest.approx(max(real.values()), rel=PEAK)


def test_the_fixture_has_every_kind_of_layout_and_precision() -> None:
    words = {word for case in CASES for word in case["overrides"]}
    assert {"parallel=tp2", "parallel=pp2", "parallel=dp2", "parallel=cp2", "modules=torch", "precision=fp8"} <= words
    assert {"parallel.recompute=full", "parallel.sequence_parallel=true", "vision.keep_mode=attention", "stage=pt1"} <= words


LAYERS = [
    case for case in CASES
    if "parallel.recompute=full" not in case["overrides"] and ("date" in case or "modules=torch" in case["overrides"])
]  # fmt: skip


@pytest.mark.parametrize("case", LAYERS, ids=[case["name"] for case in LAYERS])
def test_every_layer_keeps_what_is_counted(case: dict[str, Any]) -> None:
    """The median of the layers: neighbours of the first cross layer see hidden states come and go."""
    config = compose(overrides_of(case))
    model, load = VideoMllamaConfig.from_dict(config.model), PackLoad.of_samples(case["samples"])
    shape = LayerShape(model, config.parallel, 2, config.modules != "torch", config.precision.fp8)
    moved = Gradients.of(model, config.stage).moved
    kept = case["ranks"][0]["kept_by_layer"]
    expected = {
        "self": activations.self_layer(shape, load.rows, Trains(True, "text" in moved), load.samples),
        "cross": activations.cross_layer(shape, load.rows, load.frames, Trains(True, "cross_layers" in moved)),
    }
    for kind, counted in expected.items():
        # A later pipeline stage may have no cross layer here; over context ranks one keeps queries of other ranks as well.
        if kind in kept and (kind == "self" or (config.parallel.pipeline == 1 and config.parallel.context == 1)):
            assert sorted(kept[kind])[len(kept[kind]) // 2] == pytest.approx(counted, rel=0.01), kind


layouts = st.builds(
    ParallelConfig,
    tensor=st.sampled_from([1, 2, 4, 8]),
    pipeline=st.sampled_from([1, 2, 4]),
    context=st.sampled_from([1, 2]),
    recompute=st.sampled_from(["none", "full"]),
)
loads = st.builds(
    PackLoad, rows=st.sampled_from([2048, 8192]), frames=st.integers(0, 256), targets=st.integers(1, 2048),
    micro_batches=st.integers(1, 16),
)  # fmt: skip
STAGE = {name: compose([f"stage={name}"]) for name in ("pt1", "pt2", "warm_text")}


def run_of(name: str, parallel: ParallelConfig) -> RunConfig:
    return dataclasses.replace(STAGE[name], parallel=parallel)


def ranks_of(parallel: ParallelConfig, data: int) -> int:
    return parallel.tensor * parallel.pipeline * parallel.context * data


@settings(max_examples=40, deadline=None)
@given(layouts, loads, st.sampled_from(sorted(STAGE)), st.sampled_from([2, 4, 16]))
def test_more_replicas_never_need_more_memory_of_a_rank(parallel: ParallelConfig, load: PackLoad, name: str, data: int) -> None:
    few, many = (plan_memory(run_of(name, parallel), ranks_of(parallel, n), load) for n in (data, 2 * data))
    for before, after in zip(few.stages, many.stages, strict=True):
        for phase in before.phases:
            assert after.allocated(phase) <= before.allocated(phase) * 1.0001


@settings(max_examples=40, deadline=None)
@given(layouts, loads, st.sampled_from(sorted(STAGE)))
def test_weights_of_all_ranks_are_at_least_the_model(parallel: ParallelConfig, load: PackLoad, name: str) -> None:
    memory = plan_memory(run_of(name, parallel), ranks_of(parallel, 1), load)
    held = sum(stage.phases["update"]["weights"] for stage in memory.stages) * parallel.tensor
    assert held >= 2 * 10_670_220_835


@given(st.sampled_from([2048, 4096]), st.integers(1, 64), st.booleans())
def test_tensor_parallelism_halves_what_it_splits(rows: int, frames: int, engine: bool) -> None:
    model, trains = VideoMllamaConfig(), Trains(True, True)
    one, two, four = (
        LayerShape(model, ParallelConfig(tensor=n, sequence_parallel=n > 1), 2, engine) for n in (1, 2, 4)
    )  # fmt: skip
    for shape, half in ((one, two), (two, four)):
        whole = activations.self_layer(shape, rows, trains)
        assert activations.self_layer(half, rows, trains) == pytest.approx(whole / 2, rel=1e-6)
        cross = activations.cross_layer(shape, rows, frames, trains)
        assert activations.cross_layer(half, rows, frames, trains) == pytest.approx(cross / 2, rel=1e-6)
    plain = LayerShape(model, ParallelConfig(tensor=2), 2, engine)
    assert activations.self_layer(two, rows, trains) < activations.self_layer(plain, rows, trains)


@settings(max_examples=40, deadline=None)
@given(loads, st.sampled_from([1, 2, 4]))
def test_recompute_keeps_less_of_the_decoder(load: PackLoad, pipeline: int) -> None:
    none, full = (
        plan_memory(run_of("pt2", ParallelConfig(pipeline=pipeline, recompute=how)), pipeline, load).stages[0].phases["losses"]
        for how in ("none", "full")
    )
    assert full["activations"] < none["activations"] and full["weights"] == none["weights"]


@settings(max_examples=30, deadline=None)
@given(loads, st.sampled_from([(1, 1), (2, 1), (2, 2)]))
def test_fewer_recomputed_layers_keep_more(load: PackLoad, sizes: tuple[int, int]) -> None:
    """From all layers again to one of each stage; as many as there are is the same as None."""
    pipeline, virtual = sizes
    micro_batches = -(-load.micro_batches // pipeline) * pipeline
    load = dataclasses.replace(load, micro_batches=micro_batches, frames=max(1, load.frames))  # without one cross layers rest

    def planned(layers: int | None, how: str = "full") -> dict[str, dict[str, int]]:
        parallel = ParallelConfig(pipeline=pipeline, virtual_pipeline=virtual, recompute=how, recompute_layers=layers)
        return plan_memory(run_of("pt2", parallel), pipeline, load).stages[0].phases

    most = 40 // (pipeline * virtual)
    kept = [planned(layers)["losses"]["activations"] for layers in (*range(most, 0, -1),)]
    assert planned(None) == planned(most) == planned(99)
    kept.append(planned(None, "none")["losses"]["activations"])
    assert all(less < more for less, more in itertools.pairwise(kept))
    # What a layer that is computed again holds for a moment is held by layers behind it that keep theirs.
    moments = [planned(layers)["backward"]["layer's backward pass"] for layers in (most, most // 2)]
    assert moments[0] > moments[1] == planned(None, "none")["backward"]["layer's backward pass"]


def simulated(stage: int, stages: int, virtual: int, micro_batches: int) -> int:
    """Most pieces of micro-batches in flight in megatron-core's interleaved order."""
    order = get_schedule_table(micro_batches, virtual, stages)
    ahead = min(2 * (stages - stage - 1) + (virtual - 1) * stages, len(order))
    held = most = 0
    for i in range(len(order)):
        held += 1
        most = max(most, held)
        held -= i >= ahead  # from then on every forward pass is followed by a backward pass
    return most


@given(st.integers(2, 8), st.integers(2, 4), st.integers(1, 6), st.data())
def test_micro_batches_in_flight_are_those_of_the_schedule(stages: int, virtual: int, groups: int, data: st.DataObject) -> None:
    stage = data.draw(st.integers(0, stages - 1))
    counted = sum(in_flight(stage, stages, piece, virtual, groups * stages) for piece in range(virtual))
    assert counted == simulated(stage, stages, virtual, groups * stages)
    assert in_flight(stage, stages, 0, 1, groups) == min(stages - stage, groups)


def test_a_layout_that_does_not_fit_the_ranks_is_refused() -> None:
    config = run_of("pt2", ParallelConfig(tensor=4))
    with pytest.raises(InputError, match=r"does not divide the 6 ranks"):
        plan_memory(config, 6)
    assert check_sizes(config.parallel, 8) == 2

"""Parameters that a plan counts are those of the real modules, in every layout."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.config import VideoMllamaConfig
from model.conversion.table import hf_shapes
from moss_train.config.compose import compose
from moss_train.config.schema import LoraConfig, ParallelConfig, StageConfig
from moss_train.planning.parameters import (
    added,
    model_parameters,
    pipeline_stages,
    stage_parameters,
    trained_parameters,
)
from tests.ranks import RunRanks

FULL = VideoMllamaConfig()
layouts = st.builds(
    ParallelConfig, tensor=st.sampled_from([1, 2, 4, 8]), pipeline=st.sampled_from([2, 4, 8]), virtual_pipeline=st.integers(1, 5)
)


def test_the_11b_model_has_the_published_number_of_parameters() -> None:
    assert model_parameters(FULL).total == 10_670_220_835
    assert model_parameters(FULL).vision == 863_567_379 + 31_461_376


@pytest.mark.parametrize("model", ["tiny", "small", "90b"])
def test_all_tensors_of_every_size_are_counted(model: str) -> None:
    config = VideoMllamaConfig.from_dict(compose([f"model={model}", "stage=pt1"]).model)
    total = 0
    for shape in hf_shapes(config).values():
        elements = 1
        for size in shape:
            elements *= size
        total += elements
    padding = -(-config.text.vocab_size // 8) * 8 - config.text.vocab_size
    padded = padding + -(-config.text.embedding_rows // 8) * 8 - config.text.embedding_rows
    assert model_parameters(config).total == total + padded * config.text.hidden_size


@given(layouts)
def test_ranks_hold_the_model_and_what_is_not_split_on_top(parallel: ParallelConfig) -> None:
    whole = model_parameters(FULL)
    stages = pipeline_stages(FULL, parallel)
    held = added(stage_parameters(FULL, stage, parallel.tensor) for stage in stages)
    assert parallel.tensor * held.decoder >= whole.decoder
    assert held.vision == parallel.pipeline * whole.vision
    small = whole.text - 32 * 218_103_808 + whole.cross_layers - 8 * 218_103_808  # norms and gates
    assert parallel.tensor * held.decoder == whole.decoder + (parallel.tensor - 1) * small
    assert sum(stage.selfs for stage in stages) == 32 and sum(stage.crosses for stage in stages) == 8


@given(layouts, st.integers(1, 64))
def test_adapters_are_few_and_never_fewer_than_their_matrices_need(parallel: ParallelConfig, rank: int) -> None:
    lora = LoraConfig(rank=rank)
    training = StageConfig(name="x", trainable="all")
    stages = pipeline_stages(FULL, parallel)
    parts = [trained_parameters(FULL, stage, parallel.tensor, training, lora) for stage in stages]
    assert all(trained.total == 0 for trained, _ in parts)
    alone = trained_parameters(FULL, pipeline_stages(FULL, ParallelConfig())[0], 1, training, lora)[1].total
    assert alone <= parallel.tensor * added(adapters for _, adapters in parts).total <= parallel.tensor * alone


@pytest.mark.ranks
def test_real_modules_of_two_ranks_have_what_is_counted(run_ranks: RunRanks) -> None:
    names = ("tp2", "tp2.sp", "pp2", "pp2.vpp2")
    output = run_ranks("tests.moss_train.planning.parameters_ranks", 2, *names)
    assert all(f"{name} agrees" in output for name in names)

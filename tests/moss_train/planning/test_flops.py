"""Operations of a step: against published figures, by the rule, and against what torch counts on a real model."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from model.config import VideoMllamaConfig
from model.freeze import PRESETS, apply_preset
from model.lora.spec import PARTS
from model.vision.encoder import VisionEncoder
from model.vocabulary import padded_rows
from moss_train.config.schema import LoraConfig, StageConfig
from moss_train.planning.flops import (
    PEAK,
    TARGETS,
    TRAINED_PARTS,
    Flops,
    Gradients,
    Work,
    forward_flops,
    gpu_of,
    hardware_flops,
    model_flops,
)  # fmt: skip
from tests.model.conftest import BuildDecoder
from tests.model.small import lively_weights, packed_rows, random_states, small_config

FULL = VideoMllamaConfig()
works = st.builds(Work, *[st.integers(0, 10_000)] * 4)


def stage(trainable: str = "all", **values: str) -> StageConfig:
    return StageConfig(name="x", trainable=trainable, **values)  # type: ignore[arg-type]


def test_a_frame_and_a_row_of_the_11b_model_cost_what_is_published() -> None:
    one = forward_flops(FULL, Work(rows=0, frames=1))
    assert one.vision + one.projector == pytest.approx(3.07e12, rel=2e-3)
    assert one.projector == pytest.approx(6.4e9, rel=1e-2)
    assert one.cross == pytest.approx(13.6e9, rel=1e-2)
    row = forward_flops(FULL, Work(rows=1, cross_rows=1))
    assert row.total == pytest.approx(18.4e9, rel=2e-3)
    scores = forward_flops(FULL, Work(rows=0, cross_pairs=256)).cross
    assert scores == pytest.approx(3.39e9, rel=1e-2)


def test_the_trained_parts_are_those_of_the_freezing_rule_and_of_the_adapters() -> None:
    assert TRAINED_PARTS == PRESETS
    for target, parts in PARTS.items():
        assert {part for part, targets in TARGETS.items() if target in targets} == set(parts)


def test_passes_by_what_trains() -> None:
    work = Work(rows=1000, frames=10, self_pairs=0, cross_pairs=0)
    forward = forward_flops(FULL, work)
    everything = model_flops(FULL, work, stage("all"))
    assert everything.total == pytest.approx(3 * forward.total)
    projector = model_flops(FULL, work, stage("projector_only"))
    assert projector.vision == forward.vision and projector.head == 2 * forward.head
    assert projector.text == pytest.approx(forward.text * (2 - 3 / 32))  # three self layers lie below the first cross layer
    assert projector.cross == pytest.approx(2 * forward.cross)
    text = model_flops(FULL, work, stage("text_only"))
    assert text.vision == forward.vision and text.text == pytest.approx(3 * forward.text)
    dense = model_flops(FULL, work, stage("vision_tower", objective="dense_labels"))
    assert dense == Flops(vision=3 * forward.vision)


@given(works, works, st.sampled_from(sorted(PRESETS)))
def test_operations_add_up_over_the_parts_of_a_step(first: Work, second: Work, trainable: str) -> None:
    both = model_flops(FULL, first + second, stage(trainable))
    apart = model_flops(FULL, first, stage(trainable)) + model_flops(FULL, second, stage(trainable))
    assert both.total == pytest.approx(apart.total)
    assert both.total >= forward_flops(FULL, first + second).total


@given(works, st.sampled_from(sorted(PRESETS)))
def test_recomputing_never_costs_less_and_is_no_work_of_the_model(work: Work, trainable: str) -> None:
    plain = hardware_flops(FULL, work, stage(trainable))
    assert plain == model_flops(FULL, work, stage(trainable))
    again = hardware_flops(FULL, work, stage(trainable), recompute="full", frames_again=3)
    assert again.text >= plain.text and again.vision > plain.vision and again.head == plain.head
    all_layers = hardware_flops(FULL, work, stage(trainable), recompute="full")
    assert all_layers == hardware_flops(FULL, work, stage(trainable), recompute="full", layers_again=range(40))
    some = hardware_flops(FULL, work, stage(trainable), recompute="full", layers_again=range(10))
    forward, crosses = forward_flops(FULL, work), sum(i < 10 for i in FULL.text.cross_attention_layers)
    assert all_layers.text - some.text == pytest.approx(forward.text * (1 - (10 - crosses) / 32), rel=1e-9, abs=1)
    assert all_layers.cross - some.cross == pytest.approx(forward.cross * (1 - crosses / 8), rel=1e-9, abs=1)


def test_adapters_cost_a_little_more_than_the_frozen_model() -> None:
    work = Work(rows=4096, frames=16, self_pairs=4096 * 2048, cross_pairs=4096 * 8)
    lora = LoraConfig(rank=16, targets=sorted({t for targets in TARGETS.values() for t in targets}))
    adapted, full = model_flops(FULL, work, stage("all"), lora), model_flops(FULL, work, stage("all"))
    for part in ("vision", "text", "cross"):
        assert 0.6 < getattr(adapted, part) / getattr(full, part) < 0.8
    assert Gradients.of(FULL, stage("all"), LoraConfig(rank=4, targets=["cross_q"])).entry == 3


def _counted(run: object) -> int:
    counter = FlopCounterMode(display=False)
    with sdpa_kernel(SDPBackend.MATH), counter:
        run()  # type: ignore[operator]
    return counter.get_total_flops()


@pytest.mark.parametrize("trainable", ["all", "projector_only", "text_only", "vision+projector+xattn"])
def test_the_decoder_does_the_operations_that_are_counted(build_decoder: BuildDecoder, trainable: str) -> None:
    """Attention in plain products, which compute whole squares."""
    config = small_config()
    decoder = build_decoder(config, lively_weights(config, 3))
    encoder: nn.Module = VisionEncoder(config)
    apply_preset(trainable, [decoder], encoder)
    rows = packed_rows(config, [(40, [0])], 3)
    states = random_states(config, 1, 3)
    needs = Gradients.of(config, stage(trainable)).features

    def run() -> None:
        decoder(rows, states.clone().requires_grad_(needs)).sum().backward()

    targets = int((rows.targets != -100).sum())  # type: ignore[operator]
    work = Work(rows=40, frames=1, self_pairs=40 * 40, cross_pairs=40, head_rows=targets)
    counted, model = _counted(run), model_flops(config, work, stage(trainable)).decoder
    head = 2 * targets * config.text.hidden_size * (padded_rows(config.text.vocab_size, 1) - config.text.vocab_size)
    head *= 3 if trainable in ("all", "text_only") else 2
    entry = 0.0
    if trainable == "projector_only":  # the rule counts what the lowest cross layer does not need: gradients of queries and rows
        entry = 2.0 * 40 * config.text.hidden_size * (config.text.hidden_size + config.vision.tokens_per_frame)
    assert counted == model + head - entry


def test_the_tower_does_the_operations_that_are_counted() -> None:
    config = small_config()
    encoder = VisionEncoder(config)
    frames, ids = torch.zeros(3, 3, 32, 32), torch.ones(3, dtype=torch.int64)
    forward = forward_flops(config, Work(rows=0, frames=3))
    with torch.no_grad():
        assert _counted(lambda: encoder(frames, ids)) == pytest.approx(forward.vision + forward.projector, rel=1e-6)


def test_peaks_go_by_the_name_of_the_device() -> None:
    assert gpu_of("NVIDIA H200") is PEAK["H200"] and gpu_of("NVIDIA A100-SXM4-80GB") is PEAK["A100"]
    assert gpu_of("NVIDIA H100 80GB HBM3") is PEAK["H100"]
    assert gpu_of("NVIDIA H100 PCIe") is None and gpu_of("Tesla T4") is None
    assert PEAK["A100"].peak(fp8=True) == PEAK["A100"].bf16 < PEAK["H100"].peak(fp8=True)


def test_importing_the_table_loads_no_torch() -> None:
    code = "import sys, moss_train.planning.flops, moss_train.config.schema; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0

"""What a frame costs by keep level: bytes of the fused layer's passes as they are allocated, operations and seconds."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from model.config import TextConfig, VideoMllamaConfig, VisionConfig
from model.vision.encoder import VisionEncoder
from model.vision.fused.fp8_products import Fp8Products
from model.vision.fused.layer import fused_layer
from model.vision.fused.levels import KEPT, use_layers
from model.vision.fused.products import PLAIN, Products
from model.vision.layers import VisionLayer
from moss_train.config.compose import compose
from moss_train.frames.activations import activation_bytes
from moss_train.frames.cost import AGAIN, again_flops, again_share, frame_flops
from moss_train.frames.host_memory import ON_THE_WAY
from moss_train.frames.kept import keeping
from moss_train.planning import activations
from moss_train.planning.flops import PEAK, Work
from moss_train.planning.hardware import Cluster
from moss_train.planning.memory import PackLoad, StageMemory, plan_memory
from moss_train.planning.rates import read_table
from moss_train.planning.step_time import step_flops, step_time
from moss_train.planning.tower import FrameSeconds, KeptFrames
from tests.moss_train.planning.live import watched

FULL = VideoMllamaConfig()
PT2 = compose(["stage=pt2", "run_dir=unused"])
FRAMES = 4


def _model(width: int, inner: int) -> VideoMllamaConfig:
    vision = VisionConfig(hidden_size=width, num_attention_heads=4, intermediate_size=inner, image_size=224)
    return dataclasses.replace(VideoMllamaConfig(), vision=vision)


@pytest.mark.parametrize("products", [PLAIN, Fp8Products()], ids=["bf16", "fp8"])
@pytest.mark.parametrize("gated", [False, True])
@pytest.mark.parametrize(("width", "inner"), [(256, 1024), (160, 800)])
@pytest.mark.parametrize("level", KEPT)
def test_passes_of_a_fused_layer_hold_what_is_counted(
    level: str, width: int, inner: int, gated: bool, products: Products
) -> None:
    torch.manual_seed(0)
    model, fp8 = _model(width, inner), products is not PLAIN
    layers = [VisionLayer(model.vision, gated).bfloat16() for _ in range(2)]
    for parameter in (parameter for layer in layers for parameter in layer.parameters()):
        parameter.main_grad = torch.zeros_like(parameter, dtype=torch.float32)  # type: ignore[attr-defined]
    tokens = model.vision.num_padded_positions
    x = torch.randn(FRAMES, tokens, width, dtype=torch.bfloat16, requires_grad=True)
    gradient = torch.randn(FRAMES, tokens, width, dtype=torch.bfloat16)
    with watched(layers, products) as live:
        between = fused_layer(layers[0], x, level)
        output = fused_layer(layers[1], between, level)
        forward, kept = live.most, live.now() - output.untyped_storage().nbytes()
        del between
        live.most = 0
        output.backward(gradient)
    state = x.untyped_storage().nbytes()
    slack = 0.01 * forward + 2 * 3 * width**2 * 2  # queries', keys' and values' weights as one matrix
    first = (kept - state) / 2  # what a layer keeps beside its entry, which for the second is the first's result
    assert forward == pytest.approx(first + state + FRAMES * activations.fused_forward(model, 2, fp8), abs=slack)
    counted = FRAMES * activations.fused_backward(model, 2, level, fp8) - state  # the gradient came from outside
    assert live.most - kept - state == pytest.approx(counted, abs=slack)


@pytest.mark.parametrize("level", KEPT)
@pytest.mark.parametrize("fp8", [False, True])
def test_passes_of_the_tower_hold_what_is_counted(level: str, fp8: bool) -> None:
    torch.manual_seed(0)
    vision = VisionConfig(
        hidden_size=128, num_attention_heads=4, intermediate_size=512, image_size=224, num_hidden_layers=4, num_global_layers=2,
        intermediate_layers_indices=(1, 3),
    )  # fmt: skip
    model = VideoMllamaConfig(vision=vision, text=TextConfig(hidden_size=64, num_attention_heads=4, num_key_value_heads=2))
    encoder = VisionEncoder(model).bfloat16()
    use_layers(encoder, "fused")
    for parameter in encoder.parameters():
        parameter.main_grad = torch.zeros_like(parameter, dtype=torch.float32)  # type: ignore[attr-defined]
    layers = [layer for layer in encoder.modules() if isinstance(layer, VisionLayer)]
    frames = torch.randint(0, 256, (FRAMES, 3, 224, 224), dtype=torch.uint8)
    arguments = (frames, torch.ones(FRAMES, dtype=torch.int64))
    products = Fp8Products() if fp8 else PLAIN
    with watched(layers, products) as live, torch.no_grad():
        encoder.pooled(*arguments)
    counted = FRAMES * (activations.frame_encoding(model, 2, True, fp8)) - frames.nbytes
    assert live.most == pytest.approx(counted, rel=0.03)
    with watched(layers, products) as live, keeping(encoder, level):
        output = encoder.project_pooled(encoder.pooled(*arguments))
        forward = live.most
        state = FRAMES * activation_bytes(vision, 2, level, fused=True)
        live.most = 0
        output.sum().backward()
    counted = state + FRAMES * activations.frame_keeping(model, 2, level, True, fp8) - frames.nbytes
    assert forward == pytest.approx(counted, rel=0.04)
    assert live.most == pytest.approx(state + FRAMES * activations.frame_return(model, 2, level, True, fp8), rel=0.04)


def seconds(layers: str = "auto", **precision: object) -> FrameSeconds:
    config = dataclasses.replace(
        PT2, precision=dataclasses.replace(PT2.precision, **precision), vision=dataclasses.replace(PT2.vision, layers=layers)
    )
    return FrameSeconds.of(config, FULL, PEAK["H100"], read_table()["H100"].rates)


def test_a_level_that_computes_less_again_takes_less_time_and_more_memory() -> None:
    levels = list(AGAIN)
    assert levels == list(KEPT)
    flops = [again_flops(FULL.vision, level) for level in levels]
    times = [seconds().again[level] for level in levels]
    working = [activations.fused_backward(FULL, 2, level) for level in levels]
    assert flops == sorted(flops, reverse=True) and times == sorted(times, reverse=True) and flops[-1] == times[-1] == 0
    assert working == sorted(working, reverse=True)  # what is not kept is there for a moment
    assert all(flop < frame_flops(FULL) for flop in flops)


def test_states_in_host_memory_take_operations_and_no_memory_of_the_gpu() -> None:
    def planned(gib: float) -> tuple[StageMemory, KeptFrames, float, float]:
        words = ["vision.keep_mode=input", "vision.keep_activations_gib=5", f"vision.keep_host_gib={gib}"]
        config = compose(["stage=pt2", "run_dir=unused", *words])
        load = PackLoad(rows=4096, frames=128, targets=1024)
        work = Work(rows=4096, frames=128, cross_rows=4096)
        kept = KeptFrames.of(config, 128)
        done = step_flops(config, work, kept, 1)[1].vision
        seconds = step_time(config, 1, work, Cluster.of("H200"), 1)
        return plan_memory(config, 1, load).worst, kept, done, seconds.back

    (before, none, much, long), (after, some, little, short) = planned(0), planned(20)
    assert none.host_share == 0 and before.host == 0
    frames = round(some.host_share * 128)
    assert frames > 30 and frames + round(some.share * 128) <= 128
    assert after.host == frames * activation_bytes(FULL.vision, 2, some.host_level, fused=True) <= 20 * 2**30
    assert little < much and short < long
    assert after.peak <= before.peak + ON_THE_WAY
    again = frames * (1 - again_share(FULL.vision, some.host_level)) * frame_flops(FULL)
    assert some.share == none.share and much - little == pytest.approx(again, rel=0.02)


@settings(max_examples=30, deadline=None)
@given(st.sampled_from(list(AGAIN)), st.booleans(), st.sampled_from(["bf16", "fp32"]))
def test_what_runs_again_is_a_part_of_a_forward_pass(level: str, fp8: bool, dtype: str) -> None:
    frame = seconds(dtype=dtype, fp8_vision=fp8 and dtype == "bf16")
    assert 0 <= frame.again[level] < frame.forward
    assert frame.again["input"] - frame.again["attention"] > 0  # attention itself


def test_attention_takes_longer_than_its_operations_say_and_a_second_run_by_as_much() -> None:
    """Layers of torch's modules have no weight of their own for it."""
    fused, frame = seconds(), seconds("torch")
    shares = {level: fused.again[level] / fused.forward for level in AGAIN}
    assert shares["input"] > again_flops(FULL.vision, "input") / frame_flops(FULL)
    assert shares["attention"] < again_flops(FULL.vision, "attention") / frame_flops(FULL)
    for level in AGAIN:
        assert frame.again[level] / frame.forward == pytest.approx(again_flops(FULL.vision, level) / frame_flops(FULL))

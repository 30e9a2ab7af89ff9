"""Predicted cost of encoding, and settings that follow from sizes."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.config import VideoMllamaConfig
from model.errors import InputError
from model.vision.fused.levels import KEPT, TORCH_LEVELS
from moss_train.config.schema import VisionStepConfig
from moss_train.frames.activations import activation_bytes
from moss_train.frames.assignment import assign_frames
from moss_train.frames.cost import BACKWARD, FrameCost, again_flops, again_share, copy_share, frame_flops, rank_cost
from moss_train.frames.settings import EncodeSettings, Kept

CONFIG = VideoMllamaConfig()


def test_operations_at_full_size() -> None:
    assert frame_flops(CONFIG) == pytest.approx(3.07e12, rel=2e-3)


def test_cost_of_kept_and_other_frames() -> None:
    plain = FrameCost.of(CONFIG, "tower")
    assert plain.rank(10) == pytest.approx(10 * (1 + BACKWARD))
    assert plain.rank(10, keep=4) == pytest.approx(10 * (1 + BACKWARD) + 6)
    attention = FrameCost.of(CONFIG, "tower", "attention")
    assert plain.rank(10) < attention.rank(10) < plain.rank(10, keep=0)
    assert attention.rank(10) - plain.rank(10) == pytest.approx(5.5, rel=0.01), "55 % of a forward pass is run again"
    assert FrameCost.of(CONFIG, "projector").rank(10) == 10


@given(
    st.lists(st.integers(0, 30), min_size=1, max_size=5),
    st.integers(1, 3),
    st.integers(-1, 9),
    st.sampled_from(["all", "attention"]),
)
def test_no_assignment_has_a_cheaper_busiest_rank(frames: list[int], size: int, keep: int, mode: str) -> None:
    cost = FrameCost.of(CONFIG, "tower", mode)
    members = [list(range(r * size, (r + 1) * size)) for r in range(len(frames))]
    loads = [0] * (size * len(frames))
    for span in assign_frames(frames, members):
        loads[span.rank] += span.size
    some_rank_has_at_least = -(-sum(frames) // len(loads))
    assert max(cost.rank(load, keep) for load in loads) == cost.rank(some_rank_has_at_least, keep)


@given(st.lists(st.integers(0, 9), min_size=2, max_size=6), st.lists(st.integers(0, 20), min_size=2, max_size=2))
def test_ranks_that_had_more_get_less(before: list[int], frames: list[int]) -> None:
    half = len(before) // 2
    members = [list(range(half)), list(range(half, 2 * half))]
    loads = before[: 2 * half]
    for span in assign_frames(frames, members, before):
        loads[span.rank] += span.size
    given_something = [load for load, old in zip(loads, before, strict=False) if load > old]
    assert sum(loads) == sum(before[: 2 * half]) + sum(frames)
    assert not given_something or max(given_something) - min(loads) <= 1


def test_gibibytes_become_frames() -> None:
    def keep(gib: float, mode: str = "all", size: int = 2, layers: str = "torch") -> int:
        config = VisionStepConfig(keep_activations_gib=gib, keep_mode=mode, layers=layers)
        return EncodeSettings.of(config, CONFIG.vision, size, pad_tokens=True).keep_frames

    assert (keep(-1), keep(0), keep(20), keep(20, "attention"), keep(20, size=4)) == (-1, 0, 7, 61, 3)
    fused = [keep(20, mode, layers="auto") for mode in KEPT]
    assert fused == [118, 61, 41, 21, 12]
    assert EncodeSettings.of(VisionStepConfig(window_gib=0.5), CONFIG.vision, 2, True).window_bytes == 2**29


@given(st.integers(0, 400), st.sampled_from([-1.0, 0.0, 0.3, 5.0, 20.0, 90.0]), st.sampled_from(["torch", "fused"]))
def test_auto_computes_least_again(frames: int, gib: float, layers: str) -> None:
    def settings(mode: str) -> EncodeSettings:
        config = VisionStepConfig(keep_activations_gib=gib, keep_mode=mode, layers=layers)
        return EncodeSettings.of(config, CONFIG.vision, 2, pad_tokens=True)

    auto = settings("auto")
    kept = auto.kept(frames)
    costs = {mode: rank_cost(CONFIG, "tower", settings(mode), frames) for mode in (KEPT if layers == "fused" else TORCH_LEVELS)}
    assert rank_cost(CONFIG, "tower", auto, frames) == pytest.approx(min(costs.values())) == pytest.approx(costs[kept.mode])
    per_frame = activation_bytes(CONFIG.vision, 2, kept.mode, fused=layers == "fused")
    assert kept.frames <= frames and (gib < 0 or kept.frames * per_frame <= gib * 2**30)
    assert gib >= 0 or kept == Kept("all", frames)


@pytest.mark.parametrize(
    ("gib", "layers", "frames"),
    [
        (20, "fused", 12),
        (0, "fused", 12),
        (-1, "fused", 12),
        (40, "fused", 25),
        (90, "fused", 32),
        (20, "torch", 8),
        (50, "torch", 19),
    ],
)
def test_frames_encoded_again_at_once_take_the_memory_of_what_was_kept(gib: float, layers: str, frames: int) -> None:
    config = VisionStepConfig(keep_activations_gib=gib, layers=layers)
    assert EncodeSettings.of(config, CONFIG.vision, 2, pad_tokens=True).again_chunk == frames
    told = dataclasses.replace(config, again_chunk_frames=5)
    assert EncodeSettings.of(told, CONFIG.vision, 2, pad_tokens=True).again_chunk == 5


def test_auto_keeps_less_of_more_frames() -> None:
    settings = EncodeSettings.of(VisionStepConfig(layers="fused"), CONFIG.vision, 2, pad_tokens=True)
    found = [settings.kept(frames) for frames in (8, 20, 40, 59, 300)]
    assert found == [Kept("all", 8), Kept("most", 20), Kept("middle", 40), Kept("attention", 59), Kept("input", 118)]


@given(
    st.integers(0, 400), st.sampled_from([0.0, 5.0, 20.0]), st.sampled_from([0.0, 10.0, 60.0, 300.0]),
    st.sampled_from(["torch", "fused"]),
)  # fmt: skip
def test_host_memory_leaves_less_to_be_computed_again(frames: int, gib: float, host_gib: float, layers: str) -> None:
    def settings(**more: Any) -> EncodeSettings:
        config = VisionStepConfig(keep_activations_gib=gib, layers=layers, **more)
        return EncodeSettings.of(config, CONFIG.vision, 2, pad_tokens=True)

    without, auto = settings(), settings(keep_host_gib=host_gib)
    kept = auto.kept(frames)
    assert rank_cost(CONFIG, "tower", auto, frames) <= rank_cost(CONFIG, "tower", without, frames) + 1e-6
    assert rank_cost(CONFIG, "tower", auto, frames) <= rank_cost(CONFIG, "tower", auto, frames + 1)
    assert kept.frames + kept.host <= frames
    a_frame = activation_bytes(CONFIG.vision, 2, kept.host_mode, fused=layers == "fused")
    assert kept.host * a_frame <= host_gib * 2**30
    assert kept.host * copy_share(CONFIG.vision, a_frame) <= frames, "copies take no longer than encoding"
    least = settings(keep_host_gib=host_gib, keep_host_mode="input").kept(frames)
    assert least.host == min(frames - least.frames, int(host_gib * 2**30 / activation_bytes(CONFIG.vision, 2, "input")))


def test_host_memory_of_a_full_gpu() -> None:
    config = VisionStepConfig(keep_activations_gib=14.43, keep_host_gib=64, layers="fused")
    kept = EncodeSettings.of(config, CONFIG.vision, 2, pad_tokens=True).kept(256)
    assert kept == Kept("input", 85, "attention", 171)
    assert kept.frame_bytes == activation_bytes(CONFIG.vision, 2, "input", fused=True)


def test_products_that_run_again() -> None:
    vision = CONFIG.vision
    shares = [again_share(vision, level) for level in KEPT]
    assert shares == sorted(shares, reverse=True) and shares[-1] == 0
    assert shares[0] == pytest.approx(1 - 0.275, abs=0.01), "all but fc2"
    assert again_flops(vision, "attention", fused=False) == again_flops(vision, "middle", fused=False)
    assert again_flops(vision, "most") == pytest.approx(40 * 2 * 1608 * 1280 * 5120)


@pytest.mark.parametrize("mode", ["middle", "most"])
def test_levels_of_fused_layers_are_refused_for_others(mode: str) -> None:
    with pytest.raises(InputError, match=f"vision.keep_mode is {mode} with vision.layers torch.*use vision.keep_mode=attention"):
        VisionStepConfig(layers="torch", keep_mode=mode)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"keep_activations_gib": -0.5}, "vision.keep_activations_gib is -0.5"),
        ({"keep_host_gib": -1}, "vision.keep_host_gib is -1; use 0 for none, or GiB"),
        ({"keep_host_gib": float("inf")}, "vision.keep_host_gib is inf"),
        ({"keep_host_mode": "some"}, "vision.keep_host_mode is 'some'"),
        ({"keep_host_mode": "attention", "layers": "torch"}, "vision.keep_host_mode is attention with vision.layers torch"),
        ({"keep_activations_gib": math.inf}, "vision.keep_activations_gib is inf; use -1 for all"),
        ({"keep_activations_gib": math.nan}, "vision.keep_activations_gib is nan"),
        ({"window_gib": 0.0}, "vision.window_gib is 0.0"),
        ({"keep_mode": "some"}, "vision.keep_mode is 'some'"),
        ({"again_chunk_frames": -1}, "vision.again_chunk_frames is -1"),
        ({"layers": "fast"}, "vision.layers is 'fast'"),
    ],
)
def test_settings_that_cannot_be(values: dict[str, float], words: str) -> None:
    with pytest.raises(InputError) as caught:
        VisionStepConfig(**values)  # type: ignore[arg-type]
    assert words in str(caught.value)

"""The chip's limits, against figures worked out by hand and against the checkpoint's own list of tensors."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from inference.benchmark import roofline
from inference.benchmark.models import MODELS, valid_patch_rows
from inference.benchmark.roofline import H200
from inference.model.load import text_shapes
from model.config import TextConfig, VideoMllamaConfig, VisionConfig
from model.vision.encoder import VisionEncoder

FULL = VideoMllamaConfig()


def _counted(config: VideoMllamaConfig) -> tuple[int, int]:
    """Weights of the tower and of all, added up tensor by tensor."""
    with torch.device("meta"):
        vision = {name: value.numel() for name, value in VisionEncoder(config).state_dict().items()}
    tower = sum(count for name, count in vision.items() if name.startswith("vision_model."))
    text = sum(torch.Size(shape).numel() for shape in text_shapes(config).values())
    return tower, sum(vision.values()) + text


@given(
    width=st.sampled_from([16, 48]),
    layers=st.integers(2, 4),
    global_layers=st.integers(1, 3),
    hidden=st.sampled_from([32, 64]),
    kv_heads=st.sampled_from([1, 2, 4]),
    inner=st.integers(8, 40),
    cross=st.sets(st.integers(0, 4), min_size=1, max_size=4),
)
def test_parameters_are_those_of_the_tensors(
    width: int, layers: int, global_layers: int, hidden: int, kv_heads: int, inner: int, cross: set[int]
) -> None:
    config = VideoMllamaConfig(
        vision=VisionConfig(
            hidden_size=width,
            num_attention_heads=2,
            num_hidden_layers=layers,
            num_global_layers=global_layers,
            intermediate_size=inner,
            image_size=32,
            patch_size=8,
            intermediate_layers_indices=(1,),
            pool_stride=2,
        ),
        text=TextConfig(
            vocab_size=50,
            hidden_size=hidden,
            num_hidden_layers=5,
            cross_attention_layers=tuple(sorted(cross)),
            num_attention_heads=4,
            num_key_value_heads=kv_heads,
            intermediate_size=inner,
        ),
    )
    found = roofline.parameters(config)
    assert (found.vision, found.total) == _counted(config)


def test_parameters_of_the_11b_model() -> None:
    found = roofline.parameters(FULL)
    assert (found.vision, found.total) == (863_567_379, 10_670_220_835) == _counted(FULL)
    assert (found.self_layer, found.cross_layer, found.projector) == (218_112_000, 218_112_258, 31_461_376)
    assert found.decoding == 32 * 218_112_000 + 8 * (218_112_258 - 2 * 4096 * 1024) + 128_256 * 4096
    assert found.decoding == pytest.approx(9.182e9, rel=1e-4)


def test_operations_of_a_frame_and_of_an_answer() -> None:
    linear, attention = roofline.tower_parts(FULL)
    assert (roofline.padded_tokens(FULL), roofline.padded_tokens(FULL, 23)) == (1608, 928)
    assert linear == pytest.approx(2.532e12, rel=1e-3) and attention == pytest.approx(0.530e12, rel=1e-3)
    assert roofline.tower_flops(FULL) == pytest.approx(3.061e12, rel=1e-3)
    assert roofline.tower_flops(FULL, valid_patch_rows(FULL)) == pytest.approx(1.637e12, rel=1e-3)
    smaller = dataclasses.replace(FULL, vision=VisionConfig(image_size=448))
    assert roofline.tower_flops(smaller) == pytest.approx(1.843e12, rel=1e-3)
    assert roofline.projector_flops(FULL) == pytest.approx(6.35e9, rel=1e-3)
    assert roofline.cross_key_value_flops(FULL) == pytest.approx(13.56e9, rel=1e-3)
    for rows, expected in ((64, 1.33e12), (320, 6.65e12), (576, 12.0e12)):
        assert roofline.prefill_flops(FULL, rows, 256) == pytest.approx(expected, rel=5e-3)
    assert roofline.answer_flops(FULL, 320, 256) == pytest.approx(795.4e12, rel=1e-3)
    assert roofline.first_token_floor(FULL, H200, 320, 256) == pytest.approx(1.007, abs=1e-3)


def test_stages_add_up_to_the_answer() -> None:
    found = roofline.stages(FULL, H200, 320, 256)
    assert sum(stage["flops"] for stage in found.values()) == pytest.approx(roofline.answer_flops(FULL, 320, 256))
    assert found["tower"]["floor_s"] == pytest.approx(0.992, abs=1e-3)


def test_bytes_of_keys_values_and_weights() -> None:
    assert roofline.cross_bytes_per_frame(FULL) == 8 * 2 * 1024 * 2 * 101 == pytest.approx(3.156 * 2**20, rel=1e-3)
    assert roofline.self_bytes_per_position(FULL) == 131_072
    assert roofline.weight_bytes(FULL) == pytest.approx(18.36e9, rel=1e-3)
    with pytest.raises(ValueError, match="recipe is 'int4'; use one of bf16, fp8"):
        roofline.weight_bytes(FULL, "int4")


@pytest.mark.parametrize(
    ("recipe", "fp8_cross", "gigabytes", "tokens_per_second"),
    [
        ("bf16", False, 19.34, 222),
        ("bf16", True, 18.92, 227),
        ("fp8_self", False, 12.36, 348),
        ("fp8_all", False, 10.16, 423),
        ("fp8_all", True, 9.74, 442),
        ("fp8", False, 2 * 9.18271 - 6.97958 - 8 * 3 * 4096 * 14336 / 1e9 + 0.847 + 0.134, 392),
    ],
)
def test_a_decoding_step_at_256_frames(recipe: str, fp8_cross: bool, gigabytes: float, tokens_per_second: float) -> None:
    found = roofline.decode_bytes(FULL, 256, 1024, recipe=recipe, fp8_cross=fp8_cross)
    assert found / 1e9 == pytest.approx(gigabytes, abs=0.01)
    assert H200.bytes_per_second / found == pytest.approx(tokens_per_second, abs=1)


@pytest.mark.parametrize(("sessions", "milliseconds"), [(1, 4.38), (4, 4.70), (8, 5.13), (16, 5.99), (32, 7.70)])
def test_a_step_of_many_sessions(sessions: int, milliseconds: float) -> None:
    assert roofline.decode_floor(FULL, H200, 60, 2000, sessions=sessions) == pytest.approx(milliseconds / 1000, abs=1e-5)


@pytest.mark.parametrize(("frames", "milliseconds"), [(900, 5.02), (3600, 7.26), (10800, 13.24), (21600, 22.21)])
def test_a_step_of_a_long_stream(frames: int, milliseconds: float) -> None:
    assert roofline.decode_floor(FULL, H200, frames, 2 * frames) == pytest.approx(milliseconds / 1000, abs=2e-5)


def test_floors_of_the_tables_other_rows() -> None:
    assert roofline.stream_floor(FULL, H200, 256, 1024) == pytest.approx(8.4e-3, abs=1e-4)
    assert roofline.end_to_end_floor(FULL, H200, 320, 256, 256) == pytest.approx(1.007 + 255 * 4.48e-3, abs=0.01)
    # 928 of 1,608 rows: 256 x 1.461 TF of products at 1,212, 256 x 0.1764 TF of attention and 11.75 TF of the rest at 790
    assert roofline.fast_floor(FULL, H200, 320, 256, 23) == pytest.approx(0.3087 + 0.0571 + 0.0149, abs=2e-4)


@given(name=st.sampled_from(sorted(MODELS)), frames=st.integers(0, 500), rows=st.integers(1, 900))
def test_more_is_never_cheaper(name: str, frames: int, rows: int) -> None:
    config = MODELS[name]
    assert roofline.answer_flops(config, rows, frames + 1) > roofline.answer_flops(config, rows, frames)
    assert roofline.answer_flops(config, rows + 1, frames) > roofline.answer_flops(config, rows, frames)
    sizes = [roofline.decode_bytes(config, frames, rows, recipe=recipe) for recipe in ("bf16", "fp8_self", "fp8", "fp8_all")]
    assert sizes == sorted(sizes, reverse=True) and len(set(sizes)) == 4


@pytest.mark.parametrize(
    ("device", "name", "terabytes"),
    [
        ("NVIDIA H200", "NVIDIA H200", 4.3),
        ("NVIDIA H100 80GB HBM3", "NVIDIA H100", 3.0),
        ("NVIDIA B200", "NVIDIA H200 (measured on NVIDIA B200)", 4.3),
    ],
)
def test_a_device_is_held_against_its_own_limits(device: str, name: str, terabytes: float) -> None:
    chip = roofline.chip_named(device)
    assert (chip.name, chip.bytes_per_second) == (name, terabytes * 1e12)

"""Precision and modules in the config: choices that go together, and those that do not."""

from __future__ import annotations

import pytest
import torch

from model.config import VideoMllamaConfig
from model.errors import InputError
from moss_train.config.compose import compose
from moss_train.config.schema import RunConfig
from moss_train.engines.precision import provider_of
from moss_train.frames.settings import EncodeSettings, fp8_of_tower


def _config(*overrides: str) -> RunConfig:
    return compose(["stage=pt2", "model=small", "run_dir=runs/unused", *overrides])


def test_the_group_fp8_is_bf16_with_current_scaling() -> None:
    precision = _config("precision=fp8").precision
    assert (precision.dtype, precision.fp8, precision.fp8_cross_layers, precision.fp8_vision) == ("bf16", "current", False, False)


@pytest.mark.parametrize(
    ("overrides", "named"),
    [
        (["precision=fp32", "precision.fp8=current"], r"precision\.fp8 is current with precision\.dtype fp32"),
        (["precision=fp32", "precision.fp8_vision=true"], r"precision\.fp8_vision is true with precision\.dtype fp32"),
        (["precision.fp8_cross_layers=true"], r"precision\.fp8_cross_layers is true with precision\.fp8 none"),
        (["precision.fp8=half"], r"precision\.fp8 is 'half'; use one of none, delayed, current"),
        (["modules=apex"], "modules is 'apex'; use one of auto, torch, transformer_engine"),
    ],
)
def test_choices_that_do_not_go_together_are_named(overrides: list[str], named: str) -> None:
    with pytest.raises(InputError, match=named):
        _config(*overrides)


@pytest.mark.skipif(torch.cuda.is_available(), reason="asks what a machine without CUDA says")
def test_what_the_machine_lacks_is_named_before_anything_is_built() -> None:
    assert provider_of(_config()).norm_column_linear is None
    for override, named in (
        ("precision=fp8", r"precision\.fp8 is current, but Transformer Engine cannot be used"),
        (
            "precision.fp8_vision=true",
            r"precision\.fp8_vision is true, but torch finds no CUDA device; use precision\.fp8_vision=false",
        ),
        ("modules=transformer_engine", "Transformer Engine's modules cannot be used: torch finds no CUDA device"),
    ):
        with pytest.raises(InputError, match=named):
            provider_of(_config(override))


def test_a_tower_whose_scales_are_those_of_a_chunk_is_encoded_twice_in_the_same_chunks() -> None:
    config = _config("vision.encode_chunk_frames=64", "vision.again_chunk_frames=6")
    vision = VideoMllamaConfig.from_dict(config.model).vision
    plain, same = (EncodeSettings.of(config.vision, vision, 2, True, same_chunks=same) for same in (False, True))
    assert (plain.chunk, plain.again_chunk) == (64, 6)
    assert (same.chunk, same.again_chunk) == (6, 6)


@pytest.mark.parametrize(
    ("overrides", "way"),
    [
        ([], "none"),
        (["precision.fp8_vision=true"], "rows"),
        (["precision.fp8_vision=true", "precision.fp8_vision_weight_gradients=false"], "rows_bf16"),
        (["precision.fp8_vision=true", "vision.layers=torch"], "linears"),
        (["precision.fp8_vision=true", "lora.rank=4", "lora.targets=[vision_attention]"], "linears"),
    ],
)
def test_fused_layers_have_fp8_products_of_their_own(overrides: list[str], way: str) -> None:
    assert fp8_of_tower(_config(*overrides)) == way

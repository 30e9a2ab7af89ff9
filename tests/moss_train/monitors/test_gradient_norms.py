"""Gradient norms by module: complete, and the same in every layout."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest

from moss_train.monitors.gradient_norms import module_of, modules_of
from tests.moss_train.packs import tiny_config
from tests.ranks import RunRanks


def norms_of(run_ranks: RunRanks, ranks: int, *layouts: str) -> dict[str, Any]:
    output = run_ranks("tests.moss_train.monitors.gradient_norm_ranks", ranks, *layouts, timeout=240)
    line = next(line for line in output.splitlines() if "NORMS " in line)
    found: dict[str, Any] = json.loads(line.split("NORMS ", 1)[1])
    return found


@pytest.mark.ranks
def test_modules_have_the_same_norms_in_every_layout(run_ranks: RunRanks) -> None:
    one = norms_of(run_ranks, 1, "one")
    two = norms_of(run_ranks, 2, "dp2", "tp2.sp", "tp2:adam", "pp2", "cp2:adam")
    text = {"embedding", "text_layers_q1", "text_layers_q3", "head"}
    cross = {"cross_layers", "gates"}
    assert set(one["one/adam"]["modules"]) == {"vision_tower", "projector"} | text | cross
    assert set(one["one/projector"]["modules"]) == {"projector"} and set(one["one/text"]["modules"]) == text
    assert set(one["one/adapters"]["modules"]) == {"text_layers_q1", "text_layers_q3", "cross_layers"}
    for name, found in (one | two).items():
        assert math.hypot(*found["modules"].values()) == pytest.approx(found["whole"], rel=1e-5), name
    for name, found in two.items():
        expected = one[f"one/{name.split('/')[1]}"]
        assert found["modules"] == pytest.approx(expected["modules"], rel=1e-5), name


def test_where_parameters_belong() -> None:
    config = tiny_config()  # layers 1 and 3 are cross layers
    names = {
        "decoder.layers.0.mlp.linear_fc1.weight": "text_layers_q1",
        "decoder.layers.2.self_attention.linear_qkv.adapter.a": "text_layers_q3",
        "decoder.layers.1.cross_attn_attn_gate": "gates",
        "decoder.layers.1.cross_attention.linear_q.weight": "cross_layers",
        "embedding.word_embeddings.weight": "embedding",
        "output_layer.weight": "head",
        "decoder.final_layernorm.weight": "head",
        "multi_modal_projector.bias": "projector",
        "vision_model.transformer.layers.0.mlp.fc1.weight": "vision_tower",
        "dense_head.bias": "dense_head",
    }
    assert {name: module_of(name, config) for name in names} == names
    assert set(names.values()) <= set(modules_of(config))

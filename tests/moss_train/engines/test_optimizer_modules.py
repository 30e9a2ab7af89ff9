"""Which learning rate and weight decay a parameter gets, from the model's dimensions alone."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from model.conversion.table import all_rules
from model.errors import InputError
from moss_train.config.build import build
from moss_train.config.optimizer import MODULE_NAMES, ModuleConfig, OptimizerConfig
from moss_train.engines.optimizer.modules import ModuleRates, Rate
from tests.moss_train.packs import tiny_config

MATRIX, VECTOR = torch.nn.Parameter(torch.zeros(2, 2)), torch.nn.Parameter(torch.zeros(2))
QKV = "decoder.layers.0.self_attention.linear_qkv.weight"
CROSS = "decoder.layers.1.cross_attention.linear_q.weight"


def rates(*modules: ModuleConfig, weight_decay: float = 0.1) -> ModuleRates:
    return ModuleRates(OptimizerConfig(weight_decay=weight_decay, modules=list(modules)), tiny_config())


def test_vectors_do_not_decay_unless_named() -> None:
    plain = rates()
    assert plain.of(QKV, MATRIX) == Rate(1.0, 0.1) and plain.of("decoder.final_layernorm.weight", VECTOR) == Rate(1.0, 0.0)
    text = rates(ModuleConfig(name="text", weight_decay=0.5))
    assert text.of(QKV, MATRIX).decay == 0.5 and text.of("decoder.final_layernorm.weight", VECTOR).decay == 0.0
    norms = rates(ModuleConfig(name="norms", weight_decay=0.5))
    assert norms.of("decoder.final_layernorm.weight", VECTOR).decay == 0.5 and norms.of(QKV, MATRIX).decay == 0.1
    pattern = rates(ModuleConfig(name="last", pattern=r"model\.norm", weight_decay=0.5))
    assert pattern.of("decoder.final_layernorm.weight", VECTOR).decay == 0.5


def test_later_entries_count_and_adapters_follow() -> None:
    both = rates(
        ModuleConfig(name="text", learning_rate_multiplier=0.5, weight_decay=0.0),
        ModuleConfig(name="attention", pattern=r"self_attn\.[qkv]_proj", learning_rate_multiplier=2.0),
        ModuleConfig(name="cross_layers", learning_rate_multiplier=3.0),
    )
    assert both.of(QKV, MATRIX) == Rate(2.0, 0.0)
    assert both.of(QKV.replace("weight", "adapter.a"), MATRIX) == Rate(2.0, 0.0)
    assert both.of(CROSS, MATRIX) == Rate(3.0, 0.1)
    assert both.of("vision_model.transformer.layers.0.self_attn.q_proj.weight", MATRIX).multiplier == 2.0
    assert both.of("dense_head.weight", MATRIX) == Rate(1.0, 0.1)
    reported = both.learning_rates(1.0, 10.0)
    assert reported == {
        "decoder": 1.0, "vision": 10.0, "text": 0.5, "attention": 2.0, "vision_attention": 20.0, "cross_layers": 3.0,
    }  # fmt: skip


@given(st.sampled_from(MODULE_NAMES), st.floats(0.0, 10.0), st.floats(0.0, 1.0))
def test_an_entry_changes_its_part_and_nothing_else(name: str, multiplier: float, decay: float) -> None:
    plain, changed = rates(), rates(ModuleConfig(name=name, learning_rate_multiplier=multiplier, weight_decay=decay))
    inside = 0
    for rule in all_rules(tiny_config()):
        key = rule.megatron.removeprefix("vision.")
        before, after = plain._rates.get(key, Rate(1.0, 0.1)), changed._rates[key]
        if after.multiplier == multiplier:
            inside += 1
        else:
            assert after.multiplier == 1.0 and after.decay in (before.decay, 0.0)
    assert 0 < inside <= len(all_rules(tiny_config()))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([{"name": "vision", "weight_decay": 0.1}], "entry 'vision' is no part of the model; use one of vision_tower"),
        ([{"name": "x", "pattern": "(", "weight_decay": 0.1}], r"pattern '\(', no regular expression"),
        ([{"name": "text"}], "'text' changes nothing; give it a learning_rate_multiplier"),
        ([{"name": "text", "weight_decay": -1}], "'text': weight_decay is -1.0; it must be at least 0"),
        ([{"name": "text", "weight_decay": 0.1}, {"name": "text", "weight_decay": 0.2}], "one of them twice"),
        ([{"name": "x", "pattern": "nothing_like_it", "weight_decay": 0.1}], "'x' fits no parameter of this model"),
        ([{"name": "x", "pattern": r"layers\.0\.self_attn\.k_proj", "weight_decay": 0.1}], "are one parameter in training"),
    ],
)
def test_refused(values: list[dict[str, object]], message: str) -> None:
    with pytest.raises(InputError, match=message):
        ModuleRates(build(OptimizerConfig, {"modules": values}, "optimizer"), tiny_config())

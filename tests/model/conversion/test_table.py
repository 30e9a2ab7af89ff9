"""The table is total both ways, and everything it does can be undone exactly."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from megatron.core.dist_checkpointing.dict_utils import nested_values
from megatron.core.dist_checkpointing.mapping import ShardedTensor, ShardedTensorFactory

from model.config import TextConfig, VideoMllamaConfig
from model.conversion.fusion import fuse, put_together, shard, take_apart
from model.conversion.live import live_parameters
from model.conversion.stream import parameter_info, published_infos
from model.conversion.table import VISION_KEY, all_rules, decoder_rules, hf_shapes
from model.conversion.tensor_file import TensorInfo
from model.initialise import RandomWeights
from model.video_mllama import VideoMllamaDecoder, build_decoder_chunks, make_transformer_config
from model.vision.encoder import VisionEncoder
from moss_train.checkpoint.state import model_state
from moss_train.convert.random_folder import model_named
from tests.model.small import small_config

_SHORT = {torch.bfloat16: "bf16", torch.float32: "fp32"}


class _Announced:
    """The parameters of a checkpoint by shape alone."""

    def __init__(self, config: VideoMllamaConfig, dtype: torch.dtype) -> None:
        published = {name: TensorInfo(shape, dtype) for name, shape in hf_shapes(config).items()}
        self.infos = {rule.megatron: parameter_info(rule, published) for rule in all_rules(config)}

    def info(self, key: str) -> TensorInfo:
        return self.infos[key]

    def read_rows(self, key: str, first: int, count: int) -> torch.Tensor:
        raise AssertionError(f"{key} is announced, not stored")


def test_every_live_parameter_and_every_published_tensor_has_one_rule(solo: None) -> None:
    config = small_config()
    rules = decoder_rules(config)
    (decoder,) = build_decoder_chunks(config, make_transformer_config(config))
    assert sorted(rule.megatron for rule in rules) == sorted(name for name, _ in live_parameters([decoder]))
    published = [name for rule in rules for name in rule.hf]
    assert len(published) == len(set(published))
    assert set(published) == {name for name in hf_shapes(config) if name.startswith("language_model.")}


def test_sizes_of_the_published_model() -> None:
    shapes = hf_shapes(VideoMllamaConfig())
    assert len(shapes) == 906
    assert sum(math.prod(shape) for shape in shapes.values()) == 10_670_220_835


def test_names_shapes_and_dtypes_equal_the_published_list(reference_data: Path) -> None:
    recorded = json.loads((reference_data / "state_dict_keys_11b.json").read_text())
    config = VideoMllamaConfig()
    stored = _Announced(config, torch.bfloat16)
    found = {name: [list(info.shape), _SHORT[info.dtype]] for name, info in published_infos(stored, config).items()}
    assert found == recorded


@pytest.mark.parametrize("name", ["tiny", "small", "11b", "90b"])
def test_the_table_is_total_for_every_shipped_model(solo: None, name: str) -> None:
    """Every parameter of the model, every key of its checkpoint and every published tensor stand in it exactly once."""
    config = model_named(name)
    decoder_config = make_transformer_config(config)
    decoder_config.perform_initialization, decoder_config.use_cpu_initialization = False, True
    with torch.device("meta"):
        decoder = VideoMllamaDecoder(config, decoder_config, pre_process=True, post_process=True)
        vision = VisionEncoder(config)
    rules = all_rules(config)
    shapes = hf_shapes(config)
    fused = {rule.megatron: (sum(shapes[n][0] for n in rule.hf), *shapes[rule.hf[0]][1:]) for rule in rules}
    live = {n: tuple(p.shape) for n, p in live_parameters([decoder])}
    live |= {VISION_KEY + n: tuple(p.shape) for n, p in vision.named_parameters()}
    assert len(rules) == len(fused) and fused == live
    state = model_state([decoder], vision)
    keys = sorted(t.key for t in nested_values(state) if isinstance(t, ShardedTensor | ShardedTensorFactory))
    assert keys == sorted(fused)
    published = [n for rule in rules for n in rule.hf]
    assert len(published) == len(set(published)) and set(published) == set(shapes)


@settings(max_examples=25)
@given(groups=st.sampled_from([2, 4]), per_group=st.integers(1, 3), tensor=st.sampled_from([1, 2]), vocab=st.integers(9, 40))
def test_fusing_and_sharding_can_be_undone(groups: int, per_group: int, tensor: int, vocab: int) -> None:
    text = TextConfig(
        vocab_size=vocab, hidden_size=groups * per_group * 4, num_hidden_layers=2, cross_attention_layers=(1,),
        num_attention_heads=groups * per_group, num_key_value_heads=groups, intermediate_size=12,
    )  # fmt: skip
    weights = RandomWeights(VideoMllamaConfig(text=text), 1)
    for rule in decoder_rules(VideoMllamaConfig(text=text)):
        originals = [weights[name] + torch.rand(weights.shapes[name]) for name in rule.hf]
        whole = fuse(rule, originals, text, tensor)
        again = put_together(rule, [shard(rule, whole, tensor, rank) for rank in range(tensor)])
        assert torch.equal(whole, again)
        for original, part in zip(originals, take_apart(rule, again, text), strict=True):
            assert torch.equal(original, part), rule.megatron


def test_a_share_of_the_fused_rows_is_a_share_of_key_value_groups() -> None:
    config = small_config()
    rule = next(r for r in decoder_rules(config) if r.fusion == "query_key_value")
    text = config.text
    q = torch.arange(4).repeat_interleave(8)[:, None] * torch.ones(32, 32)  # value = head
    k, v = (100 + base + torch.arange(2).repeat_interleave(8)[:, None] * torch.ones(16, 32) for base in (0, 100))
    second = shard(rule, fuse(rule, [q, k, v], text, 2), 2, 1)
    assert second[:, 0].unflatten(0, (-1, 8))[:, 0].tolist() == [2, 3, 101, 201]


def test_random_weights_depend_on_seed_and_name_only() -> None:
    config = small_config()
    first, again, other = RandomWeights(config, 1), RandomWeights(config, 1), RandomWeights(config, 2)
    name = "language_model.model.layers.0.self_attn.q_proj.weight"
    assert torch.equal(first[name], again[name]) and not torch.equal(first[name], other[name])
    assert not torch.equal(first[name], first["language_model.model.layers.2.self_attn.q_proj.weight"])
    assert float(first["language_model.model.layers.1.cross_attn_attn_gate"]) == 0.0

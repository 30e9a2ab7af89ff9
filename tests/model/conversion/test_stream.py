"""Rows at a time gives what whole tensors give, whatever the sizes of the pieces."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from model.config import TextConfig, VideoMllamaConfig
from model.conversion.fusion import fuse
from model.conversion.stream import check_published, cut, parameter_info, parameter_rows, published_blocks, published_infos
from model.conversion.table import all_rules
from model.conversion.tensor_file import TensorInfo
from model.errors import InputError
from model.initialise import RandomWeights
from tests.model.small import small_config


class Published:
    """Whole tensors as `PublishedRows`; counts which rows were read."""

    def __init__(self, tensors: dict[str, Tensor]) -> None:
        self.tensors = tensors
        self.read: dict[str, list[int]] = {}

    def info(self, name: str) -> TensorInfo:
        return TensorInfo(tuple(self.tensors[name].shape), self.tensors[name].dtype)

    def read_rows(self, name: str, first: int, target: Tensor) -> None:
        self.read.setdefault(name, []).extend(range(first, first + target.shape[0]))
        target.copy_(self.tensors[name][first : first + target.shape[0]])


class Parameters:
    """Whole parameters as `ParameterRows`."""

    def __init__(self, tensors: dict[str, Tensor]) -> None:
        self.tensors = tensors

    def info(self, key: str) -> TensorInfo:
        return TensorInfo(tuple(self.tensors[key].shape), self.tensors[key].dtype)

    def read_rows(self, key: str, first: int, count: int) -> Tensor:
        return self.tensors[key][first : first + count].clone()


def _weights(config: VideoMllamaConfig) -> dict[str, Tensor]:
    return {name: tensor + torch.rand(tensor.shape) for name, tensor in RandomWeights(config, 1).items()}


@settings(max_examples=15)
@given(
    groups=st.sampled_from([1, 2, 3]), per_group=st.integers(1, 3), vocab=st.integers(9, 40),
    rows=st.integers(1, 50), block_bytes=st.sampled_from([1, 100, 1000, 1 << 20]), padding=st.sampled_from([0, 24]),
)  # fmt: skip
def test_pieces_of_any_size_make_the_same_parameters_and_the_same_published_tensors(
    groups: int, per_group: int, vocab: int, rows: int, block_bytes: int, padding: int
) -> None:
    text = TextConfig(
        vocab_size=vocab, hidden_size=groups * per_group * 4, num_hidden_layers=2, cross_attention_layers=(1,),
        num_attention_heads=groups * per_group, num_key_value_heads=groups, intermediate_size=12,
    )  # fmt: skip
    config = dataclasses.replace(small_config(), text=text)
    source = Published(_weights(config))
    parameters: dict[str, Tensor] = {}
    for rule in all_rules(config):
        info = parameter_info(rule, {name: source.info(name) for name in rule.hf})
        pieces = []
        for first in range(0, info.shape[0], rows):
            pieces.append(torch.full((min(rows, info.shape[0] - first), *info.shape[1:]), float("nan")))
            parameter_rows(rule, source, config, first, pieces[-1])
        parameters[rule.megatron] = torch.cat(pieces)
        assert torch.equal(parameters[rule.megatron], fuse(rule, [source.tensors[n] for n in rule.hf], text, 1)), rule.megatron
        if rule.fusion == "vocabulary":  # as a layout would store it that pads to more rows
            parameters[rule.megatron] = torch.nn.functional.pad(parameters[rule.megatron], (0, 0, 0, padding))
    assert all(found == list(range(source.tensors[name].shape[0])) for name, found in source.read.items())
    stored = Parameters(parameters)
    infos = published_infos(stored, config)
    assert {name: info.shape for name, info in infos.items()} == {n: tuple(t.shape) for n, t in source.tensors.items()}
    for rule in all_rules(config):
        for part, name in enumerate(rule.hf):
            blocks = list(published_blocks(rule, part, stored, config, block_bytes))
            assert torch.equal(torch.cat(blocks), source.tensors[name]), name
            assert all(len(block) == 1 or block.numel() * block.element_size() <= block_bytes for block in blocks)


@given(first=st.integers(0, 9), count=st.integers(0, 50), row_bytes=st.integers(0, 40), block_bytes=st.integers(1, 100))
def test_cutting_covers_every_row_once_within_the_bound(first: int, count: int, row_bytes: int, block_bytes: int) -> None:
    found = list(cut(first, count, row_bytes, block_bytes))
    assert [row for begin, rows in found for row in range(begin, begin + rows)] == list(range(first, first + count))
    assert all(rows == 1 or rows * row_bytes <= block_bytes for _, rows in found)


def test_tensors_of_one_parameter_must_share_their_dtype() -> None:
    config = small_config()
    rule = next(rule for rule in all_rules(config) if rule.fusion == "query_key_value")
    infos = {name: TensorInfo((4, 4), torch.float32) for name in rule.hf} | {rule.hf[2]: TensorInfo((4, 4), torch.bfloat16)}
    with pytest.raises(InputError, match=r"v_proj.weight is torch.bfloat16 and .*q_proj.weight is torch.float32"):
        parameter_info(rule, infos)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"language_model.lm_head.weight": None}, "tied to the embedding is not supported"),
        ({"language_model.model.norm.weight": None}, "lack 1 tensors, first language_model.model.norm.weight"),
        ({"extra.weight": TensorInfo((1,), torch.float32)}, "1 unknown tensors, first extra.weight"),
        ({"language_model.model.norm.weight": TensorInfo((31,), torch.float32)}, r"the shape \[31\], its config \[32\]"),
        ({"language_model.model.norm.weight": TensorInfo((32,), torch.int8)}, "is torch.int8; weights must be"),
    ],
)
def test_other_tensors_than_the_models_are_named(change: dict[str, TensorInfo | None], named: str) -> None:
    config = small_config()
    infos = {name: TensorInfo(shape, torch.float32) for name, shape in RandomWeights(config, 1).shapes.items()}
    infos = {name: info for name, info in (infos | change).items() if info is not None}
    with pytest.raises(InputError, match=named):
        check_published(set(infos), infos, config)


def test_a_checkpoint_of_other_sizes_is_named() -> None:
    config = small_config()
    stored = {rule.megatron: fuse(rule, [torch.zeros(RandomWeights(config, 1).shapes[n]) for n in rule.hf], config.text, 1)
              for rule in all_rules(config)}  # fmt: skip
    stored["decoder.layers.0.mlp.linear_fc1.weight"] = torch.zeros(95, 32)
    with pytest.raises(InputError, match=r"linear_fc1.weight has the shape \[95, 32\], its config asks for 96 rows"):
        published_infos(Parameters(stored), config)

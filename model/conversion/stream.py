"""Published tensors out of checkpoint parameters and back, some rows at a time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Protocol

import torch
from torch import Tensor

from model.config import VideoMllamaConfig
from model.conversion.fusion import fused_rows, heights, segments
from model.conversion.table import Rule, all_rules, hf_shapes
from model.conversion.tensor_file import TensorInfo
from model.errors import InputError

BLOCK_BYTES = 16 << 20
"""What a conversion holds of a tensor at a time, unless a single row is larger."""


class ParameterRows(Protocol):
    """The parameters of a checkpoint, readable by rows. Wrap one to change weights on their way out, such as by an adapter."""

    def info(self, key: str) -> TensorInfo:
        """Shape and dtype of a parameter over all ranks.

        Raises:
            InputError: no such parameter.
        """
        ...

    def read_rows(self, key: str, first: int, count: int) -> Tensor:
        """The rows [first, first + count) of a parameter, a contiguous tensor of the caller's own."""
        ...


class PublishedRows(Protocol):
    """Published tensors, readable by rows; a `FolderWeights` is one."""

    def info(self, name: str) -> TensorInfo:
        """Shape and dtype of a tensor."""
        ...

    def read_rows(self, name: str, first: int, target: Tensor) -> None:
        """Fills `target` [n, ...] with the rows from `first` on."""
        ...


def cut(first: int, count: int, row_bytes: int, block_bytes: int = BLOCK_BYTES) -> Iterator[tuple[int, int]]:
    """Cuts `count` rows from `first` on into (first row, rows) of at most `block_bytes`, at least one row each."""
    step = max(1, block_bytes // max(1, row_bytes))
    for begin in range(first, first + count, step):
        yield begin, min(step, first + count - begin)


def published_infos(source: ParameterRows, config: VideoMllamaConfig) -> dict[str, TensorInfo]:
    """Shape and dtype of every published tensor that a checkpoint holds, in the order of publication.

    Raises:
        InputError: a parameter is missing, or has a shape that the model's config does not give.
    """
    shapes = hf_shapes(config)
    found: dict[str, TensorInfo] = {}
    for rule in all_rules(config):
        info = source.info(rule.megatron)
        expected = sum(shapes[name][0] for name in rule.hf)
        fits = info.shape[0] >= expected if rule.fusion == "vocabulary" else info.shape[0] == expected
        if not fits or any(shapes[name][1:] != info.shape[1:] for name in rule.hf):
            raise InputError(
                f"the checkpoint's {rule.megatron} has the shape {list(info.shape)}, its config asks for {expected} rows of "
                f"{list(shapes[rule.hf[0]][1:])}; the checkpoint is damaged or of another model"
            )
        found |= {name: TensorInfo(shapes[name], info.dtype) for name in rule.hf}
    return {name: found[name] for name in shapes}


def published_blocks(
    rule: Rule, part: int, source: ParameterRows, config: VideoMllamaConfig, block_bytes: int = BLOCK_BYTES
) -> Iterator[Tensor]:
    """The rows of one published tensor, in order, in blocks of at most `block_bytes`, at least one row each.

    Args:
        rule: the parameter that holds it.
        part: which of the rule's published tensors.
        source: the checkpoint.
        config: the model.
    """
    info = source.info(rule.megatron)
    for s in segments(rule, heights(rule, info.shape[0], config.text), config.text):
        if s.part == part:
            for row, count in cut(s.row, s.rows, info.row_bytes, block_bytes):
                yield source.read_rows(rule.megatron, row, count)


def parameter_info(rule: Rule, infos: Mapping[str, TensorInfo]) -> TensorInfo:
    """Shape and dtype of the parameter that published tensors are fused into.

    Raises:
        InputError: they differ in dtype.
    """
    parts = [infos[name] for name in rule.hf]
    for name, info in zip(rule.hf, parts, strict=True):
        if info.dtype != parts[0].dtype:
            raise InputError(
                f"{name} is {info.dtype} and {rule.hf[0]} is {parts[0].dtype}, but they become one parameter; "
                "store both in the same dtype"
            )
    rows = fused_rows(rule, [info.shape[0] for info in parts], 1)
    return TensorInfo((rows, *parts[0].shape[1:]), parts[0].dtype)


def parameter_rows(rule: Rule, source: PublishedRows, config: VideoMllamaConfig, first: int, target: Tensor) -> None:
    """Fills `target` [n, ...] with the rows from `first` on of the parameter that a rule fuses; padding rows are zero.

    Rows of the same published tensor are read in ascending order, each once if the caller goes through all rows in order.
    """
    end = first + target.shape[0]
    filled = first
    for s in segments(rule, [source.info(name).shape[0] for name in rule.hf], config.text):
        begin, stop = max(first, s.row), min(end, s.row + s.rows)
        if begin < stop:
            source.read_rows(rule.hf[s.part], s.hf_row + begin - s.row, target[begin - first : stop - first])
            filled = stop
    target[filled - first :] = 0


def whole_parameter(source: ParameterRows, key: str) -> Tensor:
    """A parameter in one piece."""
    return source.read_rows(key, 0, source.info(key).shape[0])


def check_published(names: set[str], infos: Mapping[str, TensorInfo], config: VideoMllamaConfig) -> None:
    """Refuses published tensors that are not exactly those of the model.

    Raises:
        InputError: missing, unknown or differently shaped tensors, named.
    """
    shapes = hf_shapes(config)
    missing, unexpected = sorted(set(shapes) - names), sorted(names - set(shapes))
    if missing == ["language_model.lm_head.weight"]:
        raise InputError(
            "the weights lack language_model.lm_head.weight: a head tied to the embedding is not supported, since this family's "
            "embedding has 8 rows more; store the head as a tensor of its own"
        )
    if missing:
        raise InputError(f"the weights lack {len(missing)} tensors, first {missing[0]}; they are cut short or of another model")
    if unexpected:
        raise InputError(f"the weights hold {len(unexpected)} unknown tensors, first {unexpected[0]}; they are of another model")
    for name, shape in shapes.items():
        if infos[name].shape != shape:
            raise InputError(
                f"{name} has the shape {list(infos[name].shape)}, its config {list(shape)}; use the config of these weights"
            )
        if not infos[name].dtype.is_floating_point or infos[name].dtype == torch.float64:
            raise InputError(f"{name} is {infos[name].dtype}; weights must be float32, bfloat16 or float16")

"""Published weights into the live model of any layout, and back out of it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, cast

import torch
import torch.distributed as dist
from megatron.core import parallel_state
from torch import Tensor, nn

from model.config import VideoMllamaConfig
from model.conversion.fusion import fuse, put_together, shard, take_apart
from model.conversion.table import Rule, decoder_rules, hf_shapes
from model.errors import InputError
from model.lora.names import is_adapter_name
from model.text.fused_norms import plain_name
from model.video_mllama import VideoMllamaDecoder
from model.vision.encoder import VisionEncoder

_LAYER = re.compile(r"^decoder\.layers\.(\d+)\.")


def unwrap(module: nn.Module) -> nn.Module:
    """The module inside data-parallel and mixed-precision wrappers."""
    while isinstance(getattr(module, "module", None), nn.Module):
        module = cast(nn.Module, module.module)
    return module


def _decoders(chunks: Sequence[nn.Module]) -> list[VideoMllamaDecoder]:
    return [cast(VideoMllamaDecoder, unwrap(chunk)) for chunk in chunks]


def live_parameters(chunks: Sequence[nn.Module]) -> Iterator[tuple[str, nn.Parameter]]:
    """The decoder's parameters on this rank under their names over the whole decoder, adapters left out."""
    for decoder in _decoders(chunks):
        for name, parameter in decoder.named_parameters():
            if is_adapter_name(name):
                continue
            found = _LAYER.match(name)
            if found:
                layer: Any = decoder.decoder.layers[int(found[1])]
                name = plain_name(f"decoder.layers.{layer.layer_number - 1}.{name[found.end() :]}")
            yield name, parameter


def _check_keys(names: set[str], config: VideoMllamaConfig, with_vision: bool) -> None:
    expected = {n for n in hf_shapes(config) if with_vision or n.startswith("language_model.")}
    missing, unexpected = sorted(expected - names), sorted(names - expected)
    if not with_vision:
        unexpected = [n for n in unexpected if not n.startswith(("vision_model.", "multi_modal_projector."))]
    if missing:
        raise InputError(f"the weights lack {len(missing)} tensors, first {missing[0]}; they are cut short or of another model")
    if unexpected:
        raise InputError(f"the weights hold {len(unexpected)} unknown tensors, first {unexpected[0]}; they are of another model")


def _checked(tensors: Mapping[str, Tensor], name: str, shape: tuple[int, ...]) -> Tensor:
    tensor = tensors[name]
    if tuple(tensor.shape) != shape:
        raise InputError(f"{name} has shape {list(tensor.shape)}, the model needs {list(shape)}: weights of another model")
    return tensor


@torch.no_grad()
def load_hf_weights(chunks: Sequence[nn.Module], vision: nn.Module | None, tensors: Mapping[str, Tensor]) -> None:
    """Copies published weights into the live model; every rank takes its own share, without communication.

    Args:
        chunks: decoder chunks of this rank, wrapped or not.
        vision: the encoder, or None to load the decoder alone.
        tensors: whole tensors by published name; read one at a time, so a lazy mapping keeps memory low.

    Raises:
        InputError: missing, unknown or differently shaped tensors, named.
    """
    decoders = _decoders(chunks)
    config = decoders[0].model_config
    _check_keys(set(tensors), config, vision is not None)
    shapes = hf_shapes(config)
    group = parallel_state.get_tensor_model_parallel_group()
    rules = {rule.megatron: rule for rule in decoder_rules(config)}
    for name, parameter in live_parameters(decoders):
        rule = rules[name]
        whole = fuse(rule, [_checked(tensors, n, shapes[n]) for n in rule.hf], config.text, group.size())
        parameter.copy_(shard(rule, whole, group.size(), group.rank()))
    if vision is not None:
        for name, parameter in unwrap(vision).named_parameters():
            if not is_adapter_name(name):
                parameter.copy_(_checked(tensors, name, shapes[name]))


def _owners(names: set[str]) -> dict[str, int]:
    """Pipeline rank that holds each parameter."""
    group = parallel_state.get_pipeline_model_parallel_group()
    held: list[set[str]] = [set()] * group.size()
    dist.all_gather_object(held, names, group=group)
    return {name: stage for stage, owned in enumerate(held) for name in owned}


def _collect(
    rule: Rule, owner: int, value: Tensor | None, expected: Callable[[], tuple[int, ...]], like: Tensor
) -> Tensor | None:
    """The whole parameter on the first rank, None elsewhere."""
    tensor_group = parallel_state.get_tensor_model_parallel_group()
    pipeline_group = parallel_state.get_pipeline_model_parallel_group()
    whole: Tensor | None = None
    if value is not None:
        value = value.detach().contiguous()
        shards = [torch.empty_like(value) for _ in range(tensor_group.size())]
        if rule.sharding == "replicated" or tensor_group.size() == 1:
            shards = [value]
        else:
            dist.all_gather(shards, value, group=tensor_group)
        whole = put_together(rule, shards).contiguous()
    if tensor_group.rank() != 0:
        return None
    if owner != 0 and pipeline_group.rank() == owner:
        dist.send(cast(Tensor, whole), dist.get_global_rank(pipeline_group, 0), group=pipeline_group)
    if owner != 0 and pipeline_group.rank() == 0:
        whole = torch.empty(expected(), dtype=like.dtype, device=like.device)
        dist.recv(whole, dist.get_global_rank(pipeline_group, owner), group=pipeline_group)
    return whole if pipeline_group.rank() == 0 else None


def _whole_shape(rule: Rule, config: VideoMllamaConfig, shapes: dict[str, tuple[int, ...]], size: int) -> tuple[int, ...]:
    return tuple(fuse(rule, [torch.empty(shapes[n], device="meta") for n in rule.hf], config.text, size).shape)


Read = Callable[[nn.Parameter], Tensor]
"""What to take of a parameter."""


@torch.no_grad()
def stream_hf_weights(
    chunks: Sequence[nn.Module], vision: nn.Module | None, read: Read | None = None
) -> Iterator[tuple[str, Tensor | None]]:
    """Every published tensor in turn, whole on rank 0, where it may share memory with the model; None on every other rank.

    Every rank must go through all of it, in the same order. Beside the model no more than one parameter is held at a time.
    The ranks of the first data-parallel replica communicate.

    Args:
        chunks: decoder chunks of this rank, wrapped or not.
        vision: the encoder, or None to leave it out.
        read: what to take of a parameter, the parameter itself if None; all ranks must return tensors of one dtype and of
            the parameter's shape.
    """
    read = read or (lambda parameter: parameter.data)
    config = _decoders(chunks)[0].model_config
    shapes, size = hf_shapes(config), parallel_state.get_tensor_model_parallel_world_size()
    takes_part = parallel_state.get_data_parallel_rank(with_context_parallel=True) == 0
    own = dict(live_parameters(chunks))
    like = read(next(iter(own.values())))
    owners = _owners(set(own)) if takes_part else {}
    first = dist.get_rank() == 0
    for rule in decoder_rules(config):
        whole = None
        if takes_part:
            value = read(own[rule.megatron]) if rule.megatron in own else None
            whole = _collect(rule, owners[rule.megatron], value, partial(_whole_shape, rule, config, shapes, size), like)
        parts = take_apart(rule, whole, config.text) if first and whole is not None else [None] * len(rule.hf)
        yield from zip(rule.hf, parts, strict=True)
    if vision is not None:
        for name, parameter in cast(VisionEncoder, unwrap(vision)).named_parameters():
            if not is_adapter_name(name):
                yield name, read(parameter).detach() if first else None


@torch.no_grad()
def gather_hf_weights(
    chunks: Sequence[nn.Module], vision: nn.Module | None, read: Read | None = None
) -> dict[str, Tensor] | None:
    """The whole model under its published names, on the CPU of rank 0; None on every other rank.

    Every rank must call it; see `stream_hf_weights`.
    """
    found: dict[str, Tensor] = {}
    for name, tensor in stream_hf_weights(chunks, vision, read):
        if tensor is not None:
            found[name] = tensor.to("cpu", copy=True).contiguous()
    if dist.get_rank() != 0:
        return None
    shapes = hf_shapes(_decoders(chunks)[0].model_config)
    return {name: found[name] for name in shapes if name in found}

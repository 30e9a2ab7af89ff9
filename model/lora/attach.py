"""Adapters into the live model of any layout, and what trains then."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from model.conversion.fusion import shard
from model.conversion.live import unwrap
from model.conversion.table import Rule, decoder_rules
from model.errors import InputError
from model.lora.adapter import LowRankAdapter, attach, start_deviation
from model.lora.names import is_adapter_name
from model.lora.spec import LoraSpec
from model.text.cross_layer import GatedCrossLayer

_KINDS = {"linear_qkv": "column", "linear_q": "column", "linear_kv": "column", "linear_fc1": "column",
          "linear_proj": "row", "linear_fc2": "row"}  # fmt: skip


@dataclass(frozen=True)
class Adapted:
    """One adapted layer of this rank."""

    name: str
    """The layer's matrix: megatron-core's name over the whole decoder, or the tower's published name."""
    adapter: LowRankAdapter
    rule: Rule | None
    """How the decoder's matrix is sharded; None in the tower."""


def _decoder_layers(chunks: Sequence[nn.Module]) -> Iterator[tuple[str, nn.Module, Any]]:
    """Prefix over the whole decoder, layer and chunk of every decoder layer on this rank."""
    for chunk in chunks:
        decoder: Any = unwrap(chunk)
        for layer in decoder.decoder.layers:
            yield f"decoder.layers.{layer.layer_number - 1}.", layer, decoder


def _tower_layers(vision: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    tower: Any = unwrap(vision).vision_model
    for name in ("transformer", "global_transformer"):
        for index, layer in enumerate(getattr(tower, name).layers):
            yield f"vision_model.{name}.layers.{index}.", layer


def attach_adapters(chunks: Sequence[nn.Module], vision: nn.Module, spec: LoraSpec, seed: int) -> None:
    """Adds fresh adapters to this rank's share of the model; call it after the weights are there and before the wrappers.

    Args:
        chunks: decoder chunks of this rank, without wrappers.
        vision: the vision encoder.
        spec: which layers.
        seed: of the random A; equal seeds give equal adapters in every layout.

    Raises:
        InputError: adapters that do not fit the model, or a layer whose module adapters cannot stand beside.
    """
    decoder: Any = unwrap(chunks[0])
    spec.check(decoder.model_config)
    for prefix, layer, chunk in _decoder_layers(chunks):
        part = "cross_layers" if isinstance(layer, GatedCrossLayer) else "text"
        for path in spec.modules(part):
            linear: Any = layer.get_submodule(path)
            if getattr(linear, "layer_norm_weight", None) is not None:
                raise InputError(
                    f"lora.targets reaches {prefix}{path}, made of {type(linear).__name__}, which norms its input itself, so "
                    "that an adapter cannot see it; use modules=torch or leave that target out"
                )
            adapter = LowRankAdapter(
                linear.weight, spec.rank, spec.scale, _KINDS[path.rpartition(".")[2]], chunk.pg_collection.tp,
                bool(getattr(linear, "sequence_parallel", False)), chunk.config.params_dtype,
            )  # fmt: skip
            attach(linear, adapter)
    for _, layer in _tower_layers(vision):
        for path in spec.modules("vision_tower"):
            linear = layer.get_submodule(path)
            attach(linear, LowRankAdapter(linear.weight, spec.rank, spec.scale, "whole", dtype=linear.weight.dtype))
    start_adapters(chunks, vision, seed)


def adapted_layers(chunks: Sequence[nn.Module], vision: nn.Module | None) -> Iterator[Adapted]:
    """All adapted layers of this rank, the decoder's first."""
    rules: dict[str, Rule] = {}
    for prefix, layer, chunk in _decoder_layers(chunks):
        rules = rules or {rule.megatron: rule for rule in decoder_rules(chunk.model_config)}
        yield from (Adapted(n, a, rules[n]) for n, a in _adapters_in(prefix, layer))
    if vision is not None:
        for prefix, layer in _tower_layers(vision):
            yield from (Adapted(n, a, None) for n, a in _adapters_in(prefix, layer))


def _adapters_in(prefix: str, layer: nn.Module) -> Iterator[tuple[str, LowRankAdapter]]:
    for name, module in layer.named_modules():
        if isinstance(module, LowRankAdapter):
            yield f"{prefix}{name.rpartition('.')[0]}.weight", module


@torch.no_grad()
def place_adapters(chunks: Sequence[nn.Module], vision: nn.Module, whole: Callable[[str, str, tuple[int, int]], Tensor]) -> None:
    """Writes whole factors into the live adapters, each rank taking its share.

    Args:
        chunks, vision: the adapted model.
        whole: (name of the adapted matrix, `a` or `b`, whole shape) -> the whole factor.
    """
    for layer in adapted_layers(chunks, vision):
        adapter = layer.adapter
        size, rank = (1, 0) if adapter.group is None else (adapter.group.size(), adapter.group.rank())
        columns = adapter.a.shape[1] * (size if adapter.kind == "row" else 1)
        rows = adapter.b.shape[0] * (size if adapter.kind == "column" else 1)
        a = whole(layer.name, "a", (adapter.a.shape[0], columns))
        b = whole(layer.name, "b", (rows, adapter.b.shape[1]))
        if adapter.kind == "row":
            a = a.chunk(size, dim=1)[rank]
        if adapter.kind == "column":
            assert layer.rule is not None
            b = shard(layer.rule, b, size, rank)
        adapter.a.copy_(a)
        adapter.b.copy_(b)


def start_adapters(chunks: Sequence[nn.Module], vision: nn.Module, seed: int) -> None:
    """Draws every A from the seed and the layer's name alone, and sets every B to zero."""

    def draw(name: str, factor: str, shape: tuple[int, int]) -> Tensor:
        if factor == "b":
            return torch.zeros(shape)
        digest = hashlib.sha256(f"{seed}:{name}:adapter".encode()).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(digest[:8], "little") >> 1)
        return torch.randn(shape, generator=generator) * start_deviation(shape[1])

    place_adapters(chunks, vision, draw)


_ALSO: dict[str, Callable[[str], bool]] = {
    "projector": lambda name: name.startswith("multi_modal_projector."),
    "gates": lambda name: name.endswith(("cross_attn_attn_gate", "cross_attn_mlp_gate", ".gate_attn", ".gate_ffn")),
    "norms": lambda name: "norm" in name.rpartition(".")[0].rpartition(".")[2],
}
"""Name of a small group of parameters -> whether a dotted name belongs to it."""


def freeze_base(chunks: Sequence[nn.Module], vision: nn.Module, train_also: Collection[str] = ()) -> None:
    """Freezes everything but the adapters and, of what trains so far, the parameters that `train_also` names.

    Args:
        chunks, vision: the adapted model after the stage's preset.
        train_also: any of projector, gates, norms.
    """
    for module in (*chunks, vision):
        for name, parameter in unwrap(module).named_parameters():
            if not is_adapter_name(name):
                kept = any(_ALSO[group](name) for group in train_also)
                parameter.requires_grad_(parameter.requires_grad and kept)

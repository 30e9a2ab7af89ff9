"""Learning rates and weight decay by module: resolved from the model's dimensions alone, so that every layout agrees."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from model.config import VideoMllamaConfig
from model.conversion.live import live_parameters, unwrap
from model.conversion.table import VISION_KEY, Rule, all_rules, hf_shapes
from model.errors import InputError
from model.lora.attach import adapted_layers
from model.lora.names import is_adapter_name
from moss_train.config.optimizer import ModuleConfig, OptimizerConfig

_LAYER = re.compile(r"^decoder\.layers\.(\d+)\.")
VECTORS = ("norms", "gates", "biases")


@dataclass(frozen=True, order=True)
class Rate:
    """What one parameter is updated with."""

    multiplier: float
    """Of the learning rate of its part, decoder or vision."""
    decay: float
    """Weight decay of an update of learning rate 1."""


class ModuleRates:
    """Rates of every parameter of a model.

    Args:
        settings: the `optimizer` group.
        config: the model's dimensions.

    Raises:
        InputError: a pattern that names nothing, or a part of a fused parameter alone.
    """

    def __init__(self, settings: OptimizerConfig, config: VideoMllamaConfig) -> None:
        self._entries = settings.modules
        self._matrix, self._vector = Rate(1.0, settings.weight_decay), Rate(1.0, 0.0)
        self._rates: dict[str, Rate] = {}
        covered: dict[str, set[str]] = {entry.name: set() for entry in settings.modules}
        shapes = hf_shapes(config) if settings.modules else {}
        for rule in all_rules(config) if settings.modules else []:
            is_vector = all(len(shapes[name]) == 1 for name in rule.hf) or rule.megatron.endswith(".bias")
            rate = self._vector if is_vector else self._matrix
            for entry in settings.modules:
                if _fits(entry, rule, config, is_vector):
                    covered[entry.name].add(_part(rule))
                    rate = _changed(rate, entry, is_vector)
            self._rates[rule.megatron.removeprefix(VISION_KEY)] = rate
        for entry in settings.modules:
            if not covered[entry.name]:
                raise InputError(
                    f"optimizer.modules entry {entry.name!r} fits no parameter of this model; correct it or leave it out"
                )
        self._covered = covered

    def of(self, name: str, parameter: nn.Parameter) -> Rate:
        """Rates of a live parameter.

        Args:
            name: as `named` gives it; names that the model's table lacks, such as the dense head's, have no entry.
        """
        is_vector = parameter.dim() == 1 or name.endswith(".bias")
        if is_adapter_name(name):  # an adapter is updated as what it adapts
            name = f"{name.rpartition('.')[0].rpartition('.')[0]}.weight"
        return self._rates.get(name, self._vector if is_vector else self._matrix)

    def learning_rates(self, decoder: float, vision: float) -> dict[str, float]:
        """Learning rates by name of what they are for: decoder, vision, and each entry of `optimizer.modules`.

        An entry with parameters on both sides is reported as its name for the decoder and `vision_` before it for vision.
        """
        rates = {"decoder": decoder, "vision": vision}
        for entry in self._entries:
            if entry.learning_rate_multiplier is None:
                continue
            parts = self._covered[entry.name]
            for part, base in (("decoder", decoder), ("vision", vision)):
                if part in parts:
                    name = f"vision_{entry.name}" if part == "vision" and len(parts) == 2 else entry.name
                    rates[name] = base * entry.learning_rate_multiplier
        return rates


def _part(rule: Rule) -> str:
    return "vision" if rule.megatron.startswith(VISION_KEY) else "decoder"


def _changed(rate: Rate, entry: ModuleConfig, is_vector: bool) -> Rate:
    decays = entry.weight_decay is not None and (not is_vector or entry.pattern is not None or entry.name in VECTORS)
    return Rate(
        rate.multiplier if entry.learning_rate_multiplier is None else entry.learning_rate_multiplier,
        entry.weight_decay if decays and entry.weight_decay is not None else rate.decay,
    )


def _fits(entry: ModuleConfig, rule: Rule, config: VideoMllamaConfig, is_vector: bool) -> bool:
    """Whether an entry is for a parameter."""
    if entry.pattern is not None:
        found = [bool(re.search(entry.pattern, name)) for name in rule.hf]
        if any(found) and not all(found):
            inside, outside = rule.hf[found.index(True)], rule.hf[found.index(False)]
            raise InputError(
                f"optimizer.modules entry {entry.name!r}: pattern {entry.pattern!r} finds {inside} and not {outside}, which are "
                "one parameter in training; let it find both or none"
            )
        return found[0]
    name, leaf = rule.megatron, rule.hf[0]
    layer = _LAYER.match(name)
    is_cross = layer is not None and int(layer[1]) in config.text.cross_attention_layers
    is_vision = name.startswith(VISION_KEY)
    return {
        "vision_tower": leaf.startswith("vision_model."),
        "projector": leaf.startswith("multi_modal_projector."),
        "cross_layers": is_cross,
        "text": not is_vision and not is_cross,
        "embedding": name.startswith("embedding."),
        "head": name.startswith("output_layer."),
        "norms": is_vector and "norm" in leaf and not _is_gate(leaf),
        "gates": is_vector and _is_gate(leaf),
        "biases": is_vector and leaf.endswith(".bias") and "norm" not in leaf,
    }[entry.name]


def _is_gate(name: str) -> bool:
    return "gate" in name.rpartition(".")[2]


def named(chunks: Sequence[nn.Module], unit: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    """This rank's parameters and their names over the whole model, adapters included.

    Args:
        chunks: decoder chunks, wrapped or not.
        unit: the vision unit.
    """
    yield from live_parameters(chunks)
    inner: Any = unwrap(unit)
    for adapted in adapted_layers(chunks, inner.encoder):
        stem = adapted.name.removesuffix(".weight")
        yield f"{stem}.adapter.a", adapted.adapter.a
        yield f"{stem}.adapter.b", adapted.adapter.b
    for name, parameter in inner.encoder.named_parameters():
        if not is_adapter_name(name):
            yield name, parameter
    if inner.dense_head is not None:
        for name, parameter in inner.dense_head.named_parameters():
            yield f"dense_head.{name}", parameter

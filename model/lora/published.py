"""Adapters by published names: what a fused matrix shares, its published parts have each for themselves."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from model.config import VideoMllamaConfig
from model.conversion.fusion import take_apart
from model.conversion.table import all_rules
from model.lora.merge import Factors
from model.lora.spec import LoraSpec

PREFIX = "base_model.model."
"""What the PEFT library puts before the names of the model that it wraps."""


def published_factors(factors: Mapping[str, Factors], config: VideoMllamaConfig) -> dict[str, Factors]:
    """Adapters of published matrices.

    The queries', keys' and values' adapters of one fused matrix share A, and B falls apart as the matrix does.

    Args:
        factors: adapters by the name of the matrix in a checkpoint.
        config: the model.
    """
    found: dict[str, Factors] = {}
    for rule in all_rules(config):
        if rule.megatron in factors:
            a, b = factors[rule.megatron].a, factors[rule.megatron].b
            found |= {name: Factors(a, part) for name, part in zip(rule.hf, take_apart(rule, b, config.text), strict=True)}
    return found


def peft_tensors(published: Mapping[str, Factors]) -> dict[str, Tensor]:
    """The tensors of an `adapter_model.safetensors`."""
    found: dict[str, Tensor] = {}
    for name, factors in published.items():
        module = PREFIX + name.removesuffix(".weight")
        found[f"{module}.lora_A.weight"] = factors.a.clone()  # parts of one matrix share it, a file holds no shared tensors
        found[f"{module}.lora_B.weight"] = factors.b.contiguous()
    return found


def peft_config(spec: LoraSpec, names: Mapping[str, Factors], base: str | None) -> dict[str, Any]:
    """The content of an `adapter_config.json`.

    Args:
        spec: the adapters.
        names: the published matrices that have one.
        base: where the weights without adapters are; None leaves it open.
    """
    return {
        "peft_type": "LORA", "task_type": None, "base_model_name_or_path": base, "inference_mode": True,
        "r": spec.rank, "lora_alpha": spec.alpha, "lora_dropout": 0.0, "bias": "none", "fan_in_fan_out": False,
        "use_rslora": False, "use_dora": False, "modules_to_save": None,
        "target_modules": sorted(name.removesuffix(".weight") for name in names),
    }  # fmt: skip

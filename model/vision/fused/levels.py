"""What of a layer stays for the backward pass, and how the tower applies its layers.

A level keeps more than the one before it; what is missing is computed again. Bytes of one frame and share of a forward pass that
runs again: `moss_train.frames.activations` and `moss_train.frames.cost`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint, create_selective_checkpoint_contexts

from model.errors import InputError
from model.vision.layers import VisionLayer, VisionTransformer

KEPT: dict[str, tuple[str, ...]] = {
    "input": (),
    "attention": ("mixed", "attention"),
    "middle": ("mixed", "attention", "total", "mean2", "rstd2"),
    "most": ("qkv", "mixed", "attention", "total", "mean2", "rstd2"),
    "all": ("qkv", "mixed", "attention", "total", "mean2", "rstd2", "pre"),
}
"""Level -> what is kept beside the layer's entry and its statistics, least first; names of `layer.States`."""

TORCH_LEVELS = ("input", "attention", "all")
"""Levels of layers that run operator by operator."""

LAYERS = ("auto", "torch", "fused")

aten = torch.ops.aten
ATTENTION_OPERATORS = [
    aten._scaled_dot_product_flash_attention.default,
    aten._scaled_dot_product_efficient_attention.default,
    aten._scaled_dot_product_cudnn_attention.default,
    aten._scaled_dot_product_flash_attention_for_cpu.default,
]


def keep_input(layer: nn.Module, x: Tensor) -> Tensor:
    """Apply a layer, operator by operator, so that only its input stays for the backward pass."""
    output: Tensor = checkpoint(layer, x, use_reentrant=False, preserve_rng_state=False)  # the tower draws nothing
    return output


def keep_attention(layer: nn.Module, x: Tensor) -> Tensor:
    """Apply a layer so that only `x` and the attention operator's results stay for the backward pass.

    Built on torch's selective checkpointing, which works on operators: it holds for each of the kernels that
    `scaled_dot_product_attention` chooses. Where that falls back to plain matrix products, those are run again too.
    """
    output: Tensor = checkpoint(
        layer,
        x,
        use_reentrant=False,
        preserve_rng_state=False,
        context_fn=partial(create_selective_checkpoint_contexts, ATTENTION_OPERATORS),
    )
    return output


def torch_layer(layer: nn.Module, x: Tensor, level: str) -> Tensor:
    """Apply a layer operator by operator; levels that only the fused layer has keep as much as `attention`."""
    if not torch.is_grad_enabled() or level == "all":
        output: Tensor = layer(x)
        return output
    return keep_input(layer, x) if level == "input" else keep_attention(layer, x)


def is_plain(linear: nn.Module) -> bool:
    """Whether a linear map is nothing but that: no adapter, no other dtype of product, no weights that come when it is called."""
    return (
        type(linear) is nn.Linear
        and not linear._forward_hooks
        and not linear._forward_pre_hooks
        and not hasattr(linear.weight, "ds_id")  # sharded by ZeRO-3
    )


def takes(layer: nn.Module) -> bool:
    """Whether the fused layer can stand for a layer, going by its modules."""
    if not isinstance(layer, VisionLayer):
        return False
    attention, mlp = layer.self_attn, layer.mlp
    return all(is_plain(m) for m in (attention.q_proj, attention.k_proj, attention.v_proj, attention.o_proj, mlp.fc1, mlp.fc2))


def gains(device: torch.device, dtype: torch.dtype, heads: int, width: int) -> bool:
    """Whether `auto` takes the fused layer: on CUDA in 16 bits, where a library has attention for heads of that width."""
    if device.type != "cuda" or dtype not in (torch.bfloat16, torch.float16):
        return False
    from model.vision.fused.attention import choose

    return choose(device, dtype, heads, width).name != "formula"


@dataclass(frozen=True)
class LayerWay:
    """How a stack applies its layers: `VisionTransformer.apply_layer`."""

    layers: str = "auto"
    """One of `LAYERS`."""
    level: str = "all"
    """A key of `KEPT`."""

    def fuses(self, layer: nn.Module, device: torch.device, dtype: torch.dtype) -> bool:
        """Whether a layer is applied as one node for an input of that kind."""
        if self.layers == "torch" or not takes(layer):
            return False
        assert isinstance(layer, VisionLayer)
        heads, width = layer.self_attn.heads, layer.input_layernorm.normalized_shape[0]
        return self.layers == "fused" or gains(device, dtype, heads, width // heads)

    def __call__(self, layer: nn.Module, x: Tensor) -> Tensor:
        if x.numel() == 0 or not self.fuses(layer, x.device, x.dtype):
            return torch_layer(layer, x, self.level)
        from model.vision.fused.layer import fused_layer

        assert isinstance(layer, VisionLayer)
        return fused_layer(layer, x, self.level)


def with_level(apply_layer: Callable[[nn.Module, Tensor], Tensor], level: str) -> LayerWay:
    """A stack's way of applying layers, with another level."""
    return replace(apply_layer, level=level) if isinstance(apply_layer, LayerWay) else LayerWay("torch", level)


def stacks_of(encoder: nn.Module) -> list[VisionTransformer]:
    """The stacks of layers of an encoder."""
    return [module for module in encoder.modules() if isinstance(module, VisionTransformer)]


def use_layers(encoder: nn.Module, layers: str) -> None:
    """Sets how an encoder applies its layers.

    Args:
        encoder: a vision encoder.
        layers: torch runs them operator by operator, fused as one node each with a backward pass of its own, auto as fused where
            that gains: see `gains`. Layers with adapters or other linear maps than torch's always run operator by operator.

    Raises:
        InputError: an unknown name.
    """
    if layers not in LAYERS:
        raise InputError(f"vision.layers is {layers!r}; use one of {', '.join(LAYERS)}")
    for stack in stacks_of(encoder):
        stack.apply_layer = LayerWay(layers)


def all_fused(encoder: nn.Module) -> bool:
    """Whether every layer of an encoder, where its weights are now, is applied as one node."""
    found = []
    for stack in stacks_of(encoder):
        for layer in stack.layers:
            weight = next(layer.parameters())
            way = stack.apply_layer
            found.append(isinstance(way, LayerWay) and way.fuses(layer, weight.device, weight.dtype))
    return bool(found) and all(found)

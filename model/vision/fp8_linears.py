"""Linear layers of the tower in fp8. Importing this module needs Transformer Engine."""

from __future__ import annotations

from typing import cast

import torch
import transformer_engine.pytorch as te
from torch import Tensor, nn

from model.config import VideoMllamaConfig
from model.fp8 import check_tower_widths, current_scaling, pad_rows
from model.vision.encoder import VisionEncoder
from model.vision.layers import VisionLayer


class Fp8Linear(te.Linear):
    """A linear layer with the parameters, and their names, of torch's, whose products are fp8 with current scaling.

    Whoever calls it, in whatever scope: the layers between stay in the parameters' dtype. It has no state beside its parameters.
    """

    get_extra_state = nn.Module.get_extra_state
    set_extra_state = nn.Module.set_extra_state

    def forward(self, x: Tensor) -> Tensor:
        """[..., in] -> [..., out]"""
        rows = x.shape[:-1].numel()
        with current_scaling():
            y: Tensor = super().forward(pad_rows(x))
        return y[:rows].view(*x.shape[:-1], -1)


def _fp8_copy(linear: nn.Linear) -> Fp8Linear:
    weight = linear.weight
    copy = Fp8Linear(
        linear.in_features, linear.out_features, bias=linear.bias is not None, params_dtype=weight.dtype, device=weight.device
    )
    with torch.no_grad():
        for name, parameter in linear.named_parameters():
            copy.get_parameter(name).copy_(parameter)
    return copy


def use_fp8_linears(encoder: VisionEncoder, config: VideoMllamaConfig) -> None:
    """Replaces every linear layer of the tower's blocks; patch embedding and projector stay. Before freezing and wrapping.

    Raises:
        InputError: widths that fp8 products do not take.
    """
    check_tower_widths(config)
    for layer in [m for m in encoder.vision_model.modules() if isinstance(m, VisionLayer)]:
        for block in (layer.self_attn, layer.mlp):
            for name, child in list(block.named_children()):
                if isinstance(child, nn.Linear):
                    setattr(block, name, cast(nn.Module, _fp8_copy(child)))

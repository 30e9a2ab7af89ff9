"""Adapters of the tower with less of a frame kept: what is computed again passes through them too."""

from __future__ import annotations

import pytest
import torch

from model.lora.adapter import LowRankAdapter, attach
from model.vision.encoder import VisionEncoder
from model.vision.fused.levels import KEPT, all_fused, use_layers
from moss_train.frames.kept import keeping
from tests.model.small import small_config


@pytest.mark.parametrize("layers", ["torch", "fused"])
@pytest.mark.parametrize("level", list(KEPT))
def test_gradients_of_adapters_do_not_depend_on_what_is_kept(layers: str, level: str) -> None:
    torch.manual_seed(0)
    encoder = VisionEncoder(small_config()).requires_grad_(False)
    for layer in (*encoder.vision_model.transformer.layers, *encoder.vision_model.global_transformer.layers):
        for linear in (layer.self_attn.q_proj, layer.self_attn.v_proj, layer.mlp.fc1, layer.mlp.fc2):  # type: ignore[union-attr]
            adapter = LowRankAdapter(linear.weight, 2, 1.5, "whole")  # type: ignore[union-attr, arg-type]
            torch.nn.init.normal_(adapter.a)
            torch.nn.init.normal_(adapter.b, std=0.1)
            attach(linear, adapter)  # type: ignore[arg-type]
    use_layers(encoder, layers)
    assert not all_fused(encoder), "layers with adapters run operator by operator"
    frames = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)
    found = []
    for kept in ("all", level):
        encoder.zero_grad(set_to_none=True)
        with keeping(encoder, kept):
            features = encoder(frames, torch.ones(2, dtype=torch.int64))
        features.square().sum().backward()
        found.append({name: p.grad.clone() for name, p in encoder.named_parameters() if p.grad is not None})
    assert len(found[0]) == 2 * 4 * 4 and found[0].keys() == found[1].keys()
    for name, gradient in found[0].items():
        assert gradient.norm() > 0 and ".adapter." in name
        assert torch.equal(gradient, found[1][name]), name

"""Names of norms that live inside the linear layer behind them, and their plain names.

A provider may compute a norm and the product that follows it in one module. Checkpoints, conversion and whoever else goes
by names use the plain name whichever provider built the model.
"""

from __future__ import annotations

FUSED_NORMS = {
    "self_attention.linear_qkv.layer_norm_": "input_layernorm.",
    "cross_attention.linear_q.layer_norm_": "pre_cross_attn_layernorm.",
    "mlp.linear_fc1.layer_norm_": "pre_mlp_layernorm.",
}
"""Beginning of a fused norm's name within its layer -> of the plain norm's."""


def plain_name(name: str) -> str:
    """The name of a decoder parameter as if no norm were fused, e.g.

    `decoder.layers.0.mlp.linear_fc1.layer_norm_weight` -> `decoder.layers.0.pre_mlp_layernorm.weight`
    """
    for fused, plain in FUSED_NORMS.items():
        if fused in name:
            return name.replace(fused, plain)
    return name

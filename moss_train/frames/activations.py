"""How many bytes autograd keeps of one frame between its forward and its backward pass through the vision encoder.

Counted from what each operator of `model.vision` saves, every storage once, parameters left out. With S token rows of
width D, an MLP of width I, h heads and e bytes an element, a layer keeps

    input, its norm, q, k, v, attention output, the sum after it, that sum's norm    8 S D e
    the MLP before and after gelu                                                    2 S I e
    attention's logsumexp, fp32                                                      4 S h
    mean and deviation of both norms                                                 16 S (8 S e on the CPU)
    both branches before their gates, in gated layers                                2 S D e

which is 66 MB at 11B in bf16: with what lies outside the layers 2.7 GB a frame. Layer inputs and attention outputs alone
are 2 S D e + 4 S h: 8.3 MB a layer, 0.35 GB a frame; inputs alone half of it.

A fused layer keeps its input and that norm's statistics, fp32, and by level

    attention: attention output and logsumexp    S D e + 4 S h
    middle: and the sum after it, its statistics   S D e + 8 S
    most: and q, k, v                              3 S D e
    all: and the MLP before gelu                   S I e

that is 0.18, 0.35, 0.51, 1.01 and 1.67 GB a frame with what lies outside the layers.
"""

from __future__ import annotations

from model.config import VisionConfig
from model.vision.fused.levels import KEPT


def activation_bytes(
    config: VisionConfig, element_size: int, mode: str = "all", pad_tokens: bool = True, fused: bool = False
) -> int:
    """Bytes of one frame.

    Args:
        config: the tower's dimensions.
        element_size: bytes of an activation: 2 for bf16, 4 for fp32.
        mode: a level of `vision.keep_mode`. Layers that are not fused keep at middle and most what they keep at attention.
        pad_tokens: whether the tower's padding rows take part.
        fused: whether the layers are.
    """
    rows = config.num_padded_positions if pad_tokens else config.num_positions
    state = rows * config.hidden_size * element_size
    layers = config.num_hidden_layers + config.num_global_layers
    outside = _outside_layers(config, element_size, state)
    return (
        layers * (_fused_layer if fused else _torch_layer)(config, rows, element_size, mode)
        + outside
        + (0 if fused or mode != "all" else config.num_global_layers * 2 * state)
    )


def _torch_layer(config: VisionConfig, rows: int, element_size: int, mode: str) -> int:
    """Of a layer without gates, operator by operator."""
    state = rows * config.hidden_size * element_size
    logsumexp = 4 * rows * config.num_attention_heads
    if mode != "all":
        return state if mode == "input" else 2 * state + logsumexp
    return 8 * state + 2 * rows * config.intermediate_size * element_size + logsumexp + 16 * rows


def _fused_layer(config: VisionConfig, rows: int, element_size: int, mode: str) -> int:
    """Of a layer with or without gates, as one node."""
    state, statistics = rows * config.hidden_size * element_size, 4 * rows
    parts = {
        "qkv": 3 * state, "mixed": state, "attention": 4 * rows * config.num_attention_heads, "total": state,
        "mean2": statistics, "rstd2": statistics, "pre": rows * config.intermediate_size * element_size,
    }  # fmt: skip
    return state + 2 * statistics + sum(parts[name] for name in KEPT[mode])


def _outside_layers(config: VisionConfig, element_size: int, state: int) -> int:
    """Patches, position embeddings, the norms before and after the local layers, the pooled features of the projector."""
    patches = config.num_patches * config.num_channels * config.patch_size**2 * element_size
    pooled = config.tokens_per_frame * config.output_dim * element_size
    embedded = config.num_positions * config.hidden_size * element_size  # the gated table's row, and the first norm's input
    return patches + 2 * embedded + state + pooled

"""How many bytes autograd keeps of one frame between its forward and its backward pass through the vision encoder.

Counted from what each operator of `model.vision` saves, every storage once, parameters left out. With S token rows of
width D, an MLP of width I, h heads and e bytes an element, a layer keeps

    input, its norm, q, k, v, attention output, the sum after it, that sum's norm    8 S D e
    the MLP before and after gelu                                                    2 S I e
    attention's logsumexp, fp32                                                      4 S h
    mean and deviation of both norms                                                 16 S (8 S e on the CPU)
    both branches before their gates, in gated layers                                2 S D e

which is 66 MB at 11B in bf16: with what lies outside the layers 2.7 GB a frame. Layer inputs and attention outputs alone
are 2 S D e + 4 S h: 8.3 MB a layer, 0.35 GB a frame.
"""

from __future__ import annotations

from model.config import VisionConfig


def activation_bytes(config: VisionConfig, element_size: int, mode: str = "all", pad_tokens: bool = True) -> int:
    """Bytes of one frame.

    Args:
        config: the tower's dimensions.
        element_size: bytes of an activation: 2 for bf16, 4 for fp32.
        mode: all | attention, as in `vision.keep_mode`.
        pad_tokens: whether the tower's padding rows take part.
    """
    rows = config.num_padded_positions if pad_tokens else config.num_positions
    state = rows * config.hidden_size * element_size
    layers, gated = config.num_hidden_layers + config.num_global_layers, config.num_global_layers
    logsumexp = 4 * rows * config.num_attention_heads
    if mode == "attention":
        return layers * (2 * state + logsumexp) + _outside_layers(config, element_size, state)
    mlp = rows * config.intermediate_size * element_size
    return (
        layers * (8 * state + 2 * mlp + logsumexp + 16 * rows) + gated * 2 * state + _outside_layers(config, element_size, state)
    )


def _outside_layers(config: VisionConfig, element_size: int, state: int) -> int:
    """Patches, position embeddings, the norms before and after the local layers, the pooled features of the projector."""
    patches = config.num_patches * config.num_channels * config.patch_size**2 * element_size
    pooled = config.tokens_per_frame * config.output_dim * element_size
    embedded = config.num_positions * config.hidden_size * element_size  # the gated table's row, and the first norm's input
    return patches + 2 * embedded + state + pooled

"""What autograd keeps of the decoder between forward and backward pass, and what passes hold for a moment, in bytes.

Counted from what each operator saves, every storage once, weights left out; measured layer by layer to 0.2 % on a GPU
(docs/benchmarks/plan-memory.md). With t rows of width H, an MLP of width I, keys and values of width K each, and e bytes an
element, a self layer of Transformer Engine's modules keeps

    inputs of both norms                                        2 t H e
    both norms' outputs, where weights train                    2 t H e
    queries, keys, values, attention's output                   t (2 H + 2 K) e
    attention's logsumexp, fp32                                 4 t heads
    the MLP's first product                                     2 t I e
    its SwiGLU, where weights train                             t I e

which is 571 MB for 4,096 rows at 11B in bf16. Torch's modules keep fp32 copies of the norms' inputs, the values within the
whole product of queries, keys and values, and silu and the other half of the MLP's first product, 2 t I e. A cross layer
keeps fp32 copies of queries and keys before their norms, too. Tensor parallelism divides what has heads or the MLP's width,
sequence parallelism also what has the width H, context parallelism all of it.
"""

from __future__ import annotations

from dataclasses import dataclass

from model.config import VideoMllamaConfig
from model.head_loss import GIB, HeadLoss
from model.vision.fused.levels import KEPT
from moss_train.config.schema import ParallelConfig

FP32 = 4
PIECE = HeadLoss.piece
"""Rows whose logits exist at once."""


@dataclass(frozen=True)
class LayerShape:
    """How the decoder's layers of one rank compute."""

    model: VideoMllamaConfig
    parallel: ParallelConfig
    element: int
    """Bytes of an activation."""
    engine: bool
    """Whether they are made of Transformer Engine's modules."""
    fp8: str = "none"
    """Of the self layers' products; with `fp8_cross` of the cross layers' too."""
    fp8_cross: bool = False

    def local_rows(self, rows: int) -> int:
        """Rows of a micro-batch on one context-parallel rank."""
        return -(-rows // self.parallel.context)

    def hidden(self, rows: int) -> int:
        """Bytes of the states between layers."""
        ranks = self.parallel.tensor if self.parallel.sequence_parallel else 1
        return -(-self.local_rows(rows) // ranks) * self.model.text.hidden_size * self.element


@dataclass(frozen=True)
class Trains:
    """What of a layer needs gradients."""

    passes: bool
    """Whether gradients reach the layer at all."""
    weights: bool
    """Whether its own weights train."""
    features: bool = True
    """Whether the frames' features need gradients."""
    adapters: bool = False
    """Whether adapters beside its products train, which keep the products' inputs; norms stand outside the products then."""

    @property
    def inputs(self) -> bool:
        """Whether products keep their inputs."""
        return self.weights or self.adapters


def self_layer(shape: LayerShape, rows: int, trains: Trains, samples: int = 1) -> int:
    """Bytes kept of one self layer.

    Args:
        rows: of the micro-batch, over all context-parallel ranks.
        samples: of the micro-batch; torch's modules join their results.
    """
    if not trains.passes:
        return 0
    text, tensor = shape.model.text, shape.parallel.tensor
    t, e = shape.local_rows(rows), shape.element
    queries = t * text.hidden_size // tensor * e
    keys = t * text.num_key_value_heads * text.head_dim // tensor * e
    kept = 2 * _norm(shape, rows, trains, shape.fp8 != "none")
    kept += 2 * queries + 2 * keys + FP32 * t * text.num_attention_heads // tensor
    if not shape.engine:  # values are a view of the whole product
        kept += queries + keys
        kept += queries if samples > 1 and trains.inputs else 0
    elif shape.fp8 == "delayed" and trains.inputs:
        kept += queries // e
    return kept + _mlp(shape, t, trains.inputs, shape.fp8 != "none")


def cross_layer(shape: LayerShape, rows: int, frames: int, trains: Trains) -> int:
    """Bytes kept of one cross layer; nothing where the micro-batch has no frame.

    Args:
        frames: of the micro-batch, over all context-parallel ranks.
    """
    if not frames or not (trains.passes or trains.features or trains.inputs):
        return 0
    text, tensor = shape.model.text, shape.parallel.tensor
    t, e, hidden = shape.local_rows(rows), shape.element, shape.hidden(rows)
    queries = t * text.hidden_size // tensor
    keys = -(-frames // shape.parallel.context) * shape.model.vision.tokens_per_frame
    keys *= text.num_key_value_heads * text.head_dim // tensor
    normed = 0 if e == FP32 else FP32
    kept = FP32 * t * text.num_attention_heads // tensor + 2 * queries * e + 2 * keys * e
    if trains.features or trains.inputs:
        kept += keys * (normed + (e if trains.weights else 0))
    if trains.passes or trains.inputs:
        kept += queries * (normed + (e if trains.weights else 0))
    kept += 2 * hidden if trains.weights else 0  # before the gates
    fp8 = shape.fp8_cross
    norms = 2 if trains.passes or trains.inputs else 1  # frozen rows meet their first gradient behind the attention
    return kept + norms * _norm(shape, rows, trains, fp8) + _mlp(shape, t, trains.inputs, fp8)


def _norm(shape: LayerShape, rows: int, trains: Trains, fp8: bool) -> int:
    """A norm before a product, and that product's input."""
    hidden, e = shape.hidden(rows), shape.element
    if shape.engine and not trains.adapters:
        return hidden + (hidden // (e if fp8 else 1) if trains.weights else 0)
    normed = hidden if trains.weights and e < FP32 else 0  # for the gradient of the norm's weight
    return hidden * FP32 // e + normed + hidden * trains.inputs


def _mlp(shape: LayerShape, local_rows: int, inputs: bool, fp8: bool) -> int:
    inner = local_rows * shape.model.text.intermediate_size // shape.parallel.tensor * shape.element
    first = 2 * inner if shape.engine else 4 * inner
    return first + (inner // (shape.element if fp8 else 1) if inputs else 0)


def layer_backward(shape: LayerShape, rows: int) -> int:
    """Bytes that the backward pass of one layer holds for a moment: gradients around the MLP, and of its widest matrix where
    that is not added to its buffer by the product itself."""
    text, tensor, e = shape.model.text, shape.parallel.tensor, shape.element
    inner = shape.local_rows(rows) * text.intermediate_size // tensor * e
    if shape.engine:
        return 3 * inner + 2 * shape.hidden(rows)
    return 5 * inner + 2 * text.intermediate_size * text.hidden_size // tensor * e + 2 * shape.hidden(rows)


def head(shape: LayerShape, rows: int, targets: int, weights: bool, kept_gib: float) -> tuple[int, int]:
    """Bytes from the last layer to the losses: kept in front of the head, and of logits and their gradient at the worst moment.

    Logits are there in pieces of rows: those that stay until the backward pass, and one more where not all do. The backward pass
    makes the gradient of the rows that enter the head beside them.

    Args:
        targets: rows of the micro-batch that have a target: the head runs on them only.
        weights: whether decoder weights train.
        kept_gib: `train.head_logits_gib`.
    """
    text, e = shape.model.text, shape.element
    hidden = shape.hidden(rows)
    chosen = -(-targets // shape.parallel.context)
    entering = chosen * text.hidden_size * e
    kept = hidden * FP32 // e + weights * hidden * (e < FP32) + entering
    row = -(-text.vocab_size // shape.parallel.tensor) * e
    again = logits_again(shape, chosen, kept_gib)
    staying, piece = chosen - again, min(again, PIECE)
    forward, backward = staying + piece, max(staying, piece)  # what stayed is gone when the rest is computed again
    return kept, max(forward * row, backward * row + entering)


def logits_again(shape: LayerShape, targets: int, kept_gib: float) -> int:
    """Rows of a micro-batch whose logits do not stay until the backward pass, which multiplies for them again."""
    row = -(-shape.model.text.vocab_size // shape.parallel.tensor) * shape.element
    pieces = [min(PIECE, targets - begin) for begin in range(0, targets, PIECE)]
    room, staying = kept_gib * GIB, 0
    for size in pieces:
        room -= size * row
        staying += size if room >= 0 else 0
    return targets - staying


def frame_encoding(model: VideoMllamaConfig, element: int, fused: bool, fp8: bool = False) -> int:
    """Bytes of a frame within the tower's last layer without autograd: the states that the features take, the entries of its
    stack and of the layer, what the layer holds, pixels."""
    state, inner, _ = _frame_sizes(model, element)
    layer = fused_forward(model, element, fp8) if fused else 3 * state + 2 * inner
    return (len(model.vision.intermediate_layers_indices) + 2) * state + layer + _pixels(model, element)


def frame_keeping(model: VideoMllamaConfig, element: int, level: str, fused: bool, fp8: bool = False) -> int:
    """The same with autograd, beside all that is kept of the frame, the states among it.

    Args:
        level: of `vision.keep_mode`, resolved.
    """
    state, inner, _ = _frame_sizes(model, element)
    if fused:
        layer = fused_forward(model, element, fp8) - sum(_kept_parts(model, element, level).values())
    else:
        layer = state if level == "all" else 5 * state + 2 * inner
    return layer + _pixels(model, element)


def frame_return(model: VideoMllamaConfig, element: int, level: str, fused: bool, fp8: bool = False) -> int:
    """Bytes of a frame in the backward pass of the tower's last layer, beside what is kept: gradients of the states that the
    features take, and what the layer holds.

    Args:
        level: of `vision.keep_mode`, resolved.
    """
    state, inner, logsumexp = _frame_sizes(model, element)
    gradients = len(model.vision.intermediate_layers_indices) * state
    if fused:
        return gradients + fused_backward(model, element, level, fp8)
    again = 0 if level == "all" else 6 * state + 2 * inner + (state + logsumexp if level == "input" else 0)
    return gradients + state + 2 * inner + again


def _pixels(model: VideoMllamaConfig, element: int) -> int:
    """As they come, and normalised."""
    return model.vision.num_channels * model.vision.image_size**2 * (1 + element)


def fused_forward(model: VideoMllamaConfig, element: int, fp8: bool = False) -> int:
    """Bytes of a frame at the end of a fused layer's forward pass beside the layer's entry, whatever it keeps.

    Both norms, queries, keys and values, attention's output, the sum behind it, fc1's result, its gelu, fc2's result: 16
    states of 4.1 MB at 11B in bf16, less by half of the norms and gelu where they are in fp8.
    """
    state, inner, logsumexp = _frame_sizes(model, element)
    operand = element if fp8 else 1
    return 6 * state + 2 * state // operand + inner + inner // operand + logsumexp


def fused_backward(model: VideoMllamaConfig, element: int, level: str, fp8: bool = False) -> int:
    """Bytes of a frame at the worst moment of a fused layer's backward pass beside what it kept: the gradient that comes in,
    gelu's, fc1's, gelu again, and the states that the level did not keep.

    Args:
        level: of `vision.keep_mode`, resolved.
    """
    state, inner, _ = _frame_sizes(model, element)
    operand = element if fp8 else 1
    held = state + inner + 2 * (inner // operand) + (state // operand if fp8 else 0)
    operands = {"pre": state // operand, "qkv": state // operand}  # the norms in front of these products
    kept = _kept_parts(model, element, level)
    parts = _kept_parts(model, element, "all")
    return held + sum(size + operands.get(name, 0) for name, size in parts.items() if name not in kept)


def _kept_parts(model: VideoMllamaConfig, element: int, level: str) -> dict[str, int]:
    """What a fused layer keeps of a frame beside its entry; numbers by row left out."""
    state, inner, logsumexp = _frame_sizes(model, element)
    sizes = {"qkv": 3 * state, "mixed": state, "attention": logsumexp, "total": state, "pre": inner}
    return {name: sizes[name] for name in KEPT[level] if name in sizes}


def _frame_sizes(model: VideoMllamaConfig, element: int) -> tuple[int, int, int]:
    """Bytes of a frame's state [rows, D], of fc1's result, of attention's logsumexp in fp32."""
    vision = model.vision
    rows = vision.num_padded_positions if model.switches.vit_keep_pad_tokens else vision.num_positions
    return (
        rows * vision.hidden_size * element, rows * vision.intermediate_size * element, FP32 * rows * vision.num_attention_heads,
    )  # fmt: skip

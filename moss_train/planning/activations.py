"""What autograd keeps of the decoder between forward and backward pass, and what passes hold for a moment, in bytes.

Counted from what each operator saves, every storage once, weights left out; measured layer by layer to 0.2 % on a GPU
(docs/benchmarks/plan-memory.md). With t rows of width H, an MLP of width I, keys and values of width K each, and e bytes an
element, a self layer of Transformer Engine's modules keeps

    inputs of both norms                                        2 t H e
    both norms' outputs, where weights train                    2 t H e
    queries, keys, values, attention's output                   t (2 H + 2 K) e
    attention's logsumexp, fp32                                 4 t heads
    the MLP's first product, silu, the other half               4 t I e
    their product, where weights train                          t I e

which is 806 MB for 4,096 rows at 11B in bf16. Torch's modules keep fp32 copies of the norms' inputs, and the values within
the whole product of queries, keys and values. A cross layer keeps fp32 copies of queries and keys before their norms, too.
Tensor parallelism divides what has heads or the MLP's width, sequence parallelism also what has the width H, context
parallelism all of it.
"""

from __future__ import annotations

from dataclasses import dataclass

from model.config import VideoMllamaConfig
from moss_train.config.schema import ParallelConfig

FP32 = 4


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
    return 4 * inner + (inner // (shape.element if fp8 else 1) if inputs else 0)


def layer_backward(shape: LayerShape, rows: int) -> int:
    """Bytes that the backward pass of one layer holds for a moment: gradients around the MLP, and of its widest matrix."""
    text, tensor, e = shape.model.text, shape.parallel.tensor, shape.element
    inner = shape.local_rows(rows) * text.intermediate_size // tensor * e
    return 5 * inner + 2 * text.intermediate_size * text.hidden_size // tensor * e + 2 * shape.hidden(rows)


def head(shape: LayerShape, rows: int, targets: int, weights: bool) -> tuple[int, int]:
    """Bytes from the last layer to the losses: kept in front of the head, and of logits at the worst moment.

    On one rank the backward pass holds the gradient of the losses' log-probabilities, these, and the gradient of the
    logits, all in fp32. Split over tensor-parallel ranks it works in one fp32 tensor, from which the bf16 gradient is made.

    Args:
        targets: rows of the micro-batch that have a target: the head runs on them only, except under sequence parallelism.
        weights: whether decoder weights train.
    """
    text, e, tensor = shape.model.text, shape.element, shape.parallel.tensor
    hidden = shape.hidden(rows)
    chosen = rows if shape.parallel.sequence_parallel else targets
    chosen = -(-chosen // shape.parallel.context)
    kept = hidden * FP32 // e + weights * (hidden * (e < FP32) + chosen * text.hidden_size * e)
    columns = -(-text.vocab_size // tensor)
    logits = chosen * columns * (3 * FP32 if tensor == 1 else FP32 + e)
    return kept, max(logits, chosen * columns * e + weights * columns * text.hidden_size * e)


def frame_encoding(model: VideoMllamaConfig, element: int) -> int:
    """Bytes of a frame at the end of the tower's forward pass without autograd: kept states, joined features, pixels."""
    vision = model.vision
    rows = vision.num_padded_positions if model.switches.vit_keep_pad_tokens else vision.num_positions
    states = len(vision.intermediate_layers_indices)
    pixels = vision.num_channels * vision.image_size**2
    padded = rows * vision.hidden_size * element
    joined = vision.num_positions * vision.hidden_size * element
    return (states + 2) * padded + (2 * states + 1) * joined + pixels * (1 + element)


def frame_return(model: VideoMllamaConfig, element: int) -> int:
    """Bytes of a frame at the start of the tower's backward pass beside its kept state: three gradients of the joined features
    (of the class token, of the patches, and of both), and those of the features."""
    vision = model.vision
    features = vision.tokens_per_frame * model.text.hidden_size
    return (
        3 * vision.num_positions * vision.output_dim * element
        + vision.tokens_per_frame * vision.output_dim * element
        + features * element
    )  # fmt: skip

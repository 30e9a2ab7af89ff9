"""Floating-point operations of a training step, and what GPUs offer: the one table for monitors, plans and benchmarks.

A multiplication and an addition are two operations. Counted are matrix products and attention; norms, activations and
embedding look-ups are left out. One rule says how often the forward operations of a product count in training: once for
the forward pass, once more if the gradient of its input is needed, once more if its weights train. That makes 3 where
everything trains, 2 for frozen layers that gradients pass through, 1 for a frozen prefix (the tower when only the
projector trains, the decoder's layers below the first one that leads to something trained). Attention has no weights: it
counts once more for each side, rows and what they look at, whose gradient is needed. The layer in which gradients end
counts whole, and so does the tower's first product.

What is computed a second time to save memory is work of the hardware, not of the model: `hardware_flops` adds it.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING

from model.config import VideoMllamaConfig
from moss_train.frames.cost import AGAIN as AGAIN
from moss_train.frames.cost import again_flops, frame_flops, layer_flops

if TYPE_CHECKING:
    from moss_train.config.schema import LoraConfig, StageConfig

GIB = 2**30
TRAINED_PARTS: dict[str, frozenset[str]] = {
    "projector_only": frozenset({"projector"}),
    "vision+projector+xattn": frozenset({"vision_tower", "projector", "cross_layers"}),
    "all": frozenset({"vision_tower", "projector", "cross_layers", "text"}),
    "vision_tower": frozenset({"vision_tower"}),
    "text_only": frozenset({"text"}),
}
"""`stage.trainable` -> the parts that train, as `model.freeze` applies it."""
TARGETS: dict[str, tuple[str, ...]] = {
    "text": ("attention_qkv", "attention_proj", "mlp_fc1", "mlp_fc2"),
    "cross_layers": ("cross_q", "cross_kv", "cross_proj", "mlp_fc1", "mlp_fc2"),
    "vision_tower": ("vision_attention", "vision_mlp"),
}
"""Part -> the targets of adapters that it has layers for."""


@dataclass(frozen=True)
class Gpu:
    """What the vendor states for one GPU."""

    name: str
    bf16: float
    """Dense bf16 operations a second."""
    fp8: float | None
    """Dense fp8 operations a second; None where the GPU has no fp8."""
    memory: int
    """Bytes that a process sees."""
    bandwidth: float
    """Bytes a second, of its memory."""
    link: float
    """Bytes a second to the other GPUs of its node, one direction."""

    def peak(self, fp8: bool = False) -> float:
        """Operations a second that a utilisation is measured against."""
        return self.fp8 if fp8 and self.fp8 is not None else self.bf16


PEAK: dict[str, Gpu] = {
    "A100": Gpu("A100", 312e12, None, int(79.1 * GIB), 2.039e12, 300e9),
    "H100": Gpu("H100", 989e12, 1979e12, int(79.1 * GIB), 3.35e12, 450e9),
    "H200": Gpu("H200", 989e12, 1979e12, int(139.8 * GIB), 4.8e12, 450e9),
}
"""SXM variants; the A100 with 80 GB."""


def gpu_of(device_name: str) -> Gpu | None:
    """The table's row for a device name of torch, e.g. "NVIDIA H100 80GB HBM3"; None for others, PCIe and NVL variants too."""
    if any(variant in device_name for variant in ("PCI", "NVL", "MIG")):
        return None
    names = {"H200": "H200", "H100": "H100", "H800": "H100", "A100": "A100", "A800": "A100"}
    return next((PEAK[row] for part, row in names.items() if part in device_name.split("-")[0]), None)


@dataclass(frozen=True)
class Work:
    """What a step, or any part of it, computes with."""

    rows: int
    """Rows of the decoder, padding included."""
    frames: int = 0
    """Frames encoded."""
    self_pairs: int = 0
    """Pairs (row, row before it or itself) within samples: n (n + 1) / 2 for a sample of n rows."""
    cross_pairs: int = 0
    """Pairs (row, frame that it sees)."""
    cross_rows: int | None = None
    """Rows of micro-batches with frames: all of them go through the cross layers, text-only samples too. None: all rows, if
    there are frames."""
    head_rows: int | None = None
    """Rows of which logits are made, those with a target; None: all rows."""

    def __add__(self, other: Work) -> Work:
        return Work(
            self.rows + other.rows, self.frames + other.frames,
            self.self_pairs + other.self_pairs, self.cross_pairs + other.cross_pairs,
            self.through_cross + other.through_cross, self.through_head + other.through_head,
        )  # fmt: skip

    @property
    def through_cross(self) -> int:
        """Rows that pass the cross layers."""
        return self.cross_rows if self.cross_rows is not None else self.rows if self.frames or self.cross_pairs else 0

    @property
    def through_head(self) -> int:
        """Rows that pass the head."""
        return self.rows if self.head_rows is None else self.head_rows


@dataclass(frozen=True)
class Flops:
    """Operations by part. Keys and values of frames, and all of the cross layers' own MLPs, are `cross`."""

    vision: float = 0.0
    projector: float = 0.0
    text: float = 0.0
    cross: float = 0.0
    head: float = 0.0

    @property
    def total(self) -> float:
        return self.vision + self.projector + self.text + self.cross + self.head

    @property
    def decoder(self) -> float:
        """All but the vision encoder's."""
        return self.text + self.cross + self.head

    def __add__(self, other: Flops) -> Flops:
        return Flops(
            self.vision + other.vision, self.projector + other.projector, self.text + other.text,
            self.cross + other.cross, self.head + other.head,
        )  # fmt: skip


@dataclass(frozen=True)
class Gradients:
    """What trains, and how far gradients have to go."""

    parts: frozenset[str]
    """Parts whose weights train; with adapters the projector at most."""
    moved: frozenset[str]
    """Parts in which anything trains, adapters included; the projector is not listed."""
    features: bool
    """Whether the frames' features need a gradient."""
    entry: int
    """The lowest decoder layer that gradients reach; the number of layers if they reach none."""

    @classmethod
    def of(cls, config: VideoMllamaConfig, stage: StageConfig, lora: LoraConfig | None = None) -> Gradients:
        """Of a stage.

        Args:
            lora: adapters; None, or rank 0, uses none.
        """
        parts = TRAINED_PARTS[stage.trainable]
        text = config.text
        crosses = text.cross_attention_layers
        if stage.objective == "dense_labels":
            return cls(parts & {"vision_tower"}, frozenset({"vision_tower"}), False, text.num_hidden_layers)
        weights, moved = parts, parts
        if lora is not None and lora.rank:
            weights = frozenset({"projector"}) & parts if "projector" in lora.train_also else frozenset()
            moved = frozenset(part for part in parts - {"projector"} if _adapts(part, lora))
        features = "vision_tower" in moved or "projector" in weights
        selfs = (i for i in range(text.num_hidden_layers) if i not in crosses)
        starts = [0] if "text" in weights else list(itertools.islice(selfs, int("text" in moved)))
        starts += list(crosses[:1]) if "cross_layers" in moved or features else []
        return cls(weights, moved - {"projector"}, features, min(starts, default=text.num_hidden_layers))

    @property
    def tower(self) -> bool:
        """Whether anything in the tower trains."""
        return "vision_tower" in self.moved


def _adapts(part: str, lora: LoraConfig) -> bool:
    """Whether anything of a part that its stage trains does so beside adapters, too."""
    small = {"norms"} if part == "text" else {"norms", "gates"}
    return any(target in TARGETS[part] for target in lora.targets) or bool(small & set(lora.train_also))


def forward_flops(config: VideoMllamaConfig, work: Work) -> Flops:
    """Operations of the forward pass: 3.07 T a frame and 18.4 G a row at 11B, scores apart."""
    text, crosses = config.text, len(config.text.cross_attention_layers)
    selfs = text.num_hidden_layers - crosses
    projector = projector_flops(config)
    return Flops(
        vision=work.frames * (frame_flops(config) - projector),
        projector=work.frames * projector,
        text=selfs * (work.rows * row_flops(config) + _scores(config) * work.self_pairs),
        cross=crosses * (work.through_cross * cross_row_flops(config) + work.frames * key_flops(config))
        + crosses * _scores(config) * config.vision.tokens_per_frame * work.cross_pairs,
        head=2.0 * work.through_head * text.hidden_size * text.vocab_size,
    )


def model_flops(config: VideoMllamaConfig, work: Work, stage: StageConfig, lora: LoraConfig | None = None) -> Flops:
    """Operations that forward and backward passes need, nothing computed twice."""
    gradients = Gradients.of(config, stage, lora)
    if stage.objective == "dense_labels":
        return Flops(vision=3.0 * forward_flops(config, work).vision)
    reached = range(gradients.entry, config.text.num_hidden_layers)
    return _passes(config, work, gradients, len(reached), lora)


def hardware_flops(
    config: VideoMllamaConfig, work: Work, stage: StageConfig, lora: LoraConfig | None = None, *,
    recompute: str = "none", layers_again: Collection[int] | None = None, frames_again: int = 0, frames_kept: int = 0,
    keep_mode: str = "all", frames_on_host: int = 0, host_mode: str = "all", fused: bool = True, logits_again: int = 0,
) -> Flops:  # fmt: skip
    """Operations that are really done.

    Args:
        recompute: none | full, `parallel.recompute`: full runs the decoder's layers forward once more, and gradients through all
            of them, whatever trains.
        layers_again: with full, indices of the layers that run once more; None: all.
        frames_again: frames without kept state, which are encoded a second time.
        frames_kept: frames with kept state, of which the backward pass runs what `again_flops` says.
        keep_mode: what is kept of them, a level of `AGAIN`.
        frames_on_host: further ones, whose state went to host memory.
        host_mode: what is kept of those.
        fused: whether the tower's layers are.
        logits_again: rows of which the head's backward pass makes the logits once more.
    """
    done = model_flops(config, work, stage, lora)
    if stage.objective == "dense_labels":
        return done
    if recompute == "full":
        forward = forward_flops(config, work)
        gradients = Gradients.of(config, stage, lora)
        done = _passes(config, work, gradients, config.text.num_hidden_layers, lora)
        crosses, layers = set(config.text.cross_attention_layers), set(range(config.text.num_hidden_layers))
        ran = layers if layers_again is None else layers & set(layers_again)
        done += Flops(
            text=forward.text * len(ran - crosses) / max(len(layers - crosses), 1),
            cross=forward.cross * len(ran & crosses) / max(len(crosses), 1),
        )
    again = frames_again * frame_flops(config)
    for frames, mode in ((frames_kept, keep_mode), (frames_on_host, host_mode)):
        again += frames * again_flops(config.vision, mode, fused, config.switches.vit_keep_pad_tokens)
    text = config.text
    return done + Flops(vision=again, head=2.0 * logits_again * text.hidden_size * text.vocab_size)


def _passes(config: VideoMllamaConfig, work: Work, gradients: Gradients, reached_layers: int, lora: LoraConfig | None) -> Flops:
    """Forward and backward operations where gradients reach the uppermost `reached_layers` layers of the decoder."""
    text, parts = config.text, gradients.parts
    first = text.num_hidden_layers - reached_layers
    cross_reached = sum(i >= first for i in text.cross_attention_layers)
    crosses = len(text.cross_attention_layers)
    selfs, self_reached = text.num_hidden_layers - crosses, reached_layers - cross_reached
    keys = gradients.features or "cross_layers" in parts
    cross_scores = _scores(config) * config.vision.tokens_per_frame * work.cross_pairs
    adapters = _adapters(config, work, gradients, lora)
    tower = 3.0 if "vision_tower" in parts else 1.0
    vision_forward = forward_flops(config, work).vision
    attention = work.frames * _tower_attention(config)
    if gradients.tower and "vision_tower" not in parts:  # adapters alone: gradients pass, the weights rest
        vision = 2.0 * (vision_forward - attention) + 3.0 * attention
    else:
        vision = tower * vision_forward
    trains = {part: float(part in parts) for part in ("text", "cross_layers", "projector")}
    return adapters + Flops(
        vision=vision,
        projector=work.frames * projector_flops(config) * (1 + gradients.tower + trains["projector"]),
        text=work.rows * row_flops(config) * (selfs * (1 + trains["text"]) + self_reached)
        + _scores(config) * work.self_pairs * (selfs + 2 * self_reached),
        cross=work.through_cross * cross_row_flops(config) * (crosses * (1 + trains["cross_layers"]) + cross_reached)
        + crosses * work.frames * key_flops(config) * (1 + gradients.features + trains["cross_layers"])
        + cross_scores * (crosses * (1 + keys) + cross_reached),
        head=2.0 * work.through_head * text.hidden_size * text.vocab_size * (1 + (reached_layers > 0) + trains["text"]),
    )


def row_flops(config: VideoMllamaConfig) -> float:
    """Forward operations of the products of one self layer for one row."""
    text = config.text
    width, keys = text.hidden_size, text.num_key_value_heads * text.head_dim
    return 2.0 * width * (2 * width + 2 * keys + 3 * text.intermediate_size)


def cross_row_flops(config: VideoMllamaConfig) -> float:
    """Forward operations of the products of one cross layer for one row; `key_flops` has those for a frame."""
    text = config.text
    return 2.0 * text.hidden_size * (2 * text.hidden_size + 3 * text.intermediate_size)


def key_flops(config: VideoMllamaConfig) -> float:
    """Forward operations of one cross layer's keys and values of one frame."""
    text = config.text
    return 2.0 * config.vision.tokens_per_frame * text.hidden_size * 2 * text.num_key_value_heads * text.head_dim


def projector_flops(config: VideoMllamaConfig) -> float:
    """Forward operations of the projector for one frame."""
    return 2.0 * config.vision.tokens_per_frame * config.vision.output_dim * config.text.hidden_size


def _scores(config: VideoMllamaConfig) -> float:
    """Of one pair of tokens in one layer of the decoder: score and weighted value."""
    return 4.0 * config.text.num_attention_heads * config.text.head_dim


def _tower_attention(config: VideoMllamaConfig) -> float:
    layers = config.vision.num_hidden_layers + config.vision.num_global_layers
    return layers * layer_flops(config.vision, config.switches.vit_keep_pad_tokens)["attention"]


def _adapters(config: VideoMllamaConfig, work: Work, gradients: Gradients, lora: LoraConfig | None) -> Flops:
    """Both factors of every adapter, three passes."""
    if lora is None or not lora.rank:
        return Flops()
    text, vision = config.text, config.vision
    width, keys, inner = text.hidden_size, 2 * text.num_key_value_heads * text.head_dim, text.intermediate_size
    crosses = len(text.cross_attention_layers)
    sides = {"attention_qkv": 2 * width + keys, "attention_proj": 2 * width, "cross_q": 2 * width, "cross_proj": 2 * width,
             "mlp_fc1": width + 2 * inner, "mlp_fc2": width + inner}  # fmt: skip
    once = 6.0 * lora.rank  # 2 operations, 3 passes
    in_self, in_cross = (
        sum(sides[target] for target in lora.targets if target in TARGETS[part] and target != "cross_kv")
        for part in ("text", "cross_layers")
    )
    tokens = vision.num_padded_positions if config.switches.vit_keep_pad_tokens else vision.num_positions
    in_tower = 8 * vision.hidden_size * ("vision_attention" in lora.targets)
    in_tower += 2 * (vision.hidden_size + vision.intermediate_size) * ("vision_mlp" in lora.targets)
    layers = vision.num_hidden_layers + vision.num_global_layers
    pair = vision.tokens_per_frame * work.frames * (width + keys) * ("cross_kv" in lora.targets)
    return Flops(
        vision=once * work.frames * tokens * layers * in_tower * ("vision_tower" in gradients.moved),
        text=once * work.rows * (text.num_hidden_layers - crosses) * in_self * ("text" in gradients.moved),
        cross=once * crosses * (work.through_cross * in_cross + pair) * ("cross_layers" in gradients.moved),
    )

"""What a model must compute and read, from its dimensions alone, and how long a chip takes at the least.

Operations count a multiplication and an addition as two. Bytes of a step are the weights and the keys and values that it
has to read once; activations are left out, so every floor is a lower bound.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from model.config import VideoMllamaConfig

RECIPES = ("bf16", "fp8", "fp8_self", "fp8_all")
"""How weights are kept: all in bf16; self layers and all MLPs in fp8; self layers alone; all that a decoding step reads."""


@dataclass(frozen=True)
class Chip:
    """What a device reaches."""

    name: str
    bytes_per_second: float
    flops: float
    """Of dense bf16 matrix products, a second."""
    fp8_flops: float


H200 = Chip("NVIDIA H200", bytes_per_second=4.3e12, flops=790e12, fp8_flops=1212e12)
"""As measured: a copy in memory, and matrix products of the tower's sizes."""

H100 = Chip("NVIDIA H100", bytes_per_second=3.0e12, flops=790e12, fp8_flops=1212e12)
"""As measured: the same chip with slower memory. Products of a second or more run at 670e12, where its 700 W end."""

CHIPS = (H200, H100)


def chip_named(device: str) -> Chip:
    """The limits of the chip that a device's name tells; of an H200 under that name where nobody measured them."""
    for chip in CHIPS:
        if chip.name.split()[-1] in device:
            return chip
    return replace(H200, name=f"{H200.name} (measured on {device})")


@dataclass(frozen=True)
class Parameters:
    """Numbers of weights."""

    vision: int
    projector: int
    self_layer: int
    cross_layer: int
    cross_key_value: int
    """Of one cross layer: read when a frame arrives, not when a token is decoded."""
    mlp: int
    """Of one layer of either kind."""
    embedding: int
    head: int
    final_norm: int
    self_layers: int
    cross_layers: int

    @property
    def total(self) -> int:
        """All weights of a checkpoint."""
        text = self.self_layers * self.self_layer + self.cross_layers * self.cross_layer
        return self.vision + self.projector + text + self.embedding + self.head + self.final_norm

    @property
    def cross_reading(self) -> int:
        """Of all cross layers, what a decoding step reads."""
        return self.cross_layers * (self.cross_layer - self.cross_key_value)

    @property
    def decoding(self) -> int:
        """What one decoding step reads; of the embedding it reads one row, which does not count."""
        return self.self_layers * self.self_layer + self.cross_reading + self.head


def parameters(config: VideoMllamaConfig) -> Parameters:
    """Count the weights of a model."""
    v, t = config.vision, config.text
    d, f = v.hidden_size, v.intermediate_size
    block = 4 * d * d + 2 * d * f + (f + d) + 4 * d
    layers = (v.num_hidden_layers + v.num_global_layers) * block + 2 * v.num_global_layers
    ratios = v.max_aspect_ratio_id + 1
    positions = 1 + v.num_positions * d + ratios * v.max_num_tiles * v.num_positions * d
    tiles = 2 * (1 + ratios * v.max_num_tiles * d)
    vision = layers + d + v.num_channels * v.patch_size**2 * d + positions + tiles + 4 * d
    h, kv = t.hidden_size, t.num_key_value_heads * t.head_dim
    mlp = 3 * h * t.intermediate_size
    layer = 2 * h * h + 2 * h * kv + mlp + 2 * h
    return Parameters(
        vision=vision,
        projector=v.output_dim * h + h,
        self_layer=layer,
        cross_layer=layer + 2 * t.head_dim + 2,
        cross_key_value=2 * h * kv,
        mlp=mlp,
        embedding=t.embedding_rows * h,
        head=t.vocab_size * h,
        final_norm=h,
        self_layers=t.num_hidden_layers - len(t.cross_attention_layers),
        cross_layers=len(t.cross_attention_layers),
    )


def padded_tokens(config: VideoMllamaConfig, patch_rows: int | None = None) -> int:
    """Rows of one frame inside the tower: patches and class token, up to the next multiple of 8.

    Args:
        patch_rows: rows of the patch grid that hold a picture; None: all.
    """
    grid = config.vision.grid_size
    return -(-((grid if patch_rows is None else patch_rows) * grid + 1) // 8) * 8


def tower_flops(config: VideoMllamaConfig, patch_rows: int | None = None) -> float:
    """Operations of the tower for one frame."""
    linear, attention = tower_parts(config, patch_rows)
    return linear + attention


def tower_parts(config: VideoMllamaConfig, patch_rows: int | None = None) -> tuple[float, float]:
    """Operations of the tower for one frame: (matrix products with weights, attention)."""
    v = config.vision
    d, f, layers = v.hidden_size, v.intermediate_size, v.num_hidden_layers + v.num_global_layers
    rows = padded_tokens(config, patch_rows)
    patches = (v.grid_size if patch_rows is None else patch_rows) * v.grid_size
    embedding = 2.0 * patches * v.num_channels * v.patch_size**2 * d
    return layers * 2.0 * rows * (4 * d * d + 2 * d * f) + embedding, layers * 4.0 * rows**2 * d


def projector_flops(config: VideoMllamaConfig) -> float:
    """Operations from pooled features to the decoder's width, for one frame."""
    return 2.0 * config.vision.tokens_per_frame * config.vision.output_dim * config.text.hidden_size


def cross_key_value_flops(config: VideoMllamaConfig) -> float:
    """Operations of the keys and values of all cross layers, for one frame."""
    return 2.0 * config.vision.tokens_per_frame * parameters(config).cross_layers * parameters(config).cross_key_value


def prefill_flops(config: VideoMllamaConfig, rows: int, frames: int) -> float:
    """Operations of the decoder for a prompt of `rows` rows over `frames` frames; the head reads the last row alone."""
    t, p = config.text, parameters(config)
    weights = 2.0 * rows * (p.decoding - p.head)
    self_attention = p.self_layers * 4.0 * rows**2 * t.hidden_size / 2
    cross_attention = p.cross_layers * 4.0 * rows * config.vision.tokens_per_frame * frames * t.hidden_size
    return weights + self_attention + cross_attention + 2.0 * p.head


def answer_flops(config: VideoMllamaConfig, rows: int, frames: int) -> float:
    """Operations from pixels to the first token."""
    frame = tower_flops(config) + projector_flops(config) + cross_key_value_flops(config)
    return frames * frame + prefill_flops(config, rows, frames)


def cross_bytes_per_frame(config: VideoMllamaConfig, element_bytes: float = 2.0) -> float:
    """Bytes of one frame's keys and values in all cross layers."""
    t = config.text
    heads = 2 * t.num_key_value_heads * t.head_dim
    return len(t.cross_attention_layers) * heads * element_bytes * config.vision.tokens_per_frame


def self_bytes_per_position(config: VideoMllamaConfig, element_bytes: float = 2.0) -> float:
    """Bytes of one position's keys and values in all self layers."""
    t = config.text
    return (t.num_hidden_layers - len(t.cross_attention_layers)) * 2 * t.num_key_value_heads * t.head_dim * element_bytes


def weight_bytes(config: VideoMllamaConfig, recipe: str = "bf16") -> float:
    """Bytes of weights that one decoding step reads, scales left out.

    Raises:
        ValueError: an unknown recipe.
    """
    p = parameters(config)
    self_layers = p.self_layers * p.self_layer
    narrow = {"bf16": 0, "fp8": self_layers + p.cross_layers * p.mlp, "fp8_self": self_layers, "fp8_all": p.decoding}
    if recipe not in narrow:
        raise ValueError(f"recipe is {recipe!r}; use one of {', '.join(RECIPES)}")
    return 2.0 * p.decoding - narrow[recipe]


def decode_bytes(
    config: VideoMllamaConfig,
    frames: float,
    positions: float,
    *,
    recipe: str = "bf16",
    sessions: int = 1,
    fp8_cross: bool = False,
) -> float:
    """Bytes that one step of `sessions` sessions reads, each of `frames` frames and `positions` positions."""
    cross = frames * cross_bytes_per_frame(config, 1.0 if fp8_cross else 2.0)
    return weight_bytes(config, recipe) + sessions * (cross + positions * self_bytes_per_position(config))


def decode_floor(
    config: VideoMllamaConfig,
    chip: Chip,
    frames: float,
    positions: float,
    *,
    recipe: str = "bf16",
    sessions: int = 1,
    fp8_cross: bool = False,
) -> float:
    """Seconds of one decoding step at the least."""
    read = decode_bytes(config, frames, positions, recipe=recipe, sessions=sessions, fp8_cross=fp8_cross)
    return read / chip.bytes_per_second


def first_token_floor(config: VideoMllamaConfig, chip: Chip, rows: int, frames: int) -> float:
    """Seconds from pixels to the first token at the least, in bf16."""
    return answer_flops(config, rows, frames) / chip.flops


def fast_floor(config: VideoMllamaConfig, chip: Chip, rows: int, frames: int, patch_rows: int) -> float:
    """The same with fp8 matrix products in the tower and only `patch_rows` rows of its grid."""
    linear, attention = tower_parts(config, patch_rows)
    other = frames * (projector_flops(config) + cross_key_value_flops(config)) + prefill_flops(config, rows, frames)
    return frames * (linear / chip.fp8_flops + attention / chip.flops) + other / chip.flops


def stream_floor(config: VideoMllamaConfig, chip: Chip, frames: int, positions: int) -> float:
    """Seconds from one new frame to the token after it at the least."""
    frame = tower_flops(config) + projector_flops(config) + cross_key_value_flops(config)
    return frame / chip.flops + decode_floor(config, chip, frames, positions)


def end_to_end_floor(config: VideoMllamaConfig, chip: Chip, rows: int, frames: int, tokens: int) -> float:
    """Seconds from pixels to the last of `tokens` tokens at the least."""
    steps = tokens - 1
    decoding = steps * decode_floor(config, chip, frames, rows + steps / 2)
    return first_token_floor(config, chip, rows, frames) + decoding


def stages(config: VideoMllamaConfig, chip: Chip, rows: int, frames: int) -> dict[str, dict[str, float]]:
    """Operations and floor in seconds of each stage of answering a question about `frames` frames."""
    linear, attention = tower_parts(config)
    parts = {
        "tower": frames * (linear + attention),
        "projector": frames * projector_flops(config),
        "cross keys and values": frames * cross_key_value_flops(config),
        "prefill": prefill_flops(config, rows, frames),
    }
    return {name: {"flops": flops, "floor_s": flops / chip.flops} for name, flops in parts.items()}

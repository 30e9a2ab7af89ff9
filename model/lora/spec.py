"""Which layers are adapted and how. Imports neither torch nor megatron-core."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from model.config import VideoMllamaConfig
from model.errors import InputError

MODULES: dict[str, tuple[str, ...]] = {
    "attention_qkv": ("self_attention.linear_qkv",),
    "attention_proj": ("self_attention.linear_proj",),
    "cross_q": ("cross_attention.linear_q",),
    "cross_kv": ("cross_attention.linear_kv",),
    "cross_proj": ("cross_attention.linear_proj",),
    "mlp_fc1": ("mlp.linear_fc1",),
    "mlp_fc2": ("mlp.linear_fc2",),
    "vision_attention": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj"),
    "vision_mlp": ("mlp.fc1", "mlp.fc2"),
}
"""Target to the linear layers it means, by their place inside a decoder layer or a layer of the tower."""

PARTS: dict[str, tuple[str, ...]] = {
    "attention_qkv": ("text",), "attention_proj": ("text",),
    "cross_q": ("cross_layers",), "cross_kv": ("cross_layers",), "cross_proj": ("cross_layers",),
    "mlp_fc1": ("text", "cross_layers"), "mlp_fc2": ("text", "cross_layers"),
    "vision_attention": ("vision_tower",), "vision_mlp": ("vision_tower",),
}  # fmt: skip
"""Target to the parts of the model (`model.freeze.PARTS`) that have such layers."""


@dataclass(frozen=True, kw_only=True)
class LoraSpec:
    """Adapters of one model; a checkpoint with adapters carries these values."""

    rank: int
    alpha: float
    targets: tuple[str, ...]
    parts: tuple[str, ...]
    """Parts of the model in which targets are adapted: those that the stage trains."""
    train_also: tuple[str, ...] = ()
    """What else trains in what the stage trains: projector, gates, norms."""

    @property
    def scale(self) -> float:
        """Factor of an adapter's output."""
        return self.alpha / self.rank

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> LoraSpec:
        """From the values of `dataclasses.asdict`."""
        return cls(
            rank=int(values["rank"]), alpha=float(values["alpha"]), targets=tuple(values["targets"]),
            parts=tuple(values["parts"]), train_also=tuple(values["train_also"]),
        )  # fmt: skip

    def modules(self, part: str) -> tuple[str, ...]:
        """The adapted linear layers inside a layer of `part`."""
        if part not in self.parts:
            return ()
        return tuple(name for target in self.targets if part in PARTS[target] for name in MODULES[target])

    def check(self, config: VideoMllamaConfig) -> None:
        """Refuses adapters that the model has no place for.

        Raises:
            InputError: a target without a layer in the parts that train, or a rank larger than a layer's matrix.
        """
        text = config.text
        counts = {
            "text": text.num_hidden_layers - len(text.cross_attention_layers),
            "cross_layers": len(text.cross_attention_layers),
            "vision_tower": config.vision.num_hidden_layers + config.vision.num_global_layers,
        }
        for target in self.targets:
            if not any(counts[part] for part in PARTS[target]):
                raise InputError(
                    f"lora.targets names {target}, but the model has no such layer (text.num_hidden_layers "
                    f"{text.num_hidden_layers}, text.cross_attention_layers {list(text.cross_attention_layers)}); leave it out"
                )
            if not any(part in self.parts and counts[part] for part in PARTS[target]):
                raise InputError(
                    f"lora.targets names {target}, whose layers stage.trainable leaves frozen (it trains "
                    f"{', '.join(self.parts) or 'nothing with adapters'}); choose another stage.trainable or leave {target} out"
                )
            largest = min(_width(target, config))
            if self.rank > largest:
                raise InputError(
                    f"lora.rank is {self.rank}, but the smaller side of {target} is {largest}; use a rank of at most {largest}"
                )


def _width(target: str, config: VideoMllamaConfig) -> tuple[int, int]:
    """Rows and columns of the smallest matrix that a target means."""
    text, vision = config.text, config.vision
    width, key_value = text.hidden_size, 2 * text.num_key_value_heads * text.head_dim
    shapes = {
        "attention_qkv": (width + key_value, width), "cross_kv": (key_value, width),
        "mlp_fc1": (2 * text.intermediate_size, width), "mlp_fc2": (width, text.intermediate_size),
        "vision_attention": (vision.hidden_size, vision.hidden_size),
        "vision_mlp": (vision.intermediate_size, vision.hidden_size),
    }  # fmt: skip
    return shapes.get(target, (width, width))

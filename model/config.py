"""Dimensions and numerical switches of VideoMllama. Imports neither torch nor megatron.

Field names follow the Hugging Face `config.json` of the family, so that a folder's own file, a Hydra
group of `conf/model/` and the dataclasses below all speak of the same thing.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from model.errors import InputError

POOL_MODES = ("average", "max", "none")
DECODE_QUERY_ROPE = ("always", "only_with_new_frames")
NO_VISIBLE_ROWS = ("attend_all", "zero", "skip")
INV_FREQ_DTYPES = ("fp32", "bf16")

_ASPECT_RATIOS = [[1, 1], [1, 2], [1, 3], [1, 4], [2, 1], [2, 2], [3, 1], [4, 1]]


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise InputError(message)


@dataclass(frozen=True, kw_only=True)
class VisionConfig:
    """The ViT: local layers, gated global layers, five kept states, pooling."""

    hidden_size: int = 1280
    num_attention_heads: int = 16
    num_hidden_layers: int = 32
    """Local layers; frames never attend to each other."""
    num_global_layers: int = 8
    """Layers after `layernorm_post` whose residual branches are scaled by tanh gates."""
    intermediate_size: int = 5120
    image_size: int = 560
    """Height and width of a frame in pixels."""
    patch_size: int = 14
    num_channels: int = 3
    norm_eps: float = 1e-5
    max_num_tiles: int = 4
    """Tiles for which the checkpoint's tables have room; this family always uses one."""
    max_aspect_ratio_id: int = 8
    """Tables have one row more: row 0 stands for padding frames."""
    intermediate_layers_indices: tuple[int, ...] = (3, 7, 15, 23, 30)
    """Index i keeps the input of local layer i."""
    pool_mode: str = "average"
    """average | max | none (none keeps every patch token)."""
    pool_stride: int = 4

    def __post_init__(self) -> None:
        object.__setattr__(self, "intermediate_layers_indices", tuple(self.intermediate_layers_indices))
        _require(self.pool_mode in POOL_MODES, f"vision.pool_mode is {self.pool_mode!r}; use one of {', '.join(POOL_MODES)}")
        _require(
            self.image_size % self.patch_size == 0,
            f"vision.image_size is {self.image_size}, not a multiple of vision.patch_size {self.patch_size}",
        )
        _require(
            self.hidden_size % self.num_attention_heads == 0,
            f"vision.hidden_size is {self.hidden_size}, not a multiple of vision.num_attention_heads {self.num_attention_heads}",
        )
        _require(
            self.pool_mode == "none" or self.grid_size % self.pool_stride == 0,
            f"vision.pool_stride is {self.pool_stride}, which does not divide the patch grid of {self.grid_size}",
        )
        _require(
            all(0 <= i <= self.num_hidden_layers for i in self.intermediate_layers_indices),
            f"vision.intermediate_layers_indices is {list(self.intermediate_layers_indices)}; "
            f"each must lie within 0..{self.num_hidden_layers}",
        )

    @property
    def grid_size(self) -> int:
        """Patches along one side of a frame."""
        return self.image_size // self.patch_size

    @property
    def num_patches(self) -> int:
        return self.grid_size**2

    @property
    def num_positions(self) -> int:
        """Patches and the class token."""
        return self.num_patches + 1

    @property
    def num_padded_positions(self) -> int:
        """Token rows inside the tower: the reference pads to a multiple of 8 and lets the padding take part."""
        return -(-self.num_positions // 8) * 8

    @property
    def output_dim(self) -> int:
        """Width of the concatenated feature: final state and the kept intermediates."""
        return self.hidden_size * (1 + len(self.intermediate_layers_indices))

    @property
    def tokens_per_frame(self) -> int:
        """Tokens of a frame that reach cross-attention, class token included."""
        return 1 + (self.num_patches if self.pool_mode == "none" else (self.grid_size // self.pool_stride) ** 2)


@dataclass(frozen=True, kw_only=True)
class RopeScaling:
    """Llama-3 frequency scaling; `factor` 1 leaves the frequencies alone."""

    factor: float = 8.0
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0
    original_max_position_embeddings: int = 8192


@dataclass(frozen=True, kw_only=True)
class TextConfig:
    """The decoder: Llama layers with gated cross-attention layers at the given indices."""

    vocab_size: int = 128256
    """Rows of the head; the embedding has 8 more, the first of them the image token."""
    hidden_size: int = 4096
    num_hidden_layers: int = 40
    """All layers, cross-attention layers included."""
    cross_attention_layers: tuple[int, ...] = (3, 8, 13, 18, 23, 28, 33, 38)
    num_attention_heads: int = 32
    num_key_value_heads: int = 8
    intermediate_size: int = 14336
    rms_norm_eps: float = 1e-5
    rope_theta: float = 500000.0
    rope_scaling: RopeScaling = field(default_factory=RopeScaling)
    max_position_embeddings: int = 131072
    bos_token_id: int | None = 128000
    eos_token_id: int | None = 128001
    pad_token_id: int | None = 128004

    def __post_init__(self) -> None:
        object.__setattr__(self, "cross_attention_layers", tuple(self.cross_attention_layers))
        if isinstance(self.rope_scaling, Mapping):
            object.__setattr__(self, "rope_scaling", RopeScaling(**self.rope_scaling))
        _require(
            self.hidden_size % self.num_attention_heads == 0,
            f"text.hidden_size is {self.hidden_size}, not a multiple of text.num_attention_heads {self.num_attention_heads}",
        )
        _require(
            self.num_attention_heads % self.num_key_value_heads == 0,
            f"text.num_attention_heads is {self.num_attention_heads}, not a multiple of "
            f"text.num_key_value_heads {self.num_key_value_heads}",
        )
        _require(
            all(0 <= i < self.num_hidden_layers for i in self.cross_attention_layers),
            f"text.cross_attention_layers is {list(self.cross_attention_layers)}; each must lie within "
            f"0..{self.num_hidden_layers - 1}",
        )

    @property
    def head_dim(self) -> int:
        return self.hidden_size // self.num_attention_heads

    @property
    def embedding_rows(self) -> int:
        return self.vocab_size + 8


@dataclass(frozen=True, kw_only=True)
class SwitchConfig:
    """Numerical choices where the reference is inconsistent with itself."""

    decode_query_rope: str = "always"
    """always | only_with_new_frames: the reference leaves cached text steps unrotated (a bug)."""
    no_visible_rows: str = "skip"
    """skip | zero | attend_all: rows that see no frame; `attend_all` is the reference's leak of later frames."""
    rope_inv_freq_dtype: str = "fp32"
    """fp32 | bf16: the reference trained with frequencies rounded to bf16."""
    vit_keep_pad_tokens: bool = True
    """Whether the padding rows inside the tower take part as keys, as in the reference."""

    def __post_init__(self) -> None:
        for name, allowed in (
            ("decode_query_rope", DECODE_QUERY_ROPE),
            ("no_visible_rows", NO_VISIBLE_ROWS),
            ("rope_inv_freq_dtype", INV_FREQ_DTYPES),
        ):
            value = getattr(self, name)
            _require(value in allowed, f"model.switches.{name} is {value!r}; use one of {', '.join(allowed)}")


@dataclass(frozen=True, kw_only=True)
class VideoMllamaConfig:
    """Everything that fixes the function computed by the model."""

    vision: VisionConfig = field(default_factory=VisionConfig)
    text: TextConfig = field(default_factory=TextConfig)
    switches: SwitchConfig = field(default_factory=SwitchConfig)

    @property
    def image_token_id(self) -> int:
        """First embedding row without a row in the head."""
        return self.text.vocab_size

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> VideoMllamaConfig:
        """Build from nested plain values (a resolved Hydra group `model`).

        Raises:
            InputError: an unknown field, or a value that is not allowed.
        """
        sections = {"vision": VisionConfig, "text": TextConfig, "switches": SwitchConfig}
        built: dict[str, Any] = {}
        for section, content in values.items():
            _require(section in sections, f"model.{section} is not known; use {', '.join(sections)}")
            names = {f.name for f in dataclasses.fields(sections[section])}
            for name in content:
                _require(name in names, f"model.{section}.{name} is not known; use one of {', '.join(sorted(names))}")
            built[section] = sections[section](**content)
        return cls(**built)

    @classmethod
    def from_hf(cls, config: Mapping[str, Any], switches: SwitchConfig | None = None) -> VideoMllamaConfig:
        """Build from the content of a Hugging Face `config.json` (`mllama` or `video_mllama`).

        Pooling is read from `vision_config.merge_mode` and `merge_size`; average over 4x4 where absent.

        Raises:
            InputError: another model type, a missing section or an unsupported activation.
        """
        model_type = config.get("model_type")
        _require(
            model_type in ("mllama", "video_mllama"),
            f"config.json has model_type {model_type!r}; only mllama and video_mllama checkpoints can be read",
        )
        for section in ("vision_config", "text_config"):
            _require(section in config, f"config.json has no {section}; the folder is not an Mllama checkpoint")
        v, t = config["vision_config"], config["text_config"]
        _require(v.get("hidden_act", "gelu") == "gelu", f"vision_config.hidden_act is {v.get('hidden_act')!r}; only gelu works")
        _require(t.get("hidden_act", "silu") == "silu", f"text_config.hidden_act is {t.get('hidden_act')!r}; only silu works")
        vision = {f.name: v[f.name] for f in dataclasses.fields(VisionConfig) if f.name in v}
        vision["num_attention_heads"] = v.get("attention_heads", v.get("num_attention_heads", 16))
        vision["pool_mode"] = v.get("merge_mode", v.get("pool_mode", "average")) or "none"
        vision["pool_stride"] = v.get("merge_size", v.get("stride", 4))
        if "supported_aspect_ratios" in v:
            vision["max_aspect_ratio_id"] = len(v["supported_aspect_ratios"])
        text = {f.name: t[f.name] for f in dataclasses.fields(TextConfig) if f.name in t and f.name != "rope_scaling"}
        if isinstance(text.get("eos_token_id"), list):
            text["eos_token_id"] = text["eos_token_id"][0]
        scaling = t.get("rope_scaling") or {"factor": 1.0}
        text["rope_scaling"] = RopeScaling(
            **{f.name: scaling[f.name] for f in dataclasses.fields(RopeScaling) if f.name in scaling}
        )
        return cls(vision=VisionConfig(**vision), text=TextConfig(**text), switches=switches or SwitchConfig())

    def to_hf(self, model_type: str = "video_mllama", torch_dtype: str = "bfloat16") -> dict[str, Any]:
        """The `config.json` content that `from_hf` reads back to an equal config.

        Args:
            model_type: `video_mllama` carries merge_mode and merge_size; `mllama` is the plain stock layout.
        """
        v, t = self.vision, self.text
        vision: dict[str, Any] = {
            "model_type": f"{model_type}_vision_model",
            "hidden_size": v.hidden_size,
            "attention_heads": v.num_attention_heads,
            "num_hidden_layers": v.num_hidden_layers,
            "num_global_layers": v.num_global_layers,
            "intermediate_size": v.intermediate_size,
            "vision_output_dim": v.output_dim,
            "image_size": v.image_size,
            "patch_size": v.patch_size,
            "num_channels": v.num_channels,
            "norm_eps": v.norm_eps,
            "hidden_act": "gelu",
            "max_num_tiles": v.max_num_tiles,
            "supported_aspect_ratios": _ASPECT_RATIOS[: v.max_aspect_ratio_id],
            "intermediate_layers_indices": list(v.intermediate_layers_indices),
        }
        if model_type == "video_mllama":
            vision |= {"merge_mode": v.pool_mode, "merge_size": v.pool_stride}
        text = {
            "model_type": f"{model_type}_text_model",
            "vocab_size": t.vocab_size,
            "hidden_size": t.hidden_size,
            "num_hidden_layers": t.num_hidden_layers,
            "cross_attention_layers": list(t.cross_attention_layers),
            "num_attention_heads": t.num_attention_heads,
            "num_key_value_heads": t.num_key_value_heads,
            "intermediate_size": t.intermediate_size,
            "hidden_act": "silu",
            "rms_norm_eps": t.rms_norm_eps,
            "rope_theta": t.rope_theta,
            "rope_scaling": {"rope_type": "llama3", **dataclasses.asdict(t.rope_scaling)},
            "max_position_embeddings": t.max_position_embeddings,
            "tie_word_embeddings": False,
            "dropout": 0,
            "bos_token_id": t.bos_token_id,
            "eos_token_id": t.eos_token_id,
            "pad_token_id": t.pad_token_id,
            "torch_dtype": torch_dtype,
        }
        name = "VideoMllamaForConditionalGeneration" if model_type == "video_mllama" else "MllamaForConditionalGeneration"
        return {
            "architectures": [name],
            "model_type": model_type,
            "image_token_index": self.image_token_id,
            "torch_dtype": torch_dtype,
            "vision_config": vision,
            "text_config": text,
        }

"""From a checkpoint folder to a model that is ready to run, every tensor checked by name and shape."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from inference.model.folder import iterate_tensors, read_config
from inference.model.video_mllama import VideoMllama
from model.config import SwitchConfig, VideoMllamaConfig
from model.errors import InputError
from model.vision.encoder import VisionEncoder

_IGNORED_SUFFIXES = ("rotary_emb.inv_freq",)


def text_shapes(config: VideoMllamaConfig) -> dict[str, tuple[int, ...]]:
    """Names and shapes of every decoder tensor in a checkpoint."""
    text = config.text
    hidden, inner, dim = text.hidden_size, text.intermediate_size, text.head_dim
    kv = text.num_key_value_heads * dim
    shapes: dict[str, tuple[int, ...]] = {
        "language_model.model.embed_tokens.weight": (text.embedding_rows, hidden),
        "language_model.model.norm.weight": (hidden,),
        "language_model.lm_head.weight": (text.vocab_size, hidden),
    }
    for i in range(text.num_hidden_layers):
        prefix = f"language_model.model.layers.{i}."
        cross = i in text.cross_attention_layers
        attention = prefix + ("cross_attn." if cross else "self_attn.")
        shapes |= {
            f"{attention}q_proj.weight": (hidden, hidden),
            f"{attention}k_proj.weight": (kv, hidden),
            f"{attention}v_proj.weight": (kv, hidden),
            f"{attention}o_proj.weight": (hidden, hidden),
            f"{prefix}mlp.gate_proj.weight": (inner, hidden),
            f"{prefix}mlp.up_proj.weight": (inner, hidden),
            f"{prefix}mlp.down_proj.weight": (hidden, inner),
            f"{prefix}input_layernorm.weight": (hidden,),
            f"{prefix}post_attention_layernorm.weight": (hidden,),
        }
        if cross:
            shapes |= {f"{attention}q_norm.weight": (dim,), f"{attention}k_norm.weight": (dim,)}
            shapes |= {f"{prefix}cross_attn_attn_gate": (1,), f"{prefix}cross_attn_mlp_gate": (1,)}
    return shapes


def load_model(
    folder: str | Path,
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float32,
    switches: SwitchConfig | None = None,
) -> VideoMllama:
    """Load a checkpoint folder for inference.

    Args:
        folder: config.json and safetensors with the key names of the Mllama family.
        device: where the weights go.
        dtype: dtype of weights, activations and caches.
        switches: numerical choices; None takes those of the folder, or the defaults, which decode correctly.

    Raises:
        InputError: a missing or broken file, an unknown or missing tensor, a tensor of another shape.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"checkpoint {folder} is not a folder; give one that holds config.json and safetensors")
    config, details = read_config(folder, switches)
    with torch.device("meta"):
        vision = VisionEncoder(config)
    expected = {name: tuple(value.shape) for name, value in vision.state_dict().items()} | text_shapes(config)
    tensors: dict[str, torch.Tensor] = {}
    for name, tensor in iterate_tensors(folder):
        if name.endswith(_IGNORED_SUFFIXES):
            continue
        if name not in expected:
            raise InputError(f"{folder} holds the tensor {name}, unknown to a model of its config.json; use matching files")
        if tuple(tensor.shape) != expected[name]:
            raise InputError(
                f"{folder}: tensor {name} has the shape {list(tensor.shape)}, config.json asks for {list(expected[name])}; "
                "use matching files"
            )
        tensors[name] = tensor.to(device=device, dtype=dtype)
    missing = sorted(set(expected) - set(tensors))
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise InputError(f"{folder} lacks the tensor {missing[0]}{more}; convert or download it again")
    return _assemble(folder, config, details, vision, tensors)


def untrained_model(
    folder: str | Path, device: str | torch.device = "cpu", dtype: torch.dtype = torch.float32, seed: int = 0
) -> VideoMllama:
    """The model of a folder's config.json before any training: small random matrices, closed gates. Reads no weights."""
    folder = Path(folder)
    config, _ = read_config(folder, None)
    with torch.device("meta"):
        vision = VisionEncoder(config)
    shapes = {name: tuple(value.shape) for name, value in vision.state_dict().items()} | text_shapes(config)
    generator = torch.Generator().manual_seed(seed)
    tensors = {}
    for name, shape in shapes.items():
        if len(shape) > 1 or name.endswith("class_embedding"):
            value = torch.randn(shape, generator=generator) * 0.02
        else:
            value = torch.ones(shape) if "norm" in name and name.endswith("weight") else torch.zeros(shape)
        tensors[name] = value.to(device=device, dtype=dtype)
    return _assemble(folder, config, {}, vision, tensors)


def _assemble(
    folder: Path, config: VideoMllamaConfig, details: dict[str, Any], vision: VisionEncoder, tensors: dict[str, torch.Tensor]
) -> VideoMllama:
    text = {name: tensors.pop(name) for name in text_shapes(config)}
    vision.load_state_dict(tensors, assign=True)
    vision.requires_grad_(False).eval()
    return VideoMllama(config, vision, text, folder=folder, details=details)

"""From a checkpoint folder to a model that is ready to run, every tensor checked by name and shape."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from inference.model.folder import iterate_tensors, read_config
from inference.model.linear import FACTOR
from inference.model.video_mllama import VideoMllama
from inference.quantize.recipes import Recipe, recipe_of
from inference.quantize.rows import quantize_rows
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
    recipe: Recipe | str = "bf16",
) -> VideoMllama:
    """Load a checkpoint folder for inference.

    Args:
        folder: config.json and safetensors with the key names of the Mllama family.
        device: where the weights go.
        dtype: dtype of weights, activations and caches.
        switches: numerical choices; None takes those of the folder, or the defaults, which decode correctly.
        recipe: which matrices are rounded to fp8, each one as it is read: the model never exists in `dtype` as a whole.

    Raises:
        InputError: a missing or broken file, an unknown or missing tensor, a tensor of another shape, an unknown recipe.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"checkpoint {folder} is not a folder; give one that holds config.json and safetensors")
    config, details = read_config(folder, switches)
    builder = ModelBuilder(config, device, dtype, folder, details, recipe_of(recipe) if isinstance(recipe, str) else recipe)
    for name, tensor in iterate_tensors(folder):
        if not name.endswith(_IGNORED_SUFFIXES):
            builder.take(name, tensor)
    return builder.finish()


class ModelBuilder:
    """Puts a model together from tensors that come one at a time, wherever they come from.

    Args:
        config: the model.
        device: where the weights go; one that is there already, in the right dtype, is not copied.
        dtype: dtype of weights, activations and caches.
        folder: where the tensors come from, for messages and labels.
        details: what the checkpoint says of its training.
        recipe: which matrices are rounded to fp8 as they come; None: none.
    """

    def __init__(
        self,
        config: VideoMllamaConfig,
        device: str | torch.device,
        dtype: torch.dtype,
        folder: Path,
        details: dict[str, Any],
        recipe: Recipe | None = None,
    ) -> None:
        self._config, self._device, self._dtype, self._folder, self._details = config, device, dtype, folder, details
        self._recipe = recipe or recipe_of("bf16")
        with torch.device("meta"):
            self._vision = VisionEncoder(config)
        vision = {name: tuple(value.shape) for name, value in self._vision.state_dict().items()}
        self.shapes: dict[str, tuple[int, ...]] = vision | text_shapes(config)
        """Of every tensor that it needs."""
        self._tensors: dict[str, torch.Tensor] = {}

    def take(self, name: str, tensor: torch.Tensor) -> None:
        """Enter one tensor.

        Raises:
            InputError: an unknown name or another shape.
        """
        if name not in self.shapes:
            raise InputError(f"{self._folder} holds the tensor {name}, unknown to a model of its config.json; use matching files")
        if tuple(tensor.shape) != self.shapes[name]:
            raise InputError(
                f"{self._folder}: tensor {name} has the shape {list(tensor.shape)}, config.json asks for "
                f"{list(self.shapes[name])}; use matching files"
            )
        on_device = tensor.to(device=self._device, dtype=self._dtype)
        if self._recipe.covers(name, self._config):
            self._tensors[name], self._tensors[name + FACTOR] = quantize_rows(on_device)
        else:
            self._tensors[name] = on_device

    def finish(self) -> VideoMllama:
        """The model; the builder is empty afterwards.

        Raises:
            InputError: a tensor is missing.
        """
        missing = sorted(set(self.shapes) - set(self._tensors))
        if missing:
            more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
            raise InputError(f"{self._folder} lacks the tensor {missing[0]}{more}; convert or download it again")
        tensors, self._tensors = self._tensors, {}
        return _assemble(self._folder, self._config, self._details, self._vision, tensors)


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
    places = vision.state_dict().keys()
    vision.load_state_dict({name: tensors.pop(name) for name in places}, assign=True)
    vision.requires_grad_(False).eval()
    return VideoMllama(config, vision, tensors, folder=folder, details=details)

"""Which matrices of the decoder are kept in fp8, by name."""

from __future__ import annotations

import re
from dataclasses import dataclass

from model.config import VideoMllamaConfig
from model.errors import InputError

_MATRIX = re.compile(r"language_model\.model\.layers\.(\d+)\.(self_attn|cross_attn|mlp)\.\w+_proj\.weight")


@dataclass(frozen=True)
class Recipe:
    """Parts of layers in fp8; all else (vision tower, cross-attention projections, embedding, head, norms) stays as it is."""

    name: str
    meaning: str
    self_layers: frozenset[str] = frozenset()
    """Parts of a self layer: self_attn, mlp."""
    cross_layers: frozenset[str] = frozenset()
    """Parts of a cross-attention layer: mlp."""

    def covers(self, tensor: str, config: VideoMllamaConfig) -> bool:
        """Whether this tensor of a checkpoint is kept in fp8."""
        match = _MATRIX.fullmatch(tensor)
        if match is None:
            return False
        crosses = int(match.group(1)) in config.text.cross_attention_layers
        return match.group(2) in (self.cross_layers if crosses else self.self_layers)


_RECIPES = (
    Recipe("bf16", "all weights in the model's dtype"),
    Recipe("fp8", "self layers and all MLPs in fp8", frozenset({"self_attn", "mlp"}), frozenset({"mlp"})),
    Recipe("fp8_self", "self layers in fp8, cross-attention layers whole", frozenset({"self_attn", "mlp"})),
)
PRECISIONS: dict[str, Recipe] = {recipe.name: recipe for recipe in _RECIPES}


def recipe_of(name: str) -> Recipe:
    """The recipe called bf16, fp8 or fp8_self.

    Raises:
        InputError: another name.
    """
    if name not in PRECISIONS:
        raise InputError(f"precision is {name!r}; use one of {', '.join(PRECISIONS)}")
    return PRECISIONS[name]

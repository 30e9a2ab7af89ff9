"""What a preset trains: exact modules, never substrings of names."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from torch import nn

from model.errors import InputError
from model.text.cross_layer import GatedCrossLayer

PARTS = ("vision_tower", "projector", "cross_layers", "text")
"""Disjoint and complete: `text` is the decoder without its cross-attention layers."""

PRESETS: dict[str, frozenset[str]] = {
    "projector_only": frozenset({"projector"}),
    "vision+projector+xattn": frozenset({"vision_tower", "projector", "cross_layers"}),
    "all": frozenset(PARTS),
    "vision_tower": frozenset({"vision_tower"}),
    "text_only": frozenset({"text"}),
}


def part_parameters(part: str, chunks: Sequence[nn.Module], vision: nn.Module | None) -> Iterator[nn.Parameter]:
    """The parameters of one part that live on this rank.

    Args:
        part: one of `PARTS`.
        chunks: unwrapped decoder chunks.
        vision: unwrapped encoder, or None where there is none.
    """
    if part == "vision_tower" and vision is not None:
        yield from vision.vision_model.parameters()  # type: ignore[union-attr]
    elif part == "projector" and vision is not None:
        yield from vision.multi_modal_projector.parameters()  # type: ignore[union-attr]
    elif part in ("cross_layers", "text"):
        for chunk in chunks:
            cross = {id(p) for m in chunk.modules() if isinstance(m, GatedCrossLayer) for p in m.parameters()}
            yield from (p for p in chunk.parameters() if (id(p) in cross) == (part == "cross_layers"))


def apply_preset(preset: str, chunks: Sequence[nn.Module], vision: nn.Module | None) -> None:
    """Sets `requires_grad` on every parameter; call it before the modules are wrapped.

    Raises:
        InputError: an unknown preset.
    """
    if preset not in PRESETS:
        raise InputError(f"stage.trainable is {preset!r}; use one of {', '.join(PRESETS)}")
    for part in PARTS:
        for parameter in part_parameters(part, chunks, vision):
            parameter.requires_grad_(part in PRESETS[preset])


def trains_any(parameters: Iterable[nn.Parameter]) -> bool:
    """Whether at least one parameter is trained."""
    return any(parameter.requires_grad for parameter in parameters)

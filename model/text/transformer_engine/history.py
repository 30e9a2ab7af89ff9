"""The history of delayed scaling as plain tensors: largest magnitudes of late, and the scales that follow from them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

_STATES = {"forward": "scaling_fwd", "backward": "scaling_bwd"}


def history_of(module: Any) -> dict[str, Tensor] | None:
    """What a checkpoint keeps of a module's scaling: scales and magnitudes, on the CPU; None without delayed scaling."""
    kept: dict[str, Tensor] = {}
    for direction, name in _STATES.items():
        state = module.fp8_meta.get(name)
        if getattr(state, "amax_history", None) is None:
            return None
        kept[f"{direction}_scale"] = state.scale.detach().cpu()
        kept[f"{direction}_history"] = state.amax_history.detach().cpu()
    return kept


def put_history_back(module: Any, kept: Any, recipe: Callable[[], Any]) -> None:
    """Continue with the scales of a checkpoint; whatever is not such a history is passed over.

    Args:
        module: a module of Transformer Engine.
        kept: from `history_of`, or what another provider or recipe left in its place.
        recipe: gives the recipe of this run; without delayed scaling nothing is put back.
    """
    if not isinstance(kept, dict) or getattr(module.config, "fp8", None) is None:
        return
    chosen = recipe()
    if not chosen.delayed():
        return
    module.fp8_meta.setdefault("num_gemms", 1)
    module.fp8_meta["recipe"] = chosen
    module.init_fp8_meta_tensors(chosen)
    for direction, name in _STATES.items():
        state = module.fp8_meta[name]
        if state.amax_history.shape == kept[f"{direction}_history"].shape:
            state.scale.copy_(kept[f"{direction}_scale"])
            state.amax_history.copy_(kept[f"{direction}_history"])

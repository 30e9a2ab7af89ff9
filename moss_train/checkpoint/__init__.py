"""Checkpoints of a run: `checkpoints/step_00000010/` published whole, readable in any parallel layout."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from moss_train.checkpoint.load import load_model_weights, load_training_state
    from moss_train.checkpoint.save import save_checkpoint, save_model_only

__all__ = ["load_model_weights", "load_training_state", "save_checkpoint", "save_model_only"]

_HOME = {
    "load_model_weights": "moss_train.checkpoint.load",
    "load_training_state": "moss_train.checkpoint.load",
    "save_checkpoint": "moss_train.checkpoint.save",
    "save_model_only": "moss_train.checkpoint.save",
}


def __getattr__(name: str) -> Any:
    # Late, so that reading a checkpoint's description needs neither torch nor megatron-core.
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(_HOME[name]), name)

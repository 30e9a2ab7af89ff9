"""The lean torch model of a converted checkpoint: folder reading, decoder layers, vision encoding. No megatron anywhere.

`load_model(folder, device, dtype, switches)` is the one way in.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from inference.model.load import load_model as load_model

__all__ = ["load_model"]


def __getattr__(name: str) -> Any:
    if name == "load_model":
        from inference.model.load import load_model

        return load_model
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

"""Between the published layout of weights and the live, sharded training model.

`table` says once, for every tensor, what becomes of it; loading, gathering and the key list all read that table.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from model.conversion.live import gather_hf_weights, load_hf_weights

__all__ = ["gather_hf_weights", "load_hf_weights"]


def __getattr__(name: str) -> Any:
    # The live model needs megatron-core; reading and writing folders does not.
    if name in __all__:
        from model.conversion import live

        return getattr(live, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

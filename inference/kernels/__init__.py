"""The arithmetic that a token's speed hangs on: attention over pages, skinny matrix products, fused norms and rotations.

Each operation is one function with two forms of the same arithmetic: torch (any device; what the tests hold to be true) and
Triton (CUDA). `select.py` says which one runs. Nothing here knows a layer, a session or a pool.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from inference.kernels.attention import paged_attention as paged_attention

__all__ = ["paged_attention"]


def __getattr__(name: str) -> Any:
    if name == "paged_attention":
        from inference.kernels.attention import paged_attention

        return paged_attention
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

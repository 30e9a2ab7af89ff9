"""Many sessions on one engine: who may come in (`admission`), what each round feeds (`rounds`), and the loop (`session_pool`)."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from inference.serving.admission import AdmissionError, KVBudget
    from inference.serving.clock import SharedVirtualClock
    from inference.serving.rounds import RoundLimits
    from inference.serving.session_pool import SessionPool, Ticket

_HOMES = {
    "AdmissionError": "admission",
    "KVBudget": "admission",
    "RoundLimits": "rounds",
    "SessionPool": "session_pool",
    "SharedVirtualClock": "clock",
    "Ticket": "session_pool",
}

__all__ = ["AdmissionError", "KVBudget", "RoundLimits", "SessionPool", "SharedVirtualClock", "Ticket"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)

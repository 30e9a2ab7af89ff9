"""Real-time sessions: what arrives, what becomes of it, when tokens may be said, and the loop that watches, hears and speaks.

`inbox` takes frames, prompts and controls from any thread; `frame_queue` and `queue_policies` decide which frames wait;
`ledger` accounts for them; `pacing` and `clock` say when; `loop` is the session, `state` a
saved one; `replay` runs a recorded one again.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from inference.session.arrivals import Arrival, merge
    from inference.session.clock import Clock, VirtualClock, WallClock
    from inference.session.inbox import Inbox
    from inference.session.ledger import FrameLedger
    from inference.session.loop import RealtimeSession
    from inference.session.replay import replay_trace
    from inference.session.settings import SessionSettings

_HOMES = {
    "Arrival": "arrivals",
    "merge": "arrivals",
    "Clock": "clock",
    "VirtualClock": "clock",
    "WallClock": "clock",
    "Inbox": "inbox",
    "FrameLedger": "ledger",
    "RealtimeSession": "loop",
    "SessionSettings": "settings",
    "replay_trace": "replay",
}

__all__ = [
    "Arrival",
    "Clock",
    "FrameLedger",
    "Inbox",
    "RealtimeSession",
    "SessionSettings",
    "VirtualClock",
    "WallClock",
    "merge",
    "replay_trace",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)

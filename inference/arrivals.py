"""The names of `inference.session.arrivals` and `inference.session.inbox`, where they were before."""

from __future__ import annotations

from inference.session.arrivals import Arrival, merge
from inference.session.inbox import Inbox

__all__ = ["Arrival", "Inbox", "merge"]

"""The names of `inference.session.clock`, where they were before."""

from __future__ import annotations

from inference.session.clock import Clock, VirtualClock, WallClock

__all__ = ["Clock", "VirtualClock", "WallClock"]

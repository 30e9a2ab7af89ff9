"""Where frames come from: files, cameras, addresses, folders, the synthetic world; one protocol for all."""

from __future__ import annotations

from inference.sources.open import open_source
from inference.sources.pump import SourcePump, schedule
from inference.sources.source import FrameSource, TimedFrame

__all__ = ["FrameSource", "SourcePump", "TimedFrame", "open_source", "schedule"]

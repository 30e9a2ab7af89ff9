"""What one session has seen."""

from __future__ import annotations

from inference.cache.paged_session import PagedSessionCache as SessionCache

__all__ = ["SessionCache"]

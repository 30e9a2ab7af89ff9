"""Bookkeeping of frames: every submitted frame is pending until it is processed, dropped or rejected, once."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any


@dataclass
class FrameLedger:
    """Counts; `balanced` holds at every instant."""

    submitted: int = 0
    processed: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    """By reason: backlog | coalesced | degraded | reset | stream_end."""
    rejected: Counter[str] = field(default_factory=Counter)
    """By reason: shape | time | capacity."""
    pending: int = 0
    """Waiting, in the encoder, or in the step that is being computed."""

    @property
    def balanced(self) -> bool:
        """Whether all submitted frames are accounted for."""
        settled = self.processed + sum(self.dropped.values()) + sum(self.rejected.values())
        return self.submitted == settled + self.pending and self.pending >= 0

    def submit(self) -> int:
        """A frame came; returns its number, counted from 0."""
        self.submitted += 1
        self.pending += 1
        return self.submitted - 1

    def process(self) -> None:
        """The model has taken a pending frame."""
        self.pending -= 1
        self.processed += 1

    def drop(self, reason: str) -> None:
        """A good frame goes unused."""
        self.pending -= 1
        self.dropped[reason] += 1

    def reject(self, reason: str) -> None:
        """A frame cannot be used."""
        self.pending -= 1
        self.rejected[reason] += 1

    def as_dict(self) -> dict[str, Any]:
        """Plain values for a trace."""
        return {
            "submitted": self.submitted,
            "processed": self.processed,
            "dropped": dict(self.dropped),
            "rejected": dict(self.rejected),
            "pending": self.pending,
        }

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> FrameLedger:
        """The ledger that `as_dict` described."""
        return cls(**values | {"dropped": Counter(values["dropped"]), "rejected": Counter(values["rejected"])})

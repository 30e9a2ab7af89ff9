"""How much of each dataset the run has used, and how many of its samples were left out."""

from __future__ import annotations

from typing import Any

from moss_train.feed.counts import SampleCounts
from moss_train.feed.left_out import LeftOut
from moss_train.monitors.base import Monitor, Update


class Samples(Monitor):
    """The counts are kept in the checkpoint's description, the ledger in the run folder: nothing to save here."""

    def __init__(self, counts: SampleCounts, left_out: LeftOut) -> None:
        self._counts = counts
        self._left_out = left_out

    def measured(self, update: Update) -> dict[str, Any]:
        left_out = self._left_out.counts()
        return self._counts.record() | ({"left_out": left_out} if left_out else {})

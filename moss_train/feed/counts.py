"""How much of each dataset a run has used: samples and passes, counted on over checkpoints."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class SampleCounts:
    """Cumulative figures, equal on all ranks.

    Args:
        sizes: samples in one pass over each dataset that takes part.
        before: samples that the run had used when it was continued.
    """

    def __init__(self, sizes: Mapping[str, int], before: Mapping[str, int]) -> None:
        self._sizes = dict(sizes)
        self.samples = dict.fromkeys(sizes, 0) | dict(before)
        """Samples used, by dataset name."""

    def add(self, samples: Mapping[str, int]) -> None:
        """Count a step."""
        for name, count in samples.items():
            if count or name in self.samples:
                self.samples[name] = self.samples.get(name, 0) + count

    def record(self) -> dict[str, Any]:
        """`dataset_samples` and `dataset_epochs` of the metrics."""
        epochs = {name: self.samples[name] / size for name, size in self._sizes.items() if size}
        return {"dataset_samples": dict(self.samples), "dataset_epochs": epochs}

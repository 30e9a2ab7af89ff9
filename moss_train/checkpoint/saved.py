"""What a checkpoint asks of the optimizer of an engine."""

from __future__ import annotations

from typing import Any, Protocol


class SavedOptimization(Protocol):
    """Met by `moss_train.engines.optimization.Optimization` and by the DeepSpeed engine's."""

    updates: int
    """Updates applied in the whole run."""
    optimizer: Any
    """With `chained_optimizers`: megatron-core's, or one that tells its `parameter_states`."""

    def set_updates(self, updates: int) -> None:
        """Tell the optimizers the number of updates applied."""

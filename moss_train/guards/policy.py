"""What is done about an update whose numbers cannot be trusted, before it touches the weights."""

from __future__ import annotations

import enum
import math
from typing import Any

from model.errors import InputError
from moss_train.monitors.base import Monitor, Update


class Action(enum.Enum):
    """What the trainer does with an update."""

    APPLY = "apply"
    SKIP = "skip"
    """Leave the weights; the step counts as done."""
    REWIND = "rewind"
    """Take the weights of the newest checkpoint; the steps since it, and this one, count as done without an update."""


class Guard(Monitor):
    """Looks at the loss and the gradient norm, which are equal on all ranks: all ranks decide the same."""

    name = "guard"
    every_rank = True

    def judge(self, update: Update) -> Action:
        """What to do with an update that is ready.

        Raises:
            InputError: the run must end, on all ranks alike.
        """
        for name, value in (("loss", update.statistics.loss), ("grad_norm", update.grad_norm)):
            if not math.isfinite(value):
                raise InputError(
                    f"{name} is {value} in step {update.step}; nothing was saved after the last checkpoint: continue from it "
                    "with a lower stage.learning_rate or a lower optimizer.clip_grad, and look at the data of that step"
                )
        return Action.APPLY

    def evaluated(self, record: dict[str, Any]) -> None:
        loss = record.get("eval_loss", 0.0)
        if not math.isfinite(loss):
            raise InputError(
                f"eval_loss is {loss} after step {record['step']}; nothing was saved after the last checkpoint: "
                "continue from it with a lower stage.learning_rate, and look at the data of data.validation"
            )

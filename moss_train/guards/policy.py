"""What is done about an update whose numbers cannot be trusted, before it touches the weights."""

from __future__ import annotations

import enum
import math
import statistics
from collections import deque
from collections.abc import Callable
from typing import Any

from moss_train.config.guard import GuardConfig
from moss_train.feed.agreement import CommonError
from moss_train.monitors.base import Monitor, Update


class Action(enum.Enum):
    """What the trainer does with an update."""

    APPLY = "apply"
    SKIP = "skip"
    """Leave the weights; the step counts as done."""
    REWIND = "rewind"
    """Take the weights of the newest checkpoint; the steps since it, and this one, count as done without an update."""


Dump = Callable[[Update, str, dict[str, Any]], str]
"""Writes the global batch of an update out: called on all ranks with the reason and figures; says where, or nothing."""


class Guard(Monitor):
    """Looks at the loss and the gradient norm, which are equal on all ranks: all ranks decide the same.

    A spike is a value above `spike_factor` times the median of the last `spike_window` updates that were applied: unlike a
    mean, it does not follow the spike itself.

    Args:
        config: policies.
        dump: writes the batch of an update that is not applied.
    """

    name = "guard"
    every_rank = True

    def __init__(self, config: GuardConfig, dump: Dump | None = None) -> None:
        self._config = config
        self._dump = dump or (lambda update, reason, figures: "")
        self._losses: deque[float] = deque(maxlen=config.spike_window)
        self._norms: deque[float] = deque(maxlen=config.spike_window)
        self._skipped = 0
        self.reason = ""
        """Why the newest update was not applied; empty where it was."""

    def judge(self, update: Update) -> Action:
        """What to do with an update that is ready.

        Raises:
            CommonError: the run must end, on all ranks alike.
        """
        values = {"loss": update.statistics.loss, "grad_norm": update.grad_norm}
        bad = [f"{name} is {value}" for name, value in values.items() if not math.isfinite(value)]
        self.reason = bad[0] if bad else self._spike(values)
        if not self.reason:
            self._keep(update)
            self._skipped = 0
            return Action.APPLY
        policy = self._config.non_finite if bad else self._config.spike
        self._skipped += 1
        figures = values | {"median_loss": _median(self._losses), "median_grad_norm": _median(self._norms), "action": policy}
        where = self._dump(update, self.reason, figures)
        written = f"; its global batch is in {where}" if where else ""
        if policy == "stop":
            raise CommonError(
                f"{self.reason} in step {update.step}{written}; nothing was saved after the last checkpoint: continue from it "
                "with a lower stage.learning_rate or a lower optimizer.clip_grad, or leave such updates out with "
                f"guard.{'non_finite' if bad else 'spike'}=skip"
            )
        if self._skipped > self._config.max_skipped:
            raise CommonError(
                f"{self.reason} in step {update.step}, after {self._config.max_skipped} updates in a row that were left out "
                f"(guard.max_skipped){written}; continue from the last checkpoint with a lower stage.learning_rate"
            )
        return Action(policy)

    def measured(self, update: Update) -> dict[str, Any]:
        if update.applied:
            return {}
        rewound = {} if update.rewound_to is None else {"rewound_to": update.rewound_to}
        return {"skip_reason": self.reason} | rewound

    def evaluated(self, record: dict[str, Any]) -> None:
        loss = record.get("eval_loss", 0.0)
        if not math.isfinite(loss):
            raise CommonError(
                f"eval_loss is {loss} after step {record['step']}; nothing was saved after the last checkpoint: "
                "continue from it with a lower stage.learning_rate, and look at the data of data.validation"
            )

    def state_dict(self) -> dict[str, Any] | None:
        return {"losses": list(self._losses), "norms": list(self._norms), "skipped": self._skipped}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._losses.extend(state["losses"])
        self._norms.extend(state["norms"])
        self._skipped = state["skipped"]

    def _keep(self, update: Update) -> None:
        if self._config.spike_factor and update.statistics.targets:
            self._losses.append(update.statistics.loss)
            self._norms.append(update.grad_norm)

    def _spike(self, values: dict[str, float]) -> str:
        """Why it is one; empty for none."""
        factor = self._config.spike_factor
        if not factor or len(self._losses) < self._config.spike_warmup:
            return ""
        for (name, value), before in zip(values.items(), (self._losses, self._norms), strict=True):
            median = statistics.median(before)
            if median > 0 and value > factor * median:
                return (
                    f"{name} is {value:.6g}, {value / median:.3g} times its median {median:.6g} over the last {len(before)} "
                    f"updates (guard.spike_factor {factor:g})"
                )
        return ""


def _median(values: deque[float]) -> float | None:
    return statistics.median(values) if values else None

"""Ends a run whose numbers are no numbers, before a checkpoint of them is written."""

from __future__ import annotations

import math
from typing import Any

from model.errors import InputError
from moss_train.monitors.base import Monitor


class NanGuard(Monitor):
    """Looks at the loss and the gradient norm, which are equal on all ranks: all ranks end in the same step."""

    def stepped(self, record: dict[str, Any]) -> None:
        for name in ("loss", "grad_norm"):
            if not math.isfinite(record[name]):
                raise InputError(
                    f"{name} is {record[name]} in step {record['step']}; nothing was saved after the last checkpoint: continue "
                    "from it with a lower stage.learning_rate or a lower optimizer.clip_grad, and look at the data of that step"
                )

    def evaluated(self, record: dict[str, Any]) -> None:
        if not math.isfinite(record["eval_loss"]):
            raise InputError(
                f"eval_loss is {record['eval_loss']} after step {record['step']}; nothing was saved after the last checkpoint: "
                "continue from it with a lower stage.learning_rate, and look at the data of data.validation"
            )

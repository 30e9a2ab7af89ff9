"""What every rank found, on every rank: only the first one tells, so what another alone sees must reach it."""

from __future__ import annotations

from typing import Any

import torch.distributed as dist

from moss_train.verify.ranks.findings import CaseResult


def everyone(value: Any) -> list[Any]:
    """A value of every rank, on every rank."""
    found: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(found, value)
    return found


def gather_reasons(result: CaseResult) -> None:
    """Make the reasons of all ranks those of a result, each once."""
    result.reasons = list(dict.fromkeys(reason for reasons in everyone(result.reasons) for reason in reasons))

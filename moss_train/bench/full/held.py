"""What a subject holds between steps, counted from its tensors: weights, gradient buffers, states; and their fingerprint."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from moss_train.bench.subject import Subject
from moss_train.checkpoint.collect import collect_training

_PART = 1 << 23
"""Elements looked at once."""
_PRIME = 65521
_BITS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def held_bytes(subject: Subject) -> dict[str, int]:
    """Bytes by kind; every storage once.

    Args:
        subject: behind its first update, when the states are there.
    """
    models, optimization = subject.models, subject.optimization
    modules: list[torch.nn.Module] = [*models.chunks, models.unit]
    wrapped = [*optimization.decoder, *([optimization.vision] if optimization.vision is not None else [])]
    buffers = [buffer for module in wrapped for buffer in (*module.buffers, *module.expert_parallel_buffers)]
    optimizers = [optimizer.optimizer for optimizer in optimization.optimizer.chained_optimizers]
    states: dict[str, list[Tensor]] = {}
    for inner in optimizers:
        for state in inner.state.values():
            for name, value in state.items():
                if isinstance(value, Tensor):
                    states.setdefault(name, []).append(value)
    found = {
        "weights": _bytes_of(p for module in modules for p in module.parameters()),
        "gradients": _bytes_of(buffer.grad_data for buffer in buffers),
    }
    return found | {name: _bytes_of(values) for name, values in states.items()}


def _bytes_of(tensors: Iterable[Tensor]) -> int:
    storages = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors if t.numel()}
    return sum(storages.values())


@torch.no_grad()
def fingerprint(subject: Subject) -> dict[str, list[int]]:
    """Two sums over the bits of everything that a checkpoint takes, by the name of the piece.

    One sum has a weight for each place, so that values that change places are noticed. Sums are exact: of 64-bit integers.
    """
    files = collect_training(subject.models.chunks, subject.models.unit, subject.optimization, subject.layout, None)
    sums = {piece.name: _sums(piece.values) for piece in files.pieces}
    stacked = torch.stack(list(sums.values())).tolist()  # [pieces, 2]
    return dict(zip(sums, stacked, strict=True))


def _sums(values: Tensor) -> Tensor:
    """int64 [2]."""
    flat = values.detach().reshape(-1)
    total = torch.zeros(2, dtype=torch.int64, device=flat.device)
    for index, part in enumerate(flat.split(_PART)):
        bits = part.view(_BITS[part.element_size()]).long()  # [n]
        places = torch.arange(part.numel(), device=flat.device).add_(index * _PART).remainder_(_PRIME).add_(1)
        total += torch.stack([bits.sum(), (bits * places).sum()])
    return total


def digest(found: dict[str, list[int]]) -> str:
    """One word for a fingerprint."""
    return hashlib.sha256(json.dumps(sorted(found.items())).encode()).hexdigest()


def differing(one: dict[str, list[int]], other: dict[str, list[int]]) -> list[str]:
    """Names of pieces that are not the same, or in one alone."""
    return sorted(name for name in one.keys() | other.keys() if one.get(name) != other.get(name))


def state_names(found: Any) -> list[str]:
    """The kinds of states in a fingerprint, for a reader."""
    return sorted({name.split(".")[1] if name.startswith("optimizer.") else "weight" for name in found})

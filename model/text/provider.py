"""Which modules the decoder's layers are made of. The one place to plug in fused implementations."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from megatron.core.tensor_parallel.layers import ColumnParallelLinear, RowParallelLinear

from model.attention.cores import CrossCore, SelfCore
from model.text.norm import RMSNorm


@dataclass(frozen=True)
class ModuleProvider:
    """Classes with the constructor signatures that megatron-core's specs expect."""

    norm: type[Any]
    column_linear: type[Any]
    row_linear: type[Any]
    self_core: type[Any]
    """Rotates and attends over packed rows."""
    cross_core: type[Any]
    """Attends from packed rows to frames."""


def torch_provider() -> ModuleProvider:
    """Plain torch kernels inside megatron-core's parallel linear layers: runs on CPU and on any GPU."""
    return ModuleProvider(RMSNorm, ColumnParallelLinear, RowParallelLinear, SelfCore, CrossCore)
